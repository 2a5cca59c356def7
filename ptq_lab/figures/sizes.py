"""Where the bytes are: codes, scales, float weights and everything else, before and after."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

import plotly.graph_objects as go

from ptq_lab.figures import style
from ptq_lab.report.tables import LayerRow, Report
from ptq_lab.report.text import format_bytes, text_table


@dataclass(frozen=True, slots=True, kw_only=True)
class SizePart:
    """One kind of bytes in the file.

    Attributes
    ----------
    name : str
        What the bytes are.
    before, after : int
        How many of them the original and the quantized file hold.
    colour : str
        Of its bar.
    """

    name: str
    before: int
    after: int
    colour: str


def size_parts(report: Report) -> tuple[SizePart, ...]:
    """Split both files into kinds of bytes; a weight that several nodes share counts once.

    Returns
    -------
    tuple of SizePart
        Codes of quantized weights, their scales and offsets, weights left in float, everything else (biases,
        the graph itself). Columns add up to the file sizes. Exactly packed codes need
        ``ceil(elements * bits / 8)`` bytes; what a weight takes beyond that is counted with its scales.

    Examples
    --------
    >>> from ptq_lab.report.tables import LayerRow, OutputRow, Report, Summary, Table
    >>> row = LayerRow(node="conv", op_type="Conv", tensor="w", shape=(8, 3, 3, 3), bits=8, storage="int8",
    ...                granularity="per-channel (8)", bytes_before=864, bytes_after=280)
    >>> summary = Summary(model="m.onnx", quant_type="WEIGHT_QUANT", bits=8, bytes_before=1000,
    ...                   bytes_after=400, layers=1, layers_quantized=1, cosine_mean=0.9999,
    ...                   cosine_min=0.9998, sqnr_db=38.0, compared_on="", seconds={})
    >>> for part in size_parts(Report(summary, Table(LayerRow, [row]), Table(OutputRow))):
    ...     print(part.name, part.before, part.after)
    quantized weights 864 216
    scales and offsets 0 64
    weights left in float 0 0
    everything else 136 120
    """
    weights = {row.tensor: row for row in report.layers}.values()
    stored = [row for row in weights if row.quantized]
    left = [row for row in weights if not row.quantized]
    codes = sum(_code_bytes(row) for row in stored)
    stored_before, stored_after = _total(stored)
    left_before, left_after = _total(left)
    rest_before = max(0, report.summary.bytes_before - stored_before - left_before)
    rest_after = max(0, report.summary.bytes_after - stored_after - left_after)
    return (
        SizePart(name="quantized weights", before=stored_before, after=codes, colour=style.CODES),
        SizePart(name="scales and offsets", before=0, after=stored_after - codes, colour=style.SCALES),
        SizePart(name="weights left in float", before=left_before, after=left_after, colour=style.FLOAT),
        SizePart(name="everything else", before=rest_before, after=rest_after, colour=style.REST),
    )


def draw_sizes(report: Report) -> go.Figure:
    """Draw both files as stacked bars of :func:`size_parts`, to one scale in bytes.

    Examples
    --------
    >>> from ptq_lab.report.tables import LayerRow, OutputRow, Report, Summary, Table
    >>> summary = Summary(model="m.onnx", quant_type="WEIGHT_QUANT", bits=8, bytes_before=1000,
    ...                   bytes_after=400, layers=0, layers_quantized=0, cosine_mean=1.0,
    ...                   cosine_min=1.0, sqnr_db=38.0, compared_on="", seconds={})
    >>> figure = draw_sizes(Report(summary, Table(LayerRow), Table(OutputRow)))
    >>> [(trace.name, trace.x) for trace in figure.data]
    [('everything else', (1000, 400))]
    """
    summary = report.summary
    figure = style.new_figure("Where the bytes are", height=230)
    for part in size_parts(report):
        if part.before or part.after:
            figure.add_trace(_bar(part, summary.bytes_before, summary.bytes_after))
    figure.update_layout(
        barmode="stack",
        xaxis={"title": {"text": "bytes"}, "tickformat": "~s", "rangemode": "tozero"},
        yaxis={"autorange": "reversed", "showgrid": False, "ticklabelstandoff": 8},
    )
    return figure


def sizes_text(report: Report) -> str:
    """Return the numbers of :func:`draw_sizes` as a text table."""
    rows = [(part.name, format_bytes(part.before), format_bytes(part.after)) for part in size_parts(report)]
    summary = report.summary
    rows.append(("the file", format_bytes(summary.bytes_before), format_bytes(summary.bytes_after)))
    return text_table(("bytes of", "before", "after"), rows, right=("before", "after"))


def _bar(part: SizePart, before: int, after: int) -> go.Bar:
    hover = [
        f"{part.name}<br>{format_bytes(count)}, {100 * count / whole:.1f} % of the file"
        for count, whole in ((part.before, before), (part.after, after))
    ]
    return go.Bar(
        x=[part.before, part.after],
        y=["before", "after"],
        orientation="h",
        name=part.name,
        marker={"color": part.colour},
        hovertext=hover,
        hoverinfo="text",
        width=0.62,
    )


def _code_bytes(row: LayerRow) -> int:
    exact = ceil(prod(row.shape) * (row.bits or 0) / 8)
    return min(exact, row.bytes_after)


def _total(rows: list[LayerRow]) -> tuple[int, int]:
    return sum(row.bytes_before for row in rows), sum(row.bytes_after for row in rows)
