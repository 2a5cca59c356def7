"""One look for every figure: four colours and a template of a few hundred bytes.

plotly's default template adds 7 kB to each figure and is white in a dark notebook; this one is transparent.
"""

from __future__ import annotations

import plotly.graph_objects as go

# Blue, green and vermilion stay apart for the colour-blind. A figure cannot follow the theme, so each colour
# has at least 3:1 contrast on white and on JupyterLab's dark page, and the ink of the text 4.3:1.
CODES = "#2f7fc1"
SCALES = "#009e73"
FLOAT = "#d55e00"
REST = "#8c8c8c"
INK = "#797979"
GRID = "rgba(121,121,121,0.22)"

CLEAR = "rgba(0,0,0,0)"


def pale(colour: str, opacity: float = 0.35) -> str:
    """Return a colour that lets the page through.

    Examples
    --------
    >>> pale("#2f7fc1")
    'rgba(47,127,193,0.35)'
    """
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def new_figure(title: str, *, height: int) -> go.Figure:
    """Return an empty figure in the look of this room.

    Parameters
    ----------
    title : str
        The sentence above the figure, which must be escaped already.
    height : int
        Pixels.

    Examples
    --------
    >>> len(new_figure("Sizes", height=200).to_json()) < 1500
    True
    """
    axis = {"gridcolor": GRID, "linecolor": GRID, "zeroline": False, "automargin": True, "ticks": ""}
    template = go.layout.Template(layout={"xaxis": axis, "yaxis": axis})
    return go.Figure(
        layout={
            "template": template,
            "title": {"text": title, "font": {"size": 15}, "x": 0, "xanchor": "left", "xref": "paper"},
            "height": height,
            "margin": {"l": 8, "r": 8, "t": 72, "b": 8},
            "font": {"color": INK, "size": 12, "family": "system-ui, sans-serif"},
            "paper_bgcolor": CLEAR,
            "plot_bgcolor": CLEAR,
            "legend": {
                "orientation": "h",
                "x": 0,
                "xanchor": "left",
                "y": 1,
                "yanchor": "bottom",
                "traceorder": "normal",
            },
            "hoverlabel": {"align": "left"},
            "bargap": 0.25,
        }
    )
