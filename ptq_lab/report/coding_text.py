"""Bits of entropy-coded weights side by side: packed, the entropy of the codes, stored, and Shannon's bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from ptq_lab.report.formats import format_bytes, format_percent, shorten, text_table
from ptq_lab.report.rows import LayerRow

CODING_HEADERS = ("layer", "op", "weights", "error", "nominal bits", "entropy", "coded bits", "Shannon bound", "bytes")
CODING_CAPTION = (
    "bits per weight. nominal: packed codes; entropy: of the codes, order 0; coded: in the file, scales included; "
    "Shannon bound: no code of independent weights with this error takes less"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CodedBits:
    """Bits per weight of one layer, or of all of them.

    Attributes
    ----------
    nominal : float
        Width of a packed code.
    entropy : float
        Of the codes, order 0.
    coded : float
        In the container, scales and offsets included.
    bound : float or None
        Shannon's lower bound at the error that was made; ``None`` where nothing was lost.
    """

    nominal: float
    entropy: float
    coded: float
    bound: float | None


def coded_rows(layers: Sequence[LayerRow]) -> list[LayerRow]:
    """Return the layers whose weights are entropy-coded, a shared weight once."""
    found = {row.tensor: row for row in layers if row.entropy is not None and 0 not in row.shape}
    return list(found.values())


def bits_of_coding(row: LayerRow) -> CodedBits:
    """Return the bits per weight of an entropy-coded layer."""
    return CodedBits(
        nominal=float(row.bits or 0),
        entropy=row.entropy or 0.0,
        coded=8.0 * row.bytes_after / prod(row.shape),
        bound=row.bound,
    )


def mean_bits(rows: Sequence[LayerRow]) -> CodedBits:
    """Return the bits per weight over some layers; a bound that is not known counts as the entropy."""
    sizes = [prod(row.shape) for row in rows]
    each = [bits_of_coding(row) for row in rows]

    def mean(values: list[float]) -> float:
        return sum(size * value for size, value in zip(sizes, values, strict=True)) / max(1, sum(sizes))

    return CodedBits(
        nominal=mean([one.nominal for one in each]),
        entropy=mean([one.entropy for one in each]),
        coded=mean([one.coded for one in each]),
        bound=mean([one.entropy if one.bound is None else one.bound for one in each]),
    )


def coding_cells(row: LayerRow, width: int = 34) -> tuple[str, ...]:
    """Return the cells of :data:`CODING_HEADERS` for one layer."""
    name, count = shorten(row.node, width), prod(row.shape)
    return (name, row.op_type, f"{count:,}", format_percent(row.relative_error), *_numbers(row), _size(row.bytes_after))


def total_cells(rows: Sequence[LayerRow]) -> tuple[str, ...]:
    """Return the cells of :data:`CODING_HEADERS` for some layers together."""
    count, size = sum(prod(row.shape) for row in rows), sum(row.bytes_after for row in rows)
    return ("all", "", f"{count:,}", "", *_written(mean_bits(rows)), _size(size))


def coding_table(layers: Sequence[LayerRow], limit: int | None = None) -> str:
    """Return the bits of entropy-coded layers as text, with those of all together; empty if there are none.

    Examples
    --------
    >>> row = LayerRow(node="conv", op_type="Conv", tensor="w", shape=(8, 3, 3, 3), bits=5, granularity="per-tensor",
    ...                storage="coded", bytes_before=864, bytes_after=108, relative_error=0.04, entropy=3.9, bound=3.6)
    >>> print(coding_table([row]).splitlines()[2])
    conv   Conv      216  4.0 %             5     3.90        4.00           3.60  108 B
    """
    rows = coded_rows(layers)
    if not rows:
        return ""
    shown = rows if limit is None else rows[:limit]
    cells = [*map(coding_cells, shown), total_cells(rows)]
    hidden = len(rows) - len(shown)
    more = f"\n... and {hidden} more" if hidden else ""
    return f"{text_table(CODING_HEADERS, cells, right=CODING_HEADERS[2:])}{more}\n{CODING_CAPTION}"


def _numbers(row: LayerRow) -> tuple[str, str, str, str]:
    return _written(bits_of_coding(row))


def _written(bits: CodedBits) -> tuple[str, str, str, str]:
    bound = "-" if bits.bound is None else f"{bits.bound:.2f}"
    return f"{bits.nominal:.3g}", f"{bits.entropy:.2f}", f"{bits.coded:.2f}", bound


def _size(count: int) -> str:
    return format_bytes(count)
