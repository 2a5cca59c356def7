"""A report of two models that nobody told us anything about: sizes, agreement, weights, activations, depth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from ptq_lab.graph import Model
from ptq_lab.graph.found_grids import FoundGrid, find_grids
from ptq_lab.graph.found_layers import FoundLayer, FoundModel
from ptq_lab.graph.matching import Matching
from ptq_lab.report.build import overall
from ptq_lab.report.compare import Measured
from ptq_lab.report.rows import ErrorRow, LayerRow, PairRow
from ptq_lab.report.tables import ActivationRow, Report, Summary, Table
from ptq_lab.report.text import format_bytes
from ptq_lab.report.weight_rows import RESCALED

_NAMED = 4  # layers in a sentence
_FLOAT_BITS = {"float32": 32, "float16": 16, "bfloat16": 16, "double": 64}


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What was found about two models.

    Attributes
    ----------
    first, second : Model
        As they were given.
    found : FoundModel
        The layers of the second.
    matching : Matching
    measured : Measured
    rows : Table of LayerRow
    errors : Table of ErrorRow
    latency_ratio : float or None
        Time of the second over that of the first.
    timed_on : str
        Shapes of the sample.
    kernels : tuple of int
        How many layers of the second onnxruntime computes in integers, and how many there are.
    notes : tuple of str
    seconds : dict of str to float
    """

    first: Model
    second: Model
    found: FoundModel
    matching: Matching
    measured: Measured
    rows: Table[LayerRow]
    errors: Table[ErrorRow]
    latency_ratio: float | None
    timed_on: str
    kernels: tuple[int, int]
    notes: tuple[str, ...]
    seconds: dict[str, float]


def report_two_models(compared: Compared) -> Report:
    """Put what was found into tables."""
    rows, measured = compared.rows, compared.measured
    mean, lowest, sqnr = overall(measured.outputs)
    grids = find_grids(compared.found)
    how = describe_quantization(compared.found, rows, grids)
    summary = Summary(
        model=f"{compared.first.label} against {compared.second.label}",
        quant_type=how,
        bits=common_bits(rows),
        bytes_before=compared.first.size,
        bytes_after=compared.second.size,
        layers=len(rows),
        layers_quantized=sum(row.quantized for row in rows),
        cosine_mean=mean,
        cosine_min=lowest,
        sqnr_db=sqnr,
        compared_on=measured.compared_on,
        metric=measured.metric,
        metric_before=measured.before,
        metric_after=measured.after,
        left_float=left_float(rows),
        notes=(*compared.measured.notes, *matching_notes(compared), *rescaling_notes(rows), *compared.notes),
        opset=compared.second.opset,
        ir_version=compared.second.ir_model.ir_version,
        seconds=compared.seconds,
        activations=len(grids),
        integer_layers=compared.kernels[0] if grids else None,
        integer_total=compared.kernels[1] if grids else None,
        latency_ratio=compared.latency_ratio,
        timed_on=compared.timed_on,
        products=sum(layer.form.sums or layer.op_type.startswith("Dynamic") for layer in compared.found.layers),
    )
    return Report(
        summary,
        rows,
        measured.outputs,
        Table(ActivationRow, map(_activation, grids)),
        errors=compared.errors,
        pairs=Table(PairRow, _pairs(compared.matching)),
        predictions=measured.predictions,
    )


def describe_quantization(found: FoundModel, rows: Sequence[LayerRow], grids: Sequence[FoundGrid]) -> str:
    """Return in a few words how a model is quantized, as its operators tell."""
    forms = [layer.form for layer in found.layers]
    if any(form.sums for form in forms) or any(layer.op_type.startswith("Dynamic") for layer in found.layers):
        return "activations quantized at run time"
    if any(form.result is not None for form in forms):
        return "QOperator"
    if grids:
        return "Q/DQ"
    storages = {row.storage.split(",")[0] for row in rows if row.quantized}
    if storages:
        return "MatMulNBits" if "MatMulNBits" in storages else "weights only"
    kinds = Counter(row.storage for row in rows if row.storage in _FLOAT_BITS)
    return kinds.most_common(1)[0][0] if kinds else "no weights"


def common_bits(rows: Sequence[LayerRow]) -> int:
    """Return the width of all codes, 0 if they differ; of a model without codes that of its floats."""
    widths = {row.bits for row in rows if row.bits is not None}
    if not widths:
        widths = {_FLOAT_BITS[row.storage] for row in rows if row.storage in _FLOAT_BITS} or {32}
    return widths.pop() if len(widths) == 1 else 0


def left_float(rows: Sequence[LayerRow]) -> tuple[str, ...]:
    """Return one sentence per reason why weights are no codes, the biggest first."""
    kept = sorted((row for row in rows if not row.quantized), key=lambda row: row.reason)
    groups = [(reason, list(group)) for reason, group in groupby(kept, key=lambda row: row.reason)]
    groups.sort(key=lambda item: -sum(row.bytes_before for row in item[1]))
    sentences = []
    for reason, group in groups:
        size = format_bytes(sum(row.bytes_before for row in group))
        sentences.append(f"{len(group)} weight{'' if len(group) == 1 else 's'} ({size}): {reason}")
    return tuple(sentences)


def matching_notes(compared: Compared) -> Iterator[str]:
    """Yield how layers were matched, and which ones were not."""
    matching = compared.matching
    ways = Counter(pair.how for pair in matching.pairs)
    how = ", ".join(f"{count} by {way}" for way, count in ways.items())
    total = len(matching.pairs) + len(matching.only_first)
    yield f"matched {len(matching.pairs)} of {total} layers" + (f": {how}" if how else "")
    for model, layers in ((compared.first, matching.only_first), (compared.second, matching.only_second)):
        if layers:
            yield f"only {model.label} has {_names(layers)}"


def rescaling_notes(rows: Sequence[LayerRow]) -> Iterator[str]:
    """Yield which weights are in other units than those of the first model."""
    names = [row.node for row in rows if row.quantized and row.reason == RESCALED]
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        yield (
            f"channels of {len(names)} of {len(rows)} weights were rescaled before they were quantized, as by "
            f"smoothing or equalisation; their error is that of the rescaled weight: {', '.join(names[:_NAMED])}{more}"
        )


def _names(layers: Sequence[FoundLayer]) -> str:
    more = len(layers) - _NAMED
    named = ", ".join(f"{layer.name} ({layer.op_type})" for layer in layers[:_NAMED])
    return named + (f" and {more} more" if more > 0 else "")


def _pairs(matching: Matching) -> Iterator[PairRow]:
    for pair in matching.pairs:
        yield PairRow(
            node=pair.first.name,
            op_type=pair.first.op_type,
            other_node=pair.second.name,
            other_op_type=pair.second.op_type,
            how=pair.how,
        )
    for layer in matching.only_first:
        yield PairRow(node=layer.name, op_type=layer.op_type, other_node="", other_op_type="", how="")
    for layer in matching.only_second:
        yield PairRow(node="", op_type="", other_node=layer.name, other_op_type=layer.op_type, how="")


def _activation(grid: FoundGrid) -> ActivationRow:
    low, high = grid.span
    return ActivationRow(
        tensor=grid.tensor,
        node=grid.node,
        method="as stored",
        low=low,
        high=high,
        observed_low=None,
        observed_high=None,
        clip_share=None,
        scale=grid.scale,
        zero_point=grid.zero_point,
        dtype=grid.dtype,
        readers=grid.readers,
    )
