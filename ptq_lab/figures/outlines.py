"""The histogram of one activation tensor, small enough to stand in every row of a table."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from math import log10

from ptq_lab.report.tables import ActivationRow
from ptq_lab.report.text import format_percent

WIDTH, HEIGHT = 256, 32


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlineView:
    """What the picture is made of, in its own units: x from 0 to `WIDTH`, y downwards from 0 to `HEIGHT`.

    Attributes
    ----------
    path : str
        The bars as one SVG path, one unit wide each, from x = 0.
    shift, stretch : float
        Where the path starts, and how wide a bar is.
    ends : tuple of float
        Where the range of the codes starts and ends.
    seen : tuple of float
        Where the smallest and the largest value of calibration are.
    words : str
        The same in words, with what was counted.
    """

    path: str
    shift: float
    stretch: float
    ends: tuple[float, float]
    seen: tuple[float, float]
    words: str


def view_outline(row: ActivationRow) -> OutlineView | None:
    """Place the histogram of a tensor and the range of its codes on one axis; ``None`` without a histogram.

    Examples
    --------
    >>> row = ActivationRow(tensor="x", node="", method="KL", low=0.0, high=2.0, observed_low=0.0, observed_high=4.0,
    ...                     clip_share=0.25, scale=2 / 255, zero_point=0, dtype="uint8", histogram=(9, 0, 9, 9),
    ...                     histogram_samples=8)
    >>> view = view_outline(row)
    >>> view.ends, view.seen, view.path
    ((0.0, 128.0), (0.0, 256.0), 'M0 32V0h1V32h1V0h2V32z')
    >>> view.words
    'codes from 0 to 2, seen 0 to 4, 25 % cut off; counted in the first 8 samples'
    """
    if not row.histogram or row.observed_low is None or row.observed_high is None:
        return None
    left, right = min(row.low, row.observed_low), max(row.high, row.observed_high)
    unit = WIDTH / ((right - left) or 1.0)
    low, high, seen_low, seen_high = (
        round((value - left) * unit, 1) for value in (row.low, row.high, row.observed_low, row.observed_high)
    )
    return OutlineView(
        path=_path(row.histogram),
        shift=seen_low,
        stretch=round((row.observed_high - row.observed_low) * unit / len(row.histogram), 4),
        ends=(low, high),
        seen=(seen_low, seen_high),
        words=_words(row),
    )


def _path(counts: tuple[int, ...]) -> str:
    """Return the bars as one closed line; heights are logarithms, since counts span decades."""
    top = log10(1 + max(counts)) or 1.0
    tops = [HEIGHT - round(HEIGHT * log10(1 + count) / top) for count in counts]
    steps = "".join(f"V{y}h{len(list(same))}" for y, same in groupby(tops))
    return f"M0 {HEIGHT}{steps}V{HEIGHT}z"


def _words(row: ActivationRow) -> str:
    seen = f"seen {row.observed_low:.4g} to {row.observed_high:.4g}"
    cut = "" if row.clip_share is None else f", {format_percent(row.clip_share)} cut off"
    samples = "sample" if row.histogram_samples == 1 else f"{row.histogram_samples} samples"
    return f"codes from {row.low:.4g} to {row.high:.4g}, {seen}{cut}; counted in the first {samples}"
