"""What the quality ladder did to each layer: its error before and after, and every step with what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import plotly.graph_objects as go

from ptq_lab.figures import style
from ptq_lab.figures.error_lines import ErrorLine, ErrorLines, add_lines, still_lines
from ptq_lab.figures.tables import render
from ptq_lab.report.names import telling_names
from ptq_lab.report.steps import LayerOfSteps, StepRow, format_error, layers_of, steps_line
from ptq_lab.report.tables import Report
from ptq_lab.report.text import text_table

LEAST = 1e-9
"""Errors below are drawn here: a logarithmic axis has no zero."""

TITLE = "Error of each layer before and after the steps that make its weights better"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCell:
    """What one step did to one layer, in words; all empty where it was not tried."""

    error: str = ""
    verdict: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLayerView:
    """One layer as the table shows it."""

    node: str
    what: str
    before: str
    cells: tuple[StepCell, ...]
    after: str
    blend: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepsView:
    """The whole table: a line about all, the steps with what each of them is, and the layers."""

    line: str
    meanings: Mapping[str, str]
    layers: tuple[StepLayerView, ...]


def draw_steps(report: Report) -> go.Figure:
    """Draw the error of every layer's output before the first step and after the last one that was kept.

    Parameters
    ----------
    report : Report
        Of a run whose effort was ``balanced`` or ``best``; of any other the figure is empty.

    Returns
    -------
    plotly.graph_objects.Figure
        On a logarithmic scale, in the order in which the layers were treated. The error is the one of the layer's
        output on held-out samples, as a share of the output's power. The steps stand in the labels of the points.

    Examples
    --------
    >>> from ptq_lab import demo, quantize
    >>> digits = demo.load("digits_cnn")
    >>> settings = {"common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": 4}}
    >>> result = quantize(digits.model_path, settings, samples=digits.calib_path)
    >>> [line.name for line in draw_steps(result.report).data]
    ['before', 'after']
    """
    figure = style.new_figure(TITLE, height=380)
    layers = _treated(report)
    words = [_hover(layer) for layer in layers]
    error, many = "error, share of the output's power", "layer, in the order of its turn"
    add_lines(figure, _lines(layers), words, error=error, layers=many)
    return figure


def steps_html(report: Report) -> str:
    """Return :func:`draw_steps` as a still picture (SVG), the steps in its tool tips."""
    layers = _treated(report)
    words = ["; ".join(_sentences(layer)) for layer in layers]
    heading = "error of each layer before and after its steps, on a logarithmic scale"
    return still_lines(_lines(layers), words, heading=heading)


def steps_text(report: Report) -> str:
    """Return :func:`draw_steps` as a table of text, a line per layer."""
    layers = _treated(report)
    rows = [
        (name, format_error(layer.before), format_error(layer.after), str(len(layer.dropped) or "-"))
        for layer, name in zip(layers, telling_names([layer.node for layer in layers]), strict=True)
    ]
    return text_table(("layer", "before", "after", "dropped"), rows, right=("before", "after", "dropped"))


def steps_table_html(report: Report) -> str:
    """Return every step of every layer as a table without scripts, with a list of what the steps are."""
    return render("steps", steps=view_steps(report))


def view_steps(report: Report) -> StepsView:
    """Turn the steps of a report into words: a column per step, a row per layer."""
    names = tuple(dict.fromkeys(row.step for row in report.steps if row.step))
    meanings = {row.step: row.meaning for row in report.steps if row.step}
    layers = tuple(_view_layer(layer, names) for layer in layers_of(report.steps))
    return StepsView(line=steps_line(report.steps), meanings=meanings, layers=layers)


def _view_layer(layer: LayerOfSteps, names: Sequence[str]) -> StepLayerView:
    first = layer.rows[0]
    taken = {row.step: row for row in layer.rows if row.step}
    return StepLayerView(
        node=layer.node,
        what=f"{first.op_type}, {first.bits} bits",
        before=format_error(layer.before),
        cells=tuple(_cell(taken.get(name)) for name in names),
        after=format_error(layer.after),
        blend=f"{first.blend:g}",
        reason=first.reason,
    )


def _cell(row: StepRow | None) -> StepCell:
    return StepCell() if row is None else StepCell(error=format_error(row.after), verdict=_verdict(row))


def _treated(report: Report) -> tuple[LayerOfSteps, ...]:
    return tuple(layer for layer in layers_of(report.steps) if layer.before is not None)


def _lines(layers: Sequence[LayerOfSteps]) -> ErrorLines:
    before = ErrorLine(name="before", colour=style.FLOAT, values=tuple(layer.before for layer in layers))
    after = ErrorLine(name="after", colour=style.CODES, values=tuple(layer.after for layer in layers))
    return ErrorLines(lines=(before, after), layers=tuple(layer.node for layer in layers), least=LEAST)


def _sentences(layer: LayerOfSteps) -> list[str]:
    head = f"{layer.node}: {format_error(layer.before)} -> {format_error(layer.after)}"
    return [head, *(f"{row.step} {format_error(row.after)} {_verdict(row)}" for row in layer.rows)]


def _verdict(row: StepRow) -> str:
    return "kept" if row.kept else "dropped"


def _hover(layer: LayerOfSteps) -> str:
    name, *rest = _sentences(layer)
    return "<br>".join((f"<b>{escape(name)}</b>", *map(escape, rest)))
