"""A weight as blocks that stay in the cache: what one pass over it measures, and the codes that another one writes.

Each block is read from memory once per pass, which is what the time of this file is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq_lab.numerics.affine import QuantParams

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Visit = Callable[[int, int], None]

BLOCK = 131072  # elements; 512 KiB of float32
_WINDOW = 1 << 21  # elements between two visits; 8 MiB of float32
_SPAN = 4096  # elements of a row summed in float32 before the sum goes on in float64
_TALL = 1024  # the same for columns, which numpy adds up one by one
_LOOP = 256  # numpy copies what it broadcasts along rows shorter than its buffer; from this length that costs more
_CANCELS = 4.0  # mean**2 over variance, from which float32 sums are too coarse for the variance
_FEW = 16  # one line in so many is worth treating by itself
_EXACT = 1 << 22  # elements of which a copy in float64 may be made


@dataclass(frozen=True, slots=True)
class Moments:
    """Population mean and standard deviation, one per channel."""

    mean: Float64
    std: Float64


class WeightGrid:
    """A weight seen as a matrix whose channels lie along its rows or along its columns.

    With enough elements behind the channel axis, each row belongs to one channel; otherwise (a last axis,
    transposed convolutions) each column does. Numpy's inner loops are as long as they can be without a copy.

    Parameters
    ----------
    values : ndarray of float32, C-contiguous
    axis : int or None
        Channel axis, or ``None``: the whole weight is one channel.
    into : ndarray, shape of the weight, optional
        Where codes go; a new array without it. With it, what rounding loses is added up in `lost`, too.
    visit : callable, optional
        Told every few MB which elements come next, first and one past the last (nothing is known of them if the two are
        the same), so that a caller can give back what was read of arrays in files, and read ahead.
    """

    _SHORT = 64  # elements behind the channel axis from which rows pay

    def __init__(
        self, values: Float32, axis: int | None, *, into: NDArray[Any] | None = None, visit: Visit | None = None
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
        self.lost = np.zeros(self.matrix.shape[1 if self.in_columns else 0], np.float64)  # in squared steps, per line
        self._buffer = np.empty(BLOCK, np.float32)
        self._into, self._visit = into, visit

    def _room(self, dtype: Any) -> NDArray[Any]:
        return np.empty(self.matrix.shape, dtype) if self._into is None else self._into.reshape(self.matrix.shape)

    def blocks(self) -> Iterator[tuple[slice, slice, slice]]:
        """Cut the matrix into pieces of at most ``BLOCK`` elements: rows, columns, and the lines meant."""
        rows, columns = self.matrix.shape
        width = min(columns, _SPAN)
        height = max(1, min(BLOCK // width, _TALL) if self.in_columns else BLOCK // width)
        band = height * columns  # what the blocks of some rows lie in together
        left = 0
        for row in range(0, rows, height):
            for column in range(0, columns, width):
                across = slice(row, min(row + height, rows))
                along = slice(column, min(column + width, columns))
                if self._visit is not None and left <= 0:
                    left = max(1, _WINDOW // band) * band if band <= _WINDOW else _WINDOW
                    first = row * columns
                    self._visit(first, min(first + left, self.matrix.size) if band <= _WINDOW else first)
                yield across, along, (along if self.in_columns else across)
                left -= (across.stop - row) * (along.stop - column)

    def measure(self) -> tuple[Float32, Float32, Moments]:
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
        return self._by_channel(low).min(axis=0), self._by_channel(high).max(axis=0), self._moments(sums, self.matrix)

    def round_to(self, params: QuantParams, low: Float32, high: Float32) -> tuple[NDArray[Any], Moments]:
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
                exact = None if self._into is None else steps.copy()
                np.rint(steps, out=steps)
                wide = np.flatnonzero(outside[line])
                if wide.size * _FEW > outside[line].size:  # picking lines out costs more than clipping them all
                    np.clip(steps, spec.qmin, spec.qmax, out=steps)
                elif wide.size:
                    some = (slice(None), wide) if self.in_columns else wide
                    steps[some] = np.clip(steps[some], spec.qmin, spec.qmax)
                codes[rows, columns] = steps
                self._add_up(steps, sums[:, line])
                if exact is not None:
                    np.subtract(steps, exact, out=exact)
                    self.lost[line] += self._products(exact, exact)
        return codes, self._moments(sums, codes if spec.bits > 8 else None)  # sums of small codes are exact

    def lost_by_channel(self) -> Float64:
        """Return what rounding has lost, in squared steps, per channel."""
        return np.asarray(self._by_channel(self.lost).sum(axis=0))

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

    def _moments(self, sums: Float64, matrix: NDArray[Any] | None) -> Moments:
        """Return what sums give; where most of them would cancel, look at their matrix again in float64."""
        mean, square = (self._by_channel(line).sum(axis=0) / self.per_channel for line in sums)
        with np.errstate(invalid="ignore"):  # NaN and infinity are refused later, with words
            variance = np.maximum(square - mean**2, 0.0)
            doubtful = np.flatnonzero(mean**2 > _CANCELS * variance)
        if matrix is None:
            return Moments(mean, np.sqrt(variance))
        by_channel = matrix.reshape(self.outer, self.channels, self.inner)
        count = max(1, BLOCK // self.per_channel)
        for start in range(0, doubtful.size, count):
            some = doubtful[start : start + count]
            if self.per_channel > _EXACT:
                mean[some], variance[some] = _moments_of_large(by_channel[:, some[0]])
                continue
            exact = by_channel[:, some].astype(np.float64)
            mean[some], variance[some] = exact.mean(axis=(0, 2)), exact.var(axis=(0, 2))
        return Moments(mean, np.sqrt(variance))

    def _by_channel(self, lines: NDArray[Any]) -> NDArray[Any]:
        """Arrange one number per line as (lines of a channel, channels)."""
        return lines.reshape(self.channels, -1).T if self.in_columns else lines.reshape(-1, self.channels)

    def _along_lines(self, numbers: NDArray[Any]) -> Float32:
        """Repeat one number per channel for each of its lines."""
        numbers = numbers.astype(np.float32)
        return np.repeat(numbers, self.inner) if self.in_columns else np.tile(numbers, self.outer)

    def _spread(self, lines: Float32) -> Float32:
        return lines[None, :] if self.in_columns else lines[:, None]


def _moments_of_large(channel: NDArray[Any]) -> tuple[float, float]:
    """Return mean and variance of a channel, shape (outer, inner), of which no copy can be made."""
    pieces = [
        channel[row : row + max(1, BLOCK // channel.shape[1]), column : column + BLOCK]
        for row in range(0, len(channel), max(1, BLOCK // channel.shape[1]))
        for column in range(0, channel.shape[1], BLOCK)
    ]
    mean = sum(float(piece.sum(dtype=np.float64)) for piece in pieces) / channel.size
    return mean, sum(float(np.square(piece - mean).sum()) for piece in pieces) / channel.size


@contextmanager
def _short_buffer(length: int) -> Iterator[None]:
    """Let numpy work in place on rows of this length, if that pays; otherwise it copies rows below 8192."""
    with np.errstate():  # restores the buffer size of this thread, too
        if length >= _LOOP:
            np.setbufsize(_LOOP)
        yield
