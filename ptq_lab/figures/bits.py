"""How many bits each layer got, and what that saves: widths above, bytes before and after below."""

from __future__ import annotations

from html import escape
from math import prod

import plotly.graph_objects as go

from ptq_lab.figures import style
from ptq_lab.figures.layers import BAR_WIDTH, describe_layer, layer_axis, still_labels
from ptq_lab.figures.tables import render
from ptq_lab.report.names import telling_names
from ptq_lab.report.tables import LayerRow, Report
from ptq_lab.report.text import format_bytes, text_table

FLOAT_BITS = 32


def draw_bits(report: Report) -> go.Figure:
    """Draw bits per weight (above) and bytes before and after (below), one column per layer.

    Parameters
    ----------
    report : Report
        The tables of a finished run.

    Returns
    -------
    plotly.graph_objects.Figure
        In the order of the graph; layers that stayed float have another colour and reach beyond the upper axis.

    Examples
    --------
    >>> from ptq_lab.report.tables import OutputRow, Summary, Table
    >>> row = LayerRow(node="conv", op_type="Conv", tensor="w", shape=(8, 3, 3, 3), bits=5, storage="int8",
    ...                granularity="per-channel (8)", bytes_before=864, bytes_after=280, relative_error=0.004)
    >>> summary = Summary(model="m.onnx", quant_type="WEIGHT_QUANT", bits=0, bytes_before=1000,
    ...                   bytes_after=400, layers=1, layers_quantized=1, cosine_mean=0.9999,
    ...                   cosine_min=0.9998, sqnr_db=38.0, compared_on="", seconds={})
    >>> [(bars.name, bars.y) for bars in draw_bits(Report(summary, Table(LayerRow, [row]), Table(OutputRow))).data]
    [('bits', (5,)), ('bytes before', (864,)), ('bytes after', (280,))]
    """
    rows = list(report.layers)
    colours = [style.CODES if row.quantized else style.FLOAT for row in rows]
    places = list(range(len(rows)))
    figure = style.new_figure(escape(heading(report)), height=430)
    figure.add_trace(
        go.Bar(
            x=places,
            y=[bits_of(row) for row in rows],
            name="bits",
            marker={"color": colours},
            width=BAR_WIDTH,
            hovertext=[describe_layer(row) for row in rows],
            hoverinfo="text",
            showlegend=False,
        )
    )
    pale = {"color": style.GRID, "line": {"color": style.REST, "width": 1}}
    for name, sizes, marker in (
        ("bytes before", [row.bytes_before for row in rows], pale),
        ("bytes after", [row.bytes_after for row in rows], {"color": colours}),
    ):
        figure.add_trace(
            go.Bar(x=places, y=sizes, name=name, marker=marker, width=BAR_WIDTH, hoverinfo="y+name", yaxis="y2")
        )
    figure.update_layout(
        barmode="overlay",
        hovermode="closest",
        xaxis=layer_axis(report.layers),
        yaxis={"domain": [0.56, 1], "title": {"text": "bits per weight"}, "range": [0, _top(report)], "dtick": 2},
        yaxis2={"domain": [0, 0.46], "title": {"text": "bytes"}, "tickformat": "~s", "rangemode": "tozero"},
    )
    return figure


def bits_html(report: Report) -> str:
    """Return :func:`draw_bits` as a still picture (SVG), names in its tool tips."""
    rows = list(report.layers)
    step = 800 / max(1, len(rows))
    top_bits = _top(report)
    top_size = max((row.bytes_before for row in rows), default=1) or 1
    bars = [
        {
            "title": f"{row.node}: {bits_of(row)} bits, {format_bytes(row.bytes_after)}",
            "x": round(index * step + 0.1 * step, 1),
            "width": round(0.8 * step, 1),
            "bits": round(98 * min(1.0, bits_of(row) / top_bits), 1),
            "before": round(94 * row.bytes_before / top_size, 1),
            "after": round(94 * row.bytes_after / top_size, 1),
            "colour": style.CODES if row.quantized else style.FLOAT,
        }
        for index, row in enumerate(rows)
    ]
    labels = still_labels([row.node for row in rows], [(index + 0.5) * step for index in range(len(rows))])
    size = format_bytes(top_size)
    return render("bits", bars=bars, labels=labels, ink=style.INK, heading=heading(report), size=size)


def bits_text(report: Report) -> str:
    """Return :func:`draw_bits` as bars of characters, one per bit."""
    rows = [
        (
            name,
            str(bits_of(row)),
            format_bytes(row.bytes_before),
            format_bytes(row.bytes_after),
            "#" * row.bits if row.bits is not None else "float",
        )
        for row, name in zip(report.layers, telling_names([row.node for row in report.layers]), strict=True)
    ]
    return text_table(("layer", "bits", "before", "after", ""), rows, right=("bits", "before", "after"))


def heading(report: Report) -> str:
    """Return the title with the average over all weights, float ones included."""
    sizes = {row.tensor: (bits_of(row), prod(row.shape)) for row in report.layers if row.bytes_before}
    count = sum(size for _, size in sizes.values())
    average = sum(bits * size for bits, size in sizes.values()) / count if count else 0.0
    return f"Bits and bytes of every layer: {average:.2f} bits per weight on average"


def _top(report: Report) -> float:
    """Return where the axis of bits ends: float weights would leave the others no room."""
    return 1.15 * max((row.bits for row in report.layers if row.bits is not None), default=FLOAT_BITS)


def bits_of(row: LayerRow) -> int:
    """Return the width of a weight, all of it where it stayed float."""
    return row.bits if row.bits is not None else FLOAT_BITS
