"""Real runs of a choice of widths, quick enough to follow a slider: what was decoded once is kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ptq_lab.graph import Model
from ptq_lab.numerics import dequantize_weight, quantize_weight
from ptq_lab.plan import QuantPlan, TensorPlan
from ptq_lab.runtime import CPU, Feeds
from ptq_lab.search.trials import Trials

LIMIT = 256_000_000
"""Bytes of decoded weights that are kept; beyond it those that were not used for longest go."""


class Decoded:
    """Weights as they come back from their codes, by tensor and width.

    Parameters
    ----------
    model : Model
        The float model.
    limit : int
        Bytes that are kept.

    Attributes
    ----------
    held : int
        Bytes that are kept now.
    """

    def __init__(self, model: Model, *, limit: int = LIMIT) -> None:
        self._model, self._limit = model, limit
        self._kept: OrderedDict[tuple[str, int], NDArray[np.float32]] = OrderedDict()
        self.held = 0

    def __call__(self, entry: TensorPlan) -> NDArray[np.float32]:
        """Return the weight of an entry as it will be decoded at the entry's width."""
        key = entry.tensor, entry.bits
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        values = self._model.weight(entry.tensor)
        found = dequantize_weight(quantize_weight(values, bits=entry.bits, axis=entry.axis, correct=entry.correct))
        self._kept[key] = found
        self.held += found.nbytes
        while self.held > self._limit:
            _, dropped = self._kept.popitem(last=False)
            self.held -= dropped.nbytes
        return found


class Verifier:
    """Runs plans on a few samples that stay in memory.

    Parameters
    ----------
    model : Model
        The float model.
    tensors : sequence of str
        All weights that a plan may quantize.
    samples : sequence of {input name: array}
    decoded : Decoded
        Shared by verifiers of the same model.
    providers : sequence of str
        onnxruntime execution providers.

    Raises
    ------
    InferenceError
        If onnxruntime fails.
    """

    def __init__(
        self,
        model: Model,
        tensors: Sequence[str],
        samples: Sequence[Feeds],
        decoded: Decoded,
        *,
        providers: Sequence[str] = CPU,
    ) -> None:
        self._trials = Trials(model, tensors, samples, providers=providers)
        self._decoded = decoded

    def error(self, plan: QuantPlan) -> float:
        """Return the mean of ``1 - cosine`` over all samples; weights that the plan leaves out stay float."""
        return self._trials.error({entry.tensor: self._decoded(entry) for entry in plan.entries})
