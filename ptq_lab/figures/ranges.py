"""What each activation tensor can hold after quantization, against what calibration saw in it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import plotly.graph_objects as go

from ptq_lab.figures import style
from ptq_lab.report.names import telling_names
from ptq_lab.report.tables import ActivationRow, Report
from ptq_lab.report.text import format_percent, text_table

NAMED_TENSORS = 24
TICK_WIDTH = 18
TEXT_BAR = 40  # characters from the lowest to the highest value of all tensors
RANGE_WIDTH, SEEN_WIDTH = 0.75, 0.2  # of the distance between two tensors


def draw_ranges(report: Report) -> go.Figure:
    """Draw the range of codes (wide) and the range seen in calibration (narrow), one column per activation tensor.

    Where the narrow bar is longer, values are cut off; where the wide one is, steps are given away.

    Parameters
    ----------
    report : Report
        The tables of a finished run.

    Returns
    -------
    plotly.graph_objects.Figure
        In real units, in the order of the graph. The same report gives the same figure.

    Examples
    --------
    >>> from ptq_lab.report.tables import LayerRow, OutputRow, Report, Summary, Table
    >>> row = ActivationRow(tensor="x", node="", method="KL", low=0.0, high=2.0, observed_low=0.0, observed_high=3.0,
    ...                     clip_share=0.01, scale=2 / 255, zero_point=0, dtype="uint8")
    >>> summary = Summary(model="m.onnx", quant_type="FULL_QUANT", bits=8, bytes_before=1000,
    ...                   bytes_after=400, layers=0, layers_quantized=0, cosine_mean=0.9999,
    ...                   cosine_min=0.9998, sqnr_db=38.0, compared_on="", seconds={})
    >>> report = Report(summary, Table(LayerRow), Table(OutputRow), Table(ActivationRow, [row]))
    >>> [(trace.name, trace.y) for trace in draw_ranges(report).data]
    [('range of the codes', (2.0,)), ('seen in calibration', (3.0,))]
    """
    rows = report.activations
    figure = style.new_figure("Range of every activation tensor, in the order of the graph", height=330)
    if rows:
        spans, words = [(row.low, row.high) for row in rows], [describe_activation(row) for row in rows]
        figure.add_trace(_bars("range of the codes", style.CODES, RANGE_WIDTH, spans, words))
        seen = [_seen(row) for row in rows]
        figure.add_trace(_bars("seen in calibration", style.FLOAT, SEEN_WIDTH, seen, [_words(*ends) for ends in seen]))
    figure.update_layout(
        barmode="overlay",
        hovermode="closest",
        xaxis=_tensor_axis(rows),
        yaxis={"title": {"text": "value"}, "zeroline": True, "zerolinecolor": style.GRID},
    )
    return figure


def ranges_text(report: Report) -> str:
    """Return the bars of :func:`draw_ranges` as characters: ``#`` is the range of the codes, ``-`` was seen beyond."""
    low, high = value_span(report.activations)
    names = telling_names([row.tensor for row in report.activations])
    rows = [
        (name, f"{row.low:.4g}", f"{row.high:.4g}", _bar(row, low, high))
        for row, name in zip(report.activations, names, strict=True)
    ]
    return text_table(("activation", "low", "high", ""), rows, right=("low", "high"))


def describe_activation(row: ActivationRow) -> str:
    """Return what there is to know about an activation tensor as the lines of a hover box, escaped for plotly."""
    seen = "" if row.observed_low is None else _words(*_seen(row))
    cut = "" if row.clip_share is None else f"cut off: {format_percent(row.clip_share)} of the values"
    grid = f"{row.dtype}, scale {row.scale:.4g}, zero point {row.zero_point}"
    lines = (f"{row.method}: {row.low:.4g} to {row.high:.4g}", seen, cut, grid)
    return "<br>".join([f"<b>{escape(row.tensor)}</b>", *(escape(line) for line in lines if line)])


def value_span(rows: Sequence[ActivationRow]) -> tuple[float, float]:
    """Return the lowest and the highest value that any range reaches; zero lies between them."""
    ends = [0.0, *(end for row in rows for end in (row.low, row.high, *_seen(row)))]
    return min(ends), max(ends)


def _seen(row: ActivationRow) -> tuple[float, float]:
    if row.observed_low is None or row.observed_high is None:
        return 0.0, 0.0
    return row.observed_low, row.observed_high


def _words(low: float, high: float) -> str:
    return f"seen: {low:.4g} to {high:.4g}"


def _bars(name: str, colour: str, width: float, ends: Sequence[tuple[float, float]], words: Sequence[str]) -> go.Bar:
    return go.Bar(
        x=list(range(len(ends))),
        y=[high - low for low, high in ends],
        base=[low for low, _ in ends],
        name=name,
        marker={"color": colour},
        width=width,
        hovertext=words,
        hoverinfo="text",
    )


def _tensor_axis(rows: Sequence[ActivationRow]) -> dict[str, object]:
    axis: dict[str, object] = {"range": [-0.6, max(1, len(rows)) - 0.4], "showgrid": False}
    if len(rows) > NAMED_TENSORS:
        return axis | {"title": {"text": "activation tensor"}, "tickformat": "d"}
    names = [escape(name) for name in telling_names([row.tensor for row in rows], TICK_WIDTH)]
    return axis | {"tickmode": "array", "tickvals": list(range(len(rows))), "ticktext": names, "tickangle": -40}


def _bar(row: ActivationRow, low: float, high: float) -> str:
    seen_low, seen_high = _seen(row)

    def column(value: float) -> int:
        return round(TEXT_BAR * (value - low) / ((high - low) or 1.0))

    start, end = column(row.low), column(row.high)
    before, behind = start - column(min(seen_low, row.low)), column(max(seen_high, row.high)) - end
    return " " * (start - before) + "-" * before + "#" * max(1, end - start) + "-" * behind
