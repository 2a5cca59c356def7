"""Which layer hurts: the error each one makes by itself, beside what has piled up behind it; the worst first."""

from __future__ import annotations

from html import escape
from math import log10

import plotly.graph_objects as go

from ptq_lab.figures import style
from ptq_lab.figures.depth import LEAST
from ptq_lab.figures.tables import render
from ptq_lab.report.findings import Explanation, format_loss
from ptq_lab.report.names import telling_names
from ptq_lab.report.rows import ErrorRow
from ptq_lab.report.text import text_table

DRAWN = 20
TITLE = "The most harmful layers"
_TEXT_BAR = 32
_HALF = 0.38  # of the distance between two layers


def draw_errors(found: Explanation) -> go.Figure:
    """Draw ``1 - cosine`` of the outputs of the twenty most harmful layers as bars, alone and with all before them.

    Parameters
    ----------
    found : Explanation

    Returns
    -------
    plotly.graph_objects.Figure
        On a logarithmic scale, the most harmful on top; diamonds are evaluation samples, where there are any.

    Examples
    --------
    >>> from ptq_lab.report.tables import Table
    >>> row = ErrorRow(node="conv", op_type="Conv", tensor="y", isolated_cosine=0.99, isolated_sqnr_db=17.0,
    ...                accumulated_cosine=0.98, accumulated_sqnr_db=14.0)
    >>> [(bars.name, round(bars.x[0], 6)) for bars in draw_errors(Explanation(Table(ErrorRow, [row]), ())).data]
    [('alone', 0.01), ('with all before', 0.02)]
    """
    rows, names = _named(found)
    figure = style.new_figure(f"{TITLE}: 1 - cosine of their outputs", height=110 + 26 * max(1, len(rows)))
    for name, colour, offset, values in (
        ("alone", style.CODES, -_HALF, [_loss(row.isolated_cosine) for row in rows]),
        ("with all before", style.FLOAT, 0.0, [_loss(row.accumulated_cosine) for row in rows]),
    ):
        figure.add_trace(_bars(rows, name, values, colour=colour, offset=offset))
    there = [found.on_evaluation(row.node) for row in rows]
    if found.evaluated:
        losses = [_loss(row.isolated_cosine if row else None) for row in there]
        figure.add_trace(_marks(losses))
    figure.update_layout(
        hovermode="closest",
        barmode="overlay",
        xaxis={"type": "log", "dtick": 1, "exponentformat": "power"},
        yaxis={
            "autorange": "reversed",
            "showgrid": False,
            "tickmode": "array",
            "tickvals": list(range(len(rows))),
            "ticktext": [escape(name) for name in names],
            "ticklabelstandoff": 8,
        },
    )
    return figure


def errors_html(found: Explanation) -> str:
    """Return :func:`draw_errors` as a table with bars on the same logarithmic scale."""
    rows, names = _named(found)
    cells = [
        {
            "node": name,
            "title": row.node,
            "op_type": row.op_type,
            "losses": [
                (format_loss(value), _share(value), colour)
                for value, colour in ((row.isolated_cosine, style.CODES), (row.accumulated_cosine, style.FLOAT))
            ],
        }
        for row, name in zip(rows, names, strict=True)
    ]
    return render("errors", heading=TITLE, rows=cells)


def errors_text(found: Explanation) -> str:
    """Return :func:`draw_errors` as bars of characters on the same logarithmic scale."""
    rows = [
        (
            name,
            format_loss(row.isolated_cosine),
            format_loss(row.accumulated_cosine),
            "#" * round(_TEXT_BAR * _share(row.isolated_cosine)),
        )
        for row, name in zip(*_named(found), strict=True)
    ]
    return text_table(("layer", "alone", "with all before", ""), rows, right=("alone", "with all before"))


def _named(found: Explanation) -> tuple[tuple[ErrorRow, ...], tuple[str, ...]]:
    """Return the layers that are drawn, and what they are called among all layers."""
    rows = found.by_harm
    return rows[:DRAWN], telling_names([row.node for row in rows])[:DRAWN]


def _bars(rows: tuple[ErrorRow, ...], name: str, values: list[float | None], *, colour: str, offset: float) -> go.Bar:
    words = [
        f"<b>{escape(row.node)}</b><br>{row.op_type}, {name}: {_number(value)}" for row, value in _pairs(rows, values)
    ]
    return go.Bar(
        x=values,
        y=list(range(len(rows))),
        orientation="h",
        name=name,
        marker={"color": colour},
        width=_HALF,
        offset=offset,
        hovertext=words,
        hoverinfo="text",
    )


def _pairs(rows: tuple[ErrorRow, ...], values: list[float | None]) -> list[tuple[ErrorRow, float | None]]:
    return list(zip(rows, values, strict=True))


def _marks(values: list[float | None]) -> go.Scatter:
    return go.Scatter(
        x=values,
        y=[index - _HALF / 2 for index in range(len(values))],
        mode="markers",
        name="alone, evaluation samples",
        marker={"color": style.SCALES, "symbol": "diamond", "size": 8},
        hovertext=[f"evaluation samples: {_number(value)}" for value in values],
        hoverinfo="text",
    )


def _loss(cosine: float | None) -> float | None:
    return None if cosine is None else max(LEAST, 1.0 - cosine)


def _number(loss: float | None) -> str:
    return format_loss(None if loss is None else 1.0 - loss)


def _share(cosine: float | None) -> float:
    """Return how far a bar reaches, from 0 at `LEAST` to 1 at an error of 1."""
    loss = _loss(cosine)
    return 0.0 if loss is None else min(1.0, 1.0 - log10(loss) / log10(LEAST))
