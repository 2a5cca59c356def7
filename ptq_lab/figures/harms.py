"""The layers with all their errors, the most harmful first, as the words and bar lengths of a table."""

from __future__ import annotations

from dataclasses import dataclass
from math import log10

from ptq_lab.figures import style
from ptq_lab.report import text
from ptq_lab.report.findings import HARM, format_loss
from ptq_lab.report.harm import HarmRow, by_harm, layer_errors_of
from ptq_lab.report.rows import ErrorRow
from ptq_lab.report.tables import Report

LEAST = 1e-6  # 1 - cosine at which a bar begins; at 1 it is full
_NAME = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class LossView:
    """One error as words and as the length of a bar, 0 to 1."""

    words: str
    share: float
    colour: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HarmRowView:
    """One layer as a table shows it; ``reason`` says why it stayed float, and is empty if it did not."""

    node: str
    title: str
    what: str
    bits: int | None
    storage: str
    granularity: str
    size: str
    size_share: float
    error: str
    error_share: float
    reason: str
    losses: tuple[LossView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HarmView:
    """The whole table: a caption, the headers of the losses, and the rows."""

    caption: str
    headers: tuple[str, ...]
    rows: tuple[HarmRowView, ...]


def view_harm(report: Report) -> HarmView:
    """Turn the layers of a report into words, sorted by harm."""
    found, rows = layer_errors_of(report), by_harm(report)
    headers: tuple[str, ...] = ()
    caption = "Sorted by the error of the weights: the layers were not looked at one by one."
    if found is not None:
        headers = ("output, alone", "output, with all before")
        caption = f"Sorted by harm; {HARM}. Errors of outputs are 1 - cosine; their bars are logarithmic."
        if found.evaluated:
            headers += ("alone, evaluation", "with all before, evaluation")
    top_size = max((row.layer.bytes_after for row in rows), default=1) or 1
    top_error = max((row.layer.relative_error or 0.0 for row in rows), default=1.0) or 1.0
    views = (_row(row, len(headers), top_size, top_error) for row in rows)
    return HarmView(caption=caption, headers=headers, rows=tuple(views))


def _row(row: HarmRow, losses: int, top_size: int, top_error: float) -> HarmRowView:
    layer = row.layer
    every = (*_losses(row.here), *_losses(row.there))
    return HarmRowView(
        node=text.shorten(layer.node, _NAME),
        title=f"{layer.node}, weight {layer.tensor}",
        what=f"{layer.op_type} {text.format_shape(layer.shape)}" if layer.bytes_before else layer.op_type,
        bits=layer.bits,
        storage=layer.storage,
        granularity=layer.granularity,
        size=f"{text.format_bytes(layer.bytes_before)} → {text.format_bytes(layer.bytes_after)}",
        size_share=layer.bytes_after / top_size,
        error=text.format_percent(layer.relative_error),
        error_share=(layer.relative_error or 0.0) / top_error,
        reason="" if layer.quantized else layer.reason or "stays float",
        losses=every[:losses],
    )


def _losses(row: ErrorRow | None) -> tuple[LossView, LossView]:
    alone, after = (row.isolated_cosine, row.accumulated_cosine) if row is not None else (None, None)
    return _loss(alone, style.CODES), _loss(after, style.FLOAT)


def _loss(cosine: float | None, colour: str) -> LossView:
    loss = 0.0 if cosine is None else min(1.0, max(0.0, 1.0 - cosine))
    share = 0.0 if loss <= LEAST else 1.0 - log10(loss) / log10(LEAST)
    return LossView(words=format_loss(cosine), share=share, colour=colour)
