"""How often each value occurs: counts in equal bins, made in one pass that stays in the processor's cache.

Two kinds. `count_values` keeps signs and is what percentiles and error-minimising ranges are read from.
`count_magnitudes` counts absolute values and is what the KL search needs. Counts of the same bins may be added.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]
Counts = NDArray[np.int64]

BINS = 4096
"""Of `count_values`: 16 per step of an 8-bit grid, so that a range may shrink a lot and still be judged."""

MAGNITUDE_BINS = 2048
"""Of `count_magnitudes`, as in the original."""

TINY = 2.2e-16
"""A magnitude up to this is an exact zero to `count_magnitudes`, as in the original."""

_LEAST_WIDTH = np.finfo(np.float32).smallest_normal
_CHUNK = 32768  # values; the pieces that are being worked on fit into the second-level cache


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Histogram:
    """Counts in equal bins.

    Attributes
    ----------
    low, high : float
        Left edge of the first bin and right edge of the last one, in real units.
    counts : ndarray of int64
        Shape (bins,); exact zeros are left out, because quantization does not change them.
    zeros : int
        How many exact zeros there were.

    Examples
    --------
    >>> seen = count_values(np.array([0, 1, 2, 2, 4], np.float32), 0.0, 4.0, bins=4)
    >>> seen.counts.tolist(), seen.zeros, seen.total
    ([0, 1, 2, 1], 1, 5)
    """

    low: float
    high: float
    counts: Counts
    zeros: int

    @property
    def total(self) -> int:
        """All values counted, zeros too."""
        return int(self.counts.sum()) + self.zeros

    @property
    def width(self) -> float:
        """Width of a bin, in real units."""
        return (self.high - self.low) / len(self.counts)

    @property
    def centers(self) -> NDArray[np.float64]:
        """The value in the middle of each bin; shape (bins,)."""
        return np.asarray(self.low + (np.arange(len(self.counts)) + 0.5) * self.width, np.float64)

    def merge(self, other: Histogram) -> Histogram:
        """Return the histogram of both sets of values.

        Raises
        ------
        ValueError
            If the bins differ.
        """
        if (self.low, self.high, len(self.counts)) != (other.low, other.high, len(other.counts)):
            raise ValueError(f"bins over {self.low:g}..{self.high:g} and {other.low:g}..{other.high:g} do not add up")
        return replace(self, counts=self.counts + other.counts, zeros=self.zeros + other.zeros)


def count_values(values: Values, low: float, high: float, *, bins: int = BINS) -> Histogram:
    """Count values in equal bins over ``[low, high]``; what lies outside counts in the outermost bin.

    Parameters
    ----------
    values : ndarray of float32
        Any shape, finite.
    low, high : float
        The range in real units. Where it is empty, or so narrow (below 1e-34) that float32 cannot tell its bins
        apart, all values count as zeros.
    bins : int

    Returns
    -------
    Histogram
    """
    flat = np.ascontiguousarray(values, np.float32).reshape(-1)
    counts = np.zeros(bins, np.int64)
    start, width = np.float32(low), np.float32((high - low) / bins)
    if width < _LEAST_WIDTH:
        return Histogram(low=low, high=high, counts=counts, zeros=int(flat.size))

    def place(chunk: Values, out: Values) -> int:
        np.subtract(chunk, start, out=out)
        np.divide(out, width, out=out)
        return int(np.count_nonzero(chunk == 0))

    zeros = _count(flat, counts, place)
    middle = np.minimum(np.maximum(-start / width, np.float32(0)), np.float32(bins - 1))
    counts[int(middle)] -= zeros
    return Histogram(low=low, high=high, counts=counts, zeros=zeros)


def count_magnitudes(values: Values, limit: float, *, bins: int = MAGNITUDE_BINS) -> Counts:
    """Count absolute values in equal bins over ``(0, limit]``, without the exact zeros.

    Parameters
    ----------
    values : ndarray of float32
        Any shape, finite.
    limit : float
        The largest magnitude, in real units; what is larger counts in the last bin.
    bins : int

    Returns
    -------
    ndarray of int64
        Shape (bins,).

    Notes
    -----
    Source: the original's KL calibration: bin ``min(int(|x| / interval), bins - 1)`` in float32 with
    ``interval = limit / bins``, for every ``|x| > 2.2e-16``.

    Examples
    --------
    >>> count_magnitudes(np.array([0, -1, 2, 2, -4], np.float32), 4.0, bins=4).tolist()
    [0, 1, 2, 1]
    """
    flat = np.ascontiguousarray(values, np.float32).reshape(-1)
    counts = np.zeros(bins, np.int64)
    interval = np.float32(limit / bins)
    if interval <= TINY:  # then what counts as zero is not all in the first bin, and has to go before
        flat = flat[np.abs(flat) > TINY]
    if not flat.size:
        return counts

    def place(chunk: Values, out: Values) -> int:
        np.abs(chunk, out=out)
        tiny = int(np.count_nonzero(out <= TINY))
        np.divide(out, interval, out=out)
        return tiny

    tiny = _count(flat, counts, place)
    counts[0] -= tiny
    return counts


def _count(flat: Values, counts: Counts, place: Callable[[Values, Values], int]) -> int:
    """Add to `counts` chunk by chunk; `place` turns values into (not yet whole) bin numbers and counts zeros."""
    size, bins, zeros = min(_CHUNK, flat.size), len(counts), 0
    positions, indices = np.empty(size, np.float32), np.empty(size, np.intp)
    for start in range(0, flat.size, _CHUNK):
        chunk = flat[start : start + _CHUNK]
        position, index = positions[: chunk.size], indices[: chunk.size]
        zeros += place(chunk, position)
        if position.max() >= bins + 1 or position.min() <= -1:  # looking is cheaper than clipping
            np.clip(position, 0, bins, out=position)
        np.copyto(index, position, casting="unsafe")  # cuts off the fraction
        found = np.bincount(index, minlength=bins + 1)
        counts += found[:bins]
        counts[-1] += found[bins]  # exactly the upper end
    return zeros
