"""What the quality ladder did to each layer: its error before and after, and every step with what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

import plotly.graph_objects as go

from ptq_lab.figures import style
from ptq_lab.figures.layers import NAMED_LAYERS, TICK_WIDTH, still_labels
from ptq_lab.figures.tables import render
from ptq_lab.report.names import telling_names
from ptq_lab.report.steps import LayerOfSteps, StepRow, format_error, layers_of, steps_line
from ptq_lab.report.tables import Report
from ptq_lab.report.text import text_table

LEAST = 1e-9
"""Errors below are drawn here: a logarithmic axis has no zero."""

TITLE = "Error of each layer before and after the steps that make its weights better"
_LEFT, _TOP, _WIDTH, _HEIGHT = 46, 26, 744, 180  # of the still picture


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
    for name, colour, errors in _lines(layers):
        figure.add_trace(
            go.Scatter(
                x=list(range(len(errors))),
                y=[max(error, LEAST) for error in errors],
                name=name,
                mode="lines+markers",
                line={"color": colour, "width": 2},
                marker={"size": 6},
                **({"hovertext": words, "hoverinfo": "text"} if name == "after" else {"hoverinfo": "skip"}),
            )
        )
    figure.update_layout(
        hovermode="x",
        xaxis=_axis(layers),
        yaxis={
            "title": {"text": "error, share of the output's power"},
            "type": "log",
            "dtick": 1,
            "exponentformat": "power",
        },
    )
    return figure


def steps_html(report: Report) -> str:
    """Return :func:`draw_steps` as a still picture (SVG), the steps in its tool tips."""
    layers = _treated(report)
    lines = _lines(layers)
    seen = [max(error, LEAST) for _, _, errors in lines for error in errors] or [1.0]
    bottom, top = floor(log10(min(seen))), ceil(log10(max(seen)))
    unit, step = _HEIGHT / ((top - bottom) or 1), _WIDTH / max(1, len(layers) - 1)

    def place(index: int, value: float) -> str:
        return f"{_LEFT + index * step:.1f} {_TOP + (top - log10(max(value, LEAST))) * unit:.1f}"

    drawn = [(name, colour, [place(i, error) for i, error in enumerate(errors)]) for name, colour, errors in lines]
    return render(
        "depth",
        heading="error of each layer before and after its steps, on a logarithmic scale",
        labels=still_labels([layer.node for layer in layers], [_LEFT + i * step for i in range(len(layers))]),
        ink=style.INK,
        scale=[(_TOP + (top - power) * unit, power) for power in range(bottom, top + 1)],
        lines=[(name, colour, "solid", "M" + "L".join(points)) for name, colour, points in drawn if points],
        stops=[(round(_LEFT + i * step, 1), "; ".join(_sentences(layer))) for i, layer in enumerate(layers)],
        reach=max(step, 6.0),
    )


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


def _lines(layers: Sequence[LayerOfSteps]) -> list[tuple[str, str, list[float]]]:
    before = [layer.before or 0.0 for layer in layers]
    after = [layer.after or 0.0 for layer in layers]
    return [("before", style.FLOAT, before), ("after", style.CODES, after)]


def _sentences(layer: LayerOfSteps) -> list[str]:
    head = f"{layer.node}: {format_error(layer.before)} -> {format_error(layer.after)}"
    return [head, *(f"{row.step} {format_error(row.after)} {_verdict(row)}" for row in layer.rows)]


def _verdict(row: StepRow) -> str:
    return "kept" if row.kept else "dropped"


def _hover(layer: LayerOfSteps) -> str:
    name, *rest = _sentences(layer)
    return "<br>".join((f"<b>{escape(name)}</b>", *map(escape, rest)))


def _axis(layers: Sequence[LayerOfSteps]) -> dict[str, object]:
    axis: dict[str, object] = {"range": [-0.5, max(1, len(layers)) - 0.5], "showgrid": False}
    if len(layers) > NAMED_LAYERS:
        return axis | {"title": {"text": "layer, in the order of its turn"}, "tickformat": "d"}
    names = [escape(name) for name in telling_names([layer.node for layer in layers], TICK_WIDTH)]
    return axis | {"tickmode": "array", "tickvals": list(range(len(layers))), "ticktext": names, "tickangle": -40}
