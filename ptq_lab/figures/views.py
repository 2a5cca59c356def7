"""What templates are given: words and bar lengths, nothing left to compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ptq_lab.figures.outlines import OutlineView
from ptq_lab.report.tables import OutputRow, Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One headline number; ``share`` (0 to 1) adds a meter below it."""

    label: str
    value: str
    detail: str
    share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerView:
    """One layer as the words and bar lengths (0 to 1) that a table shows."""

    node: str
    title: str
    op_type: str
    shape: str
    quantized: bool
    bits: int | None
    granularity: str
    storage: str
    before: str
    after: str
    error: str
    sqnr: str
    reason: str
    size_share: float
    error_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationView:
    """One activation tensor as a table shows it; `cells` as in ``ACTIVATION_HEADERS``."""

    title: str
    node: str
    cells: Sequence[str]
    readers: str
    outline: OutlineView | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductView:
    """One activation that is quantized at run time; `cells` as in ``PRODUCT_HEADERS``, all `readers` in words."""

    title: str
    cells: Sequence[str]
    readers: str
    worst: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleView:
    """A sample as a picture (PNG in base 64) and words."""

    picture: str
    words: str
    warnings: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportView:
    """Everything a template needs to know about a report."""

    summary: Summary
    how: str
    complete: bool
    left: Sequence[str]
    cards: Sequence[Card]
    facts: Sequence[tuple[str, str]]
    layers: Sequence[LayerView]
    outputs: Sequence[OutputRow]
    activations: Sequence[ActivationView]
    sample: SampleView | None
    performance: Sequence[Sequence[str]]
    performance_caption: str
    products: Sequence[ProductView]
    products_caption: str
