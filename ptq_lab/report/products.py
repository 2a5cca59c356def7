"""Activations that are quantized at run time as rows: who reads them, what they hold, and what rounding them loses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ptq_lab.graph import Model, observe
from ptq_lab.numerics import sqnr_db
from ptq_lab.numerics.dynamic import quantize_at_run_time
from ptq_lab.numerics.similarity import dot
from ptq_lab.plan import DynamicPlan
from ptq_lab.report.rows import ProductRow
from ptq_lab.report.tables import Table
from ptq_lab.runtime import Feeds, open_session, run_session


def product_rows(plan: DynamicPlan, model: Model, samples: Iterable[Feeds], *, by_row: bool) -> Table[ProductRow]:
    """Return one row per activation that a plan quantizes at run time, in the order of the graph.

    Parameters
    ----------
    plan : DynamicPlan
    model : Model
        The float model that the plan speaks of.
    samples : iterable of {input name: array}
        What the activations are measured on, one after the other; none: only who reads what.
    by_row : bool
        One scale per row, instead of one for all of an activation.
    """
    readers: dict[str, list[str]] = defaultdict(list)
    for layer in plan.layers:
        for source in dict.fromkeys(layer.sources):
            readers[source].append(layer.node)
    seen = {tensor: _Seen() for tensor in readers}
    feeds = list(samples)
    if feeds:
        observed, outputs = observe(model, list(readers))
        session = open_session(observed)
        for sample in feeds:
            values = run_session(session, sample)
            for tensor, (name,) in outputs.items():
                seen[tensor].add(values[name], by_row=by_row)
    granularity = "per-row" if by_row else "per-tensor"
    return Table(ProductRow, (seen[name].row(name, tuple(nodes), granularity) for name, nodes in readers.items()))


class _Seen:
    """Running totals of one activation; memory does not grow with the samples."""

    def __init__(self) -> None:
        self._low, self._high = np.inf, -np.inf
        self._signal = self._noise = 0.0

    def add(self, values: NDArray[np.float32], *, by_row: bool) -> None:
        if not values.size:
            return
        error = (quantize_at_run_time(values, by_row=by_row) - values).reshape(-1)
        self._low, self._high = min(self._low, float(values.min())), max(self._high, float(values.max()))
        self._signal += dot(values.reshape(-1), values.reshape(-1))
        self._noise += dot(error, error)

    def row(self, tensor: str, readers: tuple[str, ...], granularity: str) -> ProductRow:
        if self._low > self._high:
            return ProductRow(tensor=tensor, readers=readers, granularity=granularity)
        return ProductRow(
            tensor=tensor,
            readers=readers,
            granularity=granularity,
            low=self._low,
            high=self._high,
            sqnr_db=sqnr_db(self._signal, self._noise),
        )
