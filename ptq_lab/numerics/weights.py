"""A whole weight at once: range, codes, and the correction that gives back its mean and spread.

A quantized weight is stored as ``w = code * scale + offset``, one scale and one offset per channel. Both
are free floats: the zero point and the two corrections are folded into them, so decoding is one
multiplication and one addition whatever went in.

The work is done in blocks that stay in the cache, each read from memory once per pass (ranges, codes with sums).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index
from numpy.typing import NDArray

from ptq_lab.numerics.affine import QuantParams, QuantSpec, along_axis, choose_params

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
_BLOCK = 131072  # elements; 512 KiB of float32
_PAUSE = 1 << 24  # elements between two pauses; 64 MiB of float32
_SPAN = 4096  # elements of a row summed in float32 before the sum goes on in float64
_TALL = 1024  # the same for columns, which numpy adds up one by one
_LOOP = 256  # numpy copies what it broadcasts along rows shorter than its buffer; from this length that costs more
_TINY = 2.2e-16
_CANCELS = 4.0  # mean**2 over variance, from which float32 sums are too coarse for the variance
_FEW = 16  # one line in so many is worth treating by itself
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


def decoded_by(
    codes: NDArray[Any], *, bits: int, axis: int | None, scale: Float32, offset: Float32 | None = None
) -> QuantizedWeight:
    """Return a weight of which no more is known than its codes and what decodes them.

    Examples
    --------
    >>> decoded_by(np.array([1, 2], np.int8), bits=8, axis=None, scale=np.float32(0.5)).offset
    array(0., dtype=float32)
    """
    scale = np.asarray(scale, np.float32)
    return QuantizedWeight(
        codes=codes,
        bits=bits,
        axis=axis,
        scale=scale,
        offset=np.zeros_like(scale) if offset is None else offset,
        step=scale.astype(np.float64),
        zero_point=np.zeros(scale.shape, np.int32),
        spread_correction=np.ones(scale.shape),
        mean_correction=np.zeros(scale.shape),
    )


def quantize_weight(
    values: Float32,
    *,
    bits: int,
    axis: int | None,
    correct: bool = True,
    into: NDArray[np.int8 | np.int16] | None = None,
    pause: Callable[[], None] | None = None,
) -> QuantizedWeight:
    """Quantize a weight on an asymmetric grid, per channel or as a whole.

    Parameters
    ----------
    values : ndarray of float32, any shape
        The weight.
    bits : int
        Width of a code, 1..16.
    axis : int or None
        Channel axis (negative: counted from the last), or ``None`` for one grid per tensor.
    correct : bool
        Give every channel back its mean and standard deviation.
    into : ndarray of int8 (up to 8 bits) or int16, shape of the weight, optional
        Where the codes go; a new array without it.
    pause : callable, optional
        Called every few MB, so that a caller can give back what was read of arrays in files.

    Returns
    -------
    QuantizedWeight

    Raises
    ------
    ValueError
        If a value is NaN or infinite, or there is no such axis.

    Notes
    -----
    Grid: :func:`choose_params` on minimum and maximum. Correction (MindSpore Lite's *bias correction* of
    weights): ``v = std(w)/std(d)``, used while both deviations are positive and ``v < 10``, and
    ``m = mean(w) - v * mean(d)``, population statistics; decoded is ``v * d + m``. Differences: ties
    round to even, and with one bit and correction the two levels are the means of the values below
    and above the channel's mean, the best pair for that split.

    Examples
    --------
    >>> from ptq_lab.numerics import dequantize_weight
    >>> weight = np.array([[-1.0, 0.1, 2.0], [3.0, 3.5, 4.0]], np.float32)
    >>> quantized = quantize_weight(weight, bits=8, axis=0)
    >>> quantized.codes.shape, quantized.scale.shape
    ((2, 3), (2,))
    >>> bool(np.abs(dequantize_weight(quantized) - weight).max() < 0.02)
    True
    """
    axis = None if axis is None else normalize_axis_index(axis, values.ndim)
    grid = _Grid(np.ascontiguousarray(values, np.float32), axis, into=into, pause=pause)
    low, high, moments = grid.measure()
    params = choose_params(low, high, QuantSpec(bits=bits, axis=axis))
    step, zero_point = params.scale, params.zero_point
    spread, mean = np.ones_like(step), np.zeros_like(step)
    if bits == 1 and correct:
        codes, lower, mean = grid.split_at(moments.mean)
        step, zero_point = mean - lower, np.zeros_like(zero_point)
    else:
        codes, code_moments = grid.round_to(params, low, high)
        if correct:
            spread, mean = _corrections(moments, code_moments, step, zero_point)
    shape = () if axis is None else (-1,)
    scale = (step * spread).astype(np.float32)
    return QuantizedWeight(
        codes=codes.reshape(values.shape),
        bits=bits,
        axis=axis,
        scale=scale.reshape(shape),
        # From the scale as it is stored, so that without corrections the zero point decodes to exactly 0.
        offset=(mean - zero_point * scale.astype(np.float64)).astype(np.float32).reshape(shape),
        step=step.reshape(shape),
        zero_point=zero_point.reshape(shape),
        spread_correction=spread.reshape(shape),
        mean_correction=mean.reshape(shape),
    )


def quantize_symmetric(
    values: Float32,
    *,
    axis: int | None,
    bits: int = 8,
    smallest: Float32 | None = None,
    factor: Float32 | None = None,
) -> QuantizedWeight:
    """Quantize a weight on a symmetric, narrow grid with zero point 0, as integer kernels want it.

    Parameters
    ----------
    values : ndarray of float32
    axis : int or None
        Channel axis, or ``None`` for one scale.
    bits : int
        Codes in ``-(2**(bits-1)-1) .. 2**(bits-1)-1``.
    smallest : ndarray of float32, optional
        No scale is below these, shape (C,) or ().
    factor : ndarray of float32, optional
        What to multiply the scales by that just reach the largest values, shape (C,) or (); below 1 it cuts those off.

    Raises
    ------
    ValueError
        If a value is NaN or infinite.

    Examples
    --------
    >>> quantize_symmetric(np.array([[-1.0, 0.5]], np.float32), axis=0).codes.tolist()
    [[-127, 64]]
    """
    across = tuple(index for index in range(values.ndim) if index != axis) if axis is not None else None
    reach = np.maximum(values.max(axis=across), -values.min(axis=across))
    if not np.isfinite(reach).all():
        raise ValueError("the values contain NaN or infinity")
    limit = 2 ** (bits - 1) - 1
    scale = np.maximum(np.asarray(reach / limit, np.float32), np.finfo(np.float32).tiny)
    scale = scale if factor is None else scale * factor
    scale = scale if smallest is None else np.maximum(scale, smallest)
    codes = _nearest_steps(values, along_axis(scale, values.ndim, axis), limit)
    return decoded_by(codes, bits=bits, axis=axis, scale=scale)


def _nearest_steps(values: Float32, scale: Float32, limit: int) -> NDArray[Any]:
    """Round values to whole steps, in blocks of rows that stay in the cache."""
    codes = np.empty(values.shape, np.int8 if limit < 128 else np.int16)
    rows = max(1, _BLOCK // max(1, values[:1].size))
    for start in range(0, len(values), rows):
        part = slice(start, start + rows)
        steps = values[part] / (scale[part] if scale.ndim and len(scale) > 1 else scale)
        codes[part] = np.clip(np.rint(steps, out=steps), -limit, limit, out=steps)
    return codes


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

    With enough elements behind the channel axis, each row belongs to one channel; otherwise (a last axis,
    transposed convolutions) each column does. Numpy's inner loops are as long as they can be without a copy.
    """

    _SHORT = 64  # elements behind the channel axis from which rows pay

    def __init__(
        self, values: Float32, axis: int | None, *, into: NDArray[Any] | None, pause: Callable[[], None] | None
    ) -> None:
        shape = (1, *values.shape) if axis is None or values.ndim == 0 else values.shape
        at = 0 if axis is None else axis
        self.channels = shape[at]
        self.per_channel = values.size // self.channels
        self.outer = int(np.prod(shape[:at], dtype=np.int64))
        self.inner = int(np.prod(shape[at + 1 :], dtype=np.int64))
        if axis is None and values.ndim > 1:
            self.outer, self.inner = shape[1], self.inner // shape[1]
        self.in_columns = self.inner < min(self._SHORT, self.outer)
        lines = self.channels * self.inner
        self.matrix = values.reshape((self.outer, lines) if self.in_columns else (-1, self.inner))
        self._buffer = np.empty(_BLOCK, np.float32)
        self._into, self._pause = into, pause

    def _room(self, dtype: Any) -> NDArray[Any]:
        return np.empty(self.matrix.shape, dtype) if self._into is None else self._into.reshape(self.matrix.shape)

    def blocks(self) -> Iterator[tuple[slice, slice, slice]]:
        """Cut the matrix into pieces of at most ``_BLOCK`` elements: rows, columns, and the lines meant."""
        rows, columns = self.matrix.shape
        width = min(columns, _SPAN)
        height = max(1, min(_BLOCK // width, _TALL) if self.in_columns else _BLOCK // width)
        seen = 0
        for row in range(0, rows, height):
            for column in range(0, columns, width):
                across = slice(row, min(row + height, rows))
                along = slice(column, min(column + width, columns))
                yield across, along, (along if self.in_columns else across)
                seen += height * width
                if self._pause is not None and seen >= _PAUSE:
                    self._pause()
                    seen = 0

    def measure(self) -> tuple[Float32, Float32, _Moments]:
        """Return minimum, maximum and moments per channel in one pass; NaN and infinity come through."""
        axis, lines = (0, self.matrix.shape[1]) if self.in_columns else (1, self.matrix.shape[0])
        low, high = np.full(lines, np.inf, np.float32), np.full(lines, -np.inf, np.float32)
        sums = np.zeros((2, lines), np.float64)
        for rows, columns, line in self.blocks():
            block = self.matrix[rows, columns]
            np.minimum(low[line], block.min(axis=axis), out=low[line])
            np.maximum(high[line], block.max(axis=axis), out=high[line])
            self._add_up(block, sums[:, line])
        return self._by_channel(low).min(axis=0), self._by_channel(high).max(axis=0), self._moments(sums, self.matrix)

    def round_to(self, params: QuantParams, low: Float32, high: Float32) -> tuple[NDArray[Any], _Moments]:
        """Return codes (matrix shape) and their moments in one pass; `low` and `high` are the channels' extremes."""
        spec = params.spec
        inverse, shift = self._along_lines(1.0 / params.scale), self._along_lines(params.zero_point)
        # Every step keeps the order of values, so only lines whose extremes leave the grid need clipping.
        lowest, highest = (np.rint(self._along_lines(end) * inverse + shift) for end in (low, high))
        outside = (lowest < spec.qmin) | (highest > spec.qmax)
        codes = self._room(spec.dtype)
        sums = np.zeros((2, self.matrix.shape[1 if self.in_columns else 0]), np.float64)
        with _short_buffer(self.matrix.shape[1]):
            for rows, columns, line in self.blocks():
                block = self.matrix[rows, columns]
                steps = self._buffer[: block.size].reshape(block.shape)
                np.multiply(block, self._spread(inverse[line]), out=steps)
                np.add(steps, self._spread(shift[line]), out=steps)
                np.rint(steps, out=steps)
                wide = np.flatnonzero(outside[line])
                if wide.size * _FEW > outside[line].size:  # picking lines out costs more than clipping them all
                    np.clip(steps, spec.qmin, spec.qmax, out=steps)
                elif wide.size:
                    some = (slice(None), wide) if self.in_columns else wide
                    steps[some] = np.clip(steps[some], spec.qmin, spec.qmax)
                codes[rows, columns] = steps
                self._add_up(steps, sums[:, line])
        return codes, self._moments(sums, codes if spec.bits > 8 else None)  # sums of small codes are exact

    def split_at(self, threshold: Float64) -> tuple[NDArray[np.int8], Float64, Float64]:
        """Return one-bit codes (0 above the threshold, else -1) and the mean below and above it, per channel."""
        limit = self._along_lines(threshold)
        codes = self._room(np.int8)
        above = np.zeros((2, limit.size), np.float64)  # how many, and their sum
        with _short_buffer(self.matrix.shape[1]):
            for rows, columns, line in self.blocks():
                block = self.matrix[rows, columns]
                upper = block > self._spread(limit[line])
                np.subtract(upper.view(np.int8), np.int8(1), out=codes[rows, columns])
                ones = self._buffer[: block.size].reshape(block.shape)
                np.copyto(ones, upper)
                above[0, line] += ones.sum(axis=0) if self.in_columns else np.einsum("ij->i", ones)
                above[1, line] += self._products(block, ones)
        count, upper_sum = (self._by_channel(line).sum(axis=0) for line in above)
        total = threshold * self.per_channel
        rest = self.per_channel - count
        high = np.divide(upper_sum, count, out=threshold.copy(), where=count > 0)
        low = np.divide(total - upper_sum, rest, out=threshold.copy(), where=rest > 0)
        return codes, low, high

    def _add_up(self, block: Float32, sums: Float64) -> None:
        sums[0] += block.sum(axis=0) if self.in_columns else np.einsum("ij->i", block)
        sums[1] += self._products(block, block)

    def _products(self, left: Float32, right: Float32) -> Float32:
        """Return the sum of the products, one per line."""
        with np.errstate(over="ignore"):  # an infinite variance is not usable, and not used
            return np.asarray(np.einsum("ij,ij->j", left, right) if self.in_columns else np.vecdot(left, right))

    def _moments(self, sums: Float64, matrix: NDArray[Any] | None) -> _Moments:
        """Return what sums give; where most of them would cancel, look at their matrix again in float64."""
        mean, square = (self._by_channel(line).sum(axis=0) / self.per_channel for line in sums)
        with np.errstate(invalid="ignore"):  # NaN and infinity are refused later, with words
            variance = np.maximum(square - mean**2, 0.0)
            doubtful = np.flatnonzero(mean**2 > _CANCELS * variance)
        if matrix is None:
            return _Moments(mean, np.sqrt(variance))
        by_channel = matrix.reshape(self.outer, self.channels, self.inner)
        count = max(1, _BLOCK // self.per_channel)
        for start in range(0, doubtful.size, count):
            some = doubtful[start : start + count]
            exact = by_channel[:, some].astype(np.float64)
            mean[some], variance[some] = exact.mean(axis=(0, 2)), exact.var(axis=(0, 2))
        return _Moments(mean, np.sqrt(variance))

    def _by_channel(self, lines: NDArray[Any]) -> NDArray[Any]:
        """Arrange one number per line as (lines of a channel, channels)."""
        return lines.reshape(self.channels, -1).T if self.in_columns else lines.reshape(-1, self.channels)

    def _along_lines(self, numbers: NDArray[Any]) -> Float32:
        """Repeat one number per channel for each of its lines."""
        numbers = numbers.astype(np.float32)
        return np.repeat(numbers, self.inner) if self.in_columns else np.tile(numbers, self.outer)

    def _spread(self, lines: Float32) -> Float32:
        return lines[None, :] if self.in_columns else lines[:, None]


@contextmanager
def _short_buffer(length: int) -> Iterator[None]:
    """Let numpy work in place on rows of this length, if that pays; otherwise it copies rows below 8192."""
    with np.errstate():  # restores the buffer size of this thread, too
        if length >= _LOOP:
            np.setbufsize(_LOOP)
        yield
