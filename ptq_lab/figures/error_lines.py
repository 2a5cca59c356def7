"""Errors of layers as lines over the layers, on a logarithmic scale: with plotly, and as a still picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

import plotly.graph_objects as go

from ptq_lab.figures import style
from ptq_lab.figures.layers import name_axis, still_labels
from ptq_lab.figures.tables import render

_LEFT, _TOP, _WIDTH, _HEIGHT = 46, 26, 744, 180  # of the still picture


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorLine:
    """One error per layer, ``None`` where it is not known."""

    name: str
    colour: str
    dash: str = "solid"
    values: tuple[float | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorLines:
    """Lines over the same layers.

    Attributes
    ----------
    lines : tuple of ErrorLine
    layers : tuple of str
        Their names.
    least : float
        Errors below are drawn here: a logarithmic axis has no zero.
    """

    lines: tuple[ErrorLine, ...]
    layers: tuple[str, ...]
    least: float

    def height(self, value: float) -> float:
        """Return the logarithm at which an error is drawn."""
        return log10(max(value, self.least))


def add_lines(figure: go.Figure, found: ErrorLines, words: Sequence[str], *, error: str, layers: str) -> None:
    """Draw lines into a figure; the first one's words say what all lines show.

    Parameters
    ----------
    figure : plotly.graph_objects.Figure
    found : ErrorLines
    words : sequence of str
        A text per layer, as HTML.
    error, layers : str
        Titles of the axes; that of the layers where they are too many to be named.
    """
    for index, line in enumerate(found.lines):
        figure.add_trace(
            go.Scatter(
                x=list(range(len(line.values))),
                y=[None if value is None else max(value, found.least) for value in line.values],
                name=line.name,
                mode="lines+markers",
                line={"color": line.colour, "width": 2, "dash": line.dash},
                marker={"size": 5},
                **({"hoverinfo": "skip"} if index else {"hovertext": list(words), "hoverinfo": "text"}),
            )
        )
    figure.update_layout(
        hovermode="x",
        xaxis=name_axis(found.layers, many=layers) | {"range": [-0.5, max(1, len(found.layers)) - 0.5]},
        yaxis={"title": {"text": error}, "type": "log", "dtick": 1, "exponentformat": "power"},
    )


def still_lines(found: ErrorLines, words: Sequence[str], *, heading: str) -> str:
    """Return lines as a still picture (SVG), a text per layer in its tool tips."""
    seen = [found.height(value) for line in found.lines for value in line.values if value is not None] or [0.0]
    bottom, top = floor(min(seen)), ceil(max(seen))
    unit, step = _HEIGHT / ((top - bottom) or 1), _WIDTH / max(1, len(found.layers) - 1)
    places = [_LEFT + index * step for index in range(len(found.layers))]

    def path(line: ErrorLine) -> str:
        known = [(x, value) for x, value in zip(places, line.values, strict=True) if value is not None]
        points = [f"{x:.1f} {_TOP + (top - found.height(value)) * unit:.1f}" for x, value in known]
        return "M" + "L".join(points) if points else ""

    drawn = [(line.name, line.colour, line.dash, path(line)) for line in found.lines]
    return render(
        "depth",
        heading=heading,
        labels=still_labels(found.layers, places),
        ink=style.INK,
        scale=[(_TOP + (top - power) * unit, power) for power in range(bottom, top + 1)],
        lines=[each for each in drawn if each[-1]],
        stops=[(round(x, 1), text) for x, text in zip(places, words, strict=True)],
        reach=max(step, 6.0),
    )
