"""The files of a live part, and what stays of it on a page without a kernel."""

# mypy: disallow-untyped-calls=False
# (IPython's display functions carry no types.)

from __future__ import annotations

from functools import cache
from html import escape
from importlib.resources import files

from IPython.display import publish_display_data


@cache
def script(*names: str) -> str:
    """Return the module of a live part: the shared functions, then ``<name>.js`` of each name."""
    return "\n".join(_text(f"{name}.js") for name in ("shared", *names))


@cache
def styles(name: str) -> str:
    """Return the styles of a live part: the shared ones, then ``<name>.css``."""
    return f"{_text('shared.css')}\n{_text(f'{name}.css')}"


def show_live(widget: object, *, html: str, text: str, again: str) -> None:
    """Publish a live part, and below it what readers see without a kernel.

    Parameters
    ----------
    widget
        What offers ``_repr_mimebundle_``.
    html, text : str
        Its present state without scripts. The script hides it where the part is alive.
    again : str
        One sentence that says how to bring the part back, e.g. ``"Run the cell again to move the sliders."``
    """
    bundle = widget._repr_mimebundle_()  # type: ignore[attr-defined]
    data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
    publish_display_data({**data, "text/plain": ""}, metadata)  # all words are in the output below
    stays = f'<div class="ptq-stays"><p><em>{escape(again)}</em></p>{html}</div>'
    publish_display_data({"text/html": stays, "text/plain": text})


def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
