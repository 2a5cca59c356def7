"""One tensor under the glass: how its values are spread, and what each threshold would cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ptq_lab.numerics import Histogram, TensorStatistics, choose_range, count_magnitudes, count_values, sqnr_db
from ptq_lab.numerics.cutting import cut_errors
from ptq_lab.numerics.similarity import power_of
from ptq_lab.report.formats import format_percent

THRESHOLDS = 100
"""Candidates from one hundredth of the largest magnitude to all of it."""

BARS = 96
GROUPS = 64
"""Bars for channels; with more channels, neighbours share one."""

METHODS = ("MAX_MIN", "KL", "MSE", "PERCENTILE")
"""Ways to choose a range that the inspector compares; they need no more than a histogram."""

Ends = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A range, and what it costs as a share of the signal's power.

    Attributes
    ----------
    name : str
        Who chose it.
    low, high : float
        In real units.
    clipping, rounding : float
        Squared error of values outside and inside, over the sum of all squares.
    """

    name: str
    low: float
    high: float
    clipping: float
    rounding: float

    @property
    def total(self) -> float:
        """Both errors."""
        return self.clipping + self.rounding

    @property
    def sqnr_db(self) -> float:
        """Signal to quantization noise."""
        return sqnr_db(1.0, self.total)

    @property
    def threshold(self) -> float:
        """The larger end, as a magnitude."""
        return max(-self.low, self.high)

    def cells(self) -> tuple[str, str, str, str, str]:
        """Return the words of a row, to go below `HEADERS`."""
        ends = f"{self.low:.4g} to {self.high:.4g}"
        return self.name, ends, format_percent(self.clipping), format_percent(self.rounding), f"{self.sqnr_db:.1f}"


