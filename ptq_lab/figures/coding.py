"""What entropy coding makes of every layer: packed bits, coded bits, the entropy of the codes, and Shannon's bound."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import plotly.graph_objects as go

from ptq_lab.figures import style
from ptq_lab.figures.layers import BAR_WIDTH, layer_axis, still_labels
from ptq_lab.figures.tables import render
from ptq_lab.report.coding_text import (
    CODING_HEADERS,
    bits_of_coding,
    coded_rows,
    coding_cells,
    coding_table,
    mean_bits,
    total_cells,
)
from ptq_lab.report.tables import LayerRow, Report

_WIDTH, _BASE, _REACH = 800, 200, 170  # of the still picture
_LONG = 400  # characters of a name: nothing is cut in a table that scrolls


def draw_coding(report: Report) -> go.Figure:
    """Draw bits per weight, one column per entropy-coded layer: packed (pale), coded, entropy and Shannon's bound.

    Parameters
    ----------
    report : Report
        Of a run whose weights are entropy-coded.

    Examples
    --------
    >>> from ptq_lab.report.tables import OutputRow, Summary, Table
    >>> row = LayerRow(node="conv", op_type="Conv", tensor="w", shape=(8, 3, 3, 3), bits=5, granularity="per-tensor",
    ...                storage="coded", bytes_before=864, bytes_after=108, relative_error=0.04, entropy=3.9, bound=3.6)
    >>> summary = Summary(model="m.onnx", quant_type="WEIGHT_QUANT", bits=5, bytes_before=1000,
    ...                   bytes_after=400, layers=1, layers_quantized=1, cosine_mean=0.9999,
    ...                   cosine_min=0.9998, sqnr_db=38.0, compared_on="", seconds={})
    >>> figure = draw_coding(Report(summary, Table(LayerRow, [row]), Table(OutputRow)))
    >>> [(part.name, part.y[0]) for part in figure.data]
    [('packed', 5.0), ('coded, with scales', 4.0), ('entropy of the codes', 3.9), ('Shannon bound', 3.6)]
    """
    rows = coded_rows(report.layers)
    bits = [bits_of_coding(row) for row in rows]
    places = list(range(len(rows)))
    figure = style.new_figure(escape(heading(rows)), height=360)
    pale = {"color": style.GRID, "line": {"color": style.REST, "width": 1}}
    for name, values, marker in (
        ("packed", [one.nominal for one in bits], pale),
        ("coded, with scales", [one.coded for one in bits], {"color": style.CODES}),
    ):
        figure.add_trace(go.Bar(x=places, y=values, name=name, marker=marker, width=BAR_WIDTH, hoverinfo="skip"))
    figure.data[1].update(hovertext=[_words(row, "<br>") for row in rows], hoverinfo="text")
    for name, levels, colour in (
        ("entropy of the codes", [one.entropy for one in bits], style.SCALES),
        ("Shannon bound", [one.bound for one in bits], style.FLOAT),
    ):
        figure.add_trace(_lines(name, levels, colour))
    figure.update_layout(
        barmode="overlay",
        hovermode="closest",
        xaxis=layer_axis(rows) | {"anchor": "y"},
        yaxis={"title": {"text": "bits per weight"}, "rangemode": "tozero"},
    )
    return figure


def coding_html(report: Report, *, numbers: bool = True) -> str:
    """Return :func:`draw_coding` as a still picture (SVG), names in its tool tips, with its numbers as a table."""
    rows = coded_rows(report.layers)
    bits = [bits_of_coding(row) for row in rows]
    step, unit = _WIDTH / max(1, len(rows)), _REACH / (max((max(one.nominal, one.coded) for one in bits), default=1.0))
    bars = [
        {
            "words": _words(row, "; "),
            "x": round((index + 0.1) * step, 1),
            "width": round(0.8 * step, 1),
            "packed": round(one.nominal * unit, 1),
            "coded": round(one.coded * unit, 1),
            "entropy": round(_BASE - one.entropy * unit, 1),
            "bound": None if one.bound is None else round(_BASE - one.bound * unit, 1),
        }
        for index, (row, one) in enumerate(zip(rows, bits, strict=True))
    ]
    colours = {"ink": style.INK, "codes": style.CODES, "entropy": style.SCALES, "bound": style.FLOAT}
    cells = [*(coding_cells(row, _LONG) for row in rows), total_cells(rows)] if numbers else []
    labels = still_labels([row.node for row in rows], [(index + 0.5) * step for index in range(len(rows))])
    about: dict[str, object] = {"heading": heading(rows), "headers": CODING_HEADERS, "cells": cells}
    return render("coding", bars=bars, labels=labels, **about, **colours)


def coding_text(report: Report) -> str:
    """Return the numbers of :func:`draw_coding` as text."""
    return coding_table(report.layers)


def heading(rows: Sequence[LayerRow]) -> str:
    """Return the title, with what all layers take together."""
    all_of_them = mean_bits(rows)
    stored = f"{all_of_them.coded:.2f} bits per weight coded, {all_of_them.nominal:.2f} packed"
    return f"Packed and coded: {stored}; entropy {all_of_them.entropy:.2f}, Shannon bound {all_of_them.bound:.2f}"


def _lines(name: str, values: Sequence[float | None], colour: str) -> go.Scatter:
    marker = {"symbol": "line-ew-open", "size": 13, "color": colour, "line": {"width": 3, "color": colour}}
    return go.Scatter(x=list(range(len(values))), y=list(values), name=name, mode="markers", marker=marker)


def _words(row: LayerRow, between: str) -> str:
    """Return a layer's name and numbers; escaped where the lines are HTML."""
    cells = dict(zip(CODING_HEADERS, coding_cells(row, _LONG), strict=True))
    name = f"<b>{escape(row.node)}</b>" if between.startswith("<") else row.node
    shown = ("weights", "error", "nominal bits", "entropy", "coded bits", "Shannon bound")
    return between.join([name, *(f"{label} {cells[label]}" for label in shown)])
