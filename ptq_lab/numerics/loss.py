"""What rounding a weight has cost, block by block, so that neither a second copy nor its time is needed."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ptq_lab.numerics.affine import along_axis
from ptq_lab.numerics.dequantize import dequantize_weight
from ptq_lab.numerics.similarity import dot
from ptq_lab.numerics.weights import QuantizedWeight

_BLOCK = 1 << 16  # elements at a time: they stay in the cache


def weight_error(values: NDArray[np.float32], weight: QuantizedWeight) -> float:
    """Return ``||w - dequantized|| / ||w||``; the norm of the error itself where the weight is zero.

    Parameters
    ----------
    values : ndarray of float32, one axis or more
        The original weight.
    weight : QuantizedWeight
        Codes of the same shape.

    Examples
    --------
    >>> from ptq_lab.numerics import quantize_weight
    >>> values = np.array([[1.0, 0.4, -1.0]], np.float32)
    >>> round(weight_error(values, quantize_weight(values, bits=2, axis=None, correct=False)), 3)
    0.369
    """
    if weight.block:
        error = dequantize_weight(weight)
        error -= values
        signal, noise = _power(values), _power(error)
        return math.sqrt(noise / signal) if noise and signal else math.sqrt(noise)
    scale, offset = (along_axis(numbers, values.ndim, weight.axis) for numbers in (weight.scale, weight.offset))
    along_rows = weight.axis == 0
    rows = max(1, _BLOCK // max(1, values[:1].size))
    signal = noise = 0.0
    for start in range(0, len(values), rows):
        part = slice(start, start + rows)
        here = part if along_rows else ...
        error = weight.codes[part] * scale[here]
        error += offset[here]
        error -= values[part]
        signal += _power(values[part])
        noise += _power(error)
    return math.sqrt(noise / signal) if noise and signal else math.sqrt(noise)


def _power(values: NDArray[np.float32]) -> float:
    flat = values.reshape(-1)
    return dot(flat, flat)
