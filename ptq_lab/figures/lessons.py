"""What stays of a lesson on a page without a kernel: words, a table and still pictures."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ptq_lab.figures import style
from ptq_lab.figures.tables import render


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a chart.

    Attributes
    ----------
    name, colour : str
    points : sequence of (float, float)
    dashed : bool
    """

    name: str
    colour: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False


def lesson_html(
    title: str,
    sentences: Sequence[str],
    *,
    headers: Sequence[str] = (),
    rows: Sequence[Sequence[str]] = (),
    pictures: Sequence[tuple[str, bytes]] = (),
    drawing: str = "",
) -> str:
    """Return a lesson as HTML that needs no script.

    Parameters
    ----------
    title : str
    sentences : sequence of str
    headers, rows : sequences of str
        A table, its first column on the left and the others on the right.
    pictures : sequence of (caption, PNG)
    drawing : str
        HTML of this room, e.g. of :func:`lines_html`.

    Examples
    --------
    >>> html = lesson_html("<b>", ["one & two"], headers=["bits"], rows=[["8"]])
    >>> "&lt;b&gt;" in html, "one &amp; two" in html, "<script" in html
    (True, True, False)
    """
    encoded = [(caption, b64encode(png).decode("ascii")) for caption, png in pictures]
    return render(
        "lesson",
        title=title,
        sentences=tuple(sentences),
        headers=tuple(headers),
        rows=[tuple(row) for row in rows],
        pictures=encoded,
        drawing=Markup(drawing),
    )


def spans_html(spans: Sequence[tuple[float, float]], *, label: str, marked: int | None = None) -> str:
    """Return ranges side by side, such as those of channels, as a still picture (SVG).

    Examples
    --------
    >>> html = spans_html([(-1, 1), (-3, 2)], label="two channels", marked=1)
    >>> html.count("<rect"), "<script" in html
    (2, False)
    """
    low, high = min(0.0, *(start for start, _ in spans)), max(0.0, *(end for _, end in spans))
    step, unit = 740 / len(spans), 150 / ((high - low) or 1.0)
    bars = [
        {
            "x": round(40 + (at + 0.15) * step, 1),
            "y": round(24 + (high - top) * unit, 1),
            "width": round(0.7 * step, 1),
            "height": round(max(1.0, (top - bottom) * unit), 1),
            "colour": style.FLOAT if at == marked else style.CODES,
        }
        for at, (bottom, top) in enumerate(spans)
    ]
    zero = round(24 + high * unit, 1)
    return render("spans", bars=bars, label=label, low=f"{low:.3g}", high=f"{high:.3g}", zero=zero)


def grid_html(points: Sequence[float], *, value: float, decoded: float, reach: float, label: str) -> str:
    """Return the points of a grid on a line, a value above it and what becomes of it as a still picture (SVG).

    Examples
    --------
    >>> grid_html([-1.0, 0.0, 1.0], value=0.4, decoded=0.0, reach=3.0, label="three points").count("V100")
    3
    """

    def place(number: float) -> float:
        return round(400 + 380 * number / reach, 1)

    where = {"points": [place(point) for point in points], "value": place(value), "decoded": place(decoded)}
    return render("grid", **where, label=label, low=f"{-reach:g}", high=f"{reach:g}")


def lines_html(
    lines: Sequence[Line], *, label: str, x_title: str, y_title: str, ticks: Sequence[tuple[float, str]] = ()
) -> str:
    """Return lines over common axes as a still picture (SVG).

    Parameters
    ----------
    lines : sequence of Line
    label : str
        What the picture shows, for those who cannot see it.
    x_title, y_title : str
    ticks : sequence of (x, name)
        Places along the bottom, from left to right; without, whole numbers in between or round ones.

    Examples
    --------
    >>> html = lines_html([Line(name="a", colour="#2f7fc1", points=[(1, 0), (2, 6)])], label="a", x_title="bits",
    ...                   y_title="dB")
    >>> html.count("<polyline"), "<script" in html
    (1, False)
    """
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    left, right = min(xs), max(xs)
    marks = round_numbers(min(ys), max(ys), count=7)
    bottom, top = min(marks[0], *ys), max(marks[-1], *ys)

    def across(x: float) -> float:
        return round(46 + 734 * (x - left) / ((right - left) or 1.0), 1)

    def up(y: float) -> float:
        return round(190 - 160 * (y - bottom) / ((top - bottom) or 1.0), 1)

    drawn = [(line, [(across(x), up(y)) for x, y in line.points]) for line in lines]
    named = ticks or [(x, f"{x:g}") for x in round_numbers(left, right, count=12)]
    return render(
        "lines",
        lines=[(line, " ".join(f"{x},{y}" for x, y in places), places) for line, places in drawn],
        label=label,
        x_title=x_title,
        y_title=y_title,
        marks=[(up(y), f"{y:g}") for y in marks],
        ticks=[(across(x), name) for x, name in named],
    )


