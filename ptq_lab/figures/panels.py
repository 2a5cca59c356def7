"""Many small pictures of one kind side by side: drawn by plotly, or as still pictures that need no script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go

from ptq_lab.figures import style

COLUMNS = 3
TITLE_WIDTH = 40  # characters
WIDTH, HEIGHT = 320, 84  # of a still picture
_ROW, _HEAD, _GAP = 168, 44, 0.05  # pixels of a row, pixels of what stands above each panel, share between columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Steps of equal width from the left end of a panel to the right one.

    Attributes
    ----------
    name, colour : str
    tops : tuple of float
        Height of every step.
    bottoms : tuple of float
        Where the steps start; all at zero if empty.
    filled : bool
        Whether the area is coloured, or only its outline.
    words : tuple of str
        What the pointer shows at every step; none if empty.
    """

    name: str
    colour: str
    tops: tuple[float, ...]
    bottoms: tuple[float, ...] = ()
    filled: bool = True
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One small picture.

    Attributes
    ----------
    title, name, words : str
        What it shows, for short and in full, and what there is to see.
    low, high : float
        Where the first step starts and the last one ends.
    curves : tuple of Curve
    ends : tuple of float
        Dashed upright lines.
    left, right : str
        What stands below both ends.
    """

    title: str
    name: str
    words: str
    low: float
    high: float
    curves: tuple[Curve, ...]
    ends: tuple[float, ...] = ()
    left: str = ""
    right: str = ""

    @property
    def span(self) -> tuple[float, float]:
        """The lowest and the highest value of any step; zero lies between them."""
        values = [0.0, *(value for curve in self.curves for value in (*curve.tops, *curve.bottoms))]
        return min(values), max(values)


@dataclass(frozen=True, slots=True, kw_only=True)
class StillPanel:
    """A panel as paths of a picture of ``WIDTH`` times ``HEIGHT``, y downwards."""

    title: str
    name: str
    words: str
    left: str
    right: str
    paths: tuple[tuple[str, str, bool], ...]  # path, colour, filled
    ends: tuple[float, ...]
    zero: float


def draw_panels(title: str, panels: Sequence[Panel], *, values: bool) -> go.Figure:
    """Draw panels in rows of three.

    Parameters
    ----------
    title : str
        The sentence above all of them, which must be escaped already.
    panels : sequence of Panel
    values : bool
        Whether heights mean something that an axis should show.
    """
    rows = max(1, -(-len(panels) // COLUMNS))
    figure = style.new_figure(title, height=90 + rows * (_ROW + _HEAD))
    layout: dict[str, Any] = {"annotations": [], "shapes": [], "hovermode": "closest"}
    for index, panel in enumerate(panels):
        suffix = "" if index == 0 else str(index + 1)
        left, right, bottom, top = _domain(index, rows)
        layout[f"xaxis{suffix}"] = _x_axis(panel, suffix) | {"domain": [left, right]}
        layout[f"yaxis{suffix}"] = _y_axis(suffix, values=values) | {"domain": [bottom, top]}
        layout["annotations"].append(_heading(panel, left, top))
        layout["shapes"] += [_upright(end, suffix) for end in panel.ends]
        for curve in panel.curves:
            figure.add_traces(_traces(panel, curve, suffix, first=index == 0))
    figure.update_layout(**layout)
    return figure


def still_panels(panels: Sequence[Panel]) -> tuple[StillPanel, ...]:
    """Return panels as paths, for a template."""
    return tuple(_still(panel) for panel in panels)


def _domain(index: int, rows: int) -> tuple[float, float, float, float]:
    row, column = divmod(index, COLUMNS)
    wide = (1 + _GAP) / COLUMNS
    top = 1 - (row * (_ROW + _HEAD) + _HEAD) / (rows * (_ROW + _HEAD))
    return column * wide, column * wide + wide - _GAP, max(0.0, top - (_ROW - 30) / (rows * (_ROW + _HEAD))), top


def _x_axis(panel: Panel, suffix: str) -> dict[str, Any]:
    axis = {"anchor": f"y{suffix}", "showgrid": False, "range": [panel.low, panel.high], "tickmode": "array"}
    return axis | {"tickvals": [panel.low, panel.high], "ticktext": [escape(panel.left), escape(panel.right)]}


def _y_axis(suffix: str, *, values: bool) -> dict[str, Any]:
    return {"anchor": f"x{suffix}", "showticklabels": values, "showgrid": values, "nticks": 4}


def _heading(panel: Panel, left: float, top: float) -> dict[str, Any]:
    text = f"<b>{escape(panel.title)}</b><br>{escape(panel.words)}"
    where = {"x": left, "y": top, "xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "bottom"}
    return {"text": text, "showarrow": False, "align": "left", "font": {"size": 11}, **where}


def _upright(end: float, suffix: str) -> dict[str, Any]:
    line = {"color": style.INK, "width": 1.5, "dash": "dot"}
    return {
        "type": "line",
        "xref": f"x{suffix}",
        "yref": f"y{suffix} domain",
        "x0": end,
        "x1": end,
        "y0": 0,
        "y1": 1,
    } | {"line": line}


def _traces(panel: Panel, curve: Curve, suffix: str, *, first: bool) -> list[go.Scatter]:
    line = {"color": curve.colour, "width": 0 if curve.filled else 1.5, "shape": "hv"}
    shared: dict[str, Any] = {
        "x0": panel.low,
        "dx": (panel.high - panel.low) / len(curve.tops),
        "mode": "lines",
        "line": line,
        "xaxis": f"x{suffix}",
        "yaxis": f"y{suffix}",
        "legendgroup": curve.name,
    }
    hover = (
        {"hovertext": [*map(escape, curve.words), ""], "hoverinfo": "text"} if curve.words else {"hoverinfo": "skip"}
    )
    fill = {"fillcolor": style.pale(curve.colour), "fill": "tonexty" if curve.bottoms else "tozeroy"}
    top = go.Scatter(
        y=[*curve.tops, curve.tops[-1]],
        name=curve.name,
        showlegend=first,
        **shared,
        **hover,
        **(fill if curve.filled else {}),
    )
    if not curve.bottoms:
        return [top]
    bottom = go.Scatter(
        y=[*curve.bottoms, curve.bottoms[-1]], name=curve.name, showlegend=False, hoverinfo="skip", **shared
    )
    return [bottom, top]


def _still(panel: Panel) -> StillPanel:
    low, high = panel.span
    unit = HEIGHT / ((high - low) or 1.0)

    def across(value: float) -> float:
        return round(WIDTH * (value - panel.low) / ((panel.high - panel.low) or 1.0), 1)

    def down(value: float) -> int:
        return round((high - value) * unit)

    paths = []
    for curve in panel.curves:
        ends = [round(WIDTH * index / len(curve.tops)) for index in range(len(curve.tops) + 1)]
        upper = _steps(ends, [down(value) for value in curve.tops])
        bottoms = [down(value) for value in curve.bottoms]
        if curve.filled:
            back = f"L{_steps(ends[::-1], bottoms[::-1])}" if bottoms else f"V{down(0.0)}H0"
            paths.append((f"M{upper}{back}z", curve.colour, True))
        else:
            paths.append((f"M{upper}" + (f"M{_steps(ends, bottoms)}" if bottoms else ""), curve.colour, False))
    return StillPanel(
        title=panel.title,
        name=panel.name,
        words=panel.words,
        left=panel.left,
        right=panel.right,
        paths=tuple(paths),
        ends=tuple(across(end) for end in panel.ends),
        zero=down(0.0),
    )


def _steps(ends: Sequence[int], heights: Sequence[int]) -> str:
    """Return steps as a path without its first letter; neighbours of one height are one step."""
    parts, height = [f"{ends[0]} {heights[0]}"], heights[0]
    for end, following in zip(ends[1:], [*heights[1:], None], strict=True):
        if following != height:
            parts.append(f"H{end}" + ("" if following is None else f"V{following}"))
            height = following if following is not None else height
    if not parts[-1].startswith("H"):
        parts.append(f"H{ends[-1]}")
    return "".join(parts)
