"""What stays of a lesson on a page without a kernel: words, a table and still pictures."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

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
