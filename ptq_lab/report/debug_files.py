"""Rows into the files of a debug folder: the document's columns, or the bytes of the original's code.

The document's form is CSV as spreadsheets and ``pandas.read_csv`` read it without options: names are quoted where they
need it, an empty cell is a number that does not exist. The other form has the original's file names, its column
``Max``, a running number in front of every row of statistics, a comma at the end of every line, six digits, standard
deviations in the column ``Var``, and never a quote, so that a comma in a name is a comma too many there as well.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from ptq_lab.report.debug_rows import ParameterRow, StatisticsRow
from ptq_lab.report.files import replacing

_TENSOR = ("NodeName", "NodeType", "TensorName")
_NUMBERS = ("Mean", "Var", "Sparsity", "Clip", "CosineSimilarity")
STATISTICS = (*_TENSOR, "InOutFlag", "DataTypeFlag", "TensorTypeFlag", "Min", "Q1", "Median", "Q3", "MAX", *_NUMBERS)
SUMMARY = ("Round", "TensorName", "CosineSimilarity")
PARAMETERS = (*_TENSOR, "ElementsNum", "Dims", "Scale", "ZeroPoint", "Bits", "CorrectionVar", "CorrectionMean")


class Table(Protocol):
    """A file that takes rows."""

    def row(self, cells: Sequence[str | int | float]) -> None:
        """Write one row."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How files are named and written.

    Attributes
    ----------
    original : bool
        As the original's code writes them, instead of as the document describes them.

    Examples
    --------
    >>> Layout(original=True).report_name(3), Layout().report_name(3)
    ('round_3.csv', 'report_3.csv')
    """

    original: bool = False

    def report_name(self, number: int) -> str:
        """Return the name of the file of one round."""
        return f"{'round' if self.original else 'report'}_{number}.csv"

    @contextmanager
    def open(self, path: Path, header: Sequence[str]) -> Iterator[Table]:
        """Open a file for rows; it appears under its name when the block ends without an error.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        with replacing(path) as stream:
            table: Table = _Original(stream) if self.original else _Document(stream)
            table.row(header)
            yield table

    def write_report(self, path: Path, rows: Iterable[StatisticsRow]) -> None:
        """Write the statistics of one round."""
        header = ["", *(name.replace("MAX", "Max") for name in STATISTICS)] if self.original else STATISTICS
        with self.open(path, header) as table:
            for number, row in enumerate(rows):
                cells = self._statistics(row)
                table.row([number, *cells] if self.original else cells)

    def write_parameters(self, path: Path, rows: Iterable[ParameterRow]) -> None:
        """Write the grids of all channels of all quantized tensors."""
        with self.open(path, PARAMETERS) as table:
            for row in rows:
                sizes = "".join(f"{size} " for size in row.shape)
                table.row(
                    [
                        *(row.use.node, row.use.op_type, row.use.tensor),
                        *(math.prod(row.shape), sizes if self.original else sizes.strip()),
                        *(row.scale, row.zero_point, row.bits, row.spread_correction, row.mean_correction),
                    ]
                )

    def _statistics(self, row: StatisticsRow) -> list[str | int | float]:
        use, values = row.use, row.values
        spread = math.sqrt(values.variance) if self.original else values.variance
        flags = ("Output" if use.made else "Input", row.kind, "Weight" if use.fixed else "Activation")
        order = (values.low, values.q1, values.median, values.q3, values.high)
        tail = (values.mean, spread, values.sparsity, row.clip, row.cosine)
        return [use.node, use.op_type, use.tensor, *flags, *order, *tail]


class _Document:
    """CSV that needs no explanation."""

    def __init__(self, stream: IO[str]) -> None:
        self._writer = csv.writer(stream, lineterminator="\n")

    def row(self, cells: Sequence[str | int | float]) -> None:
        self._writer.writerow([_exact(cell) if isinstance(cell, float) else cell for cell in cells])


class _Original:
    """A comma behind every cell."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def row(self, cells: Sequence[str | int | float]) -> None:
        text = (f"{cell:.6g}" if isinstance(cell, float) else str(cell) for cell in cells)
        self._stream.write("".join(f"{cell}," for cell in text) + "\n")


def _exact(number: float) -> str:
    return "" if math.isnan(number) else f"{number:.9g}"
