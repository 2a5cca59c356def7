"""How far values reach: the tally of the first sweep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Extent:
    """Extremes and numbers of values of one tensor.

    Attributes
    ----------
    low, high : float
        In real units; infinite (the wrong way round) while nothing was seen.
    count, rounds : int
        Values and samples seen.
    fewest, most : int
        Values in the smallest and the largest sample; empty ones left out.
    channel_low, channel_high : ndarray of float32 or None
        Per channel, shape (C,).
    """

    low: float
    high: float
    count: int
    rounds: int
    fewest: int
    most: int
    channel_low: NDArray[np.float32] | None = None
    channel_high: NDArray[np.float32] | None = None

    def merge(self, other: Extent) -> Extent:
        """Return the extent of both; channels are lost where their number differs."""
        filled = [part.fewest for part in (self, other) if part.fewest]
        return Extent(
            low=min(self.low, other.low),
            high=max(self.high, other.high),
            count=self.count + other.count,
            rounds=self.rounds + other.rounds,
            fewest=min(filled, default=0),
            most=max(self.most, other.most),
            channel_low=_per_channel(np.minimum, self.channel_low, other.channel_low),
            channel_high=_per_channel(np.maximum, self.channel_high, other.channel_high),
        )


def measure_extent(_index: int, outputs: Sequence[NDArray[Any]]) -> Extent:
    """Measure one sample; `outputs` are minimum, maximum (both may be per channel), sum and size of the tensor.

    Raises
    ------
    FloatingPointError
        If there was a NaN or infinity.
    """
    lows, highs, total, size = outputs
    count = int(size)
    if not count:
        return Extent(low=math.inf, high=-math.inf, count=0, rounds=1, fewest=0, most=0)
    low, high = float(lows.min()), float(highs.max())
    if math.isinf(low) or math.isinf(high):
        raise FloatingPointError("infinity")
    if math.isnan(float(total)) or math.isnan(low) or math.isnan(high):  # the extremes may have passed over it
        raise FloatingPointError("NaN")
    zero = np.float32(0)  # added to turn -0.0 into 0.0: which of them is seen first must not matter
    return Extent(
        low=low + 0.0,
        high=high + 0.0,
        count=count,
        rounds=1,
        fewest=count,
        most=count,
        channel_low=lows + zero if lows.ndim else None,
        channel_high=highs + zero if highs.ndim else None,
    )


def _per_channel(
    extreme: np.ufunc, ours: NDArray[np.float32] | None, theirs: NDArray[np.float32] | None
) -> NDArray[np.float32] | None:
    if ours is None or theirs is None or ours.shape != theirs.shape:
        return None
    return np.asarray(extreme(ours, theirs))
