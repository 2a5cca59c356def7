"""A list of rows that can write itself as CSV and JSON."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

from ptq_lab.report.files import replacing

Row = TypeVar("Row")


class Table(Sequence[Row], Generic[Row]):
    """A list of row dataclasses that can write itself; compares and prints like a tuple of rows."""

    def __init__(self, row_type: type[Row], rows: Iterable[Row] = ()) -> None:
        self.row_type = row_type
        self._rows = tuple(rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Row, ...]: ...
    def __getitem__(self, index: int | slice) -> Row | tuple[Row, ...]:
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Table) and self._rows == other._rows

    def __hash__(self) -> int:
        return hash(self._rows)

    def __repr__(self) -> str:
        return f"Table({self.row_type.__name__}, {len(self)} rows)"

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the CSV columns, in order."""
        return tuple(column.name for column in fields(self.row_type) if column.metadata.get("csv", True))  # type: ignore[arg-type]

    def records(self) -> list[dict[str, Any]]:
        """Return the rows as plain dictionaries."""
        return [asdict(row) for row in self._rows]  # type: ignore[call-overload]

    def to_csv(self, path: str | Path) -> None:
        """Write one header line and one line per row; shapes read ``64x3x3x3``, missing values are empty."""
        with replacing(Path(path), what="the table") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(self.columns)
            for row in self.records():
                writer.writerow([_cell(row[column]) for column in self.columns])

    def to_json(self, path: str | Path | None = None) -> str:
        """Return the rows as a JSON list, and write it to `path` if given; infinities are ``null``."""
        text = _json(self.records())
        if path is not None:
            write_text(path, text)
        return text


def write_text(path: str | Path, text: str) -> None:
    """Write a text with a line break at its end, whole or not at all."""
    with replacing(Path(path), what="the table") as file:
        file.write(text + "\n")


def _json(data: object) -> str:
    return json.dumps(_finite(data), indent=2, allow_nan=False)


def _finite(data: object) -> object:
    """Replace what JSON has no word for, such as the SQNR of something that lost nothing."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def _cell(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ("x" if all(isinstance(item, int) for item in value) else " ").join(str(item) for item in value)
    return value
