"""How the error grows on its way through the model: what each layer adds, and what has piled up behind it."""

from __future__ import annotations

from html import escape
from math import log10

import plotly.graph_objects as go

from ptq_lab.figures import style
from ptq_lab.figures.error_lines import ErrorLine, ErrorLines, add_lines, still_lines
from ptq_lab.report.findings import Explanation, format_loss
from ptq_lab.report.names import telling_names
from ptq_lab.report.rows import ErrorRow
from ptq_lab.report.text import text_table

LEAST = 1e-7
"""Errors below are drawn here: a logarithmic axis has no zero, and float32 hardly a finer difference."""

TITLE = "Error along the depth of the model"
_TEXT_BAR = 32


def draw_depth(found: Explanation) -> go.Figure:
    """Draw ``1 - cosine`` of every layer's output in the order of the graph: alone, and with all before it.

    Parameters
    ----------
    found : Explanation

    Returns
    -------
    plotly.graph_objects.Figure
        On a logarithmic scale; evaluation samples are dashed, where there are any.

    Examples
    --------
    >>> from ptq_lab.report.tables import Table
    >>> row = ErrorRow(node="conv", op_type="Conv", tensor="y", isolated_cosine=0.99, isolated_sqnr_db=17.0,
    ...                accumulated_cosine=0.98, accumulated_sqnr_db=14.0)
    >>> [(line.name, round(line.y[0], 6)) for line in draw_depth(Explanation(Table(ErrorRow, [row]), ())).data]
    [('with all before', 0.02), ('alone', 0.01)]
    """
    figure = style.new_figure(TITLE, height=380)
    words = [_hover(row, found) for row in found.errors]
    add_lines(figure, _lines(found), words, error="1 - cosine", layers="layer, in the order of the graph")
    return figure


def depth_html(found: Explanation) -> str:
    """Return :func:`draw_depth` as a still picture (SVG), names in its tool tips."""
    words = [_words(row, found) for row in found.errors]
    return still_lines(_lines(found), words, heading="1 - cosine of each layer's output, on a logarithmic scale")


def depth_text(found: Explanation) -> str:
    """Return :func:`draw_depth` as bars of characters on the same logarithmic scale."""
    values = [_loss(row.accumulated_cosine) for row in found.errors]
    known = [max(value, LEAST) for value in values if value is not None]
    low, high = (log10(min(known)), log10(max(known))) if known else (0.0, 0.0)
    rows = []
    names = telling_names([row.node for row in found.errors])
    for row, name, value in zip(found.errors, names, values, strict=True):
        part = 1.0 if high <= low else (log10(max(value or LEAST, LEAST)) - low) / (high - low)
        bar = "#" * max(1, round(_TEXT_BAR * part)) if value is not None else ""
        rows.append((name, format_loss(row.isolated_cosine), format_loss(row.accumulated_cosine), bar))
    return text_table(("layer", "alone", "with all before", ""), rows, right=("alone", "with all before"))


def _lines(found: Explanation) -> ErrorLines:
    """Return what is drawn: both errors on calibration samples, and on evaluation samples if there are any."""
    after = tuple(_loss(row.accumulated_cosine) for row in found.errors)
    alone = tuple(_loss(row.isolated_cosine) for row in found.errors)
    lines: tuple[ErrorLine, ...] = (
        ErrorLine(name="with all before", colour=style.FLOAT, values=after),
        ErrorLine(name="alone", colour=style.CODES, values=alone),
    )
    if found.evaluated:
        there = [found.on_evaluation(row.node) for row in found.errors]
        after = tuple(_loss(row.accumulated_cosine) if row else None for row in there)
        alone = tuple(_loss(row.isolated_cosine) if row else None for row in there)
        lines += (
            ErrorLine(name="with all before, evaluation", colour=style.FLOAT, dash="dot", values=after),
            ErrorLine(name="alone, evaluation", colour=style.CODES, dash="dot", values=alone),
        )
    return ErrorLines(lines=lines, layers=tuple(row.node for row in found.errors), least=LEAST)


def _loss(cosine: float | None) -> float | None:
    return None if cosine is None else max(0.0, 1.0 - cosine)


def _words(row: ErrorRow, found: Explanation) -> str:
    there = found.on_evaluation(row.node)
    text = f"{row.node}: alone {_both(row)}"
    return text if there is None else f"{text}; evaluation: {_both(there)}"


def _both(row: ErrorRow) -> str:
    return f"{format_loss(row.isolated_cosine)}, with all before {format_loss(row.accumulated_cosine)}"


def _hover(row: ErrorRow, found: Explanation) -> str:
    name, _, numbers = _words(row, found).partition(": alone ")
    return f"<b>{escape(name)}</b><br>alone {escape(numbers)}"
