"""A whole weight at once: range, codes, and the correction that gives back its mean and spread.

A quantized weight is stored as ``w = code * scale + offset``, one scale and one offset per channel. Both
are free floats: the zero point and the two corrections are folded into them, so decoding is one
multiplication and one addition whatever went in.

The work is done in blocks that stay in the cache; each block is read from memory once per pass
(ranges, codes with their sums), which is what the time of this file is made of.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq_lab.numerics.affine import QuantSpec, along_axis, choose_params

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_BLOCK = 131072  # elements; 512 KiB of float32
_SPAN = 4096  # elements summed in float32 before the sum goes on in float64
_TINY = 2.2e-16
_MAX_SPREAD = 10.0  # the original leaves the spread alone when it would have to grow more than this


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QuantizedWeight:
    """Codes of one weight and the numbers that decode them.

    Attributes
    ----------
    codes : ndarray of int8 (up to 8 bits) or int16, shape of the weight
    bits : int
        Width of a code, 1..16.
    axis : int or None
        Channel axis; ``None``: one scale for the tensor.
    scale, offset : ndarray of float32, shape (C,) or ()
        ``w = codes * scale + offset``.
    step : ndarray of float64
        Step of the grid before corrections, in real units.
    zero_point : ndarray of int32
        The code that means 0.0 before corrections.
    spread_correction : ndarray of float64
        ``std(w) / std(dequantized)`` (the original's *variance correction*), 1 when off.
    mean_correction : ndarray of float64
        What is added after scaling, in real units, 0 when off.
    """

    codes: NDArray[np.int8 | np.int16]
    bits: int
    axis: int | None
    scale: Float32
    offset: Float32
    step: Float64
    zero_point: NDArray[np.int32]
    spread_correction: Float64
    mean_correction: Float64


def quantize_weight(values: Float32, *, bits: int, axis: int | None, correct: bool = True) -> QuantizedWeight:
    """Quantize a weight on an asymmetric grid, per channel or as a whole.

    Parameters
    ----------
    values : ndarray of float32, any shape
        The weight.
    bits : int
        Width of a code, 1..16.
    axis : int or None
        Channel axis, or ``None`` for one grid per tensor.
    correct : bool
        Give every channel back its mean and standard deviation.

    Returns
    -------
    QuantizedWeight

    Raises
    ------
    ValueError
        If a value is NaN or infinite.

    Notes
    -----
    Grid: :func:`choose_params` on minimum and maximum. Correction (MindSpore Lite's *bias correction* of
    weights): ``v = std(w)/std(d)``, used while both deviations are positive and ``v < 10``, and
    ``m = mean(w) - v * mean(d)``, population statistics; decoded is ``v * d + m``. Differences: ties
    round to even, and with one bit and correction the two levels are the means of the values below
    and above the channel's mean, the best pair for that split.

    Examples
    --------
    >>> weight = np.array([[-1.0, 0.1, 2.0], [3.0, 3.5, 4.0]], np.float32)
    >>> quantized = quantize_weight(weight, bits=8, axis=0)
    >>> quantized.codes.shape, quantized.scale.shape
    ((2, 3), (2,))
    >>> bool(np.abs(dequantize_weight(quantized) - weight).max() < 0.02)
    True
    """
    grid = _Grid(np.ascontiguousarray(values, np.float32), axis)
    low, high, moments = grid.measure()
    params = choose_params(low, high, QuantSpec(bits=bits, axis=axis))
    step, zero_point = params.scale, params.zero_point
    spread, mean = np.ones_like(step), np.zeros_like(step)
    if bits == 1 and correct:
        codes, lower, mean = grid.split_at(moments.mean)
        step, zero_point = mean - lower, np.zeros_like(zero_point)
    else:
        codes, code_moments = grid.round_to(step, zero_point, params.spec)
        if correct:
            spread, mean = _corrections(moments, code_moments, step, zero_point)
    shape = () if axis is None else (-1,)
    return QuantizedWeight(
        codes=codes.reshape(values.shape),
        bits=bits,
        axis=axis,
        scale=(step * spread).astype(np.float32).reshape(shape),
        offset=(mean - zero_point * step * spread).astype(np.float32).reshape(shape),
        step=step.reshape(shape),
        zero_point=zero_point.reshape(shape),
        spread_correction=spread.reshape(shape),
        mean_correction=mean.reshape(shape),
    )


def dequantize_weight(weight: QuantizedWeight) -> Float32:
    """Return the float32 weight that the codes stand for, bit for bit as a decoding graph computes it.

    Examples
    --------
    >>> one = quantize_weight(np.array([0.5, 1.0], np.float32), bits=1, axis=None)
    >>> dequantize_weight(one).tolist()
    [0.5, 1.0]
    """
    scale = along_axis(weight.scale, weight.codes.ndim, weight.axis)
    offset = along_axis(weight.offset, weight.codes.ndim, weight.axis)
    values = weight.codes.astype(np.float32)
    np.multiply(values, scale, out=values)
    np.add(values, offset, out=values)
    return values


def _corrections(
    values: _Moments, codes: _Moments, step: Float64, zero_point: NDArray[np.int32]
) -> tuple[Float64, Float64]:
    """Return spread and mean correction; codes are taken with their zero point, which moves the mean only."""
    std_dequantized = codes.std * step
    usable = (values.std > _TINY) & (std_dequantized > _TINY)
    spread = np.divide(values.std, std_dequantized, out=np.ones_like(step), where=usable)
    spread[spread >= _MAX_SPREAD] = 1.0
    return spread, values.mean - spread * (codes.mean - zero_point) * step


@dataclass(frozen=True, slots=True)
class _Moments:
    """Population mean and standard deviation, one per channel."""

    mean: Float64
    std: Float64


class _Grid:
    """A weight seen as a matrix whose channels lie along its rows or along its columns.

    With enough elements behind the channel axis, each row belongs to one channel; otherwise (a last
    axis, depthwise kernels) each column does. Either way numpy's inner loops are long, and no copy is made.
    """

    _SHORT = 64  # elements behind the channel axis from which rows pay

    def __init__(self, values: Float32, axis: int | None) -> None:
        shape = (1, *values.shape) if axis is None or values.ndim == 0 else values.shape
        at = 0 if axis is None else axis
        self.channels = shape[at]
        self.per_channel = values.size // self.channels
        self.outer = int(np.prod(shape[:at], dtype=np.int64))
        self.inner = int(np.prod(shape[at + 1 :], dtype=np.int64))
        if axis is None and values.ndim > 1:
            self.outer, self.inner = shape[1], self.inner // shape[1]
        self.in_columns = self.inner < self._SHORT
        lines = self.channels * self.inner
        self.matrix = values.reshape((self.outer, lines) if self.in_columns else (-1, self.inner))
        self._buffer = np.empty(_BLOCK, np.float32)

    def blocks(self) -> Iterator[tuple[slice, slice, slice]]:
        """Cut the matrix into pieces of at most ``_BLOCK`` elements: rows, columns, and the lines meant."""
        rows, columns = self.matrix.shape
        width = min(columns, _BLOCK if self.in_columns else _SPAN)
        height = max(1, _BLOCK // width)
        for row in range(0, rows, height):
            for column in range(0, columns, width):
                across = slice(row, min(row + height, rows))
                along = slice(column, min(column + width, columns))
                yield across, along, (along if self.in_columns else across)

    def measure(self) -> tuple[Float32, Float32, _Moments]:
        """Return minimum, maximum and moments per channel in one pass; NaN and infinity come through."""
        axis = 0 if self.in_columns else 1
        lines = self.matrix.shape[1 - axis]
        low, high = np.full(lines, np.inf, np.float32), np.full(lines, -np.inf, np.float32)
        sums = np.zeros((2, lines), np.float64)
        for rows, columns, line in self.blocks():
            block = self.matrix[rows, columns]
            np.minimum(low[line], block.min(axis=axis), out=low[line])
            np.maximum(high[line], block.max(axis=axis), out=high[line])
            self._add_up(block, sums[:, line])
        return self._by_channel(low).min(axis=0), self._by_channel(high).max(axis=0), self._moments(sums)

    def round_to(self, step: Float64, zero_point: NDArray[np.int32], spec: QuantSpec) -> tuple[NDArray[Any], _Moments]:
        """Return codes (matrix shape) and their moments in one pass."""
        inverse, shift = self._along_lines(1.0 / step), self._along_lines(zero_point)
        codes = np.empty(self.matrix.shape, spec.dtype)
        sums = np.zeros((2, self.matrix.shape[1 if self.in_columns else 0]), np.float64)
        for rows, columns, line in self.blocks():
            block = self.matrix[rows, columns]
            steps = self._buffer[: block.size].reshape(block.shape)
            np.multiply(block, self._spread(inverse[line]), out=steps)
            np.add(steps, self._spread(shift[line]), out=steps)
            np.rint(steps, out=steps)
            np.clip(steps, spec.qmin, spec.qmax, out=steps)
            codes[rows, columns] = steps
            self._add_up(steps, sums[:, line])
        return codes, self._moments(sums)

    def split_at(self, threshold: Float64) -> tuple[NDArray[np.int8], Float64, Float64]:
        """Return one-bit codes (0 above the threshold, else -1) and the mean below and above it, per channel."""
        limit = self._along_lines(threshold)
        axis = 0 if self.in_columns else 1
        codes = np.empty(self.matrix.shape, np.int8)
        above = np.zeros((3, limit.size), np.float64)  # how many, their sum, the sum of all
        for rows, columns, line in self.blocks():
            block = self.matrix[rows, columns]
            upper = block > self._spread(limit[line])
            codes[rows, columns] = upper.view(np.int8) - np.int8(1)
            above[0, line] += upper.sum(axis=axis)
            above[1, line] += np.multiply(block, upper).sum(axis=axis)
            above[2, line] += block.sum(axis=axis)
        count, upper_sum, total = (self._by_channel(line).sum(axis=0) for line in above)
        rest = self.per_channel - count
        high = np.divide(upper_sum, count, out=threshold.copy(), where=count > 0)
        low = np.divide(total - upper_sum, rest, out=threshold.copy(), where=rest > 0)
        return codes, low, high

    def _add_up(self, block: Float32, sums: Float64) -> None:
        if self.in_columns:
            sums[0] += block.sum(axis=0)
            sums[1] += np.einsum("ij,ij->j", block, block)
        else:
            sums[0] += np.einsum("ij->i", block)
            sums[1] += np.vecdot(block, block)

    def _moments(self, sums: Float64) -> _Moments:
        total, squared = (self._by_channel(line).sum(axis=0) / self.per_channel for line in sums)
        return _Moments(total, np.sqrt(np.maximum(squared - total**2, 0.0)))

    def _by_channel(self, lines: NDArray[Any]) -> NDArray[Any]:
        """Arrange one number per line as (lines of a channel, channels)."""
        return lines.reshape(self.channels, -1).T if self.in_columns else lines.reshape(-1, self.channels)

    def _along_lines(self, numbers: NDArray[Any]) -> Float32:
        """Repeat one number per channel for each of its lines."""
        numbers = numbers.astype(np.float32)
        return np.repeat(numbers, self.inner) if self.in_columns else np.tile(numbers, self.outer)

    def _spread(self, lines: Float32) -> Float32:
        return lines[None, :] if self.in_columns else lines[:, None]
