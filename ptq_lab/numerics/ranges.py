"""From what an activation was seen to hold to the range it is quantized over: one table of methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq_lab.numerics.histogram import Histogram
from ptq_lab.numerics.kl import kl_threshold
from ptq_lab.numerics.shrink import Range, least_error_range, percentile_range

PERCENTILE = 0.99999


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TensorStatistics:
    """What the samples showed of one activation.

    Attributes
    ----------
    low, high : float
        Smallest and largest value of all rounds (samples), in real units.
    count : int
        Values seen.
    rounds : int
        Samples seen.
    round_low, round_high : float or None
        Means over rounds of each round's own low and high without its outliers, for ``REMOVAL_OUTLIER``.
    histogram : Histogram or None
        Signed values in equal bins over the range, zero included, for ``MSE``, ``L2_4`` and ``PERCENTILE``.
    absolute : ndarray of int64 or None
        Magnitudes in 2048 equal bins over ``(0, limit]`` without exact zeros, for ``KL``.
    channel_low, channel_high : ndarray of float32 or None
        The same as `low` and `high` for every index of axis 1; shape (C,). ``None`` unless asked for, for tensors
        of rank below 2, and where axis 1 changes its length from sample to sample.

    Examples
    --------
    >>> seen = TensorStatistics(low=-1.0, high=3.0, count=100, rounds=2)
    >>> seen.limit
    3.0
    """

    low: float
    high: float
    count: int
    rounds: int
    round_low: float | None = None
    round_high: float | None = None
    histogram: Histogram | None = None
    absolute: NDArray[np.int64] | None = None
    channel_low: NDArray[np.float32] | None = None
    channel_high: NDArray[np.float32] | None = None

    @property
    def limit(self) -> float:
        """The largest magnitude."""
        return max(abs(self.low), abs(self.high))


def choose_range(
    statistics: TensorStatistics, method: str, *, bits: int = 8, never_negative: bool
) -> tuple[float, float]:
    """Choose the range over which a tensor is quantized.

    Parameters
    ----------
    statistics : TensorStatistics
        With what `method` needs; see `NEEDS`.
    method : str
        A key of `METHODS`.
    bits : int
        Width of the codes, 2..8.
    never_negative : bool
        The tensor is known to hold nothing below zero, e.g. behind a ReLU: the range then starts at exactly 0, so
        that the zero point is the lowest code and the ReLU becomes part of the operator in front of it.

    Returns
    -------
    low, high : float
        In real units; ``low <= high``.

    Raises
    ------
    ValueError
        If the method or width is unknown, the statistics lack what the method needs, or hold negative values
        although `never_negative` says otherwise.

    Examples
    --------
    >>> choose_range(TensorStatistics(low=-1.0, high=3.0, count=100, rounds=2), "MAX_MIN", never_negative=False)
    (-1.0, 3.0)
    """
    if method not in METHODS:
        raise ValueError(f"method: there is no {method!r}; allowed: {', '.join(METHODS)}")
    if not 2 <= bits <= 8:
        raise ValueError(f"bits: {bits} is outside 2..8")
    if never_negative and statistics.low < 0:
        raise ValueError(f"never_negative: the tensor was seen to hold {statistics.low:g}")
    low, high = METHODS[method](statistics, bits=bits, never_negative=never_negative)
    return (0.0, max(high, 0.0)) if never_negative else (low, high)


def _max_min(statistics: TensorStatistics, **_: Any) -> Range:
    return statistics.low, statistics.high


def _removal_outlier(statistics: TensorStatistics, **_: Any) -> Range:
    return _needed(statistics, "round_low", "REMOVAL_OUTLIER"), _needed(statistics, "round_high", "REMOVAL_OUTLIER")


def _kl(statistics: TensorStatistics, *, bits: int, never_negative: bool) -> Range:
    threshold = kl_threshold(_needed(statistics, "absolute", "KL"), statistics.limit, bits=bits)
    return (0.0 if never_negative else -threshold), threshold


def _mse(statistics: TensorStatistics, *, bits: int, **_: Any) -> Range:
    return least_error_range(_needed(statistics, "histogram", "MSE"), bits=bits)


def _l2_4(statistics: TensorStatistics, *, bits: int, **_: Any) -> Range:
    return least_error_range(_needed(statistics, "histogram", "L2_4"), bits=bits, power=2.4)


def _percentile(statistics: TensorStatistics, **_: Any) -> Range:
    return percentile_range(_needed(statistics, "histogram", "PERCENTILE"), PERCENTILE)


def _needed(statistics: TensorStatistics, name: str, method: str) -> Any:
    value = getattr(statistics, name)
    if value is None:
        raise ValueError(f"method: {method} needs {name}, which was not collected; collect with methods=[{method!r}]")
    return value


METHODS: Mapping[str, Callable[..., Range]] = {
    "MAX_MIN": _max_min,
    "KL": _kl,
    "REMOVAL_OUTLIER": _removal_outlier,
    "MSE": _mse,
    "L2_4": _l2_4,
    "PERCENTILE": _percentile,
}
"""Method to ``(statistics, bits=, never_negative=) -> (low, high)``; add one here and in `NEEDS`."""

NEEDS: Mapping[str, str] = {
    "MAX_MIN": "",
    "KL": "absolute",
    "REMOVAL_OUTLIER": "round_low",
    "MSE": "histogram",
    "L2_4": "histogram",
    "PERCENTILE": "histogram",
}
"""Method to the attribute of `TensorStatistics` that it reads besides the extremes; for it the samples run twice."""
