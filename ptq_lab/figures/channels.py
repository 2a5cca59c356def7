"""What each channel of a weight needs, against what the codes give it: where one scale serves channels unlike."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

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
TITLE = "Ranges of the channels of the most harmful layers, from the narrowest channel to the widest"


def draw_channels(report: Report) -> go.Figure:
    """Draw the smallest and the largest value of every channel, and what the codes reach there.

    Where one scale serves the whole weight, the codes reach equally far in all channels: the narrower a channel, the
    fewer codes are left for it.

    Parameters
    ----------
    report : Report
        The tables of a finished run.

    Returns
    -------
    plotly.graph_objects.Figure
        In real units; at most 64 channels of six weights.

    Examples
    --------
    >>> from ptq_lab import demo, quantize
    >>> digits = demo.load("digits_cnn")
    >>> report = quantize(digits.model_path, {"common_quant_param": {"quant_type": "WEIGHT_QUANT"}}).report
    >>> sorted({trace.name for trace in draw_channels(report).data})
    ['range of the codes', 'values']
    """
    return draw_panels(escape(TITLE), channel_panels(worst_weights(report))[:DRAWN], values=True)


def channels_html(report: Report, *, limit: int = DRAWN) -> str:
    """Return :func:`draw_channels` as still pictures (SVG)."""
    panels = channel_panels(worst_weights(report))[:limit]
    return render("panels", title=TITLE, panels=still_panels(panels), legend=LEGEND)


def channels_text(report: Report) -> str:
    """Return the narrowest, the middle and the widest channel of :func:`draw_channels` as a table."""
    every, rows = worst_weights(report), []
    for outline, name in list(zip(every, telling_names([each.node for each in every]), strict=True))[:DRAWN]:
        few = [outline.channels[index] for index in (0, len(outline.channels) // 2, -1)]
        spans = [f"{low:.3g} .. {high:.3g}" for low, high in few]
        rows.append((name, str(outline.channel_count), *spans, f"{outline.spread:.3g}"))
    headers = ("layer", "channels", "narrowest", "middle", "widest", "widest / middle")
    return text_table(headers, rows, right=("channels", "widest / middle"))


def channel_panels(outlines: Sequence[WeightOutline]) -> tuple[Panel, ...]:
    """Return a panel for every weight."""
    titles = telling_names([outline.node for outline in outlines], TITLE_WIDTH)
    return tuple(_panel(outline, title) for outline, title in zip(outlines, titles, strict=True))


LEGEND = ((style.REST, "values of a channel"), (style.CODES, "what the codes reach in it"))


def _times(ratio: float) -> str:
    return f"{ratio:.0f} times" if ratio >= 9.95 else f"{ratio:.1f} times"


def _panel(outline: WeightOutline, title: str) -> Panel:
    shown = len(outline.channels)
    part = f"{shown} of {outline.channel_count}" if shown < outline.channel_count else str(shown)
    words = tuple(
        f"{low:.3g} to {high:.3g}, codes {a:.3g} to {b:.3g}"
        for (low, high), (a, b) in zip(outline.channels, outline.grids, strict=True)
    )
    return Panel(
        title=title,
        name=outline.node,
        words=f"{part} channels, the widest {_times(outline.spread)} the middle one",
        low=0,
        high=shown,
        left="narrow",
        right="wide",
        curves=(
            Curve(
                name="values",
                colour=style.REST,
                tops=tuple(high for _, high in outline.channels),
                bottoms=tuple(low for low, _ in outline.channels),
                words=words,
            ),
            Curve(
                name="range of the codes",
                colour=style.CODES,
                tops=tuple(high for _, high in outline.grids),
                bottoms=tuple(low for low, _ in outline.grids),
                filled=False,
            ),
        ),
    )
