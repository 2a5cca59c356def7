"""The parts of a text report that only a comparison has: the error from layer to layer, and which layer is which."""

from __future__ import annotations

from collections.abc import Sequence

from ptq_lab.report.formats import format_decibel, shorten, text_table
from ptq_lab.report.rows import ErrorRow, PairRow

DEPTH_HEADERS = ("layer", "op", "alone", "SQNR alone", "with all before", "SQNR with all before")
PAIR_HEADERS = ("layer", "op", "in the second model", "op there", "told by")


def depth_table(errors: Sequence[ErrorRow], limit: int | None = None) -> str:
    """Return how the error grows as text: the cosine of what a layer gives, alone and after all layers before it.

    Examples
    --------
    >>> row = ErrorRow(node="conv", op_type="Conv", tensor="y", isolated_cosine=0.9999, isolated_sqnr_db=37.0,
    ...                accumulated_cosine=0.98, accumulated_sqnr_db=14.0)
    >>> print(depth_table([row]))
    layer  op       alone  SQNR alone  with all before  SQNR with all before
    -----  ----  --------  ----------  ---------------  --------------------
    conv   Conv  0.999900        37.0         0.980000                  14.0
    """
    shown = errors if limit is None else errors[:limit]
    cells = [
        (
            shorten(row.node),
            row.op_type,
            _cosine(row.isolated_cosine),
            format_decibel(row.isolated_sqnr_db),
            _cosine(row.accumulated_cosine),
            format_decibel(row.accumulated_sqnr_db),
        )
        for row in shown
    ]
    return text_table(DEPTH_HEADERS, cells, right=DEPTH_HEADERS[2:]) + _more(errors, shown)


def pair_table(pairs: Sequence[PairRow], limit: int | None = None) -> str:
    """Return the layers that are called differently or that only one model has as text; empty if there are none.

    Examples
    --------
    >>> row = PairRow(node="conv", op_type="Conv", other_node="c1", other_op_type="QLinearConv", how="weight name")
    >>> print(pair_table([row]))
    layer  op    in the second model  op there     told by
    -----  ----  -------------------  -----------  -----------
    conv   Conv  c1                   QLinearConv  weight name
    """
    telling = [row for row in pairs if row.node != row.other_node]
    if not telling:
        return ""
    shown = telling if limit is None else telling[:limit]
    cells = [
        (
            shorten(row.node) or "-",
            row.op_type or "-",
            shorten(row.other_node) or "-",
            row.other_op_type or "-",
            row.how or "nothing",
        )
        for row in shown
    ]
    return text_table(PAIR_HEADERS, cells, right=()) + _more(telling, shown)


def _cosine(value: float | None) -> str:
    return "-" if value is None else f"{value:.6f}"


def _more(rows: Sequence[object], shown: Sequence[object]) -> str:
    hidden = len(rows) - len(shown)
    return f"\n... and {hidden} more" if hidden else ""
