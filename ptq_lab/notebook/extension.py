"""``%load_ext ptq_lab`` and its undoing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ptq_lab import __version__
from ptq_lab.errors import MissingExtra

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

MAGICS = ("QuantizeMagics", "LiveMagics")
EXTRA_PACKAGES = {"IPython", "anywidget", "comm", "ipywidgets", "jinja2", "plotly", "traitlets"}
HELP_ALONE = re.compile(r"\s*%%quantize\s+(-h|--help)\s*")


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register the magics and the displays of the core's types, and say so in one line.

    Loading twice registers once.

    Raises
    ------
    MissingExtra
        If the packages of the ``lab`` extra are not installed.
    """
    try:
        from ptq_lab.notebook import display
        from ptq_lab.notebook.live_magics import LiveMagics
        from ptq_lab.notebook.magic import QuantizeMagics
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in EXTRA_PACKAGES:
            raise
        part = "the notebook"
        raise MissingExtra(part, "lab") from missing
    shell.register_magics(QuantizeMagics, LiveMagics)
    display.install(shell)
    if _with_body not in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.append(_with_body)
    print(f"ptq_lab {__version__}: %%quantize is ready; %%quantize? explains its options")


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Take away what :func:`load_ipython_extension` registered; do nothing if it was not loaded."""
    from ptq_lab.notebook import display

    loaded = [shell.magics_manager.registry.pop(name, None) for name in MAGICS]
    if not any(loaded):
        return
    for kind, names in (item for magics in loaded if magics for item in magics.magics.items()):
        for name in names:
            shell.magics_manager.magics[kind].pop(name, None)
    display.uninstall(shell)
    shell.input_transformers_cleanup.remove(_with_body)


def _with_body(lines: list[str]) -> list[str]:
    """Give a cell that only asks for help an empty line below, because IPython runs no cell magic without a body."""
    return [*lines, "\n"] if HELP_ALONE.fullmatch("".join(lines)) else lines
