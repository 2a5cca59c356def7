"""Codes back to numbers, in blocks that stay in the cache, without a second copy of a weight."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ptq_lab.numerics.weights import QuantizedWeight

_BLOCK = 1 << 16  # elements


def dequantize_weight(weight: QuantizedWeight) -> NDArray[np.float32]:
    """Return the float32 weight that the codes stand for, bit for bit as a decoding graph computes it.

    Examples
    --------
    >>> from ptq_lab.numerics import quantize_weight
    >>> one = quantize_weight(np.array([0.5, 1.0], np.float32), bits=1, axis=None)
    >>> dequantize_weight(one).tolist()
    [0.5, 1.0]
    """
    shape, axis = weight.codes.shape, weight.axis
    values = np.empty(shape, np.float32)
    if not values.size:
        return values
    if weight.block:
        _decode_blocks(weight, values)
        return values
    channels = 1 if axis is None else shape[axis]
    inner = values.size if axis is None else math.prod(shape[axis + 1 :])
    if inner == 1:  # the last axis: scales lie along the rows
        matrix, across = (values.size // channels, channels), (1, channels)
        scale, offset = weight.scale.reshape(across), weight.offset.reshape(across)
    else:
        outer = values.size // (channels * inner)
        matrix = (outer * channels, inner)
        scale, offset = (np.tile(each.reshape(channels, 1), (outer, 1)) for each in (weight.scale, weight.offset))
    _decode_rows(weight.codes.reshape(matrix), values.reshape(matrix), scale, offset)
    return values


def _decode_blocks(weight: QuantizedWeight, decoded: NDArray[np.float32]) -> None:
    """Decode a weight block by block of its channels, which lie along the first axis or the last."""
    channels = len(weight.scale)
    in_front = weight.axis == 0
    matrix = (channels, -1) if in_front else (-1, channels)
    codes, target = weight.codes.reshape(matrix), decoded.reshape(matrix)
    for index in range(weight.scale.shape[1]):
        inputs = slice(index * weight.block, (index + 1) * weight.block)
        here = (slice(None), inputs) if in_front else (inputs, slice(None))
        scale = weight.scale[:, index : index + 1]
        np.multiply(codes[here], scale if in_front else scale.T, out=target[here])
    if weight.offset.any():
        np.add(target, weight.offset if in_front else weight.offset.T, out=target)


def _decode_rows(
    codes: NDArray[np.int8 | np.int16],
    decoded: NDArray[np.float32],
    scale: NDArray[np.float32],
    offset: NDArray[np.float32],
) -> None:
    """Decode a matrix whose scales are a column of it or a row."""
    rows, columns = codes.shape
    width = min(columns, _BLOCK)
    height = max(1, _BLOCK // width)
    shifted = bool(offset.any())
    for row in range(0, rows, height):
        across = slice(row, row + height)
        for column in range(0, columns, width):
            along = slice(column, column + width)
            here = (across if len(scale) > 1 else slice(None), along if scale.shape[1] > 1 else slice(None))
            target = decoded[across, along]
            np.multiply(codes[across, along], scale[here], out=target)
            if shifted:
                np.add(target, offset[here], out=target)
