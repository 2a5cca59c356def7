"""The Pareto pictures: what each tool's files cost, in size or time, against what they get wrong.

SVG by hand: it comes out the same from the same rows wherever it is drawn, and needs no browser.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import ceil, floor, log10

from peers.installed import TOOLS
from peers.rows import Row

INK, PALE, PAPER, FRONT = "#333333", "#dddddd", "#ffffff", "#9a9a9a"
LOOKS = {  # colours that stay apart for the colour-blind, and a shape each
    "ptqlab": ("#2f7fc1", "circle"),
    "ort": ("#d55e00", "square"),
    "nncf": ("#009e73", "diamond"),
    "quark": ("#c77b00", "up"),
    "aimet": ("#b0508e", "down"),
    "onnxsim": ("#6a51a3", "cross"),
    "inc": ("#8c564b", "plus"),
    "naive": ("#777777", "ring"),
}
WIDTH, HEIGHT = 540, 330  # of one panel
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 34, 46  # margins inside it
HEAD, COLUMNS, LETTER, LINE = 56, 2, 5.6, 12  # the legend; letters are estimated, as nothing measures them here
WORST, LEAST = 1.0, 1e-6  # 1 - cosine outside is drawn at the edge


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """What is drawn to the right.

    Attributes
    ----------
    title, heading : str
    value : callable
        Of a row.
    form : str
        Of the numbers at the ticks.
    """

    title: str
    heading: str
    value: Callable[[Row], float]
    form: str = "{:g}"


SIZE = Axis(
    title="size of the file in MB",
    heading="Size of the file against error of the output",
    value=lambda row: (row.bytes or 0) / 1e6,
)
LATENCY = Axis(
    title="latency, as a ratio to float32",
    heading="Latency against error of the output",
    value=lambda row: row.latency or 0.0,
)


@dataclass(frozen=True, slots=True)
class Scale:
    """A logarithmic axis from one pixel to another."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a value, at the nearer end if it lies outside."""
        share = (log10(min(max(value, self.low), self.high)) - log10(self.low)) / (log10(self.high) - log10(self.low))
        return round(self.start + share * (self.stop - self.start), 1)


