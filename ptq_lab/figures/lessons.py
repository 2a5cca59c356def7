"""What stays of a lesson on a page without a kernel: words, a table and still pictures."""

from __future__ import annotations

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


def lines_html(lines: Sequence[Line], *, label: str, x_title: str, y_title: str) -> str:
    """Return lines over common axes as a still picture (SVG).

    Examples
    --------
    >>> html = lines_html([Line(name="a", colour="#2f7fc1", points=[(1, 0), (2, 6)])], label="a", x_title="bits",
    ...                   y_title="dB")
    >>> html.count("<polyline"), "<script" in html
    (1, False)
    """
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    left, bottom, width, height = min(xs), min(ys), (max(xs) - min(xs)) or 1.0, (max(ys) - min(ys)) or 1.0

    def place(x: float, y: float) -> str:
        return f"{40 + 740 * (x - left) / width:.1f},{190 - 160 * (y - bottom) / height:.1f}"

    drawn = [(line, " ".join(place(x, y) for x, y in line.points)) for line in lines]
    ends = (f"{left:g}", f"{max(xs):g}", f"{bottom:.3g}", f"{max(ys):.3g}")
    return render("lines", lines=drawn, label=label, x_title=x_title, y_title=y_title, ends=ends)
