"""What a smaller file costs: size against error of the best widths, and of everything they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import floor, isnan, log10

import plotly.graph_objects as go

from ptq_lab.figures import style
from ptq_lab.figures.tables import render
from ptq_lab.report.text import format_bytes, text_table
from ptq_lab.report.widths import FrontData, FrontPoint

_LEAST = 1e-7  # errors below are drawn here: a logarithmic axis has no zero, and float32 outputs no finer difference
_TEXT_POINTS = 8
_LEFT, _TOP, _WIDTH, _HEIGHT = 60, 26, 730, 220  # of the still picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Points of one kind and how they look.

    Attributes
    ----------
    name, symbol, colour : str
        As plotly calls them; the symbol is empty for a plain line.
    points : tuple of FrontPoint
    line : bool
        Whether they are joined.
    """

    name: str
    symbol: str
    colour: str
    points: tuple[FrontPoint, ...]
    line: bool = False


def front_series(data: FrontData) -> tuple[Series, ...]:
    """Return what is drawn, in the order of the legend, without kinds that have no points."""
    every = (
        Series(name="best for its size", symbol="", colour=style.CODES, points=data.curve, line=True),
        Series(name="one width for all", symbol="square", colour=style.REST, points=data.uniform),
        Series(name="the original's rule", symbol="diamond", colour=style.FLOAT, points=data.rule),
        Series(name="verified", symbol="circle", colour=style.SCALES, points=data.verified),
        Series(name="now", symbol="star", colour=style.CODES, points=(data.current,)),
    )
    return tuple(series for series in every if series.points)


def draw_front(data: FrontData) -> go.Figure:
    """Draw ``1 - cosine`` (logarithmic) against the bytes of the file.

    Points that have been run lie at what was measured, all others, and the curve, at what is expected.

    Parameters
    ----------
    data : FrontData
        E.g. from ``MixedBitExplorer.picture()``.

    Examples
    --------
    >>> from ptq_lab.report.widths import FrontData, FrontPoint
    >>> point = FrontPoint(label="6 bits", bits=(6,), bytes=800, file_bytes=900, error=0.01)
    >>> figure = draw_front(FrontData(model="m.onnx", curve=(point,), uniform=(point,), rule=(), current=point))
    >>> [trace.name for trace in figure.data]
    ['best for its size', 'one width for all', 'now']
    """
    figure = style.new_figure(escape(heading(data)), height=400)
    for series in front_series(data):
        figure.add_trace(_trace(series))
    figure.update_layout(
        hovermode="closest",
        xaxis={"title": {"text": "bytes of the file"}, "tickformat": "~s"},
        yaxis={"title": {"text": "1 - cosine of the output"}, "type": "log", "dtick": 1, "exponentformat": "power"},
    )
    return figure


def front_text(data: FrontData) -> str:
    """Return :func:`draw_front` as a table: a few points of the curve, and all of the others."""
    rows = [
        (
            series.name if index == 0 else "",
            "" if series.line else point.label,
            format_bytes(point.file_bytes),
            f"{point.error:.3g}",
            "-" if isnan(point.measured) else f"{point.measured:.3g}",
        )
        for series in front_series(data)
        for index, point in enumerate(_few(series.points) if series.line else series.points)
    ]
    headers = ("what", "", "file", "1 - cosine, expected", "measured")
    return f"{heading(data)}\n{text_table(headers, rows, right=headers[2:])}"


def front_html(data: FrontData) -> str:
    """Return :func:`draw_front` as a still picture (SVG), numbers in its tool tips."""
    every = [point for series in front_series(data) for point in series.points]
    low, high = min(point.file_bytes for point in every), max(point.file_bytes for point in every)
    bottom = floor(min(log10(_height(point)) for point in every))
    top = max(log10(_height(point)) for point in every)

    def place(point: FrontPoint) -> tuple[float, float]:
        x = _LEFT + _WIDTH * (point.file_bytes - low) / ((high - low) or 1)
        y = _TOP + _HEIGHT * (top - log10(_height(point))) / ((top - bottom) or 1)
        return round(x, 1), round(y, 1)

    pictured = [
        {
            "name": series.name,
            "colour": series.colour,
            "symbol": series.symbol,
            "path": "M" + "L".join("{} {}".format(*place(point)) for point in series.points) if series.line else "",
            "marks": [] if series.line else [(*place(point), describe_point(point)) for point in series.points],
        }
        for series in front_series(data)
    ]
    scale = [(_TOP + _HEIGHT * (top - power) / ((top - bottom) or 1), power) for power in range(bottom, floor(top) + 1)]
    return render(
        "front",
        heading=heading(data),
        ink=style.INK,
        series=pictured,
        scale=scale,
        low=format_bytes(low),
        high=format_bytes(high),
    )


def heading(data: FrontData) -> str:
    """Return the title: what is compared, and where the choice being looked at lies."""
    now = data.current
    how = "expected" if isnan(now.measured) else "measured"
    return (
        f"{data.model}: error against size; now {format_bytes(now.file_bytes)}, 1 - cosine {now.best_known:.2g} {how}"
    )


def describe_point(point: FrontPoint) -> str:
    """Return a point in words."""
    measured = "" if isnan(point.measured) else f", measured {point.measured:.3g}"
    return f"{point.label}: {format_bytes(point.file_bytes)}, 1 - cosine expected {point.error:.3g}{measured}"


def _trace(series: Series) -> go.Scatter:
    return go.Scatter(
        x=[point.file_bytes for point in series.points],
        y=[_height(point) for point in series.points],
        name=series.name,
        mode="lines" if series.line else "markers",
        line={"color": series.colour, "width": 2} if series.line else None,
        marker=None if series.line else {"color": series.colour, "symbol": series.symbol, "size": _size(series)},
        hovertext=[escape(describe_point(point)) for point in series.points],
        hoverinfo="text",
    )


def _size(series: Series) -> int:
    return 15 if series.symbol == "star" else 9


def _height(point: FrontPoint) -> float:
    return max(point.best_known, _LEAST)


def _few(points: Sequence[FrontPoint]) -> list[FrontPoint]:
    """Return some points, both ends among them."""
    last = len(points) - 1
    count = min(_TEXT_POINTS, len(points))
    return [points[round(index * last / max(1, count - 1))] for index in range(count)]