def draw(rows: Sequence[Row], axis: Axis) -> str:
    """Return a picture with one panel per model."""
    models = list(dict.fromkeys(row.model for row in rows))
    lines = ceil(len(models) / COLUMNS)
    width, height = COLUMNS * WIDTH if len(models) > 1 else WIDTH, HEAD + lines * HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="Helvetica, Arial, sans-serif" font-size="11" fill="{INK}">',
        f'<rect width="{width}" height="{height}" fill="{PAPER}"/>',
        _legend(rows, axis),
    ]
    for place, model in enumerate(models):
        across, down = (place % COLUMNS) * WIDTH, HEAD + (place // COLUMNS) * HEIGHT
        shown = [row for row in rows if row.model == model and row.usable and axis.value(row) > 0]
        parts.append(f'<g transform="translate({across} {down})">{_panel(model, shown, axis)}</g>')
    return "\n".join([*parts, "</svg>", ""])


def frontier(rows: Sequence[Row], axis: Axis) -> list[Row]:
    """Return the rows that no other beats in both, from left to right."""
    best: list[Row] = []
    for row in sorted(rows, key=lambda row: (axis.value(row), row.error)):
        if not best or row.error < best[-1].error:
            best.append(row)
    return best


def short_name(row: Row) -> str:
    """Return what stands beside a mark."""
    words = row.variant.split("-") if row.variant else []
    ways = {"mixed": " mixed", "fast": " fast", "acwc": " rows"} | ({"best": " best"} if row.mode == "weight8" else {})
    said = "".join(ways.get(word, "") for word in words)
    if row.mode.startswith("weight"):
        return f"{row.mode[6:]} bit{said}"
    if row.mode == "dynamic8":
        return f"dynamic{said}"
    way = row.mode.removeprefix("full8-")
    return "int8" if way == "maxmin" else f"int8 {way}"


def _legend(rows: Sequence[Row], axis: Axis) -> str:
    parts = [
        f'<text x="14" y="20" font-size="14" font-weight="bold">{escape(axis.heading)}</text>',
        f'<text x="{30 + 7.4 * len(axis.heading)}" y="20">left and down is better; the line joins what no other file '
        "beats in both</text>",
    ]
    x = 20.0
    for tool in LOOKS:
        if any(row.tool == tool and row.usable for row in rows):
            title = TOOLS[tool].title
            parts.append(_mark(tool, x, 40) + f'<text x="{x + 9}" y="44">{escape(title)}</text>')
            x += 34 + LETTER * 1.05 * len(title)
    return "".join(parts)


def _panel(model: str, rows: Sequence[Row], axis: Axis) -> str:
    heading = f'<text x="{LEFT}" y="22" font-size="13" font-weight="bold">{escape(model)}</text>'
    if not rows:
        return f'{heading}<text x="{LEFT}" y="60">nothing measured</text>'
    x, y = _scales(rows, axis)
    best = frontier(rows, axis)
    line = "M" + "L".join(f"{x(axis.value(row))} {y(row.error)}" for row in best)
    marks = [
        f"<g><title>{escape(_tip(row, axis))}</title>{_mark(row.tool, x(axis.value(row)), y(row.error))}</g>"
        for row in sorted(rows, key=lambda row: row.tool == "ptqlab")
    ]
    return "".join(
        [
            heading,
            _grid(x, y, axis),
            f'<path d="{line}" fill="none" stroke="{FRONT}" stroke-width="1.5" stroke-dasharray="5 3"/>',
            *marks,
            _names(rows, best, axis, (x, y)),
        ]
    )


def _scales(rows: Sequence[Row], axis: Axis) -> tuple[Scale, Scale]:
    values, errors = [axis.value(row) for row in rows], [min(max(row.error, LEAST), WORST) for row in rows]
    least, most = floor(log10(min(errors)) * 2 - 0.4) / 2, min(0.0, ceil(log10(max(errors)) * 2 + 0.2) / 2)
    low, high = min(values) * 0.85, max(values) * 1.25
    return (
        Scale(low, high, LEFT, WIDTH - RIGHT),
        Scale(10**least, 10**most, HEIGHT - BOTTOM, TOP),
    )


def _grid(x: Scale, y: Scale, axis: Axis) -> str:
    parts = []
    for power in range(ceil(log10(y.low) - 1e-9), floor(log10(y.high) + 1e-9) + 1):
        at = y(10.0**power)
        parts.append(f'<path d="M{LEFT} {at}H{WIDTH - RIGHT}" stroke="{PALE}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4}" text-anchor="end">{10.0**power:g}</text>')
    for tick in _ticks(x):
        at = x(tick)
        parts.append(f'<path d="M{at} {TOP}V{HEIGHT - BOTTOM}" stroke="{PALE}"/>')
        parts.append(f'<text x="{at}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{axis.form.format(tick)}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}" fill="none" stroke="{INK}"/>')
    parts.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 14}" text-anchor="middle">{escape(axis.title)}</text>')
    parts.append(f'<text transform="translate(15 {middle}) rotate(-90)" text-anchor="middle">1 - cosine</text>')
    return "".join(parts)


def _ticks(scale: Scale) -> list[float]:
    """Return round numbers, more of them where the scale spans little."""
    found: list[float] = []
    for steps in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), tuple(step / 10 for step in range(10, 100))):
        every = [step * 10.0**power for power in range(-3, 4) for step in steps]
        found = [tick for tick in every if scale.low <= tick <= scale.high]
        if len(found) >= 3:
            break
    return found


Box = tuple[float, float, float, float]


