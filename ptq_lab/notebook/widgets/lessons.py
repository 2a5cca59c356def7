"""The live parts of lessons: each asks its lesson object for numbers and hands them to its script."""

# mypy: disallow-untyped-calls=False, disallow-subclassing-any=False
# (anywidget's base class carries no types.)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anywidget
import traitlets

from ptq_lab.errors import PtqLabError
from ptq_lab.lesson import Granularity, HandingOn, Inspection, NumberLine, Pictures, WidthCurves
from ptq_lab.lesson.granularity import HEADERS as DIVISION_HEADERS
from ptq_lab.lesson.handing_on import TOP
from ptq_lab.lesson.look import HEADERS as CUT_HEADERS
from ptq_lab.lesson.look import Cut, Look
from ptq_lab.lesson.pictures import FACTORS, Drawing
from ptq_lab.lesson.widths import Widths
from ptq_lab.notebook.widgets.parts import script, styles

View = dict[str, Any]

MENU = 120
"""Entries of a list of tensors; others are reached by their name, as ``inspect(model, name)``."""


class LessonPart(anywidget.AnyWidget):
    """What the parts have in common: they answer a `choice` with a `view`.

    Parameters
    ----------
    answer : callable
        The page's choice to what it shows.
    first : dict
        The choice to start with.
    """

    _css = styles("chart")
    layers: traitlets.List[Any] = traitlets.List().tag(sync=True)
    choice = traitlets.Dict().tag(sync=True)
    view = traitlets.Dict().tag(sync=True)

    def __init__(self, answer: Callable[[View], View], first: View, **traits: Any) -> None:
        super().__init__(view=answer(first), **traits)
        self._answer = answer
        self.observe(self._on_choice, "choice")

    def _on_choice(self, change: View) -> None:
        asked = change["new"]
        try:
            found = self._answer(asked)
        except PtqLabError as refusal:
            found = {"error": str(refusal)}
        self.view = {**found, "serial": asked.get("serial", 0)}  # differs from the last one even if nothing else does


class NumberLinePart(LessonPart):
    """A number on a grid; its arithmetic runs in the page."""

    _esm = script("chart", "number_line")

    def __init__(self, line: NumberLine) -> None:
        values = {name: getattr(line, name) for name in ("value", "low", "high", "bits", "symmetric")}
        super().__init__(lambda _: values, {})


class HandingOnPart(LessonPart):
    """Two weights, rounded one after the other."""

    _esm = script("chart", "handing_on")

    def __init__(self, pair: HandingOn) -> None:
        first = {name: getattr(pair, name) for name in ("first", "second", "correlation")}
        super().__init__(_view_pair, first)


class GranularityPart(LessonPart):
    """One weight, divided in three ways."""

    _esm = script("chart", "granularity")

    def __init__(self, granularity: Granularity) -> None:
        def answer(asked: View) -> View:
            found = granularity.compare(asked["layer"], asked["bits"])
            return {
                "layer": found.tensor,
                "bits": found.bits,
                "headline": found.headline,
                "channels": list(found.channels),
                "spans": [_short(*span) for span in found.spans],
                "headers": list(DIVISION_HEADERS),
                "divisions": [
                    {
                        "name": each.name,
                        "error": each.relative_error,
                        "cells": list(row[1:]),
                        "grids": [_short(*grid) for grid in each.grid_of_channel],
                    }
                    for each, row in zip(found.divisions, found.rows(), strict=True)
                ],
                "sentences": list(found.sentences()),
            }

        first = {"layer": granularity.layer, "bits": granularity.bits}
        super().__init__(answer, first, layers=_menu(granularity.layers, granularity.layer))


class WidthCurvePart(LessonPart):
    """Bits against SQNR."""

    _esm = script("chart", "width_curve")
    bits = traitlets.Int(4).tag(sync=True)

    def __init__(self, curves: WidthCurves) -> None:
        def answer(asked: View) -> View:
            return _view_widths(curves.measure(asked["layer"]))

        super().__init__(answer, {"layer": curves.layer}, layers=_menu(curves.layers, curves.layer))


class InspectorPart(LessonPart):
    """Histogram, grid and threshold of a tensor."""

    _esm = script("chart", "inspector")

    def __init__(self, inspection: Inspection) -> None:
        def answer(asked: View) -> View:
            channel = asked.get("channel", -1)
            look = inspection.look(asked["tensor"], bits=asked.get("bits"), channel=None if channel < 0 else channel)
            return _view_look(look)

        super().__init__(answer, {"tensor": inspection.first}, layers=_menu(inspection.tensors, inspection.first))


