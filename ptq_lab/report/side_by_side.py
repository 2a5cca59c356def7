"""Several runs side by side, as tables and as text: what differs in their settings, and what that did."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ptq_lab.report.formats import format_bytes, format_percent, shorten, text_table
from ptq_lab.report.tables import Summary

UNKNOWN = "-"
FLOAT = "float"
OVERFIT = 2.0  # errors on evaluation over errors on calibration, from which it is worth a word


@dataclass(frozen=True, slots=True, kw_only=True)
class RunColumn:
    """One run.

    Attributes
    ----------
    name : str
        What the user calls it.
    summary : Summary
    calibration, evaluation : float or None
        ``1 - cosine`` of the outputs, mean over samples: of calibration, and of evaluation. ``None`` without such.
    changed : int or None
        How many answers differ from the float model's; ``None`` if it is no classifier.
    """

    name: str
    summary: Summary
    calibration: float | None = None
    evaluation: float | None = None
    changed: int | None = None

    @property
    def overfits(self) -> bool:
        """Whether evaluation does so much worse than calibration that the ranges may fit calibration alone."""
        if self.calibration is None or self.evaluation is None:
            return False
        return self.evaluation > OVERFIT * max(self.calibration, 1e-6)


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingRow:
    """One setting that differs; a text per run."""

    section: str
    key: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerErrors:
    """One layer in all runs.

    Attributes
    ----------
    node, op_type : str
    bits : tuple of int or None
        Per run; ``None`` where it stayed float.
    errors : tuple of float or None
        Per run: relative error (a ratio) of the layer's output with this layer alone quantized.
    """

    node: str
    op_type: str
    bits: tuple[int | None, ...]
    errors: tuple[float | None, ...]

    @property
    def worst(self) -> float:
        """The largest error of any run."""
        return max((error for error in self.errors if error is not None), default=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """A sample that some run answers differently than the float model.

    Attributes
    ----------
    sample : str
        Its file or number.
    label : int or None
        The right answer, if known.
    answer : int
        The float model's.
    answers : tuple of int
        Per run.
    picture : bytes
        The sample as a small PNG; empty if it is no picture.
    """

    sample: str
    label: int | None
    answer: int
    answers: tuple[int, ...]
    picture: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class SideBySide:
    """Several runs side by side.

    Attributes
    ----------
    runs : tuple of RunColumn
        In the order in which they were given; all tuples of rows have this order.
    settings : tuple of SettingRow
        What differs between the configurations, and between the calls.
    layers : tuple of LayerErrors
        The worst first.
    flips : tuple of Flip
        A few samples whose answer changed, those first that more runs change.
    flipped : int
        How many there are in all.
    looked_at : int
        How many samples the models answered.
    seen_on : str
        What those samples are.
    notes : tuple of str
    """

    runs: tuple[RunColumn, ...]
    settings: tuple[SettingRow, ...] = ()
    layers: tuple[LayerErrors, ...] = ()
    flips: tuple[Flip, ...] = ()
    flipped: int = 0
    looked_at: int = 0
    seen_on: str = ""
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return side_by_side_text(self)

    def to_html(self) -> str:
        """Return all of it as one piece of HTML without scripts; needs the ``lab`` extra."""
        from ptq_lab.figures.side_by_side import side_by_side_html

        return side_by_side_html(self)


def side_by_side_text(runs: SideBySide, *, max_layers: int | None = None) -> str:
    """Return several runs as aligned text; at most so many layers."""
    names = [shorten(run.name) for run in runs.runs]
    blocks = [text_table(("", *names), fact_rows(runs), right=names)]
    if runs.settings:
        rows = [(f"[{row.section}] {row.key}" if row.section else row.key, *row.values) for row in runs.settings]
        blocks.append(text_table(("setting", *names), rows))
    else:
        blocks.append("settings: all the same")
    if runs.layers:
        shown = runs.layers if max_layers is None else runs.layers[:max_layers]
        body = [(shorten(row.node), row.op_type, *layer_cells(row, runs)) for row in shown]
        table = text_table(("error of the layer's output", "op", *names), body, right=names)
        hidden = len(runs.layers) - len(shown)
        blocks.append(f"{table}\n... and {hidden} layers with smaller errors" if hidden else table)
    if runs.looked_at:
        blocks.append(_flips_text(runs, names))
    return "\n\n".join([*blocks, *runs.notes])


def fact_rows(runs: SideBySide) -> list[tuple[str, ...]]:
    """Return a label and a text per run of all that is known of every one; rows that say nothing are left out."""
    summaries = [run.summary for run in runs.runs]
    metric = next((summary.metric for summary in summaries if summary.metric), "metric")
    rows = [
        ("model", *(summary.model for summary in summaries)),
        ("bits", *(str(summary.bits or "mixed") for summary in summaries)),
        ("file", *(format_bytes(summary.bytes_after) for summary in summaries)),
        ("times smaller", *(f"{summary.compression_ratio:.2f}" for summary in summaries)),
        ("weights quantized", *(f"{summary.layers_quantized} of {summary.layers}" for summary in summaries)),
        (f"{metric}, float", *(_number(summary.metric_before) for summary in summaries)),
        (metric, *(_number(summary.metric_after) for summary in summaries)),
        ("1 - cosine on calibration", *(_error(run.calibration) for run in runs.runs)),
        ("1 - cosine on evaluation", *(_error(run.evaluation) for run in runs.runs)),
        (
            "answers changed",
            *(UNKNOWN if run.changed is None else f"{run.changed} of {runs.looked_at}" for run in runs.runs),
        ),
        ("time, float32 = 1", *(_number(summary.latency_ratio, 2) for summary in summaries)),
    ]
    return [row for row in rows if any(cell != UNKNOWN for cell in row[1:])]


def layer_cells(row: LayerErrors, runs: SideBySide) -> list[str]:
    """Return a text per run: its error, and its bits where they are not those of the whole run."""
    cells = []
    for bits, error, run in zip(row.bits, row.errors, runs.runs, strict=True):
        if bits is None:
            cells.append(FLOAT)
        else:
            width = "" if bits == run.summary.bits else f" ({bits} bits)"
            cells.append(f"{format_percent(error)}{width}")
    return cells


def flip_words(flip: Flip, names: Sequence[str]) -> str:
    """Return what the models answer, as one line.

    Examples
    --------
    >>> flip_words(Flip(sample="3", label=7, answer=7, answers=(1, 7)), ("a", "b"))
    'is 7; float 7, a 1, b 7'
    """
    right = "" if flip.label is None else f"is {flip.label}; "
    answers = ", ".join(f"{name} {answer}" for name, answer in zip(names, flip.answers, strict=True))
    return f"{right}float {flip.answer}, {answers}"


def _flips_text(runs: SideBySide, names: Sequence[str]) -> str:
    head = f"answers changed: {runs.flipped} of {runs.looked_at} ({runs.seen_on})"
    return "\n".join([head, *(f"  {flip.sample}: {flip_words(flip, names)}" for flip in runs.flips)])


def _number(value: float | None, digits: int = 4) -> str:
    return UNKNOWN if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _changed(run: RunColumn, looked_at: int) -> str:
    return UNKNOWN if run.changed is None else f"{run.changed} of {looked_at}"


def _error(value: float | None) -> str:
    return UNKNOWN if value is None or math.isnan(value) else f"{value:.2g}"