def _names(rows: Sequence[Row], best: Sequence[Row], axis: Axis, scales: tuple[Scale, Scale]) -> str:
    """Write names beside marks where there is room: those on the line first, then ours, then the rest."""
    x, y = scales
    spots = [(x(axis.value(row)), y(row.error)) for row in rows]
    taken: list[Box] = [(at - 5, down - 5, at + 5, down + 5) for at, down in spots]
    taken += _along([(x(axis.value(row)), y(row.error)) for row in best])
    parts = []
    for row in sorted(rows, key=lambda row: (row not in best, row.tool != "ptqlab", row.error)):
        name, at, down = short_name(row), x(axis.value(row)), y(row.error)
        box = next((box for box in _around(at, down, LETTER * len(name)) if _free(box, taken)), None)
        if box is None:
            continue
        taken.append(box)
        colour, _ = LOOKS[row.tool]
        weight = ' font-weight="bold"' if row.tool == "ptqlab" else ""
        parts.append(
            f'<text x="{box[0]:.1f}" y="{box[3] - 2.5:.1f}" font-size="10.5" fill="{colour}"{weight}>{name}</text>'
        )
    return "".join(parts)


def _around(at: float, down: float, length: float) -> list[Box]:
    """Return places for a text beside a point, best first."""
    half, up = length / 2, LINE / 2
    corners = [
        (at + 8, down - up),
        (at - 8 - length, down - up),
        (at + 5, down - LINE - 5),
        (at + 5, down + 5),
        (at - half, down - LINE - 7),
        (at - half, down + 7),
        (at - 5 - length, down + 5),
        (at - 5 - length, down - LINE - 5),
    ]
    return [(left, top, left + length, top + LINE) for left, top in corners]


def _free(box: Box, taken: Sequence[Box]) -> bool:
    inside = box[0] > LEFT and box[2] < WIDTH - 2 and box[1] > TOP - 12 and box[3] < HEIGHT - BOTTOM - 1
    return inside and not any(
        box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3] for other in taken
    )


def _along(points: Sequence[tuple[float, float]]) -> list[Box]:
    """Return small boxes along a line, so that no text lies on it."""
    boxes = []
    for (ax, ay), (bx, by) in pairwise(points):
        steps = max(1, int(max(abs(bx - ax), abs(by - ay)) / 6))
        for step in range(1, steps):
            px, py = ax + (bx - ax) * step / steps, ay + (by - ay) * step / steps
            boxes.append((px - 1.5, py - 1.5, px + 1.5, py + 1.5))
    return boxes


def _tip(row: Row, axis: Axis) -> str:
    mode = " ".join(filter(None, (row.mode, row.variant)))
    return f"{TOOLS[row.tool].title}, {mode}: {axis.value(row):.3g}, 1 - cosine {row.error:.3g}"


def _mark(tool: str, x: float, y: float) -> str:
    colour, shape = LOOKS[tool]
    paths = {
        "square": f"M{x - 4} {y - 4}h8v8h-8z",
        "diamond": f"M{x} {y - 5.5}l5.5 5.5l-5.5 5.5l-5.5 -5.5z",
        "up": f"M{x} {y - 5}l5 9h-10z",
        "down": f"M{x} {y + 5}l5 -9h-10z",
    }
    if shape in paths:
        return f'<path d="{paths[shape]}" fill="{colour}" stroke="{PAPER}" stroke-width="0.8"/>'
    strokes = {"cross": f"M{x - 4} {y - 4}l8 8m0 -8l-8 8", "plus": f"M{x - 5} {y}h10m-5 -5v10"}
    if shape in strokes:
        return f'<path d="{strokes[shape]}" fill="none" stroke="{colour}" stroke-width="2.2"/>'
    fill = f'fill="{colour}" stroke="{PAPER}"' if shape == "circle" else f'fill="{PAPER}" stroke="{colour}"'
    return f'<circle cx="{x}" cy="{y}" r="5" {fill} stroke-width="1.5"/>'
