"""What a model costs to run, and what quantizing its activations at run time loses, as cells and tables of text."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from ptq_lab.report.formats import NAME_WIDTH, WIDTH, format_decibel, shorten, text_table
from ptq_lab.report.tables import PerformanceRow, ProductRow, Report

DOCUMENT_HEADERS = (
    "Model Type",
    "Runtime Mode",
    "Model Size(M)",
    "RAM(K)",
    "Latency(ms)",
    "Cos-Similarity",
    "Compression Ratio",
    "Memory compared to FP32",
    "Latency compared to FP32",
)
"""The columns of the document's performance tables; M is a million bytes and K a thousand."""

SHORT_HEADERS = ("model", "computes in", "size M", "RAM K", "ms", "cosine", "ratio", "RAM change", "latency change")
PRODUCT_HEADERS = ("activation", "read by", "granularity", "low", "high", "SQNR")
LOWEST = "lowest"
NOT_MEASURED = "not measured: no samples were given"


def performance_cells(rows: Sequence[PerformanceRow]) -> list[tuple[str, ...]]:
    """Return the performance table as text, a cell per name in ``DOCUMENT_HEADERS``.

    ``"-"`` stands for what could not be measured. The float model, which comes first, is not compared to itself.

    Examples
    --------
    >>> row = PerformanceRow(model="float32", arithmetic="float32", bytes=20_000_000, memory=None, latency_ms=9.916,
    ...                      cosine=1.0, compression_ratio=1.0, memory_change=None, latency_change=0.0)
    >>> performance_cells([row])
    [('float32', 'float32', '20.0', '-', '9.92', '1.00000', '', '', '')]
    """
    return [_performance_row(row, is_reference=index == 0) for index, row in enumerate(rows)]


def performance_caption(report: Report) -> str:
    """Return what the performance table was measured on, and how."""
    what = report.summary.timed_on or "one sample"
    measured = any(row.memory is not None for row in report.performance)
    memory = "what loading the model and running it once add to a process" if measured else "not measurable here"
    how = "latency on one thread, medians of runs in turn"
    loaded = _after_loading(report.performance)
    return f"Performance, measured on this machine with {what}: {how}; RAM is {memory}.{loaded}"


def _after_loading(rows: Sequence[PerformanceRow]) -> str:
    """Say what models hold before they are run, where one of them is kept small on purpose."""
    first = rows[0].memory_loaded if rows else None
    if not first or not any(row.model.endswith("ON_THE_FLY") for row in rows):
        return ""
    known = [(row.model, row.memory_loaded) for row in rows[1:] if row.memory_loaded is not None]
    others = ", ".join(f"{model} {held / 1e3:,.0f} K ({held / first:.2f} of it)" for model, held in known)
    return f" Right after loading, before the first run, float32 holds {first / 1e3:,.0f} K, {others}."


def performance_table(report: Report) -> str:
    """Return caption and performance table as aligned text."""
    table = text_table(SHORT_HEADERS, performance_cells(report.performance), right=SHORT_HEADERS[2:])
    return f"{textwrap.fill(performance_caption(report), WIDTH)}\n\n{table}"


def product_cells(row: ProductRow, width: int = NAME_WIDTH) -> tuple[str, ...]:
    """Return one activation as text, a cell per name in ``PRODUCT_HEADERS``; names are cut to `width`.

    Examples
    --------
    >>> product_cells(ProductRow(tensor="/norm", readers=("/query", "/key"), granularity="per-tensor"))
    ('/norm', '/query and 1 more', 'per-tensor', '-', '-', '-')
    """
    first, *others = row.readers or ("-",)
    return (
        shorten(row.tensor, width),
        shorten(first, width) + (f" and {len(others)} more" if others else ""),
        row.granularity,
        "-" if row.low is None else f"{row.low:.4g}",
        "-" if row.high is None else f"{row.high:.4g}",
        format_decibel(row.sqnr_db),
    )


def worst_product(rows: Sequence[ProductRow]) -> ProductRow | None:
    """Return the activation that loses most; ``None`` if nothing was measured or nothing is lost."""
    known = [(row.sqnr_db, row) for row in rows if row.sqnr_db is not None and math.isfinite(row.sqnr_db)]
    return min(known, key=lambda item: item[0])[1] if known else None


def products_caption(rows: Sequence[ProductRow]) -> str:
    """Return what the table of products shows."""
    if all(row.low is None for row in rows):
        return f"Ranges and losses are {NOT_MEASURED}."
    return "SQNR in dB, each activation against its own codes."


def product_table(rows: Sequence[ProductRow], limit: int | None = None) -> str:
    """Return caption and table of products as aligned text, with a mark on the activation that loses most."""
    shown, worst = rows if limit is None else rows[:limit], worst_product(rows)
    if worst is not None and worst not in shown:
        shown = [*shown, worst]
    body = [(*product_cells(row), f"<- {LOWEST}" if row is worst else "") for row in shown]
    table = text_table((*PRODUCT_HEADERS, ""), body, right=PRODUCT_HEADERS[3:])
    hidden = len(rows) - len(shown)
    more = f"\n... and {hidden} more activations" if hidden else ""
    return f"Activations quantized at run time. {products_caption(rows)}\n\n{table}{more}"


def _performance_row(row: PerformanceRow, *, is_reference: bool) -> tuple[str, ...]:
    memory = "-" if row.memory is None else f"{row.memory / 1e3:,.0f}"
    compared = ("", "", "")
    if not is_reference:
        compared = (f"{row.compression_ratio:.2f}", _change(row.memory_change), _change(row.latency_change))
    return (
        row.model,
        row.arithmetic,
        _three_digits(row.bytes / 1e6),
        memory,
        _three_digits(row.latency_ms),
        f"{row.cosine:.5f}",
        *compared,
    )


def _three_digits(value: float) -> str:
    """Return a positive number with three significant digits, none of them lost before the point."""
    digits = 2 - math.floor(math.log10(value)) if value > 0 else 2
    return f"{value:.{max(0, digits)}f}"


def _change(ratio: float | None) -> str:
    return "-" if ratio is None else f"{100 * ratio:+.1f} %"
