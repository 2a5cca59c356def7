"""Ranges read from a histogram: the one with the smallest rounding and clipping error, and percentiles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptq_lab.numerics.histogram import Histogram

Range = tuple[float, float]

FACTORS = np.linspace(1.0, 0.1, 91)
"""How far an end of the range is pulled towards zero; the whole range comes first and wins a draw."""


def least_error_range(histogram: Histogram, *, bits: int = 8, power: float = 2.0) -> Range:
    """Return the range whose grid has the smallest sum of ``|error|**power`` over everything counted.

    Both ends are pulled in together first, then the upper and the lower one are chosen again on their own,
    twice.

    Parameters
    ----------
    histogram : Histogram
        Its range must contain zero.
    bits : int
    power : float
        2 is the mean squared error; more punishes clipping harder.

    Returns
    -------
    low, high : float
        Inside the histogram's range, in real units.

    Notes
    -----
    All values of a bin are taken to lie in its middle, and the variance of a bin (width² / 12) is added to the
    squared error, which makes the estimate right also where a step is only a few bins wide. A power of 2.4 is that
    of the L2.4 norm many int8 calibrators use.

    Examples
    --------
    >>> counts = np.zeros(4096, np.int64)
    >>> counts[:512] = 100_000
    >>> counts[-1] = 1  # clipping one value costs less than steps eight times as wide
    >>> low, high = least_error_range(Histogram(low=0.0, high=1.0, counts=counts, zeros=0))
    >>> low, 0.1 < high < 0.3
    (0.0, True)
    """
    low, high = histogram.low, histogram.high
    seen = np.flatnonzero(histogram.counts)
    if not seen.size:
        return low, high
    values, weights = histogram.centers[seen], histogram.counts[seen].astype(np.float64)
    spread = histogram.width**2 / 12.0

    def best(ranges: list[Range]) -> Range:
        errors = [_error(values, weights, spread, ends, bits, power) for ends in ranges]
        return ranges[int(np.argmin(errors))]

    lows, highs = (low * FACTORS).tolist(), (high * FACTORS).tolist()
    low, high = best(list(zip(lows, highs, strict=True)))
    for _ in range(2 if low < 0.0 < high else 0):  # a second time, because either end depends on the other
        low, high = best([(low, end) for end in highs])  # of the whole range: an end may also go back
        low, high = best([(end, high) for end in lows])
    return low, high


def percentile_range(histogram: Histogram, fraction: float) -> Range:
    """Return the range that leaves out at most ``1 - fraction`` of all values at either end.

    It ends on borders of bins, so it may keep a little more.

    Parameters
    ----------
    histogram : Histogram
        Its range must contain zero.
    fraction : float
        Between 0.5 and 1.

    Returns
    -------
    low, high : float
        Always containing zero, in real units.

    Examples
    --------
    >>> counts = np.array([1, 0, 499, 499, 0, 1])
    >>> percentile_range(Histogram(low=-3.0, high=3.0, counts=counts, zeros=0), 0.99)
    (-1.0, 1.0)
    """
    allowed = (1.0 - fraction) * histogram.total
    above = np.cumsum(histogram.counts[::-1])  # counts in the last 1, 2, ... bins
    below = np.cumsum(histogram.counts)
    high = histogram.high - int(np.count_nonzero(above <= allowed)) * histogram.width
    low = histogram.low + int(np.count_nonzero(below <= allowed)) * histogram.width
    return min(low, 0.0), max(high, 0.0)


def _error(
    values: NDArray[np.float64], weights: NDArray[np.float64], spread: float, ends: Range, bits: int, power: float
) -> float:
    low, high = ends
    levels = (1 << bits) - 1
    scale = (high - low) / levels
    lowest = np.rint(low / scale)  # zero is on the grid
    codes = np.clip(np.rint(values / scale), lowest, lowest + levels)
    squared = (values - codes * scale) ** 2 + spread
    return float(weights @ (squared if power == 2.0 else squared ** (power / 2.0)))
