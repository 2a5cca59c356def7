"""Where the range of one activation tensor was cut: its calibration histogram with the range on top."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from math import log10
from typing import Any, Protocol

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from ptq_lab.figures import style
from ptq_lab.report.text import format_percent, text_table

BARS = 128
TEXT_ROWS, TEXT_BAR = 24, 40


class Counts(Protocol):
    """Counts in equal bins, such as `ptq_lab.numerics.Histogram`."""

    @property
    def low(self) -> float: ...  # noqa: D102
    @property
    def high(self) -> float: ...  # noqa: D102
    @property
    def counts(self) -> NDArray[np.int64]: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One bar: the middle of its values, how many there are, and whether the range keeps them."""

    center: float
    count: int
    kept: bool


def draw_threshold(histogram: Counts, low: float, high: float, *, title: str = "") -> go.Figure:
    """Draw how often each value occurs, and what the range keeps of it.

    Parameters
    ----------
    histogram : Counts
        From calibration, in real units.
    low, high : float
        The range of the codes, in real units.
    title : str
        E.g. the name of the tensor.

    Returns
    -------
    plotly.graph_objects.Figure
        At most 128 bars on a logarithmic scale; lines stand at both ends of the range.

    Examples
    --------
    >>> from ptq_lab.numerics import count_values
    >>> seen = count_values(np.array([1, 1, 2, 9], np.float32), 0.0, 10.0, bins=10)
    >>> figure = draw_threshold(seen, 0.0, 5.0)
    >>> [(trace.name, sum(trace.y)) for trace in figure.data]
    [('kept', 3), ('cut off', 1)]
    """
    slots = fold_counts(histogram, low, high, BARS)
    width = (histogram.high - histogram.low) / max(1, len(slots))
    figure = style.new_figure(escape(heading(slots, title)), height=290)
    for name, kept, colour in (("kept", True, style.CODES), ("cut off", False, style.FLOAT)):
        shown = [slot for slot in slots if slot.kept is kept and slot.count]
        if shown:
            figure.add_trace(_bars(shown, name, colour, width))
    for end in (low, high):
        figure.add_vline(x=end, line={"color": style.INK, "width": 1.5, "dash": "dot"})
    figure.update_layout(
        bargap=0,
        xaxis={"title": {"text": "value"}, "showgrid": False},
        yaxis={"title": {"text": "values"}, "type": "log", "dtick": 1, "exponentformat": "power"},
    )
    return figure


def threshold_text(histogram: Counts, low: float, high: float, *, title: str = "") -> str:
    """Return :func:`draw_threshold` as bars of characters, on the same logarithmic scale."""
    slots = fold_counts(histogram, low, high, TEXT_ROWS)
    top = log10(1 + max((slot.count for slot in slots), default=0)) or 1.0
    rows = [
        (
            f"{slot.center:.4g}",
            str(slot.count),
            ("#" if slot.kept else "-") * round(TEXT_BAR * log10(1 + slot.count) / top),
        )
        for slot in slots
    ]
    table = text_table(("value", "count", ""), rows, right=("value", "count"))
    return f"{heading(slots, title)}\n{table}"


def fold_counts(histogram: Counts, low: float, high: float, bars: int) -> tuple[Slot, ...]:
    """Add neighbouring bins until at most `bars` of them are left.

    Examples
    --------
    >>> from ptq_lab.numerics import count_values
    >>> seen = count_values(np.array([1, 1, 2, 9], np.float32), 0.0, 10.0, bins=10)
    >>> [slot.count for slot in fold_counts(seen, 0.0, 5.0, 5)]
    [2, 1, 0, 0, 1]
    """
    size = -(-len(histogram.counts) // bars)
    width = (histogram.high - histogram.low) / len(histogram.counts)
    starts = range(0, len(histogram.counts), size)
    centers = [histogram.low + width * (start + min(start + size, len(histogram.counts))) / 2 for start in starts]
    counts = np.add.reduceat(histogram.counts, list(starts))
    return tuple(
        Slot(center=center, count=int(count), kept=low <= center <= high)
        for center, count in zip(centers, counts, strict=True)
    )


def heading(slots: tuple[Slot, ...], title: str) -> str:
    """Return the title of a tensor's figure: what it is, and which share of it is cut off."""
    total = sum(slot.count for slot in slots)
    cut = sum(slot.count for slot in slots if not slot.kept)
    said = f"{format_percent(cut / total if total else 0.0)} of the non-zero values cut off"
    return f"{title}: {said}" if title else said


def _bars(slots: list[Slot], name: str, colour: str, width: float) -> go.Bar:
    shared: dict[str, Any] = {"marker": {"color": colour}, "width": width, "name": name}
    return go.Bar(
        x=[slot.center for slot in slots],
        y=[slot.count for slot in slots],
        hovertemplate="%{y} values around %{x:.4g}<extra></extra>",
        **shared,
    )
