"""One model at several widths of its weights, ready to run: made when asked for, kept while memory allows."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq_lab.errors import PlanError
from ptq_lab.graph import Model, apply_plan
from ptq_lab.lesson.subject import ALL_WEIGHTS
from ptq_lab.pipeline import preview
from ptq_lab.plan import round_weights
from ptq_lab.runtime import Feeds, open_session, run_session

LIMIT = 256_000_000
"""Bytes of float weights for which sessions are kept; beyond it those that were not used for longest go."""

WIDTHS = (1, 2, 3, 4, 5, 6, 7, 8)


class Variants:
    """Sessions of one model with its weights at different widths, and of what a run made of it.

    Parameters
    ----------
    model : Model
        In float.
    quantized : Model, optional
        Called ``"result"``.
    limit : int
        Bytes, see `LIMIT`; the float model and one variant are always kept.

    Attributes
    ----------
    made : int
        How many variants were made so far.
    """

    def __init__(self, model: Model, quantized: Model | None = None, *, limit: int = LIMIT) -> None:
        self._model, self._quantized = model, quantized
        self._room = max(1, limit // max(1, model.size))
        self._plan = preview(model, ALL_WEIGHTS)
        self._float = open_session(model)
        self._open: OrderedDict[str, Any] = OrderedDict()
        self.made = 0

    @property
    def names(self) -> tuple[str, ...]:
        """What :meth:`run` takes, besides ``"float"``."""
        return (*(str(bits) for bits in WIDTHS), *(("result",) if self._quantized is not None else ()))

    def run(self, name: str, feeds: Feeds) -> dict[str, NDArray[np.float32]]:
        """Return the outputs of a variant by name.

        Raises
        ------
        PlanError
            If there is no such variant.
        InferenceError
            If onnxruntime fails.
        """
        return run_session(self._session(name), feeds)

    def _session(self, name: str) -> Any:
        if name == "float":
            return self._float
        if name not in self.names:
            raise PlanError(f"there is no variant {name!r}, only float, {', '.join(self.names)}")
        if name not in self._open:
            self._open[name] = open_session(self._make(name))
            self.made += 1
            if len(self._open) > self._room:
                self._open.popitem(last=False)
        self._open.move_to_end(name)
        return self._open[name]

    def _make(self, name: str) -> Model:
        if name == "result":
            assert self._quantized is not None  # otherwise it is not among the names
            return self._quantized
        narrow = replace(self._plan.with_bits(int(name)))
        return apply_plan(self._model, round_weights(narrow, self._model.weight))