HEADERS = ("range by", "from, to", "clipping", "rounding", "SQNR dB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """The ranges of channels.

    Attributes
    ----------
    count : int
    groups : tuple of (int, int, float, float)
        First and last channel of a bar, and the smallest and largest value of them.
    widest : int
        The channel with the largest magnitude: it sets the range of a grid for all.
    reach, median_reach : float
        Its magnitude, and that of the channel in the middle.
    """

    count: int
    groups: tuple[tuple[int, int, float, float], ...]
    widest: int
    reach: float
    median_reach: float

    def sentence(self, bits: int) -> str:
        """Say which channel sets the range, and what that does to the others."""
        used = max(1, round(self.median_reach / self.reach * (1 << bits))) if self.reach else 1
        return (
            f"Channel {self.widest} of {self.count} reaches {self.reach:.3g} and sets the range. Half of the channels "
            f"stay below {self.median_reach:.3g}: on one grid for all they use about {used} of {1 << bits} codes."
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Look:
    """What the inspector shows of one tensor.

    Attributes
    ----------
    tensor, kind, where : str
        Its name; ``"weight"`` or ``"activation"``; the node.
    bits : int
    channel : int or None
        The one that is looked at; ``None``: all.
    counts : tuple of int
        Of `BARS` equal bins over ``low..high``, exact zeros left out.
    low, high : float
        Smallest and largest value, zero included.
    thresholds : tuple of Cut
        From a hundredth of the largest magnitude to all of it.
    chosen : Cut
        The range in use.
    rivals : tuple of Cut
        What other methods would choose.
    spans : Spans or None
        Where there are several channels.
    remark : str
        What the reader should know about the values.
    """

    tensor: str
    kind: str
    where: str
    bits: int
    channel: int | None
    counts: tuple[int, ...]
    histogram: Histogram
    thresholds: tuple[Cut, ...]
    chosen: Cut
    rivals: tuple[Cut, ...]
    spans: Spans | None
    remark: str

    @property
    def best(self) -> Cut:
        """The threshold with the smallest sum of both errors."""
        return min(self.thresholds, key=lambda cut: cut.total)

    @property
    def headline(self) -> str:
        """What is shown."""
        part = "" if self.channel is None else f", channel {self.channel}"
        return f"{self.where} ({self.kind}{part}) at {self.bits} bits"

    def sentences(self) -> tuple[str, ...]:
        """Return the lesson in words."""
        best, chosen = self.best, self.chosen
        gain = best.sqnr_db - chosen.sqnr_db
        said = "nothing is gained" if gain < 0.05 else f"{gain:.1f} dB are gained"
        return (
            f"The range in use ({chosen.name}) has {chosen.sqnr_db:.1f} dB. The best threshold, {best.threshold:.4g}, "
            f"has {best.sqnr_db:.1f} dB: {said}.",
            *((self.spans.sentence(self.bits),) if self.spans is not None and self.channel is None else ()),
            *((self.remark,) if self.remark else ()),
        )

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """Return rows of words: the range in use, the best threshold, the others; to go below `HEADERS`."""
        best = self.best.cells()
        return [self.chosen.cells(), ("best threshold", *best[1:]), *(cut.cells() for cut in self.rivals)]


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """What is known of a tensor's values at any width.

    Attributes
    ----------
    histogram : Histogram
    magnitudes : ndarray of int64
        Counts of absolute values, for the KL method.
    power : float
        Sum of squares.
    size, rounds : int
        Values, and the samples they are from.
    spans : Spans or None
    """

    histogram: Histogram
    magnitudes: NDArray[np.int64]
    power: float
    size: int
    rounds: int
    spans: Spans | None

    @classmethod
    def over(cls, values: NDArray[np.float32], *, rounds: int = 1, spans: Spans | None = None) -> Counted:
        """Count values over their range, zero included."""
        low, high = min(0.0, float(values.min(initial=0.0))), max(0.0, float(values.max(initial=0.0)))
        return cls(
            histogram=count_values(values, low, high),
            magnitudes=count_magnitudes(values, max(-low, high)),
            power=power_of(values),
            size=values.size,
            rounds=rounds,
            spans=spans,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Glass:
    """What cuts are judged on.

    Attributes
    ----------
    counted : Counted
    bits : int
    """

    counted: Counted
    bits: int

    @property
    def histogram(self) -> Histogram:
        """The counts."""
        return self.counted.histogram

    def method_ranges(self) -> dict[str, Ends]:
        """Return the range that each of `METHODS` chooses, zero always within."""
        seen = self.counted
        low, high = seen.histogram.low, seen.histogram.high
        statistics = TensorStatistics(
            low=low,
            high=high,
            count=seen.size,
            rounds=seen.rounds,
            histogram=seen.histogram,
            absolute=seen.magnitudes,
        )
        chosen = {
            method: choose_range(statistics, method, bits=self.bits, never_negative=low == 0.0) for method in METHODS
        }
        return {method: (min(0.0, ends[0]), max(0.0, ends[1])) for method, ends in chosen.items()}

    def cut(self, name: str, ends: Ends) -> Cut:
        """Judge one range."""
        return self._cuts([name], [ends])[0]

    def cuts(self, ranges: Mapping[str, Ends]) -> tuple[Cut, ...]:
        """Judge several ranges by name."""
        return self._cuts(list(ranges), list(ranges.values()))

    def thresholds(self) -> tuple[Cut, ...]:
        """Judge every threshold; an end that lies nearer to zero stays where it is."""
        low, high = self.histogram.low, self.histogram.high
        limits = max(-low, high) * np.arange(1, THRESHOLDS + 1) / THRESHOLDS
        ends = [(max(low, -limit), min(high, limit)) for limit in limits.tolist()]
        return self._cuts(["threshold"] * THRESHOLDS, ends)

    def bars(self) -> tuple[int, ...]:
        """Fold the counts into `BARS` bins."""
        edges = np.linspace(0, len(self.histogram.counts), BARS + 1).astype(int)[:-1]
        return tuple(np.add.reduceat(self.histogram.counts, edges).tolist())

    def _cuts(self, names: list[str], ends: list[Ends]) -> tuple[Cut, ...]:
        lows, highs = (np.array(side, np.float64) for side in zip(*ends, strict=True))
        highs = np.where(lows < highs, highs, lows + 1e-10)  # a constant zero still has a grid
        clipping, rounding = cut_errors(self.histogram, lows, highs, bits=self.bits)
        signal = self.counted.power or 1.0
        return tuple(
            Cut(name=name, low=low, high=high, clipping=clip / signal, rounding=rest / signal)
            for name, (low, high), clip, rest in zip(names, ends, clipping.tolist(), rounding.tolist(), strict=True)
        )


def spans_of(rows: NDArray[np.float32]) -> Spans | None:
    """Return the ranges of channels, ``None`` for a single one.

    Parameters
    ----------
    rows : ndarray of float32, shape (channels, n)

    Examples
    --------
    >>> spans = spans_of(np.array([[0.1, -0.1], [2.0, 0.0], [0.2, 0.1]], np.float32))
    >>> spans.widest, round(spans.median_reach, 3), len(spans.groups)
    (1, 0.2, 3)
    """
    if len(rows) < 2:
        return None
    low, high = rows.min(axis=1), rows.max(axis=1)
    reach = np.maximum(-low, high)
    edges = np.unique(np.linspace(0, len(rows), min(GROUPS, len(rows)) + 1).astype(int)).tolist()
    groups = [
        (first, last - 1, float(low[first:last].min()), float(high[first:last].max()))
        for first, last in pairwise(edges)
    ]
    return Spans(
        count=len(rows),
        groups=tuple(groups),
        widest=int(reach.argmax()),
        reach=float(reach.max()),
        median_reach=float(np.median(reach)),
    )
