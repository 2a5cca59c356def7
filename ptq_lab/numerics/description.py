"""What is said about the values of a tensor: extremes, quartiles, mean, variance, share of zeros.

Sorting a tensor to find three of its values costs ten times what running the layer that made it costs. Here the bits
of a float32 number serve as its rank: counting the upper halves finds the few values among which a quartile lies, and
counting their lower halves finds the quartile itself, exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HALF = 1 << 16
_FEW = 1 << 14  # values that are sorted faster than counted
_ROW = 1024  # products added up in float32 before the sum goes on in float64
_BLOCK = 1 << 16  # elements at a time, so that they stay in the cache
_USUAL = (1e-15, 1e15)  # largest magnitudes whose squares float32 holds
_UPPER = 1 if np.little_endian else 0  # where the upper half of a float32 number is


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """The values of one tensor in nine numbers; all but `size` are NaN if it has none.

    Attributes
    ----------
    size : int
        Number of elements n.
    low, q1, median, q3, high : float
        Elements 0, floor(n/4), floor(n/2), floor(3n/4) and n - 1 of the sorted values: no interpolation.
    mean, variance : float
        Of the population.
    sparsity : float
        Share of exact zeros.
    """

    size: int
    low: float = math.nan
    q1: float = math.nan
    median: float = math.nan
    q3: float = math.nan
    high: float = math.nan
    mean: float = math.nan
    variance: float = math.nan
    sparsity: float = math.nan

    @property
    def power(self) -> float:
        """Sum of the squared values."""
        return self.size * (self.variance + self.mean * self.mean)


def describe(values: NDArray[Any], *, every: int = 1) -> Description:
    """Describe the values of a tensor.

    Parameters
    ----------
    values : ndarray of a float type, any shape
        Looked at as float32.
    every : int
        Take the quartiles from every so many-th value; everything else is exact.

    Examples
    --------
    >>> found = describe(np.array([[4.0, 0.0], [2.0, 6.0]], np.float32))
    >>> found.q1, found.median, found.q3, found.mean, found.variance, found.sparsity
    (2.0, 4.0, 6.0, 3.0, 5.0, 0.25)
    """
    x = np.ascontiguousarray(values, np.float32).reshape(-1)
    if not x.size:
        return Description(size=0)
    low, high = float(x.min()), float(x.max())
    mean, variance = _moments(x, low, high)
    q1, median, q3 = (math.nan,) * 3 if math.isnan(low) else quartiles(x[::every])
    sparsity = (x.size - int(np.count_nonzero(x))) / x.size
    return Description(
        size=x.size, low=low, q1=q1, median=median, q3=q3, high=high, mean=mean, variance=variance, sparsity=sparsity
    )


def describe_codes(codes: NDArray[np.uint8 | np.int8], scale: float, zero_point: int) -> Description:
    """Describe the values that 8-bit codes stand for; counting the codes says everything.

    Examples
    --------
    >>> describe_codes(np.array([3, 3, 5], np.uint8), 0.5, 3).high
    1.0
    """
    size = int(codes.size)
    if not size:
        return Description(size=0)
    counts = np.bincount(codes.reshape(-1).view(np.uint8), minlength=256)
    meant = code_values(codes.dtype, scale, zero_point)
    order = np.argsort(meant, kind="stable")
    counts, meant = counts[order], meant[order].astype(np.float64)
    ends = np.cumsum(counts)
    low, q1, median, q3, high = (
        float(meant[np.searchsorted(ends, rank, side="right")])
        for rank in (0, size // 4, size // 2, 3 * size // 4, size - 1)
    )
    mean = float((counts * meant).sum()) / size
    variance = float((counts * (meant - mean) ** 2).sum()) / size
    zeros = int(counts[meant == 0].sum())
    return Description(
        size=size, low=low, q1=q1, median=median, q3=q3, high=high, mean=mean, variance=variance, sparsity=zeros / size
    )


def code_values(dtype: np.dtype[Any], scale: float, zero_point: int) -> NDArray[np.float32]:
    """Return what each byte stands for as a code of type uint8 or int8, shape (256,); equal to DequantizeLinear's."""
    codes = np.arange(256, dtype=np.uint8).view(dtype).astype(np.int32)
    return (codes - zero_point).astype(np.float32) * np.float32(scale)


