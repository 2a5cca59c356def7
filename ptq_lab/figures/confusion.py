"""What a classifier answers before and after: every pair of classes where they are few, else the pairs that differ."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import plotly.graph_objects as go

from ptq_lab.figures import style
from ptq_lab.figures.tables import render
from ptq_lab.numerics.classes import NO_CLASS
from ptq_lab.report.predictions import Predictions
from ptq_lab.report.text import format_percent, text_table

SMALL = 20
"""Classes up to which all pairs are shown."""

PAIRS = 20


def draw_confusion(seen: Predictions) -> go.Figure:
    """Draw the answers of both models against each other; where classes are many, what changed most.

    Parameters
    ----------
    seen : Predictions

    Returns
    -------
    plotly.graph_objects.Figure
        A map with the original's answer downwards and the quantized model's across. With more than 20 classes, bars:
        the pairs of answers that occur most often, or the classes themselves where no pair occurs twice.

    Examples
    --------
    >>> few = Predictions(output="logits", classes=3, before=(0, 1, 2, 1), after=(0, 2, 2, 2))
    >>> draw_confusion(few).data[0].type
    'heatmap'
    >>> many = Predictions(output="logits", classes=1000, before=(0, 1, 2, 1), after=(0, 2, 2, 2))
    >>> draw_confusion(many).data[0].x
    (2,)
    """
    return _map(seen) if seen.classes <= SMALL else _draw_bars(seen)


def confusion_html(seen: Predictions) -> str:
    """Return :func:`draw_confusion` as a table, the darker or the longer the more samples."""
    matrix = seen.matrix() if seen.classes <= SMALL else ()
    bars = () if matrix else bars_of(seen)
    longest = max((bar.count for bar in bars), default=1) or 1
    top = max(map(max, matrix), default=1) or 1
    return render("confusion", heading=heading(seen), matrix=matrix, top=top, bars=bars, longest=longest)


def confusion_text(seen: Predictions) -> str:
    """Return :func:`draw_confusion` as text."""
    if seen.classes <= SMALL:
        headers = ("before \\ after", *map(str, range(seen.classes)))
        rows = [
            (str(old), *("." if not count else str(count) for count in counts))
            for old, counts in enumerate(seen.matrix())
        ]
        return f"{heading(seen)}\n{text_table(headers, rows, right=headers)}"
    lines = [(bar.words, bar.kind, str(bar.count)) for bar in bars_of(seen)]
    return f"{heading(seen)}\n{text_table(('class', '', 'samples'), lines, right=('samples',))}"


def heading(seen: Predictions) -> str:
    """Return how many answers changed, and what that did where labels say what is right."""
    count = len(seen.before)
    text = f"{seen.changed} of {count} answers changed ({format_percent(seen.changed / max(1, count))})"
    if seen.labels:
        text += f"; {seen.lost} were right and are wrong now, {seen.won} the other way round"
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """How many samples have this class, or changed from this class to that one."""

    words: str
    kind: str
    count: int
    colour: str


def bars_of(seen: Predictions) -> tuple[Bar, ...]:
    """Return what is drawn of many classes: frequent pairs, or classes before and after where no pair occurs twice."""
    flips = seen.flips[:PAIRS]
    if not flips or flips[0][2] > 1:
        return tuple(
            Bar(words=f"{_name(old)} \N{RIGHTWARDS ARROW} {_name(new)}", kind="changed", count=n, colour=style.FLOAT)
            for old, new, n in flips
        )
    bars = []
    for each, old, new in seen.counts[: PAIRS // 2]:
        bars.append(Bar(words=_name(each), kind="before", count=old, colour=style.REST))
        bars.append(Bar(words=_name(each), kind="after", count=new, colour=style.CODES))
    return tuple(bars)


def _map(seen: Predictions) -> go.Figure:
    names = [str(index) for index in range(seen.classes)]
    table = seen.matrix()
    figure = style.new_figure(escape(heading(seen)), height=150 + 24 * seen.classes)
    figure.add_trace(
        go.Heatmap(
            z=[[count or None for count in row] for row in table],
            text=[[str(count) if count else "" for count in row] for row in table],
            texttemplate="%{text}",
            colorscale=[[0, style.pale(style.CODES, 0.1)], [1, style.pale(style.CODES, 0.45)]],
            showscale=False,
            hovertemplate="before %{y}, after %{x}: %{z}<extra></extra>",
            xgap=1,
            ygap=1,
        )
    )
    ticks = {"tickmode": "array", "tickvals": list(range(seen.classes)), "ticktext": names, "showgrid": False}
    figure.update_layout(
        xaxis=ticks | {"title": {"text": "class after"}},
        yaxis=ticks | {"title": {"text": "class before"}, "autorange": "reversed"},
    )
    return figure


def _draw_bars(seen: Predictions) -> go.Figure:
    bars = bars_of(seen)
    names = list(dict.fromkeys(bar.words for bar in bars))
    kinds = list(dict.fromkeys(bar.kind for bar in bars))
    figure = style.new_figure(escape(heading(seen)), height=130 + 22 * max(1, len(bars)))
    for kind in kinds:
        these = [bar for bar in bars if bar.kind == kind]
        figure.add_trace(
            go.Bar(
                x=[bar.count for bar in these],
                y=[names.index(bar.words) for bar in these],
                orientation="h",
                name=kind,
                marker={"color": these[0].colour},
                hovertext=[f"{bar.words}, {bar.kind}: {bar.count}" for bar in these],
                hoverinfo="text",
            )
        )
    longest = max((bar.count for bar in bars), default=1)
    ticks = {"tickmode": "array", "tickvals": list(range(len(names))), "ticktext": names, "ticklabelstandoff": 8}
    figure.update_layout(
        barmode="group",
        xaxis={"title": {"text": "samples"}, "rangemode": "tozero", "tickformat": "d", "dtick": -(-longest // 6)},
        yaxis={"autorange": "reversed", "showgrid": False, **ticks},
    )
    return figure


def _name(index: int) -> str:
    return "none" if index == NO_CLASS else str(index)
