"""What rounding a weight has cost, block by block, so that neither a second copy nor its time is needed."""

from __future__ import annotations

import math
from collections.abc import Iterator

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
    signal = noise = 0.0
    for part, error in _errors(values, weight):
        signal += _power(values[part])
        noise += _power(error)
    return math.sqrt(noise / signal) if noise and signal else math.sqrt(noise)


def channel_error(values: NDArray[np.float32], weight: QuantizedWeight, axis: int) -> float:
    """Return the relative error of the channels: the root of the mean of their squares, each 1 at most.

    The error of a whole tensor lets large channels speak for small ones; here every channel has one voice, whatever its
    size, as behind a BatchNormalization. Channels of zeros have none.

    Parameters
    ----------
    values : ndarray of float32, one axis or more
        The original weight.
    weight : QuantizedWeight
        Codes of the same shape, in any grids.
    axis : int
        That of the channels.

    Examples
    --------
    >>> from ptq_lab.numerics import quantize_step
    >>> values = np.array([[1.0, -1.0], [0.04, -0.04]], np.float32)
    >>> weight = quantize_step(values, 1.0)  # all that the small channel has is lost
    >>> round(weight_error(values, weight), 2), round(channel_error(values, weight, 0), 2)
    (0.04, 0.71)
    """
    others = tuple(index for index in range(values.ndim) if index != axis)
    signal, noise = np.zeros((2, values.shape[axis]))
    for part, error in _errors(values, weight):
        here = part if axis == 0 else slice(None)
        signal[here] += np.square(values[part]).sum(axis=others, dtype=np.float64)
        noise[here] += np.square(error).sum(axis=others, dtype=np.float64)
    some = signal > 0.0
    if not some.any():
        return 0.0
    return math.sqrt(float(np.minimum(1.0, noise[some] / signal[some]).mean()))


def _errors(values: NDArray[np.float32], weight: QuantizedWeight) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield some rows at a time with what rounding has changed in them."""
    if weight.block:
        yield slice(None), dequantize_weight(weight) - values
        return
    scale, offset = (along_axis(numbers, values.ndim, weight.axis) for numbers in (weight.scale, weight.offset))
    along_rows = weight.axis == 0
    rows = max(1, _BLOCK // max(1, values[:1].size))
    for start in range(0, len(values), rows):
        part = slice(start, start + rows)
        here = part if along_rows else ...
        error = weight.codes[part] * scale[here]
        error += offset[here]
        error -= values[part]
        yield part, error


def _power(values: NDArray[np.float32]) -> float:
    flat = values.reshape(-1)
    return dot(flat, flat)
