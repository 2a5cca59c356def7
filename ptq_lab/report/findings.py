"""What was found out about a result: errors of its layers, and their causes; data that a report may hold."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ptq_lab.report.diagnosis import Cause
from ptq_lab.report.formats import format_decibel, shorten, text_table
from ptq_lab.report.names import telling_names
from ptq_lab.report.rows import ErrorRow
from ptq_lab.report.table import Table

HARM = "harm is the error of the layer alone, or half its error averaged over channels where that is larger"

_SHOWN = 12  # layers
_WIDE = 60  # characters of a name in a sentence


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a result is off, in numbers and in words.

    Attributes
    ----------
    errors : Table of ErrorRow
        Every quantized layer by itself and after all before it, in the order of the graph, on calibration samples.
    causes : tuple of Cause
        The most harmful first.
    evaluated : Table of ErrorRow
        The same layers on evaluation samples; empty without any.
    looked_at, evaluated_on : str
        Which samples those were.

    Examples
    --------
    >>> row = ErrorRow(node="conv", op_type="Conv", tensor="y", isolated_cosine=0.99, isolated_sqnr_db=17.0,
    ...                accumulated_cosine=0.98, accumulated_sqnr_db=14.0)
    >>> cause = Cause(kind="bias shift", nodes=("conv",), evidence="..", harm=1.0)
    >>> found = Explanation(Table(ErrorRow, [row]), (cause,))
    >>> print(found)
    1. bias shift (conv): ..
    >>> [row.node for row in found.by_harm]
    ['conv']
    """

    errors: Table[ErrorRow]
    causes: tuple[Cause, ...]
    evaluated: Table[ErrorRow] = field(default_factory=lambda: Table(ErrorRow))
    looked_at: str = ""
    evaluated_on: str = ""

    def __str__(self) -> str:
        return "\n".join(f"{index}. {cause}" for index, cause in enumerate(self.causes, 1)) or "nothing stands out"

    @property
    def by_harm(self) -> tuple[ErrorRow, ...]:
        """The layers on calibration samples, the most harmful first."""
        return tuple(sorted(self.errors, key=lambda row: -row.harm))

    def on_evaluation(self, node: str) -> ErrorRow | None:
        """Return what a layer does on evaluation samples, if that was looked at."""
        return next((row for row in self.evaluated if row.node == node), None)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {
            "errors": self.errors.records(),
            "causes": [asdict(cause) for cause in self.causes],
            "evaluated": self.evaluated.records(),
            "looked_at": self.looked_at,
            "evaluated_on": self.evaluated_on,
        }


def format_loss(cosine: float | None) -> str:
    """Return ``1 - cosine`` with two significant digits, ``"-"`` where there is no cosine.

    Examples
    --------
    >>> format_loss(0.98), format_loss(1.0), format_loss(0.0), format_loss(1 - 3.21e-7), format_loss(None)
    ('0.020', '0', '1.0', '3.2e-07', '-')
    """
    if cosine is None:
        return "-"
    loss = max(0.0, 1.0 - cosine)
    if loss < 1e-12:
        return "0"
    return f"{loss:.1e}" if loss < 1e-4 else f"{loss:#.2g}"


def explanation_text(found: Explanation, *, max_layers: int = _SHOWN) -> str:
    """Return an explanation as text: the causes with their evidence and edits, then the most harmful layers."""
    lines = [f"diagnosis, {_where(found)}" if _where(found) else "diagnosis"]
    if not found.causes:
        lines.append("nothing stands out")
    for index, cause in enumerate(found.causes, 1):
        lines.append(f"{index}. {cause.kind}{_places(cause)}")
        lines.append(f"   {cause.evidence}")
        lines += [f"   try {edit}" for edit in cause.edits]
    return "\n".join(lines) + (f"\n\n{_layers(found, max_layers)}" if found.errors else "")


def _where(found: Explanation) -> str:
    both = (found.looked_at, found.evaluated_on)
    return " and ".join(f"on {origin}" for origin in both if origin)


def _places(cause: Cause) -> str:
    names = ", ".join(shorten(node, _WIDE) for node in cause.nodes[:3])
    more = f" and {len(cause.nodes) - 3} more" if len(cause.nodes) > 3 else ""
    return f": {names}{more}" if names else ""


def _layers(found: Explanation, limit: int) -> str:
    headers: tuple[str, ...] = ("layer", "op", "harm", "alone", "with all before", "SQNR dB")
    headers += ("alone, evaluation", "with all before, evaluation") if found.evaluated else ()
    rows = []
    names = telling_names([row.node for row in found.by_harm])
    for row, name in zip(found.by_harm[:limit], names, strict=False):
        cells = [
            *(name, row.op_type, format_loss(1.0 - row.harm)),
            *(format_loss(row.isolated_cosine), format_loss(row.accumulated_cosine)),
            format_decibel(row.isolated_sqnr_db),
        ]
        there = found.on_evaluation(row.node)
        if found.evaluated:
            cells += [format_loss(there.isolated_cosine if there else None)]
            cells += [format_loss(there.accumulated_cosine if there else None)]
        rows.append(cells)
    hidden = len(found.errors) - len(rows)
    table = text_table(headers, rows, right=headers[2:])
    note = f"\n... and {hidden} more layers" if hidden else ""
    return f"1 - cosine of each layer's output, the most harmful first;\n{HARM}\n{table}{note}"
