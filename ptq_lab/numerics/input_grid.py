"""The grid of a model's input, chosen by real values instead of their range alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq_lab.numerics.affine import QuantSpec

_STEPS_LESS = (0, 1, 2)  # a step count slightly below the largest moves levels off the half-way points
_CLEARLY = 0.99  # a finer candidate must lower the error by this factor to be taken


def finest_grid(values: NDArray[Any], low: float, high: float, spec: QuantSpec) -> tuple[float, int]:
    """Return scale and zero point with the smallest squared error on some values.

    Parameters
    ----------
    values : ndarray
        Real inputs of the model.
    low, high : float
        The range to cover; zero is made part of it.
    spec : QuantSpec
        Width and sign.

    Examples
    --------
    >>> pixels = (np.arange(256, dtype=np.float32) - 127.5) / 127.5     # half way between the obvious levels
    >>> scale, zero_point = finest_grid(pixels, -1.0, 1.0, QuantSpec(bits=8, signed=False))
    >>> codes = np.clip(np.rint(pixels / np.float32(scale)) + zero_point, 0, 255)
    >>> bool(np.abs((codes - zero_point) * scale - pixels).mean() < 0.0024)
    True
    """
    low, high = min(low, 0.0), max(high, 0.0)
    wanted = values.astype(np.float64).reshape(-1)
    best = (np.inf, 1.0, 0)
    for less in _STEPS_LESS:
        scale = np.float32(max(high - low, 1e-10) / (spec.qmax - spec.qmin - less))
        exact = spec.qmin - low / float(scale)
        for zero_point in sorted({int(np.floor(exact)), int(np.ceil(exact))}):
            inside = min(max(zero_point, spec.qmin), spec.qmax)
            codes = np.clip(np.rint(values.reshape(-1) / scale) + inside, spec.qmin, spec.qmax)
            error = float(np.square((codes - inside) * np.float64(scale) - wanted).mean())
            if error < best[0] * _CLEARLY:
                best = (error, float(scale), inside)
    return best[1], best[2]