def round_numbers(low: float, high: float, *, count: int = 5) -> tuple[float, ...]:
    """Return about so many round numbers within an interval; its ends, where there are none.

    Examples
    --------
    >>> round_numbers(16.4, 26.1), round_numbers(1, 4, count=12)
    ((18.0, 20.0, 22.0, 24.0, 26.0), (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0))
    """
    raw = ((high - low) or 1.0) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(round(at * step, 12) for at in range(first, last + 1)) or (low, high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounded:
    """Two weights in steps of their grid, as they are drawn.

    Attributes
    ----------
    weights : (float, float)
    nearest, handed_on : (int, int)
        Both rounded for themselves, and the second behind its move.
    moved : float
        Where the second went when the first was rounded.
    errors : (str, str)
        Of the output, for `nearest` and for `handed_on`.
    radii : two of (float, float)
        Half axes of the ellipses of equal error through both.
    top : int
        The last point of either grid.
    """

    weights: tuple[float, float]
    nearest: tuple[int, int]
    handed_on: tuple[int, int]
    moved: float
    errors: tuple[str, str]
    radii: tuple[tuple[float, float], tuple[float, float]]
    top: int


def handing_on_html(rounded: Rounded, *, label: str) -> str:
    """Return how the error of one weight is handed on to another as a still picture (SVG).

    Examples
    --------
    >>> rounded = Rounded(weights=(1.4, 1.4), nearest=(1, 1), handed_on=(1, 2), moved=1.76, errors=("0.6", "0.1"),
    ...                   radii=((0.5, 1.0), (0.2, 0.9)), top=3)
    >>> html = handing_on_html(rounded, label="two weights")
    >>> html.count("<ellipse"), "error 0.1" in html, "<script" in html
    (2, True, False)
    """
    unit, edge = 66.0, 0.65
    side = round((rounded.top + 2 * edge) * unit)

    def place(first: float, second: float) -> tuple[float, float]:
        return round((first + edge) * unit, 1), round(side - (second + edge) * unit, 1)

    def axes(radii: tuple[float, float]) -> tuple[float, float]:
        return round(radii[0] * unit, 1), round(radii[1] * unit, 1)

    codes = range(rounded.top + 1)
    return render(
        "handing_on",
        label=label,
        side=side,
        grey=style.REST,
        weights=place(*rounded.weights),
        nearest=place(*rounded.nearest),
        handed=place(*rounded.handed_on),
        moved=place(rounded.nearest[0], rounded.moved),
        far=axes(rounded.radii[0]),
        near=axes(rounded.radii[1]),
        errors=rounded.errors,
        dots=[place(one, two) for one in codes for two in codes],
        ticks=[(round((code + edge) * unit, 1), code) for code in codes],
    )


def gallery_html(
    title: str,
    sentences: Sequence[str],
    *,
    starts: Sequence[tuple[str, bytes]],
    frames: Sequence[tuple[str, bytes, bytes]],
    columns: int,
) -> str:
    """Return pictures with their differences below them, side by side, as HTML that needs no script.

    Parameters
    ----------
    title : str
    sentences : sequence of str
    starts : sequence of (caption, PNG)
        What the others are compared with.
    frames : sequence of (caption, PNG, PNG)
        Picture and difference.
    columns : int
        Frames beside each other.

    Examples
    --------
    >>> html = gallery_html("two", [], starts=[("float", b"1")], frames=[("W8", b"2", b"3")], columns=4)
    >>> html.count("<img"), html.count("<figcaption")
    (3, 2)
    """
    return render(
        "gallery",
        title=title,
        sentences=tuple(sentences),
        starts=[(caption, b64encode(png).decode("ascii")) for caption, png in starts],
        frames=[(caption, *(b64encode(png).decode("ascii") for png in pngs)) for caption, *pngs in frames],
        columns=columns,
    )
