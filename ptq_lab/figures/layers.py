"""Which layer hurts: error and size of every weight, in the order of the graph."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import ceil

import plotly.graph_objects as go

from ptq_lab.figures import style
from ptq_lab.report.names import telling_names
from ptq_lab.report.tables import LayerRow, Report
from ptq_lab.report.text import (
    format_bytes,
    format_decibel,
    format_percent,
    format_shape,
    text_table,
)

NAMED_LAYERS = 24
TICK_WIDTH = 18
STILL_NAMED = 48  # layers whose names fit below a still picture
TEXT_BAR = 40  # characters of the longest one
BAR_WIDTH = 0.75  # of the distance between two layers; plotly would guess it from each trace's own gaps


def draw_layers(report: Report) -> go.Figure:
    """Draw relative error (above) and bytes before and after (below), one column per layer.

    Layers that stayed float have no error; they carry a mark on the upper axis and bars in another colour,
    and say why when the pointer is over them. Where widths differ, each bar of bytes carries its own.

    Parameters
    ----------
    report : Report
        The tables of a finished run.

    Returns
    -------
    plotly.graph_objects.Figure
        Errors in percent (relative L2), sizes in bytes. The same report gives the same figure.

    Examples
    --------
    >>> from ptq_lab.report.tables import LayerRow, OutputRow, Report, Summary, Table
    >>> row = LayerRow(node="conv", op_type="Conv", tensor="w", shape=(8, 3, 3, 3), bits=8, storage="int8",
    ...                granularity="per-channel (8)", bytes_before=864, bytes_after=280, relative_error=0.004)
    >>> summary = Summary(model="m.onnx", quant_type="WEIGHT_QUANT", bits=8, bytes_before=1000,
    ...                   bytes_after=400, layers=1, layers_quantized=1, cosine_mean=0.9999,
    ...                   cosine_min=0.9998, sqnr_db=38.0, compared_on="", seconds={})
    >>> figure = draw_layers(Report(summary, Table(LayerRow, [row]), Table(OutputRow)))
    >>> [trace.name for trace in figure.data]
    ['relative error', 'bytes before', 'bytes after']
    """
    rows = list(enumerate(report.layers))
    stored = [(i, row) for i, row in rows if row.quantized]
    left = [(i, row) for i, row in rows if not row.quantized]
    figure = style.new_figure("Error and size of every layer, in the order of the graph", height=430)
    if stored:
        figure.add_trace(_errors(stored))
    if left:
        figure.add_trace(_marks(left))
    if rows:
        figure.add_trace(_before(rows))
    if stored:
        after = _after(stored, "bytes after", style.CODES)
        if len(rows) <= NAMED_LAYERS and len({row.bits for _, row in stored}) > 1:
            after.update(text=[str(row.bits) for _, row in stored], textposition="outside", cliponaxis=False)
        figure.add_trace(after)
    if left:
        figure.add_trace(_after(left, "left in float", style.FLOAT))
    figure.update_layout(
        barmode="overlay",
        hovermode="closest",
        xaxis=layer_axis(report.layers),
        yaxis={
            "domain": [0.56, 1],
            "title": {"text": "relative error"},
            "ticksuffix": " %",
            "rangemode": "tozero",
        },
        yaxis2={"domain": [0, 0.46], "title": {"text": "bytes"}, "tickformat": "~s", "rangemode": "tozero"},
    )
    return figure


def layers_text(report: Report) -> str:
    """Return the errors of :func:`draw_layers` as bars of characters, for front ends that draw nothing."""
    top = max((row.relative_error or 0.0 for row in report.layers), default=0.0) or 1.0
    rows = []
    names = telling_names([row.node for row in report.layers])
    for row, name in zip(report.layers, names, strict=True):
        bar = "#" * ceil(TEXT_BAR * (row.relative_error or 0.0) / top)
        fate = format_percent(row.relative_error) if row.quantized else "left in float"
        rows.append((name, "-" if row.bits is None else str(row.bits), fate, bar))
    return text_table(("layer", "bits", "relative error", ""), rows, right=("bits", "relative error"))


def still_labels(names: Sequence[str], middles: Sequence[float]) -> list[tuple[float, str]]:
    """Return the names below a still picture with their places; none where there are too many.

    Examples
    --------
    >>> still_labels(["/net/stem/Conv", "/net/head/Conv"], [200.04, 600.0])
    [(200.0, '/net/stem/Conv'), (600.0, '/net/head/Conv')]
    """
    if len(names) > STILL_NAMED:
        return []
    return [(round(x, 1), name) for x, name in zip(middles, telling_names(names, TICK_WIDTH), strict=True)]


def describe_layer(row: LayerRow) -> str:
    """Return what there is to know about a layer as the lines of a hover box, escaped for plotly."""
    sizes = _sizes(row)
    if row.quantized:
        fate = f"{row.bits} bits {row.granularity}, stored as {row.storage}"
        errors = f"relative error {format_percent(row.relative_error)}, SQNR {format_decibel(row.sqnr_db)} dB"
    else:
        fate, errors = "stays float", row.reason
    head = f"{row.op_type} {format_shape(row.shape)}"
    lines = [escape(text) for text in (row.tensor, head, fate, sizes, errors) if text]
    return "<br>".join([f"<b>{escape(row.node)}</b>", *lines])


def _sizes(row: LayerRow) -> str:
    return f"{format_bytes(row.bytes_before)} -> {format_bytes(row.bytes_after)}"


def _columns(rows: Sequence[tuple[int, LayerRow]]) -> dict[str, list[object]]:
    return {
        "x": [i for i, _ in rows],
        "hovertext": [describe_layer(row) for _, row in rows],
    }


def _errors(rows: Sequence[tuple[int, LayerRow]]) -> go.Bar:
    return go.Bar(
        **_columns(rows),
        y=[None if row.relative_error is None else 100 * row.relative_error for _, row in rows],
        name="relative error",
        marker={"color": style.CODES},
        width=BAR_WIDTH,
        hoverinfo="text",
        showlegend=False,
    )


def _marks(rows: Sequence[tuple[int, LayerRow]]) -> go.Scatter:
    return go.Scatter(
        **_columns(rows),
        y=[0] * len(rows),
        name="no error",
        mode="markers",
        marker={"color": style.FLOAT, "symbol": "diamond", "size": 9},
        hoverinfo="text",
        cliponaxis=False,
        showlegend=False,
    )


def _before(rows: Sequence[tuple[int, LayerRow]]) -> go.Bar:
    return go.Bar(
        x=[i for i, _ in rows],
        y=[row.bytes_before for _, row in rows],
        name="bytes before",
        marker={"color": style.GRID, "line": {"color": style.REST, "width": 1}},
        width=BAR_WIDTH,
        hoverinfo="skip",
        yaxis="y2",
    )


def _after(rows: Sequence[tuple[int, LayerRow]], name: str, colour: str) -> go.Bar:
    return go.Bar(
        x=[i for i, _ in rows],
        hovertext=[f"<b>{escape(row.node)}</b><br>{_sizes(row)}" for _, row in rows],
        y=[row.bytes_after for _, row in rows],
        name=name,
        marker={"color": colour},
        width=BAR_WIDTH,
        hoverinfo="text",
        yaxis="y2",
    )


def layer_axis(layers: Sequence[LayerRow]) -> dict[str, object]:
    """Return the axis of a figure in two parts that names layers where they are few."""
    reach = [-0.6, max(1, len(layers)) - 0.4]
    return name_axis([row.node for row in layers], many="layer") | {"anchor": "y2", "range": reach}


def name_axis(names: Sequence[str], *, many: str) -> dict[str, object]:
    """Return the axis that names layers where they are few, and numbers them under a title where they are many."""
    axis: dict[str, object] = {"showgrid": False}
    if len(names) > NAMED_LAYERS:
        return axis | {"title": {"text": many}, "tickformat": "d"}
    ticks = [escape(name) for name in telling_names(names, TICK_WIDTH)]
    return axis | {"tickmode": "array", "tickvals": list(range(len(names))), "ticktext": ticks, "tickangle": -40}
