"""How the error grows on its way through the model: what each layer adds, and what has piled up behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

import plotly.graph_objects as go

from ptq_lab.figures import style
from ptq_lab.figures.layers import NAMED_LAYERS, TICK_WIDTH, still_labels
from ptq_lab.figures.tables import render
from ptq_lab.report.findings import Explanation, format_loss
from ptq_lab.report.names import telling_names
from ptq_lab.report.rows import ErrorRow
from ptq_lab.report.text import text_table

LEAST = 1e-7
"""Errors below are drawn here: a logarithmic axis has no zero, and float32 hardly a finer difference."""

TITLE = "Error along the depth of the model"
_TEXT_BAR = 32
_LEFT, _TOP, _WIDTH, _HEIGHT = 46, 26, 744, 180  # of the still picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One error per layer, ``None`` where it is not known."""

    name: str
    colour: str
    dash: str
    values: tuple[float | None, ...]


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
    for index, line in enumerate(error_lines(found)):  # the first one's words say what all lines show
        figure.add_trace(
            go.Scatter(
                x=list(range(len(line.values))),
                y=[None if value is None else max(value, LEAST) for value in line.values],
                name=line.name,
                mode="lines+markers",
                line={"color": line.colour, "width": 2, "dash": line.dash},
                marker={"size": 5},
                **({"hoverinfo": "skip"} if index else {"hovertext": words, "hoverinfo": "text"}),
            )
        )
    figure.update_layout(
        hovermode="x",
        xaxis=_axis(found.errors),
        yaxis={"title": {"text": "1 - cosine"}, "type": "log", "dtick": 1, "exponentformat": "power"},
    )
    return figure


def depth_html(found: Explanation) -> str:
    """Return :func:`draw_depth` as a still picture (SVG), names in its tool tips."""
    lines = error_lines(found)
    seen = [max(value, LEAST) for line in lines for value in line.values if value is not None] or [1.0]
    bottom, top = floor(log10(min(seen))), ceil(log10(max(seen)))
    unit, step = _HEIGHT / ((top - bottom) or 1), _WIDTH / max(1, len(found.errors) - 1)

    def place(index: int, value: float) -> str:
        return f"{_LEFT + index * step:.1f} {_TOP + (top - log10(max(value, LEAST))) * unit:.1f}"

    drawn = [(line, [place(i, value) for i, value in enumerate(line.values) if value is not None]) for line in lines]
    return render(
        "depth",
        heading="1 - cosine of each layer's output, on a logarithmic scale",
        labels=still_labels([row.node for row in found.errors], [_LEFT + i * step for i in range(len(found.errors))]),
        ink=style.INK,
        scale=[(_TOP + (top - power) * unit, power) for power in range(bottom, top + 1)],
        lines=[(line.name, line.colour, line.dash, "M" + "L".join(points)) for line, points in drawn if points],
        stops=[(round(_LEFT + i * step, 1), _words(row, found)) for i, row in enumerate(found.errors)],
        reach=max(step, 6.0),
    )


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


def error_lines(found: Explanation) -> tuple[Line, ...]:
    """Return what is drawn: both errors on calibration samples, and on evaluation samples if there are any."""
    lines = [
        Line(
            name="with all before",
            colour=style.FLOAT,
            dash="solid",
            values=tuple(_loss(row.accumulated_cosine) for row in found.errors),
        ),
        Line(
            name="alone",
            colour=style.CODES,
            dash="solid",
            values=tuple(_loss(row.isolated_cosine) for row in found.errors),
        ),
    ]
    if found.evaluated:
        there = [found.on_evaluation(row.node) for row in found.errors]
        after = tuple(_loss(row.accumulated_cosine) if row else None for row in there)
        alone = tuple(_loss(row.isolated_cosine) if row else None for row in there)
        lines.append(Line(name="with all before, evaluation", colour=style.FLOAT, dash="dot", values=after))
        lines.append(Line(name="alone, evaluation", colour=style.CODES, dash="dot", values=alone))
    return tuple(lines)


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


def _axis(rows: Sequence[ErrorRow]) -> dict[str, object]:
    axis: dict[str, object] = {"range": [-0.5, max(1, len(rows)) - 0.5], "showgrid": False}
    if len(rows) > NAMED_LAYERS:
        return axis | {"title": {"text": "layer, in the order of the graph"}, "tickformat": "d"}
    names = [escape(name) for name in telling_names([row.node for row in rows], TICK_WIDTH)]
    return axis | {"tickmode": "array", "tickvals": list(range(len(rows))), "ticktext": names, "tickangle": -40}
