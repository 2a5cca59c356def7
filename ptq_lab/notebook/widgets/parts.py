"""The files of a live part, and what stays of it on a page without a kernel."""

# mypy: disallow-untyped-calls=False
# (IPython's display functions carry no types.)

from __future__ import annotations

from functools import cache
from html import escape
from importlib.resources import files
from uuid import uuid4

from IPython.display import publish_display_data, update_display


@cache
def script(*names: str) -> str:
    """Return the module of a live part: the shared functions, then ``<name>.js`` of each name."""
    return "\n".join(_text(f"{name}.js") for name in ("shared", *names))


@cache
def styles(name: str) -> str:
    """Return the styles of a live part: the shared ones, then ``<name>.css``."""
    return f"{_text('shared.css')}\n{_text(f'{name}.css')}"


class Stays:
    """What readers see of a live part without a kernel; it can follow the part as long as there is one.

    Parameters
    ----------
    again : str
        One sentence that says how to bring the part back.
    """

    def __init__(self, again: str) -> None:
        self._again = again
        self._name = f"ptq_lab-{uuid4().hex}"

    def publish(self, *, html: str, text: str) -> None:
        """Show it for the first time, in the output of the running cell."""
        publish_display_data(self._bundle(html, text), transient={"display_id": self._name})

    def update(self, *, html: str, text: str) -> None:
        """Replace what is shown, from wherever; the notebook is saved with the last state."""
        update_display(self._bundle(html, text), display_id=self._name, raw=True)

    def _bundle(self, html: str, text: str) -> dict[str, str]:
        stays = f'<div class="ptq-stays"><p><em>{escape(self._again)}</em></p>{html}</div>'
        return {"text/html": stays, "text/plain": f"{text}\n{self._again}"}


def show_live(widget: object, *, html: str, text: str, again: str) -> Stays:
    """Publish a live part, and below it what readers see without a kernel.

    Parameters
    ----------
    widget
        What offers ``_repr_mimebundle_``.
    html, text : str
        Its present state without scripts. The script hides it where the part is alive.
    again : str
        One sentence that says how to bring the part back, e.g. ``"Run the cell again to move the sliders."``

    Returns
    -------
    Stays
        To be updated when the part changes, if it is worth it.
    """
    bundle = widget._repr_mimebundle_()  # type: ignore[attr-defined]
    data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
    # No text here: exporters that show no part would say everything twice.
    publish_display_data({**data, "text/plain": ""}, metadata)
    stays = Stays(again)
    stays.publish(html=html, text=text)
    return stays


def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
