"""A plan with its codes, and the outputs compared, become rows and a summary."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ptq_lab.calibration.outlines import Outline
from ptq_lab.graph import Model, Skip, required_onnxruntime
from ptq_lab.numerics import TensorStatistics, weight_error
from ptq_lab.numerics.rate import rate_bound
from ptq_lab.plan import QuantPlan, TensorPlan
from ptq_lab.report.activations import activation_rows
from ptq_lab.report.compare import Measured
from ptq_lab.report.execution import Execution
from ptq_lab.report.findings import Explanation
from ptq_lab.report.rows import PerformanceRow, ProductRow
from ptq_lab.report.steps import step_rows
from ptq_lab.report.tables import ActivationRow, LayerRow, OutputRow, Preview, Report, Summary, Table
from ptq_lab.report.text import format_bytes
from ptq_lab.report.weight_outlines import WeightLook, outline_weights
from ptq_lab.route import Quantized

Read = Callable[[str], NDArray[np.float32]]


class Options(Protocol):
    """The two options a summary repeats."""

    @property
    def quant_type(self) -> str | None: ...  # noqa: D102
    @property
    def bit_num(self) -> int: ...  # noqa: D102


class Shipped(Protocol):
    """A quantized model and the bytes of its file."""

    @property
    def model(self) -> Model: ...  # noqa: D102
    @property
    def size(self) -> int: ...  # noqa: D102
    @property
    def stored(self) -> Mapping[str, int]: ...  # noqa: D102


class Costs(Protocol):
    """What running the model costs beside others."""

    @property
    def rows(self) -> Table[PerformanceRow]: ...  # noqa: D102
    @property
    def timed_on(self) -> str: ...  # noqa: D102
    @property
    def latency_ratio(self) -> float: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Integers:
    """What is known about a model with quantized activations besides its plan and its outputs.

    Attributes
    ----------
    execution : Execution or None
        How it runs here; ``None`` for a file that another runtime will take.
    statistics : mapping of str to TensorStatistics
        What calibration saw, by activation tensor.
    outlines : mapping of str to Outline
        How the values are spread, by activation tensor.
    preview : Preview or None
        The first sample as a picture.
    """

    execution: Execution | None
    statistics: Mapping[str, TensorStatistics]
    outlines: Mapping[str, Outline] = field(default_factory=dict)
    preview: Preview | None = None


def build_report(
    original: Model,
    quantized: Shipped,
    done: Quantized,
    measured: Measured,
    options: Options,
    *,
    notes: Sequence[str],
    seconds: dict[str, float],
    integers: Integers | None = None,
    performance: Costs | None = None,
    products: Sequence[ProductRow] = (),
    explanation: Explanation | None = None,
    record: Mapping[str, Any] | None = None,
) -> Report:
    """Put everything known about a finished run into tables.

    Parameters
    ----------
    original : Model
    quantized : Shipped
    done : Quantized
    measured : Measured
    options : Options
    notes : sequence of str
        What else the user should know.
    seconds : dict of str to float
        Wall time per stage.
    integers : Integers, optional
        What is known besides when activations were quantized.
    performance : Performance, optional
        What the model costs to run beside others.
    products : sequence of ProductRow
        Activations that are quantized at run time.
    explanation : Explanation, optional
        What causes the error, if that was looked into.
    record : mapping, optional
        The manifest.
    """
    plan = done.plan
    rows = layer_rows(plan, done.prepared.weight, quantized.stored, done.seen)
    layers = in_graph_order(rows, (node.name or "" for node in original.graph))
    mean, lowest, sqnr = (math.nan,) * 3 if measured.skipped else overall(measured.outputs)
    summary = Summary(
        model=original.label,
        quant_type=options.quant_type or "",
        bits=_common_width(done.plan, options.bit_num),
        bytes_before=original.size,
        bytes_after=quantized.size,
        layers=sum(row.bytes_before > 0 for row in layers),  # two activations multiplied have no weight
        layers_quantized=len(plan.entries),
        cosine_mean=mean,
        cosine_min=lowest,
        sqnr_db=sqnr,
        compared_on=measured.compared_on,
        metric=measured.metric,
        metric_before=measured.before,
        metric_after=measured.after,
        left_float=left_float(plan),
        notes=(*notes, *measured.notes),
        opset=quantized.model.opset,
        ir_version=quantized.model.ir_model.ir_version,
        onnxruntime_required=required_onnxruntime(plan, quantized.model.opset),
        seconds=seconds,
        activations=len(plan.activations),
        device=done.device.get("target_device", ""),
        toolchain=done.device.get("toolchain", ""),
        runs_here=done.runs_here,
        interrupted=done.interrupted,
        products=len(plan.dynamic.layers) if plan.dynamic is not None else 0,
        strategy=plan.dynamic.strategy if plan.dynamic is not None else "",
        **_execution(integers),
        **_costs(performance),
    )
    activations = Table(ActivationRow)
    if integers is not None:
        activations = activation_rows(plan, integers.statistics, integers.outlines)
    return Report(
        summary,
        layers,
        measured.outputs,
        activations,
        integers.preview if integers is not None else None,
        performance.rows if performance is not None else Table(PerformanceRow),
        Table(ProductRow, products),
        weights=outline_weights(plan, done.prepared.weight, done.seen),
        predictions=measured.predictions,
        explanation=explanation,
        manifest=record or {},
        steps=step_rows(done.rounding, plan),
    )


def _costs(performance: Costs | None) -> dict[str, Any]:
    """Return the fields of a summary that say how fast the model is and on what."""
    if performance is None:
        return {}
    return {"latency_ratio": performance.latency_ratio, "timed_on": performance.timed_on}


def _execution(integers: Integers | None) -> dict[str, Any]:
    """Return the fields of a summary that say how the model runs."""
    if integers is None or integers.execution is None:
        return {}
    kernels = integers.execution.kernels
    return {
        "integer_layers": kernels.integer,
        "integer_total": len(kernels.layers),
        "latency_ratio": integers.execution.latency_ratio,
        "kernel_notes": kernels.notes,
    }


def layer_rows(
    plan: QuantPlan,
    read: Read,
    stored: Mapping[str, int] | None = None,
    seen: Mapping[str, WeightLook] | None = None,
) -> Table[LayerRow]:
    """Return one row per weight of a known operator, quantized or not.

    Parameters
    ----------
    plan : QuantPlan
        With codes.
    read : callable
        Tensor name to its original float32 values, e.g. ``model.weight``.
    stored : mapping of str to int, optional
        Bytes that weights take in a container, by name.
    seen : mapping of str to WeightLook, optional
        Weights whose error is known already, by name.
    """
    sizes, known = stored or {}, seen or {}
    quantized = [
        _quantized_row(entry, read, sizes.get(entry.tensor), known.get(entry.tensor)) for entry in plan.entries
    ]
    kept = [
        LayerRow(
            node=skip.node,
            op_type=skip.op_type,
            tensor=skip.tensor,
            shape=skip.shape,
            bits=None,
            granularity="",
            storage="float",
            bytes_before=skip.bytes,
            bytes_after=skip.bytes,
            reason=skip.reason,
        )
        for skip in plan.skips
    ]
    return Table(LayerRow, (*quantized, *kept))


def left_float(plan: QuantPlan) -> tuple[str, ...]:
    """Say in one sentence per setting what it left in float, biggest first; that it was everything, before all else.

    Examples
    --------
    >>> left_float(QuantPlan(()))
    ('nothing was quantized; the model has no weight of a known operator',)
    """
    weights = [skip for skip in plan.skips if skip.bytes]  # two activations multiplied have no weight to speak of
    groups = groupby(sorted(weights, key=_cause), key=_cause)
    found = [(cause, list(skips)) for cause, skips in groups]
    found.sort(key=lambda item: -sum(skip.bytes for skip in item[1]))
    sentences = []
    for cause, skips in found:
        size = sum(skip.bytes for skip in skips)
        noun = "weight" if len(skips) == 1 else "weights"
        sentences.append(f"{cause}: {len(skips)} {noun} ({format_bytes(size)}) stayed float")
    if plan.dynamic is not None:
        pairs = Counter(_cause(skip) for skip in plan.skips if not skip.bytes)
        sentences += [f"{cause}: {_count(number)} of two activations stayed float" for cause, number in pairs.items()]
    if not plan.entries and not plan.activations:
        first, *others = sentences or ["the model has no weight of a known operator"]
        return (f"nothing was quantized; {first}", *others)
    return tuple(sentences)


def _common_width(plan: QuantPlan, bit_num: int) -> int:
    """Return the width of all weights, 0 if they differ."""
    widths = {entry.bits for entry in plan.entries} or {bit_num}
    return widths.pop() if len(widths) == 1 else 0


def overall(outputs: Sequence[OutputRow]) -> tuple[float, float, float]:
    """Return mean cosine, lowest cosine and lowest SQNR over all outputs (1, 1, inf without any)."""
    if not outputs:
        return 1.0, 1.0, math.inf
    mean = sum(row.cosine_mean for row in outputs) / len(outputs)
    return mean, min(row.cosine_min for row in outputs), min(row.sqnr_db for row in outputs)


def in_graph_order(rows: Iterable[LayerRow], nodes: Iterable[str]) -> Table[LayerRow]:
    """Sort rows by the place of their node in the model."""
    place = {name: index for index, name in enumerate(nodes)}
    return Table(LayerRow, sorted(rows, key=lambda row: place.get(row.node, len(place))))


def _quantized_row(entry: TensorPlan, read: Read, stored: int | None, look: WeightLook | None) -> LayerRow:
    assert entry.weight is not None  # the pipeline rounds before it reports
    error = weight_error(read(entry.tensor), entry.weight) if look is None else look.error
    coded = "" if stored is None else f"coded, {8 * stored / math.prod(entry.shape):.2f} bits"
    return LayerRow(
        node=entry.node,
        op_type=entry.op_type,
        tensor=entry.tensor,
        shape=entry.shape,
        bits=entry.bits,
        granularity=entry.granularity,
        storage=coded or entry.stored_as,
        bytes_before=entry.bytes_before,
        bytes_after=entry.bytes_after if stored is None else stored,
        relative_error=error,
        sqnr_db=-20.0 * math.log10(error) if error else math.inf,
        step=entry.coding.step if entry.coding is not None else None,
        levels=entry.coding.levels if entry.coding is not None else None,
        entropy=entry.coding.entropy if entry.coding is not None else None,
        bound=_bound(entry, read, error),
    )


def _bound(entry: TensorPlan, read: Read, error: float) -> float | None:
    """Return Shannon's bound for an entropy-coded weight; of few values a density is uncertain, codes are not."""
    if entry.coding is None or entry.weight is None or not entry.weight.codes.size:
        return None
    bound = rate_bound(read(entry.tensor), entry.weight, error)
    return None if bound is None else min(bound, entry.coding.entropy)


def _count(products: int) -> str:
    return f"{products} product{'' if products == 1 else 's'}"


def _cause(skip: Skip) -> str:
    return skip.setting or skip.reason
