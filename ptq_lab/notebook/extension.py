"""``%load_ext ptq_lab`` and its undoing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptq_lab import __version__
from ptq_lab.errors import MissingExtra

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

EXTRA_PACKAGES = {"IPython", "jinja2", "plotly", "traitlets"}
HELP_ALONE = re.compile(r"\s*%%quantize\s+(-h|--help)\s*")


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register magics, completion, settings and the displays of the core's types, and say so in one line.

    Loading twice registers once.

    Raises
    ------
    MissingExtra
        If the packages of the ``lab`` extra are not installed.
    ConfigError
        If ``[tool.ptq_lab]`` in the nearest pyproject.toml is wrong; then nothing is registered.
    """
    try:
        from ptq_lab.notebook import completion, display
        from ptq_lab.notebook.front_end import front_end
        from ptq_lab.notebook.settings import PTQLab, find_project, read_project
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in EXTRA_PACKAGES:
            raise
        part = "the notebook"
        raise MissingExtra(part, "lab") from missing
    project = find_project(Path.cwd())
    settings = PTQLab(**(read_project(project) if project is not None else {}))
    unload_ipython_extension(shell)
    shell.configurables.append(settings)  # type: ignore[arg-type]
    for magics in _magics():
        shell.register_magics(magics(shell=shell, settings=settings))
    display.install(shell)
    completion.install(shell)
    shell.input_transformers_cleanup.append(_with_body)
    if settings.verbosity:
        where = front_end(shell)
        how = "%%quantize is ready and Tab completes; %%quantize? and %quantize_doctor help"
        print(f"ptq_lab {__version__} in {where}: {how}")


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Take away what :func:`load_ipython_extension` registered; do nothing if it was not loaded."""
    from ptq_lab.notebook import completion, display
    from ptq_lab.notebook.displayed import forget
    from ptq_lab.notebook.settings import PTQLab

    for magics in _magics():
        loaded = shell.magics_manager.registry.pop(magics.__name__, None)
        for kind, names in loaded.magics.items() if loaded is not None else ():
            for name in names:
                shell.magics_manager.magics[kind].pop(name, None)
    shell.configurables[:] = [each for each in shell.configurables if not _is_ours(each, (PTQLab, *_magics()))]
    display.uninstall(shell)
    completion.uninstall(shell)
    forget()
    if _with_body in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.remove(_with_body)


def _magics() -> tuple[type[Any], ...]:
    """Return the classes of magics; each takes the shell and the settings."""
    from ptq_lab.notebook.line_magics import WorkbenchMagics
    from ptq_lab.notebook.live_magics import LiveMagics
    from ptq_lab.notebook.magic import QuantizeMagics

    return QuantizeMagics, WorkbenchMagics, LiveMagics


def _is_ours(configurable: object, kinds: tuple[type[Any], ...]) -> bool:
    # A module that was loaded anew has classes of its own under the same names.
    return type(configurable).__name__ in {kind.__name__ for kind in kinds}


def _with_body(lines: list[str]) -> list[str]:
    """Give a cell that only asks for help an empty line below, because IPython runs no cell magic without a body."""
    return [*lines, "\n"] if HELP_ALONE.fullmatch("".join(lines)) else lines
