"""Values of one activation tensor on a few samples, for a picture."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptq_lab.calibration import Samples
from ptq_lab.graph import Model, observe
from ptq_lab.runtime import open_session, run_session

FEW = 8
"""Samples that are run, the first ones."""

MOST = 4_000_000
"""Values that are kept of a tensor; no further sample is run beyond it."""

HELD = 4
"""Tensors that are kept; what was not looked at for longest goes."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What a few samples made of a tensor.

    Attributes
    ----------
    values : ndarray of float32, shape (channels, n)
        One row per channel; a single row where there are no channels.
    samples : int
    """

    values: NDArray[np.float32]
    samples: int


class Watcher:
    """Runs a model to see its inner tensors; keeps the last few.

    Parameters
    ----------
    model : Model
    samples : Samples
    """

    def __init__(self, model: Model, samples: Samples) -> None:
        self._model, self._samples = model, samples.take(FEW)
        self._kept: OrderedDict[str, Seen] = OrderedDict()

    def __call__(self, tensor: str) -> Seen:
        """Return what the first samples make of a tensor.

        Raises
        ------
        InferenceError, SampleError
        """
        if tensor not in self._kept:
            self._kept[tensor] = self._look(tensor)
            if len(self._kept) > HELD:
                self._kept.popitem(last=False)
        self._kept.move_to_end(tensor)
        return self._kept[tensor]

    def _look(self, tensor: str) -> Seen:
        observed, outputs = observe(self._model, [tensor])
        session = open_session(observed)
        parts: list[NDArray[np.float32]] = []
        for feeds in self._samples:
            wanted = {spec.name: feeds[spec.name] for spec in observed.inputs}
            parts.append(_by_channel(run_session(session, wanted)[outputs[tensor][0]]))
            if sum(part.size for part in parts) > MOST:
                break
        alike = len({len(part) for part in parts}) == 1
        values = np.concatenate(parts if alike else [part.reshape(1, -1) for part in parts], axis=1)
        return Seen(values.astype(np.float32), len(parts))


def _by_channel(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return one row per channel: axis 1 of pictures, the last axis of everything else."""
    if array.ndim < 2:
        return array.reshape(1, -1)
    moved = np.moveaxis(array, 1 if array.ndim == 4 else -1, 0)
    return np.ascontiguousarray(moved.reshape(len(moved), -1))
