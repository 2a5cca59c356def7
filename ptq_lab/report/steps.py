"""What the quality ladder did to each layer, step by step: rows, and the same in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median

from ptq_lab.plan import QuantPlan, TensorPlan
from ptq_lab.report.formats import shorten, text_table
from ptq_lab.report.table import Table
from ptq_lab.search.layer_rounding import LayerSteps

MEANING: Mapping[str, str] = {
    "bias": "the bias gives every output its mean back",
    "range of power 2.4": "each channel's range is the one whose rounding errors, to the power 2.4, sum to least",
    "range by inputs": "each channel's range is the one whose squared errors cost least, a weight counting as much as "
    "the input it meets is strong",
    "gptq": "weights are rounded one after the other, and those that are left make up for each error",
    "descent": "single weights move to the code that is best for all others as they are, and scales follow",
}
"""What a step is; one that is missing here speaks by its name."""

HEADERS = ("layer", "step", "before", "after", "verdict")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """One step that was tried on one layer; or why none was.

    Attributes
    ----------
    node, op_type : str
    bits : int
        Width of the layer's weight.
    step : str
        Name of the step, empty if none was tried.
    meaning : str
        What it is, in a sentence.
    before, after : float or None
        Error of the layer's output on held-out samples, as a share of the output's power: of the best so far, and with
        the step.
    kept : bool
        Whether the step lowered the error, so that the weight is what it made; otherwise it was dropped.
    blend : float
        How far the layer's weights aimed at making up for the layers before it, 0 to 1; the same in all its rows.
    reason : str
        Why no step was tried; empty if one was.
    """

    node: str
    op_type: str
    bits: int
    step: str = ""
    meaning: str = ""
    before: float | None = None
    after: float | None = None
    kept: bool = False
    blend: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class LayerOfSteps:
    """All rows of one layer."""

    rows: tuple[StepRow, ...]

    @property
    def node(self) -> str:
        """Its name."""
        return self.rows[0].node

    @property
    def before(self) -> float | None:
        """Its error before the first step."""
        return self.rows[0].before

    @property
    def after(self) -> float | None:
        """Its error with all steps that were kept."""
        kept = [row.after for row in self.rows if row.kept]
        return kept[-1] if kept else self.before

    @property
    def dropped(self) -> tuple[StepRow, ...]:
        """The steps that did not help."""
        return tuple(row for row in self.rows if row.step and not row.kept)


def step_rows(rounding: Sequence[LayerSteps], plan: QuantPlan) -> Table[StepRow]:
    """Return a row per layer and step, in the order in which they were taken.

    Parameters
    ----------
    rounding : sequence of LayerSteps
    plan : QuantPlan
        Of the same layers.

    Examples
    --------
    >>> from ptq_lab.plan import TensorPlan
    >>> from ptq_lab.search.layer_rounding import StepTaken
    >>> conv = TensorPlan(tensor="w", nodes=("conv",), op_type="Conv", shape=(8, 3), bits=4, axis=0, channel_axis=0,
    ...                   bytes_before=96)
    >>> taken = LayerSteps("conv", (StepTaken("bias", 0.2, 0.1), StepTaken("gptq", 0.1, 0.3)), 0.5)
    >>> [(row.step, row.after, row.kept) for row in step_rows([taken], QuantPlan((conv,)))]
    [('bias', 0.1, True), ('gptq', 0.3, False)]
    """
    entries = {node: entry for entry in plan.entries for node in entry.nodes}
    return Table(StepRow, [row for layer in rounding for row in _rows(layer, entries[layer.node])])


def layers_of(rows: Sequence[StepRow]) -> tuple[LayerOfSteps, ...]:
    """Return the rows layer by layer.

    Examples
    --------
    >>> [len(layer.rows) for layer in layers_of([StepRow(node=n, op_type="Conv", bits=4) for n in "aab"])]
    [2, 1]
    """
    return tuple(LayerOfSteps(tuple(group)) for _, group in groupby(rows, key=lambda row: row.node))


def steps_line(rows: Sequence[StepRow]) -> str:
    """Return what became of all steps in one line; empty without any.

    Examples
    --------
    >>> row = StepRow(node="conv", op_type="Conv", bits=4, step="gptq", before=0.2, after=0.1, kept=True)
    >>> steps_line([row])
    'tried on 1 layer, 1 kept, 0 dropped; median error of a layer 0.2 -> 0.1'
    """
    layers = layers_of(rows)
    tried = [layer for layer in layers if layer.before is not None]
    untouched = len(layers) - len(tried)
    parts = []
    if tried:
        kept = sum(row.kept for row in rows)
        dropped = sum(len(layer.dropped) for layer in tried)
        errors = [(layer.before or 0.0, layer.after or 0.0) for layer in tried]
        before, after = (median(column) for column in zip(*errors, strict=True))
        parts.append(f"tried on {_count(len(tried))}, {kept} kept, {dropped} dropped")
        parts.append(f"median error of a layer {format_error(before)} -> {format_error(after)}")
    if untouched:
        parts.append(f"none on {_count(untouched)}")
    return "; ".join(parts)


def steps_table(rows: Sequence[StepRow], limit: int | None = None) -> str:
    """Return the layers where steps were dropped, or none was tried, as text; empty if there are none.

    Examples
    --------
    >>> row = StepRow(node="conv", op_type="Conv", bits=4, step="gptq", before=0.1, after=0.2)
    >>> print(steps_table([row]))
    layer  step  before  after  verdict
    -----  ----  ------  -----  -------
    conv   gptq     0.1    0.2  dropped
    """
    telling = [row for layer in layers_of(rows) for row in (*layer.dropped, *_without(layer))]
    if not telling:
        return ""
    shown = telling if limit is None else telling[:limit]
    table = text_table(HEADERS, [_cells(row) for row in shown], right=HEADERS[2:4])
    hidden = len(telling) - len(shown)
    return f"{table}\n... and {hidden} more" if hidden else table


def format_error(error: float | None) -> str:
    """Return an error with three digits, a dash if it is not known.

    Examples
    --------
    >>> format_error(0.012345), format_error(None), format_error(float("nan"))
    ('0.0123', '-', '-')
    """
    return "-" if error is None or math.isnan(error) else f"{error:.3g}"


def _rows(layer: LayerSteps, entry: TensorPlan) -> Iterator[StepRow]:
    op_type, bits = entry.op_type, entry.bits
    if not layer.steps:
        reason = layer.reason or "no step suits it"
        yield StepRow(node=layer.node, op_type=op_type, bits=bits, blend=layer.blend, reason=reason)
    for taken in layer.steps:
        yield StepRow(
            node=layer.node,
            op_type=op_type,
            bits=bits,
            step=taken.step,
            meaning=MEANING.get(taken.step, ""),
            before=taken.before,
            after=taken.after,
            kept=taken.kept,
            blend=layer.blend,
        )


def _without(layer: LayerOfSteps) -> tuple[StepRow, ...]:
    return tuple(row for row in layer.rows if not row.step)


def _cells(row: StepRow) -> tuple[str, ...]:
    verdict = row.reason or ("kept" if row.kept else "dropped")
    return shorten(row.node), row.step or "-", format_error(row.before), format_error(row.after), verdict


def _count(layers: int) -> str:
    return f"{layers} layer{'' if layers == 1 else 's'}"