class PicturesPart(anywidget.AnyWidget):
    """Pictures in float and with fewer bits; they travel as messages, so that no state holds them."""

    _esm = script("chart", "pictures")
    _css = styles("chart")
    view = traitlets.Dict().tag(sync=True)

    def __init__(self, pictures: Pictures) -> None:
        names = pictures.variants
        view = {
            "variants": list(names),
            "samples": len(pictures),
            "factors": list(FACTORS),
            "makes": pictures.makes_pictures,
            "label": pictures.subject.label,
            "start": names.index(pictures.variant),
        }
        super().__init__(view=view)
        self._pictures = pictures
        self.on_msg(self._on_question)

    def _on_question(self, _widget: object, asked: View, _buffers: object) -> None:
        try:
            drawing = self._pictures.draw(asked["sample"], asked["variant"], factor=asked["factor"])
        except PtqLabError as refusal:
            self.send({"error": str(refusal)})
            return
        self.send({**_view_drawing(drawing), "factor": asked["factor"]}, buffers=_images(drawing))


def _view_pair(asked: View) -> View:
    names = ("first", "second", "correlation")
    pair = HandingOn(**{name: float(asked[name]) for name in names})
    one, two = pair.nearest, pair.handed_on
    return {
        **{name: getattr(pair, name) for name in names},
        "nearest": list(one),
        "handed": list(two),
        "moved": pair.moved,
        "errors": _short(pair.error(one), pair.error(two)),
        "radii": [_short(*pair.radii(one)), _short(*pair.radii(two))],
        "top": TOP,
        "sentences": list(pair.sentences()),
    }


def _menu(names: tuple[tuple[str, str], ...], first: str) -> list[list[str]]:
    """Return what a list offers: a window around the first choice where a model has more than fits into a state."""
    at = next(place for place, (name, _) in enumerate(names) if name == first)
    start = max(0, min(at - MENU // 2, len(names) - MENU))
    return [list(each) for each in names[start : start + MENU]]


def _images(drawing: Drawing) -> list[bytes]:
    return [png for png in (drawing.source, drawing.before, drawing.after, drawing.difference) if png]


def _view_drawing(drawing: Drawing) -> View:
    return {
        "sample": drawing.sample,
        "title": drawing.title,
        "facts": list(drawing.facts),
        "guesses": [[{"label": guess.label, "share": guess.share} for guess in side] for side in drawing.guesses],
    }


def _view_widths(found: Widths) -> View:
    return {
        "layer": found.tensor,
        "headline": found.headline,
        "sentences": list(found.sentences()),
        "curves": [
            {"name": curve.name, "measured": _short(*curve.measured), "expected": _short(*curve.expected)}
            for curve in found.curves
        ],
    }


def _view_look(look: Look) -> View:
    best = look.best
    return {
        "tensor": look.tensor,
        "headline": look.headline,
        "bits": look.bits,
        "channel": -1 if look.channel is None else look.channel,
        "channels": 1 if look.spans is None else look.spans.count,
        "counts": list(look.counts),
        "low": look.histogram.low,
        "high": look.histogram.high,
        "thresholds": [_view_cut(cut) for cut in look.thresholds],
        "best": next(at for at, cut in enumerate(look.thresholds) if cut is best),
        "chosen": _view_cut(look.chosen),
        "headers": list(CUT_HEADERS),
        "rows": [list(row) for row in look.rows()],
        "sentences": list(look.sentences()),
        "spans": None
        if look.spans is None
        else {
            "count": look.spans.count,
            "widest": look.spans.widest,
            "groups": [[first, last, *_short(low, high)] for first, last, low, high in look.spans.groups],
        },
    }


def _view_cut(cut: Cut) -> View:
    numbers = _short(cut.threshold, cut.low, cut.high, cut.clipping, cut.rounding)
    return dict(zip(("limit", "low", "high", "clipping", "rounding"), numbers, strict=True))


def _short(*numbers: float) -> list[float]:
    """Return numbers with six digits: more cannot be seen, and all of them are part of the state."""
    return [float(f"{number:.6g}") for number in numbers]
