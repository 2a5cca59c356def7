"""Activations as a model quantizes them at run time: what is lost."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SMALLEST = np.float32(2.0**-120)


def quantize_at_run_time(values: NDArray[np.float32], *, by_row: bool) -> NDArray[np.float32]:
    """Return the values that 8-bit codes chosen from the values themselves stand for.

    Parameters
    ----------
    values : ndarray of float32
        An activation.
    by_row : bool
        One symmetric scale for each index of all axes but the last, 127 steps to each side; otherwise one scale and
        zero point for all, 255 steps from the smallest value (or 0) to the largest (or 0), as
        ``DynamicQuantizeLinear`` has it.

    Examples
    --------
    >>> values = np.array([[1.0, -0.5], [100.0, 1.0]], np.float32)
    >>> quantize_at_run_time(values, by_row=True).astype(float).round(3).tolist()
    [[1.0, -0.504], [100.0, 0.787]]
    >>> quantize_at_run_time(values, by_row=False).astype(float).round(3).tolist()
    [[1.182, -0.394], [100.106, 1.182]]
    """
    if by_row:
        reach = np.abs(values).max(axis=-1, keepdims=True, initial=0.0)
        step = np.maximum(reach * np.float32(1 / 127), _SMALLEST)  # as the graph does it, to the last digit
        return np.asarray(np.clip(np.rint(values / step), -128, 127) * step, np.float32)
    low, high = np.float32(values.min(initial=0.0)), np.float32(values.max(initial=0.0))
    step = (high - low) / np.float32(255) or np.float32(1)
    zero_point = np.clip(np.rint(-low / step), 0, 255)
    codes = np.clip(np.rint(values / step) + zero_point, 0, 255)
    return np.asarray((codes - zero_point) * step, np.float32)
