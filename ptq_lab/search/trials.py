"""Trials: a model with some weights replaced, judged by how far its outputs move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq_lab.graph import Model
from ptq_lab.numerics import cosine
from ptq_lab.runtime import CPU, Feeds, WeightSlots

Weights = Mapping[str, NDArray[np.float32]]


class Trials:
    """Runs a model with other weights on the same samples, and compares with what it gave before.

    Parameters
    ----------
    model : Model
        The float model.
    tensors : sequence of str
        Weights that may be replaced.
    samples : sequence of {input name: array}
        Kept in memory, with the model's outputs on them.
    providers : sequence of str
        onnxruntime execution providers.

    Attributes
    ----------
    runs : int
        How often the model has run all samples, the first time included.

    Raises
    ------
    InferenceError
        If onnxruntime fails.
    """

    def __init__(
        self, model: Model, tensors: Sequence[str], samples: Sequence[Feeds], *, providers: Sequence[str] = CPU
    ) -> None:
        self._slots = WeightSlots(model, tensors, providers=providers)
        self._samples = samples
        self._wanted = self._slots.run({}, samples)
        self.runs = 1
        self._counting = Lock()  # several threads may share out the trials

    def errors(self, changes: Weights) -> NDArray[np.float64]:
        """Return ``1 - cosine`` of every sample's outputs, with some weights replaced; several outputs are averaged."""
        got = self._slots.run(changes, self._samples)
        with self._counting:
            self.runs += 1
        return np.array([_distance(one, other) for one, other in zip(self._wanted, got, strict=True)])

    def error(self, changes: Weights) -> float:
        """Return the mean of :meth:`errors`."""
        return float(self.errors(changes).mean())


def _distance(wanted: Mapping[str, NDArray[Any]], got: Mapping[str, NDArray[Any]]) -> float:
    distances = [1.0 - cosine(value, got[name]) for name, value in wanted.items() if _is_number(value)]
    return max(0.0, float(np.mean(distances))) if distances else 0.0


def _is_number(value: Any) -> bool:
    return isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating)
