"""WEIGHT_QUANT: from a float model to one whose weights are codes and whose arithmetic is float32."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from ptq_lab.budget import limits_output
from ptq_lab.calibration import Samples
from ptq_lab.config import QuantConfig
from ptq_lab.errors import ConfigError, Problem
from ptq_lab.flags import Flags
from ptq_lab.graph import (
    Model,
    Rules,
    Targets,
    apply_plan,
    find_targets,
    fold_batchnorm,
    raise_opset,
    required_opset,
    store_half,
    tie_weights,
)
from ptq_lab.graph.lookups import LOOKUPS
from ptq_lab.manifest import metadata
from ptq_lab.mixed_bits import Chosen, MixedBits, choices_of
from ptq_lab.on_the_fly import about_run_time, divide_weights
from ptq_lab.pins import pinned_bits
from ptq_lab.plan import QuantPlan, make_plan, round_weights
from ptq_lab.progress import Progress, silent
from ptq_lab.publish import file_bytes
from ptq_lab.route import Quantized
from ptq_lab.runtime import require_same
from ptq_lab.search.climb import Rung, climb
from ptq_lab.search.coded import choose_grids, count_codes
from ptq_lab.stored_costs import costly_widths
from ptq_lab.streaming import Scratch, is_streamed, require_memory, round_streamed, why_not_compared
from ptq_lab.weight_effort import Prepared, must_fold, prepare, rungs_of

MIXED_START = 8  # bits that weights have before each gets its own width


def name_problems(original: Model, config: QuantConfig) -> tuple[Problem, ...]:
    """Return what is to be said about names in ``skip_quant_node`` and ``[ptq_lab.layer_bits]``; reads no weight."""
    return pinned_plan(original, config)[2]


def preview_weights(original: Model, config: QuantConfig) -> QuantPlan:
    """Return the plan that a run would make, without codes where no weight had to be read to find its width.

    Raises
    ------
    ConfigError
        If widths follow from runs of the model, which need samples.
    """
    original = _tied(original, config)
    streamed = is_streamed(original, config)
    if must_fold(config) and not streamed:
        original = fold_batchnorm(original)
    plan, pins, _ = pinned_plan(original, config)
    if config.common.bit_num != 0 and _chooses_grids(config) and not streamed:
        return choose_grids(round_weights(plan, original.weight), original.weight, keep=pins)[0]
    if config.common.bit_num != 0:
        return divide_weights(plan, original, config)
    if limits_output(config):
        message = "0 with a budget or auto_tune: widths follow from runs of the model, so only quantizing shows them"
        raise ConfigError([Problem(section="common_quant_param", key="bit_num", message=message)])
    choices = choices_of(config, plan, original.weight, pins)
    return choices.by_rule(config.mixed_bit.init_scale, progress=silent)


def pinned_plan(original: Model, config: QuantConfig) -> tuple[QuantPlan, dict[str, int], tuple[Problem, ...]]:
    """Return the plan with its pins in place, the pins, and what is to be said about names."""
    common, weight = config.common, config.weight
    rules = Rules(
        min_size=common.min_quant_weight_size,
        min_channels=common.min_quant_weight_channel,
        skip=common.skip_quant_node,
    )
    targets = find_targets(original, rules)
    bits = common.bit_num or MIXED_START
    plan = make_plan(targets, bits=bits, per_channel=weight.per_channel, correct=weight.bias_correction)
    pinned, problems = pinned_bits(config.layer_bits, plan.entries, skips=plan.skips)
    return plan.with_bits(pinned), pinned, (*targets.problems, *problems)


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
    """Quantize the weights of a model.

    Real samples make the weights better, as far as the effort says; without any, they are rounded to the nearest step.
    """
    require_memory(original, config)
    streamed = is_streamed(original, config)
    rungs, about = _rungs(config, samples, streamed=streamed)
    room: Scratch | None = None
    original = _tied(original, config)
    start = _start(original, config, samples, None if streamed else rungs, progress=progress)
    prepared, decided, pins, notes = start.model, start.plan, start.pins, (*about, *start.notes)
    chosen: Chosen | None = None
    write = partial(_write, prepared, config, half=flags.fp16)
    if config.common.bit_num == 0 and decided.entries:
        search = MixedBits(
            original=prepared,
            reference=original,
            plan=decided,
            pins=pins,
            config=config,
            samples=samples,
            flags=flags,
            write=write,
            weigh=lambda plan: file_bytes(write(plan), config),
            progress=progress,
        )
        chosen = search.choose()
        plan, notes = chosen.plan, (*notes, *chosen.notes)
    else:
        room = Scratch(config.common.workspace, decided.entries) if streamed else None
        plan = _rounded(decided, prepared, room, progress=progress)
        if flags.executor is not None:
            notes += ("the executor was not used: rounding weights does not split into tasks",)
        if _chooses_grids(config) and not streamed:
            plan, chosen_grids = choose_grids(plan, prepared.weight, keep=pins)
            notes += (chosen_grids,) if chosen_grids else ()
    climbed = climb(plan, prepared, samples, rungs, providers=config.lab.providers, progress=progress)
    if chosen is not None:
        climbed = chosen.within_drop(climbed, plan, write, flags.metric)
    plan = count_codes(climbed.plan) if config.lab.coded else climbed.plan
    notes = (*notes, *climbed.notes, *costly_widths(prepared, plan))
    raised, about = _raised(original, prepared, plan, samples, streamed=streamed)
    notes, quantized = (*notes, *about), apply_plan(raised, plan)
    if flags.fp16:
        quantized, halved = store_half(quantized)
        notes += (str(halved),)
    stopped = [each.interrupted for each in (chosen, climbed) if each is not None and each.interrupted]
    return Quantized(
        plan=plan,
        model=quantized,
        prepared=prepared,
        notes=notes,
        fitted=bool(climbed.layers),
        rounding=climbed.layers,
        seen=room.seen if room is not None and not _chooses_grids(config) else {},
        streamed=room is not None,
        unfit=why_not_compared(original, config, wanted=flags.metric is not None or not samples.random),
        interrupted="; ".join(stopped),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """The float model that gets rounded, the plan without codes, the widths that were asked for, and what to say."""

    model: Model
    plan: QuantPlan
    pins: dict[str, int]
    notes: tuple[str, ...]


def _start(
    original: Model, config: QuantConfig, samples: Samples, rungs: tuple[Rung, ...] | None, *, progress: Progress
) -> _Start:
    """Decide on widths, and prepare the model for what will be tried; without rungs at all it is not to be run."""
    plan, pins, problems = pinned_plan(original, config)
    made = Prepared(original)
    if rungs is not None:
        made = prepare(original, rungs, plan, config, samples, progress=progress)
    if made.model is not original:
        plan, pins, _ = pinned_plan(made.model, config)
    plan = divide_weights(plan, made.model, config)
    notes = (*map(str, problems), *made.notes, *about_run_time(plan, made.model))
    return _Start(model=made.model, plan=plan, pins=pins, notes=notes)


def _tied(original: Model, config: QuantConfig) -> Model:
    """Return a model that holds equal weights once, unless nodes are named, which then have to keep their own.

    Of a streamed model those of one place in a file are one weight already, and all others would have to be read.
    """
    named = config.layer_bits or config.common.skip_quant_node
    return original if named or is_streamed(original, config) else tie_weights(original)


def _chooses_grids(config: QuantConfig) -> bool:
    """Tell whether one step per tensor may stand for a given width: codes are coded, and nobody asks for the grids."""
    return config.lab.coded and "per_channel" not in config.weight.model_fields_set


def _rounded(decided: QuantPlan, model: Model, room: Scratch | None, *, progress: Progress) -> QuantPlan:
    """Round all weights; those of a streamed model while another thread hashes its files, which is as slow."""
    if room is None:
        return round_weights(decided, model.weight, progress=progress)
    with ThreadPoolExecutor(1) as aside:
        hashed = aside.submit(model.digest)
        plan = round_streamed(decided, model.weight, room, progress=progress)
    hashed.result()
    return plan


def _raised(
    original: Model, prepared: Model, plan: QuantPlan, samples: Samples, *, streamed: bool
) -> tuple[Model, tuple[str, ...]]:
    """Raise the opset if the plan needs it, and say how that was checked; running a streamed model takes too much."""
    raised = raise_opset(prepared, required_opset(plan))
    if raised is prepared:
        return prepared, ()
    if not streamed:
        require_same(original, raised, next(iter(samples)))
    checked = "outputs not compared: the model is streamed" if streamed else "outputs verified"
    return raised, (f"opset raised from {original.opset} to {raised.opset} for this width ({checked})",)


def _rungs(config: QuantConfig, samples: Samples, *, streamed: bool) -> tuple[tuple[Rung, ...], tuple[str, ...]]:
    """Return what is tried beyond rounding; of a streamed model nothing, since all of it takes runs of the model."""
    rungs, about = rungs_of(config, samples)
    if rungs and streamed:
        return (), (
            *about,
            "weights were rounded to the nearest step: they are streamed, and better rounding takes runs of the model",
        )
    return rungs, about


def _write(original: Model, config: QuantConfig, plan: QuantPlan, *, half: bool) -> Model:
    """Return the model that a plan gives as it will be stored, unverified."""
    quantized = apply_plan(original, plan)
    quantized = store_half(quantized)[0] if half else quantized
    quantized.ir_model.metadata_props.update(metadata(original, config, plan))
    return quantized
