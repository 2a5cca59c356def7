"""How values are spread within their extent: the tally of the second sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq_lab.calibration.trimming import Pools, Trimmed, trim_round
from ptq_lab.numerics import Histogram, count_magnitudes, count_values


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Distribution:
    """Counts of one tensor's values; what was not asked for is ``None``.

    Attributes
    ----------
    histogram : Histogram or None
    absolute : ndarray of int64 or None
        Counts of magnitudes; shape (2048,).
    trimmed : Trimmed or None
        Lows and highs without outliers.
    """

    histogram: Histogram | None
    absolute: NDArray[np.int64] | None
    trimmed: Trimmed | None

    def merge(self, other: Distribution) -> Distribution:
        """Return the distribution of both; both must have been measured with the same `Spread`."""
        histogram, absolute, trimmed = self.histogram, self.absolute, self.trimmed
        if histogram is not None and other.histogram is not None:
            histogram = histogram.merge(other.histogram)
        if absolute is not None and other.absolute is not None:
            absolute = absolute + other.absolute
        if trimmed is not None and other.trimmed is not None:
            trimmed = trimmed.merge(other.trimmed)
        return Distribution(histogram=histogram, absolute=absolute, trimmed=trimmed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Measures the distribution of one tensor.

    Attributes
    ----------
    low, high : float
        Its extent, in real units.
    wants : frozenset of str
        Values of `ptq_lab.numerics.NEEDS`.
    pools : Pools
        Which rounds are trimmed together.
    """

    low: float
    high: float
    wants: frozenset[str]
    pools: Pools

    def __call__(self, index: int, outputs: Sequence[NDArray[Any]]) -> Distribution:
        """Measure one sample."""
        (values,) = outputs
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        return Distribution(
            histogram=count_values(values, low, high) if "histogram" in self.wants else None,
            absolute=count_magnitudes(values, max(-low, high)) if "absolute" in self.wants else None,
            trimmed=trim_round(self.pools, index, values) if "round_low" in self.wants else None,
        )
