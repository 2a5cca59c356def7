"""WEIGHT_QUANT: from a float model to one whose weights are codes and whose arithmetic is float32."""

from __future__ import annotations

from ptq_lab.calibration import Samples
from ptq_lab.config import QuantConfig
from ptq_lab.errors import NotImplementedYet, Problem
from ptq_lab.flags import Flags
from ptq_lab.graph import Model, Rules, Targets, apply_plan, find_targets, raise_opset, required_opset, store_half
from ptq_lab.graph.lookups import LOOKUPS
from ptq_lab.pins import pinned_bits
from ptq_lab.plan import QuantPlan, make_plan, round_weights
from ptq_lab.progress import Progress
from ptq_lab.route import Quantized
from ptq_lab.runtime import require_same


def decide_weights(original: Model, config: QuantConfig) -> tuple[QuantPlan, tuple[str, ...]]:
    """Return what will happen to each weight, and what is to be said about the choice; reads no weight."""
    common = config.common
    if common.bit_num == 0:
        raise NotImplementedYet("[common_quant_param] bit_num: 0 is not implemented yet; so far: 1..16")
    plan, problems = _pinned_plan(original, config, bits=common.bit_num)
    return plan, tuple(map(str, problems))


def name_problems(original: Model, config: QuantConfig) -> tuple[Problem, ...]:
    """Return what is to be said about names in ``skip_quant_node`` and ``[ptq_lab.layer_bits]``; reads no weight."""
    return _pinned_plan(original, config, bits=config.common.bit_num or 8)[1]


def _pinned_plan(original: Model, config: QuantConfig, *, bits: int) -> tuple[QuantPlan, tuple[Problem, ...]]:
    common, weight = config.common, config.weight
    rules = Rules(
        min_size=common.min_quant_weight_size,
        min_channels=common.min_quant_weight_channel,
        skip=common.skip_quant_node,
    )
    targets = find_targets(original, rules)
    plan = make_plan(targets, bits=bits, per_channel=weight.per_channel, correct=weight.bias_correction)
    pinned, problems = pinned_bits(config.layer_bits, plan.entries, skips=plan.skips)
    return plan.with_bits(pinned), (*targets.problems, *problems)


def table_entries(model: Model, skip: tuple[str, ...]) -> QuantPlan:
    """Return a plan for 8-bit tables alone: weights that no node does more with than look up rows."""
    found = find_targets(model, Rules(min_channels=0, skip=skip))
    operators = {node.name or "": node.op_type for node in model.graph}
    tables = [
        target for target in found.targets if target.by_row and all(operators[node] in LOOKUPS for node in target.nodes)
    ]
    return make_plan(Targets(tuple(tables), ()), bits=8)


def quantize_weights(
    original: Model, config: QuantConfig, samples: Samples, flags: Flags, *, progress: Progress
) -> Quantized:
    """Quantize the weights of a model; the samples only verify a change of opset."""
    decided, notes = decide_weights(original, config)
    plan = round_weights(decided, original.weight, progress=progress)
    raised = raise_opset(original, required_opset(plan))
    if raised is not original:
        require_same(original, raised, next(iter(samples)))
        notes += (f"opset raised from {original.opset} to {raised.opset} for this width (outputs verified)",)
    quantized = apply_plan(raised, plan)
    if flags.executor is not None:
        notes += ("the executor was not used: rounding weights does not split into tasks",)
    if flags.fp16:
        quantized, halved = store_half(quantized)
        notes += (str(halved),)
    return Quantized(plan=plan, model=quantized, prepared=original, notes=notes)
