"""What cutting off a distribution costs, and what it saves: clipping against rounding, from a histogram."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptq_lab.numerics.histogram import Histogram


def cut_errors(
    histogram: Histogram, low: ArrayLike, high: ArrayLike, *, bits: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the squared error of values outside and inside each of several ranges.

    Parameters
    ----------
    histogram : Histogram
        Its range must contain zero.
    low, high : array_like of float, shape (ranges,)
        Ends of the ranges in real units; ``low <= 0 <= high`` and ``low < high``.
    bits : int
        Width of a code, 1..16; the codes cover a range with ``2**bits - 1`` steps.

    Returns
    -------
    clipping, rounding : ndarray of float64, shape (ranges,)
        Sums over all values whose nearest code is cut off, and over all others, in squared real units. Their sum is
        what :func:`~ptq_lab.numerics.shrink.least_error_range` minimises.

    Raises
    ------
    ValueError
        If a range is empty or leaves out zero.

    Notes
    -----
    All values of a bin are taken to lie in its middle, with the variance of a bin (width² / 12) added.

    Examples
    --------
    >>> counts = np.array([0, 0, 4, 0, 1])
    >>> seen = Histogram(low=-5.0, high=5.0, counts=counts, zeros=0)
    >>> clipping, rounding = cut_errors(seen, [-5.0, -1.0], [5.0, 1.0], bits=8)
    >>> clipping.round(2).tolist(), rounding.round(2).tolist()
    ([0.0, 9.36], [1.67, 1.33])
    """
    lows, highs = np.atleast_1d(np.asarray(low, np.float64)), np.atleast_1d(np.asarray(high, np.float64))
    if not ((lows <= 0.0) & (highs >= 0.0) & (lows < highs)).all():
        raise ValueError("every range must hold zero and more than one value")
    seen = np.flatnonzero(histogram.counts)
    values, weights = histogram.centers[seen], histogram.counts[seen].astype(np.float64)
    steps = (1 << bits) - 1
    scale = (highs - lows) / steps
    lowest = np.rint(lows / scale)[:, None]  # zero is on the grid
    nearest = np.rint(values / scale[:, None])  # (ranges, bins)
    codes = np.clip(nearest, lowest, lowest + steps)
    squared = ((values - codes * scale[:, None]) ** 2 + histogram.width**2 / 12.0) * weights
    is_cut = nearest != codes
    return np.where(is_cut, squared, 0.0).sum(axis=1), np.where(is_cut, 0.0, squared).sum(axis=1)
