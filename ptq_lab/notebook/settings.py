"""What a user may set once for all cells: ``%config PTQLab.*``, or ``[tool.ptq_lab]`` in pyproject.toml."""

# mypy: disallow-subclassing-any=False, disallow-untyped-calls=False
# (traitlets is imported without types.)

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from traitlets import Enum, Int
from traitlets.config import Config, Configurable

from ptq_lab.config.suggest import closest
from ptq_lab.errors import ConfigError, Problem

TABLE = "tool.ptq_lab"
REPORTS = ("full", "short", "none")


class PTQLab(Configurable):
    """What ``%%quantize`` shows, for all cells of a notebook.

    Examples
    --------
    >>> settings = PTQLab()
    >>> settings.update_config(Config(PTQLab={"report": "short"}))
    >>> settings.report, settings.max_rows
    ('short', 100)
    >>> settings.update_config(Config(PTQLab={"max_row": 9}))
    Traceback (most recent call last):
    ...
    ptq_lab.errors.ConfigError: PTQLab.max_row: there is no such setting; did you mean max_rows?
    """

    verbosity = Enum((0, 1, 2), 1, help="0: no progress; 1: progress of long runs; 2: the log, too.").tag(config=True)
    report = Enum(REPORTS, "full", help="full: tables and charts; short: the summary; none: one line.").tag(config=True)
    max_rows = Int(100, min=1, help="Rows of a table at most; result.report has all of them.").tag(config=True)

    def update_config(self, config: Config) -> None:
        """Take over what ``%config`` says.

        Raises
        ------
        ConfigError
            If a name or a value is wrong; then nothing is changed.
        """
        name = type(self).__name__
        check_settings(dict(config.get(name, {})), prefix=f"{name}.")
        super().update_config(config)


def check_settings(values: Mapping[str, object], *, prefix: str = "", section: str = "", source: str = "") -> None:
    """Refuse settings that do not exist, and values they cannot have.

    Raises
    ------
    ConfigError
        With every reason at once, and with the name that was probably meant.
    """
    problems = []
    for name, value in values.items():
        message, hint = _wrong_with(name, value)
        if message:
            problems.append(Problem(section=section, key=f"{prefix}{name}", message=message, hint=hint))
    if problems:
        raise ConfigError(problems, source=source)


def find_project(folder: Path) -> Path | None:
    """Return the nearest pyproject.toml: in a folder, or in the first one above it that has one."""
    return next((place / "pyproject.toml" for place in (folder, *folder.parents) if _has_project(place)), None)


def read_project(path: Path) -> dict[str, Any]:
    """Return the settings under ``[tool.ptq_lab]``; none if there is no such table.

    Raises
    ------
    ConfigError
        If the file cannot be read, or a setting is wrong.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:  # no TOML, or no UTF-8
        raise ConfigError([Problem(message=f"cannot be read: {fault}")], source=str(path)) from None
    tool = tables.get("tool", {})
    values = tool.get("ptq_lab", {}) if isinstance(tool, dict) else {}
    if not isinstance(values, dict):
        problem = Problem(section=TABLE, message=f"{values!r} given; a table of settings wanted")
        raise ConfigError([problem], source=str(path))
    check_settings(values, section=TABLE, source=str(path))
    return values


def _has_project(folder: Path) -> bool:
    try:
        return (folder / "pyproject.toml").is_file()
    except OSError:  # a folder that may not be entered
        return False


def _wrong_with(name: str, value: object) -> tuple[str, str]:
    """Return what is wrong with a setting, and a hint; both empty if nothing is."""
    traits = PTQLab.class_traits(config=True)
    if name not in traits:
        near = closest(name, traits)
        return "there is no such setting", f"did you mean {near}?" if near else f"there are {', '.join(traits)}"
    trait: Any = traits[name]
    if not isinstance(trait, Enum):
        is_fit = type(value) is int and value >= trait.min
        return "" if is_fit else f"{value!r} is not a whole number of {trait.min} or more", ""
    words = [str(each) for each in trait.values or ()]
    if any(value == each and type(value) is type(each) for each in trait.values or ()):
        return "", ""
    near = closest(value, words) if isinstance(value, str) else ""
    return f"{value!r} is not one of {', '.join(words)}", f"did you mean {near}?" if near else ""
