"""How the values of each activation are spread, and what the range of its codes cuts off."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import log10

import plotly.graph_objects as go

from ptq_lab.figures import style
from ptq_lab.figures.panels import TITLE_WIDTH, Curve, Panel, draw_panels, still_panels
from ptq_lab.figures.tables import render
from ptq_lab.report.harm import worst_activations
from ptq_lab.report.names import telling_names
from ptq_lab.report.tables import ActivationRow, Report
from ptq_lab.report.text import format_percent, text_table

DRAWN = 6
TITLE = "Values of activations, those first of which most is cut off"
_KEPT, _CUT = "#", "-"
_SLOTS = 40  # characters


def draw_activations(report: Report) -> go.Figure:
    """Draw how often each value occurs in six activations, and what lies outside the range of their codes.

    Parameters
    ----------
    report : Report
        The tables of a finished run; activations that were not counted are left out.

    Returns
    -------
    plotly.graph_objects.Figure
        Heights are logarithms of counts; dashed lines stand at both ends of the range.

    Examples
    --------
    >>> from ptq_lab import demo, quantize
    >>> digits = demo.load("digits_cnn")
    >>> config = {"common_quant_param": {"quant_type": "FULL_QUANT"}}
    >>> report = quantize(digits.model_path, config, samples=digits.calib_path).report
    >>> draw_activations(report).data[0].name
    'kept'
    """
    return draw_panels(escape(TITLE), activation_panels(worst_activations(report))[:DRAWN], values=False)


def activations_html(report: Report, *, limit: int = DRAWN) -> str:
    """Return :func:`draw_activations` as still pictures (SVG)."""
    panels = activation_panels(worst_activations(report))[:limit]
    return render("panels", title=TITLE, panels=still_panels(panels), legend=LEGEND)


def activations_text(report: Report) -> str:
    """Return :func:`draw_activations` as rows of characters: ``#`` is inside the range, ``-`` is cut off."""
    every, rows = worst_activations(report), []
    for row, name in list(zip(every, telling_names([row.tensor for row in every]), strict=True))[:DRAWN]:
        low, high = _ends(row)
        rows.append((name, f"{low:.3g}", _marks(row), f"{high:.3g}", format_percent(row.clip_share)))
    return text_table(("activation", "low", "values", "high", "cut off"), rows, right=("low", "cut off"))


def activation_panels(rows: Sequence[ActivationRow]) -> tuple[Panel, ...]:
    """Return a panel for every activation that has a histogram."""
    counted = [row for row in rows if row.histogram]
    titles = telling_names([row.tensor for row in counted], TITLE_WIDTH)
    return tuple(_panel(row, title) for row, title in zip(counted, titles, strict=True))


LEGEND = ((style.CODES, "kept"), (style.FLOAT, "cut off"), (style.INK, "range of the codes"))


def _panel(row: ActivationRow, title: str) -> Panel:
    low, high = _ends(row)
    kept, cut = _heights(row, inside=True), _heights(row, inside=False)
    words = f"{row.method} {row.low:.3g} to {row.high:.3g}, {format_percent(row.clip_share)} cut off"
    curves = [Curve(name="kept", colour=style.CODES, tops=kept, words=_words(row))]
    if any(cut):
        curves.append(Curve(name="cut off", colour=style.FLOAT, tops=cut))
    ends = tuple(end for end in (row.low, row.high) if low <= end <= high)
    return Panel(
        title=title,
        name=row.tensor,
        words=words,
        low=low,
        high=high,
        left=f"{low:.3g}",
        right=f"{high:.3g}",
        ends=ends,
        curves=tuple(curves),
    )


def _ends(row: ActivationRow) -> tuple[float, float]:
    low, high = row.observed_low or 0.0, row.observed_high or 0.0
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _centers(row: ActivationRow) -> list[float]:
    low, high = _ends(row)
    width = (high - low) / len(row.histogram)
    return [low + (index + 0.5) * width for index in range(len(row.histogram))]


def _heights(row: ActivationRow, *, inside: bool) -> tuple[float, ...]:
    return tuple(
        round(log10(1 + count), 2) if (row.low <= center <= row.high) is inside else 0.0
        for count, center in zip(row.histogram, _centers(row), strict=True)
    )


def _words(row: ActivationRow) -> tuple[str, ...]:
    return tuple(f"{count} around {center:.3g}" for count, center in zip(row.histogram, _centers(row), strict=True))


def _marks(row: ActivationRow) -> str:
    """Return which part of the values lies inside, one mark for some bins each, blanks where there are none."""
    size = -(-len(row.histogram) // _SLOTS)
    centers = _centers(row)
    marks = []
    for start in range(0, len(centers), size):
        count = sum(row.histogram[start : start + size])
        middle = centers[start : start + size][size // 2 if start + size <= len(centers) else 0]
        marks.append(" " if not count else _KEPT if row.low <= middle <= row.high else _CUT)
    return "".join(marks)
