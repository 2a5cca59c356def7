"""Activation tensors as rows: the range each one got, what calibration saw of it, and what that cuts off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ptq_lab.calibration.outlines import Outline
from ptq_lab.numerics import TensorStatistics
from ptq_lab.plan import ActivationPlan, QuantPlan
from ptq_lab.report.tables import ActivationRow, Table


def activation_rows(
    plan: QuantPlan, statistics: Mapping[str, TensorStatistics], outlines: Mapping[str, Outline] | None = None
) -> Table[ActivationRow]:
    """Return one row per activation tensor that carries codes, in the order of the graph.

    Parameters
    ----------
    plan : QuantPlan
        Of any kind; one that quantizes weights only gives an empty table.
    statistics : mapping of str to TensorStatistics
        What calibration saw, by tensor; a tensor that it leaves out has no observed range.
    outlines : mapping of str to Outline, optional
        How the values are spread, by tensor; a tensor that it leaves out has no histogram.

    Examples
    --------
    >>> from ptq_lab.numerics import TensorStatistics
    >>> grid = ActivationPlan(tensor="x", node="", low=-1.0, high=2.0, method="KL", scale=0.0117647, zero_point=85)
    >>> seen = TensorStatistics(low=-1.0, high=4.0, count=8, rounds=2, absolute=np.array([3, 3, 1, 1]))
    >>> [row] = activation_rows(QuantPlan((), activations=(grid,)), {"x": seen})
    >>> row.observed_high, row.clip_share, row.dtype
    (4.0, 0.25, 'uint8')
    """
    readers: dict[str, tuple[str, ...]] = {}
    for place in plan.placement.places if plan.placement is not None else ():
        readers[place.tensor] = tuple(dict.fromkeys(node for node, _ in place.readers))
    rows = (
        _row(activation, statistics.get(activation.tensor), readers.get(activation.tensor, ()))
        for activation in plan.activations
    )
    return Table(ActivationRow, (_drawn(row, (outlines or {}).get(row.tensor)) for row in rows))


def clip_share(statistics: TensorStatistics, low: float, high: float) -> float | None:
    """Return which share of the calibration values lies outside a range.

    Returns
    -------
    float or None
        0 to 1, as exact as the bins of the histogram; ``None`` if the range cuts something off and no histogram
        was collected that would tell how much.

    Examples
    --------
    >>> seen = TensorStatistics(low=0.0, high=4.0, count=8, rounds=1)
    >>> clip_share(seen, 0.0, 4.0), clip_share(seen, 0.0, 3.0)
    (0.0, None)
    """
    if low <= statistics.low and statistics.high <= high:
        return 0.0
    if statistics.histogram is not None:
        centers, counts = statistics.histogram.centers, statistics.histogram.counts
        outside = (centers < low) | (centers > high)
    elif statistics.absolute is not None:
        counts = statistics.absolute
        centers = (np.arange(len(counts)) + 0.5) * statistics.limit / len(counts)
        outside = centers > max(abs(low), abs(high))
    else:
        return None
    return float(counts[outside].sum() / statistics.count)


def _drawn(row: ActivationRow, outline: Outline | None) -> ActivationRow:
    if outline is None:
        return row
    return replace(row, histogram=outline.counts, histogram_samples=outline.samples)


def _row(activation: ActivationPlan, seen: TensorStatistics | None, readers: tuple[str, ...]) -> ActivationRow:
    return ActivationRow(
        tensor=activation.tensor,
        node=activation.node,
        method=activation.method,
        low=activation.low,
        high=activation.high,
        observed_low=seen.low if seen is not None else None,
        observed_high=seen.high if seen is not None else None,
        clip_share=clip_share(seen, activation.low, activation.high) if seen is not None else None,
        scale=activation.scale,
        zero_point=activation.zero_point,
        dtype="int8" if activation.signed else "uint8",
        readers=readers,
    )
