"""Measured values beside their bars, printed as a table while they come in, and kept for JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One number, what it was measured to be, and what it should be.

    Attributes
    ----------
    value : float
    low, high : float or None
        Quartiles, if the value is a median.
    bar : float or None
        The limit; ``None``: the value is for information only.
    at_least : bool
        The bar is a lower limit.
    form : str
        How to print it.
    """

    value: float
    low: float | None = None
    high: float | None = None
    bar: float | None = None
    at_least: bool = False
    form: str = ".2f"

    @property
    def ok(self) -> bool | None:
        """Whether the bar is met; ``None`` if there is none."""
        if self.bar is None:
            return None
        return self.value >= self.bar if self.at_least else self.value <= self.bar

    def __str__(self) -> str:
        text = format(self.value, self.form)
        if self.low is not None and self.high is not None:
            text += f" ({self.low:{self.form}}-{self.high:{self.form}})"
        if self.bar is None:
            return text
        return f"{text} {'>=' if self.at_least else '<='} {self.bar:{self.form}} {'ok' if self.ok else 'MISS'}"


Cell = str | int | Measured


@dataclass(slots=True)
class Table:
    """Prints its rows as they are added.

    Attributes
    ----------
    widths : mapping of str to int
        Columns and how many characters each gets.
    keys : tuple of str
        The columns that say what was measured.
    """

    widths: Mapping[str, int]
    keys: tuple[str, ...]
    rows: list[dict[str, Cell]] = field(default_factory=list)

    def add(self, row: dict[str, Cell]) -> None:
        """Print a row, after the head if it is the first."""
        if not self.rows:
            print("  ".join(f"{name:{width}}" for name, width in self.widths.items()).rstrip())
        self.rows.append(row)
        cells = (f"{row.get(name, '')!s:{width}}" for name, width in self.widths.items())
        print("  ".join(cells).rstrip(), flush=True)

    def finish(self, arguments: argparse.Namespace, facts: Mapping[str, Any]) -> None:
        """Say how many bars were met and write the JSON file, if one was asked for."""
        cells = [(row, name, cell) for row in self.rows for name, cell in row.items() if isinstance(cell, Measured)]
        judged = [cell for _, _, cell in cells if cell.ok is not None]
        missed = [(row, name, cell) for row, name, cell in cells if cell.ok is False]
        print(f"\n{len(judged) - len(missed)} of {len(judged)} bars met")
        for row, name, cell in missed:
            print(f"  {', '.join(f'{key} {row[key]}' for key in self.keys)}: {name} {cell}")
        if arguments.json:
            data = {"facts": facts, "settings": _settings(arguments), "rows": [_plain(row) for row in self.rows]}
            arguments.json.write_text(json.dumps(data, indent=2, default=str) + "\n", encoding="utf-8")


def arguments_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser that knows --json."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every number to this file")
    return parser


def parse_widths(text: str) -> tuple[int, ...]:
    """Read a list of widths, such as ``1..16`` or ``4,8``."""
    widths: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("..")
        try:
            widths += range(int(first), int(last or first) + 1)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{part!r} is no width and no range such as 1..16") from None
    if not widths or not all(1 <= width <= 16 for width in widths):
        raise argparse.ArgumentTypeError(f"{text!r}: widths from 1 to 16 wanted")
    return tuple(widths)


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name, value in vars(arguments).items() if name != "json"}


def _plain(row: Mapping[str, Cell]) -> dict[str, Any]:
    return {name: {**asdict(cell), "ok": cell.ok} if isinstance(cell, Measured) else cell for name, cell in row.items()}
