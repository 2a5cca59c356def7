"""What quantization made of the values of each weight: histograms before and after, with the reach of the codes."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import log10

import plotly.graph_objects as go

from ptq_lab.figures import style
from ptq_lab.figures.panels import TITLE_WIDTH, Curve, Panel, draw_panels, still_panels
from ptq_lab.figures.tables import render
from ptq_lab.report.harm import worst_weights
from ptq_lab.report.names import telling_names
from ptq_lab.report.tables import Report
from ptq_lab.report.text import text_table
from ptq_lab.report.weight_outlines import WeightOutline

DRAWN = 6
TITLE = "Values of the weights of the most harmful layers, before and after"
_MARKS = " .:-=+*#%@"  # from nothing to the most frequent


def draw_weights(report: Report) -> go.Figure:
    """Draw how often each value occurs in the weights of the six most harmful layers, before and after.

    Parameters
    ----------
    report : Report
        The tables of a finished run.

    Returns
    -------
    plotly.graph_objects.Figure
        Heights are logarithms of counts; dashed lines stand at the ends of what the codes reach.

    Examples
    --------
    >>> from ptq_lab import demo, quantize
    >>> digits = demo.load("digits_cnn")
    >>> report = quantize(digits.model_path, {"common_quant_param": {"quant_type": "WEIGHT_QUANT"}}).report
    >>> [trace.name for trace in draw_weights(report).data][:2]
    ['before', 'after']
    """
    return draw_panels(escape(TITLE), weight_panels(worst_weights(report))[:DRAWN], values=False)


def weights_html(report: Report, *, limit: int = DRAWN) -> str:
    """Return :func:`draw_weights` as still pictures (SVG)."""
    panels = weight_panels(worst_weights(report))[:limit]
    return render("panels", title=TITLE, panels=still_panels(panels), legend=LEGEND)


def weights_text(report: Report) -> str:
    """Return :func:`draw_weights` as rows of characters: the denser, the more values."""
    every, rows = worst_weights(report), []
    for outline, name in list(zip(every, telling_names([each.node for each in every]), strict=True))[:DRAWN]:
        rows.append((name, "before", f"{outline.low:.3g}", _shaded(outline.before), f"{outline.high:.3g}"))
        rows.append(("", "after", f"{outline.grid[0]:.3g}", _shaded(outline.after), f"{outline.grid[1]:.3g}"))
    return text_table(("layer", "", "low", "values", "high"), rows, right=("low",))


def weight_panels(outlines: Sequence[WeightOutline]) -> tuple[Panel, ...]:
    """Return a panel for every weight; both histograms are of the same values, so their heights compare."""
    titles = telling_names([outline.node for outline in outlines], TITLE_WIDTH)
    return tuple(_panel(outline, title) for outline, title in zip(outlines, titles, strict=True))


LEGEND = (
    (style.REST, "float values"),
    (style.CODES, "after quantization"),
    (style.INK, "ends of what the codes reach"),
)


def _panel(outline: WeightOutline, title: str) -> Panel:
    before, after = (
        tuple(round(log10(1 + count), 2) for count in counts) for counts in (outline.before, outline.after)
    )
    inside = tuple(end for end in outline.grid if outline.low <= end <= outline.high)
    part = "" if outline.counted == outline.values else f", {outline.counted:,} counted"
    return Panel(
        title=title,
        name=outline.node,
        words=f"{outline.bits} bits, {outline.values:,} values{part}",
        low=outline.low,
        high=outline.high,
        left=f"{outline.low:.3g}",
        right=f"{outline.high:.3g}",
        ends=inside,
        curves=(
            Curve(name="before", colour=style.REST, tops=before, words=_words(outline.before, outline)),
            Curve(name="after", colour=style.CODES, tops=after, filled=False, words=_words(outline.after, outline)),
        ),
    )


def _words(counts: Sequence[int], outline: WeightOutline) -> tuple[str, ...]:
    width = (outline.high - outline.low) / len(counts)
    return tuple(f"{count} around {outline.low + (i + 0.5) * width:.3g}" for i, count in enumerate(counts))


def _shaded(counts: Sequence[int]) -> str:
    top = log10(1 + max(counts)) or 1.0
    return "".join(_MARKS[round((len(_MARKS) - 1) * log10(1 + count) / top)] for count in counts)