def quartiles(values: NDArray[np.float32]) -> tuple[float, float, float]:
    """Return elements floor(n/4), floor(n/2) and floor(3n/4) of the sorted values; there may be no NaN.

    Examples
    --------
    >>> quartiles(np.array([5, 1, 4, 2, 3], np.float32))
    (2.0, 3.0, 4.0)
    """
    size = values.size
    ranks = (size // 4, size // 2, 3 * size // 4)
    if size <= _FEW:
        ordered = np.sort(values)
        q1, median, q3 = (float(ordered[rank]) + 0.0 for rank in ranks)
        return q1, median, q3
    zeros = size - int(np.count_nonzero(values))
    if zeros * 8 < size:
        q1, median, q3 = _select(values, ranks)
        return q1, median, q3
    others = values[values != 0]  # many equal values are slow to count
    below = int(np.count_nonzero(others < 0))
    wanted = [rank if rank < below else rank - zeros for rank in ranks if not below <= rank < below + zeros]
    found = iter(_select(others, wanted) if wanted else ())
    q1, median, q3 = (0.0 if below <= rank < below + zeros else next(found) for rank in ranks)
    return q1, median, q3


def _select(values: NDArray[np.float32], ranks: Sequence[int]) -> list[float]:
    """Return elements of the sorted values."""
    words = np.ascontiguousarray(values).view(np.uint16)
    upper, lower = words[_UPPER::2], words[1 - _UPPER :: 2]
    counts = np.bincount(upper, minlength=_HALF)
    below_zero = int(counts[_HALF // 2 :].sum())
    found: dict[int, NDArray[np.intp]] = {}
    result = []
    for rank in ranks:
        negative = rank < below_zero
        signed = counts[_HALF // 2 :][::-1] if negative else counts[: _HALF // 2]
        place, rest = _place(signed, rank if negative else rank - below_zero)
        half = _HALF - 1 - place if negative else place
        if half not in found:
            found[half] = np.bincount(lower[upper == half], minlength=_HALF)
        place, _ = _place(found[half][::-1] if negative else found[half], rest)
        bits = (half << 16) | (_HALF - 1 - place if negative else place)
        result.append(float(np.array(bits, np.uint32).view(np.float32)) + 0.0)  # + 0.0: no minus zero
    return result


def _place(counts: NDArray[np.intp], rank: int) -> tuple[int, int]:
    """Return which bin holds the element of a rank, and its rank in there; bins are added up 256 at a time first."""
    groups = np.cumsum(counts.reshape(-1, 256).sum(axis=1))
    group = int(np.searchsorted(groups, rank, side="right"))
    rank -= int(groups[group - 1]) if group else 0
    ends = np.cumsum(counts[256 * group : 256 * (group + 1)])
    place = int(np.searchsorted(ends, rank, side="right"))
    return 256 * group + place, rank - (int(ends[place - 1]) if place else 0)


def product_sum(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Return the sum of the products of two float32 vectors to about 1e-7, at the speed of memory.

    Examples
    --------
    >>> product_sum(np.array([1, 2], np.float32), np.array([3, 4], np.float32))
    11.0
    """
    whole = a.size // _ROW * _ROW
    with np.errstate(over="ignore", invalid="ignore"):
        rows = np.vecdot(a[:whole].reshape(-1, _ROW), b[:whole].reshape(-1, _ROW))
    rest = np.einsum("i,i->", a[whole:].astype(np.float64), b[whole:].astype(np.float64))
    total = float(rows.sum(dtype=np.float64)) + float(rest)
    if math.isfinite(total):
        return total
    return float(np.einsum("i,i->", a, b, dtype=np.float64))


def _moments(x: NDArray[np.float32], low: float, high: float) -> tuple[float, float]:
    """Return mean and variance; around a rounded mean first, so that nothing cancels."""
    if not (math.isfinite(low) and math.isfinite(high)):
        with np.errstate(invalid="ignore"):
            return float(x.sum(dtype=np.float64)) / x.size, math.nan
    mean = float(x.sum(dtype=np.float64)) / x.size
    reach = max(abs(low), abs(high))
    if not _USUAL[0] < reach < _USUAL[1]:
        return mean, float(np.square(x.astype(np.float64) - mean).sum()) / x.size
    around = np.float32(mean)
    total = 0.0
    for start in range(0, x.size, _BLOCK):
        apart = x[start : start + _BLOCK] - around
        total += product_sum(apart, apart)
    return mean, max(total / x.size - (mean - float(around)) ** 2, 0.0)
