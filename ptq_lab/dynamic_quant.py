"""DYNAMIC_QUANT: from a float model to one whose products are computed in integers, without calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ptq_lab.calibration import Samples
from ptq_lab.calibration.cache import Memory
from ptq_lab.config import QuantConfig
from ptq_lab.errors import ConfigError, Problem
from ptq_lab.flags import Flags
from ptq_lab.graph import DynamicLayer, Model, Placement, find_dynamic, insert_products, raise_opset
from ptq_lab.graph.dynamic import DynamicTargets, smoothable
from ptq_lab.graph.integer_products import products_opset
from ptq_lab.graph.targets import Targets
from ptq_lab.int8 import Int8Settings
from ptq_lab.plan import DynamicPlan, QuantPlan, TensorPlan, make_plan, round_weights
from ptq_lab.progress import Progress
from ptq_lab.route import Quantized
from ptq_lab.runtime import require_same
from ptq_lab.search.smooth import Smoothed, smooth_for_output


@dataclass(frozen=True, slots=True)
class Strategy:
    """How finely operands are divided.

    Attributes
    ----------
    by_row : bool
        One scale per row of an activation, instead of one for all of it.
    per_channel : bool
        One scale per output channel of a weight, instead of one for all of it.
    pairs : bool
        Quantize products of two activations as well.
    """

    by_row: bool
    per_channel: bool
    pairs: bool = False


STRATEGIES: Mapping[str, Strategy] = {
    "ALWC": Strategy(by_row=False, per_channel=True, pairs=True),
    "ACWL": Strategy(by_row=True, per_channel=False),
    "ACWC": Strategy(by_row=True, per_channel=True),
}


def decide_products(original: Model, config: QuantConfig) -> tuple[QuantPlan, tuple[str, ...]]:
    """Return what will be computed in integers, and what is to be said about the choice; reads no weight.

    Raises
    ------
    ConfigError
        If nothing can be.
    """
    name = config.lab.dynamic_strategy or config.dynamic.quant_strategy
    strategy = STRATEGIES[name]
    found = find_dynamic(original, config.common.skip_quant_node, pairs=strategy.pairs)
    if not found.layers:
        raise ConfigError([_nothing_to_do(found)])
    drafted = make_plan(Targets(found.weights, found.skips), bits=8, per_channel=strategy.per_channel, correct=False)
    entries = tuple(_as_operand(entry, found.layers) for entry in drafted.entries)
    plan = replace(drafted, entries=entries, dynamic=DynamicPlan(name, found.layers))
    return plan, tuple(map(str, found.problems))


def quantize_dynamically(
    original: Model, config: QuantConfig, samples: Samples, flags: Flags, *, progress: Progress
) -> Quantized:
    """Quantize weights to 8 bits, and let the model quantize its activations.

    Samples are not needed; where there are some, and effort is not ``fast``, what the products read is smoothed.
    """
    if flags.fp16:
        message = "DYNAMIC_QUANT does not go together with fp16"
        hint = "leave --fp16=on out: what is not computed in integers needs float32 to stay accurate"
        raise ConfigError([Problem(section="common_quant_param", key="quant_type", message=message, hint=hint)])
    memory = Memory()
    smoothed = _smooth(original, config, samples, memory, progress)
    prepared = original if smoothed is None else smoothed.model
    notes = tuple(filter(None, (smoothed.note if smoothed is not None else "", memory.note)))
    decided, problems = decide_products(prepared, config)
    raised = raise_opset(prepared, products_opset(by_row=_strategy(config).by_row))
    if raised is not prepared:
        require_same(prepared, raised, next(iter(samples)))
        notes += (f"opset raised from {original.opset} to {raised.opset} for run-time quantization (outputs verified)",)
    if config.lab.effort == "best":
        notes += ("effort=best does what balanced does: there are no ranges to search",)
    if flags.executor is not None:
        notes += ("the executor was not used: there is no calibration to split into tasks",)
    plan = round_weights(decided, prepared.weight, progress=progress)
    return Quantized(
        plan=plan,
        model=_write(raised, plan),
        prepared=prepared,
        notes=(*problems, *notes),
        fitted=prepared is not original,
    )


def _smooth(
    original: Model, config: QuantConfig, samples: Samples, memory: Memory, progress: Progress
) -> Smoothed | None:
    """Smooth what products read, if there is real data to learn from."""
    if samples.random or config.lab.effort == "fast":
        return None

    def place(model: Model) -> Placement:
        return smoothable(model, find_dynamic(model, config.common.skip_quant_node, pairs=False))

    def write(model: Model, _placement: Placement, _extremes: object) -> Model:
        decided, _ = decide_products(model, config)
        raised = raise_opset(model, products_opset(by_row=_strategy(config).by_row))
        return _write(raised, round_weights(decided, model.weight))

    settings = Int8Settings(per_channel=_strategy(config).per_channel)
    providers = config.lab.providers
    return smooth_for_output(
        original, place, samples, settings, write=write, providers=providers, progress=progress, memory=memory
    )


def _write(model: Model, plan: QuantPlan) -> Model:
    assert plan.dynamic is not None  # decide_products has made it
    weights = {entry.tensor: entry.weight for entry in plan.entries if entry.weight is not None}
    by_row = STRATEGIES[plan.dynamic.strategy].by_row
    return insert_products(model, plan.dynamic.layers, weights, by_row=by_row)


def _strategy(config: QuantConfig) -> Strategy:
    return STRATEGIES[config.lab.dynamic_strategy or config.dynamic.quant_strategy]


def _as_operand(entry: TensorPlan, layers: tuple[DynamicLayer, ...]) -> TensorPlan:
    """Give a factor codes around zero; a table has a scale per row, and an offset if nothing multiplies it.

    A factor's scales have to lie along the output channels of all products that read it; where those differ, as when
    it is multiplied once as it is and once transposed, it has one scale.
    """
    axes = {layer.axis for layer in layers if layer.weight == entry.tensor}
    if not axes:
        return replace(entry, symmetric=False, axis=0 if entry.by_row else entry.axis)
    divided = entry.axis is not None or (entry.by_row and axes == {0})
    return replace(entry, symmetric=True, axis=axes.pop() if divided and len(axes) == 1 else None)


def _nothing_to_do(found: DynamicTargets) -> Problem:
    reasons = list(dict.fromkeys(f"{skip.op_type}: {skip.reason}" for skip in found.skips))[:3]
    return Problem(
        section="common_quant_param",
        key="quant_type",
        message="DYNAMIC_QUANT finds no MatMul or Gemm in this model that it can compute in integers",
        hint="; ".join(reasons) or "WEIGHT_QUANT makes any model smaller, FULL_QUANT also computes Conv in integers",
    )
