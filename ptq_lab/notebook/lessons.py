"""Lessons in a notebook: a live part each, and below it what stays of it without a kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ptq_lab.errors import MissingExtra
from ptq_lab.figures import style
from ptq_lab.figures.lessons import (
    Line,
    Rounded,
    gallery_html,
    grid_html,
    handing_on_html,
    lesson_html,
    lines_html,
    spans_html,
)
from ptq_lab.figures.tables import threshold_html
from ptq_lab.lesson import Gallery, Granularity, HandingOn, Inspection, NumberLine, Pictures, WidthCurves
from ptq_lab.lesson.granularity import HEADERS as DIVISIONS
from ptq_lab.lesson.handing_on import TOP
from ptq_lab.lesson.look import HEADERS as CUTS
from ptq_lab.lesson.number_line import REACH
from ptq_lab.lesson.pictures import HEADERS as PLACES
from ptq_lab.lesson.widths import BITS
from ptq_lab.lesson.widths import HEADERS as WIDTHS

AGAIN = "Run the cell again to move the controls; this is how the part looked at first."
LIVE = {"anywidget", "ipywidgets", "traitlets"}


@dataclass(frozen=True, slots=True)
class Shown:
    """How one kind of lesson is shown.

    Attributes
    ----------
    part : str
        Class of its live part, in `widgets.lessons`.
    html : callable
        The lesson to HTML without scripts.
    """

    part: str
    html: Callable[[Any], str]


def show_lesson(lesson: object) -> None:
    """Publish the live part of a lesson, and below it its twin without scripts.

    Raises
    ------
    MissingExtra
        If anywidget is not installed.
    """
    shown = KINDS[type(lesson)]
    try:
        from ptq_lab.notebook.widgets import lessons
        from ptq_lab.notebook.widgets.parts import show_live
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in LIVE:
            raise
        part = "the live part of a lesson"
        raise MissingExtra(part, "lab") from missing
    widget = getattr(lessons, shown.part)(lesson)
    show_live(widget, html=shown.html(lesson), text=str(lesson), again=AGAIN)


def lesson_bundle(lesson: object) -> dict[str, str]:
    """Return a lesson by mime type, without its live part."""
    html = STILL.get(type(lesson)) or KINDS[type(lesson)].html
    return {"text/plain": str(lesson), "text/html": html(lesson)}


def _number_line(line: NumberLine) -> str:
    drawing = grid_html(
        line.points,
        value=line.value,
        decoded=line.decoded,
        reach=REACH,
        label=f"{line.value:.4g} becomes {line.decoded:.4g}",
    )
    return lesson_html("A number on a grid", line.sentences(), drawing=drawing)


def _granularity(lesson: Granularity) -> str:
    found = lesson.compare()
    title = "Granularity: how many grids for one weight"
    drawing = spans_html(found.spans, label=f"ranges of channels {found.channels[0]} to {found.channels[-1]}")
    return lesson_html(
        title, [found.headline, *found.sentences()], headers=DIVISIONS, rows=found.rows(), drawing=drawing
    )


def _widths(lesson: WidthCurves) -> str:
    found = lesson.measure()
    colours = (style.CODES, style.FLOAT)
    lines = [
        Line(
            name=f"{curve.name}, {name}",
            colour=colour,
            points=list(zip(BITS, getattr(curve, name), strict=True)),
            dashed=name == "expected",
        )
        for curve, colour in zip(found.curves, colours, strict=True)
        for name in ("measured", "expected")
    ]
    drawing = lines_html(lines, label=found.headline, x_title="bits", y_title="SQNR, dB")
    sentences = (found.headline, *found.sentences())
    return lesson_html("What a bit buys", sentences, headers=WIDTHS, rows=found.rows(), drawing=drawing)


def _inspection(lesson: Inspection) -> str:
    found = lesson.look()
    best = found.best
    title = f"best threshold {best.threshold:.4g}"
    drawing = threshold_html(found.histogram, best.low, best.high, title=title)
    if found.spans is not None:
        ranges = [(low, high) for _, _, low, high in found.spans.groups]
        marked = next(at for at, group in enumerate(found.spans.groups) if group[0] <= found.spans.widest <= group[1])
        drawing += spans_html(ranges, label=f"ranges of {found.spans.count} channels", marked=marked)
    sentences, rows = found.sentences(), found.rows()
    return lesson_html(found.headline, sentences, headers=CUTS, rows=rows, drawing=drawing)


def _pictures(lesson: Pictures) -> str:
    found = lesson.draw()
    title = f"What {lesson.subject.label} makes of a picture"
    sentences = (f"Sample {found.sample}, {found.title}", *found.facts)
    if not lesson.makes_pictures:
        pictures = [("input", found.source)]
        return lesson_html(title, sentences, headers=PLACES, rows=found.rows(), pictures=pictures)
    captions = ("input", "float", found.title, "difference, amplified")
    pngs = (found.source, found.before, found.after, found.difference)
    return lesson_html(title, sentences, pictures=list(zip(captions, pngs, strict=True)))


def _handing_on(lesson: HandingOn) -> str:
    one, two = lesson.nearest, lesson.handed_on
    rounded = Rounded(
        weights=(lesson.first, lesson.second),
        nearest=one,
        handed_on=two,
        moved=lesson.moved,
        errors=(f"{lesson.error(one):.3f}", f"{lesson.error(two):.3f}"),
        radii=(lesson.radii(one), lesson.radii(two)),
        top=TOP,
    )
    label = f"two weights: {one} by rounding each, {two} by handing the error on"
    return lesson_html("GPTQ on two weights", lesson.sentences(), drawing=handing_on_html(rounded, label=label))


def _gallery(lesson: Gallery) -> str:
    return gallery_html(
        f"One picture through {len(lesson.frames)} runs of {lesson.label}",
        lesson.sentences(),
        starts=lesson.starts(),
        frames=[(frame.caption, frame.picture, frame.difference) for frame in lesson.frames],
        columns=lesson.columns,
    )


KINDS: dict[type, Shown] = {
    HandingOn: Shown("HandingOnPart", _handing_on),
    NumberLine: Shown("NumberLinePart", _number_line),
    Granularity: Shown("GranularityPart", _granularity),
    WidthCurves: Shown("WidthCurvePart", _widths),
    Inspection: Shown("InspectorPart", _inspection),
    Pictures: Shown("PicturesPart", _pictures),
}
"""Kind of lesson to how it is shown."""

STILL: dict[type, Callable[[Any], str]] = {Gallery: _gallery}
"""What has no live part: kind of lesson to HTML."""
