"""Widths of weights as tables: one row per weight, one point per allocation, and what a choice is expected to cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ptq_lab.report.text import format_bytes, shorten, text_table


@dataclass(frozen=True, slots=True, kw_only=True)
class WidthRow:
    """One weight in a choice of widths.

    Attributes
    ----------
    node, op_type, tensor : str
        The first node that uses the weight, its operator, and the weight's name.
    shape : tuple of int
    bits : int or None
        Bits per code; ``None`` if it stays float.
    pinned : bool
        Whether a budget has to leave the width alone.
    bytes_before, bytes_after : int
        Of the float weight, and of its codes, scales and offsets.
    relative_error : float or None
        ``||w - decoded|| / ||w||``; ``None`` if it stays float.
    output_error : float
        What rounding this weight alone is expected to do to the output, as ``1 - cosine``.
    gain : float
        Output error per unit of ``||w - decoded||**2``.
    """

    node: str
    op_type: str
    tensor: str
    shape: tuple[int, ...]
    bits: int | None
    pinned: bool
    bytes_before: int
    bytes_after: int
    relative_error: float | None
    output_error: float
    gain: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a choice of widths is expected to cost, without running the model.

    Attributes
    ----------
    cosine : float
        Of the outputs to those of the float model.
    bytes : int
        Codes, scales and offsets of the weights that are quantized.
    file_bytes : int
        Estimate of the whole file, from above by a few hundred bytes.
    average_bits : float
        Per weight that is quantized; NaN if none is.
    errors : mapping of str to float
        Expected ``1 - cosine`` from each weight by itself, by tensor; 0 for one that stays float.
    """

    cosine: float
    bytes: int
    file_bytes: int
    average_bits: float
    errors: Mapping[str, float]

    def __str__(self) -> str:
        sizes = f"file about {format_bytes(self.file_bytes)}, {self.average_bits:.2f} bits per weight"
        return f"{sizes}, cosine about {self.cosine:.6f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontPoint:
    """One choice of widths among several that are compared.

    Attributes
    ----------
    label : str
        Which one, e.g. ``"6 bits"``.
    bits : tuple of int or None
        Width of every weight, in the order of the graph; ``None`` for one that stays float.
    bytes : int
        Codes, scales and offsets.
    file_bytes : int
        Estimate of the whole file.
    error : float
        Expected ``1 - cosine`` of the output.
    measured : float
        The same from real runs; NaN until there have been any.
    """

    label: str
    bits: tuple[int | None, ...]
    bytes: int
    file_bytes: int
    error: float
    measured: float = math.nan

    @property
    def cosine(self) -> float:
        """Expected cosine of the output."""
        return 1.0 - self.error

    @property
    def best_known(self) -> float:
        """The measured error if there is one, else the expected one."""
        return self.error if math.isnan(self.measured) else self.measured


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontData:
    """All that a picture of size against error shows.

    Attributes
    ----------
    model : str
    curve : tuple of FrontPoint
        Best allocations, from the smallest to the most exact.
    uniform, rule : tuple of FrontPoint
        One width for all weights, and one relative error for all weights.
    current : FrontPoint
        The choice being looked at.
    verified : tuple of FrontPoint
        Choices that have been run.
    """

    model: str
    curve: tuple[FrontPoint, ...]
    uniform: tuple[FrontPoint, ...]
    rule: tuple[FrontPoint, ...]
    current: FrontPoint
    verified: tuple[FrontPoint, ...] = ()


def widths_text(rows: tuple[WidthRow, ...], limit: int | None = None) -> str:
    """Return rows as an aligned table."""
    headers = ("node", "op", "bits", "pinned", "bytes", "weight error", "output error")
    cells = [
        (
            shorten(row.node),
            row.op_type,
            "float" if row.bits is None else str(row.bits),
            "pinned" if row.pinned else "",
            format_bytes(row.bytes_after),
            "-" if row.relative_error is None else f"{row.relative_error:.2%}",
            f"{row.output_error:.2g}",
        )
        for row in rows[:limit]
    ]
    more = len(rows) - len(cells)
    table = text_table(headers, cells, right=("bits", "bytes", "weight error", "output error"))
    return f"{table}\n... and {more} more" if more else table
