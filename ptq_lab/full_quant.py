"""FULL_QUANT: from a float model and samples to a model whose layers compute in int8."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

from ptq_lab.calibration import Samples, collect_statistics
from ptq_lab.config import QuantConfig
from ptq_lab.config.ascend import input_shapes, profile_groups
from ptq_lab.devices import Preset, Profiles, atc_arguments, expand_profiles, preset, unmet_needs, validate
from ptq_lab.errors import ConfigError, Problem
from ptq_lab.flags import Flags
from ptq_lab.graph import Model, Placement, fold_batchnorm, match_nodes, place_integers, store_half
from ptq_lab.graph.flow import Flow
from ptq_lab.int8 import Int8Settings, apply_int8, integer_entries, make_int8_plan, refine_input_grids, round_int8
from ptq_lab.numerics.ranges import TensorStatistics
from ptq_lab.plan import QuantPlan
from ptq_lab.progress import Progress
from ptq_lab.route import Quantized
from ptq_lab.search.bias_correction import correct_biases
from ptq_lab.search.equalize import Equalized, equalize, scale_statistics
from ptq_lab.search.smooth import Smoothed, smooth_for_output

Look = Callable[..., Mapping[str, TensorStatistics]]  # collect_statistics with its providers

CORRECTION_SAMPLES = 32  # means need no more
INPUT_SAMPLES = 8
RECOMMENDED = range(100, 501)  # calibration samples, by the document


@dataclass(frozen=True, slots=True)
class Decided:
    """What is decided before any sample is read.

    Attributes
    ----------
    model : Model
        Float, BatchNormalization folded.
    placement : Placement
        Where integers will flow.
    flow : Flow
        The operators that may carry them.
    skipped : dict of str to str
        Nodes to leave in float, with the pattern that says so.
    notes : tuple of str
        What is to be said.
    """

    model: Model
    placement: Placement
    flow: Flow
    skipped: dict[str, str]
    notes: tuple[str, ...]

    def place(self, model: Model) -> Placement:
        """Return where integers will flow in a model of the same nodes."""
        return place_integers(model, self.skipped, self.flow)

    def smoothed(self, moved: Smoothed) -> Decided:
        """Return the decisions for the model after smoothing, whose integer layers read other tensors."""
        return replace(self, model=moved.model, placement=self.place(moved.model), notes=(*self.notes, moved.note))

    def equalized(self, equal: Equalized) -> Decided:
        """Return the decisions for the model after equalisation, which may have moved its clips."""
        placement = place_integers(equal.model, self.skipped, self.flow)
        notes = (*self.notes, equal.note) if equal.note else self.notes
        return replace(self, model=equal.model, placement=placement, notes=notes)


def decide_integers(original: Model, config: QuantConfig) -> Decided:
    """Decide where integers will flow in a model, for the device that is asked for."""
    device = preset(config.full.target_device)
    nodes = ((node.name or "", node.op_type) for node in original.graph)
    matches = match_nodes(config.common.skip_quant_node, nodes)
    folded = fold_batchnorm(original)
    flow = replace(device.flow, everything=True) if config.lab.quantize_ops == "all" else device.flow
    placement = place_integers(folded, matches.nodes, flow)
    if not placement.layers:
        raise _refusal("quant_type", "FULL_QUANT finds no layer in this model that can compute in int8")
    return Decided(folded, placement, flow, matches.nodes, tuple(map(str, matches.unmatched)))


def quantize_fully(
    original: Model, config: QuantConfig, samples: Samples, flags: Flags, *, progress: Progress
) -> Quantized:
    """Quantize weights and activations of a model to 8 bits, with ranges from calibration samples."""
    device = preset(config.full.target_device)
    _require(device, original, config, flags)
    decided = decide_integers(original, config)
    method = config.lab.activation_quant_method or config.full.activation_quant_method
    settings = device.settings(method=method, per_channel=config.full.per_channel)
    look = partial(collect_statistics, providers=config.lab.providers, executor=flags.executor, progress=progress)
    if device.form.shield:
        given = ("full_quant_param", "smooth_alpha") in config.given
        alpha = config.full.smooth_alpha if given else None
        moved = smooth_for_output(
            decided.model,
            decided.place,
            samples,
            settings,
            alpha=alpha,
            providers=config.lab.providers,
            progress=progress,
        )
        decided = decided if moved.alpha is None else decided.smoothed(moved)
    if config.lab.equalize:
        ceilings = device.form.shield and config.lab.quantize_ops != "all"  # onnxruntime alone takes a Min of codes
        decided, statistics = _equalize(decided, look, samples, settings, ceilings=ceilings)
    else:
        statistics = look(decided.model, decided.placement.measured, samples, methods=(method,))
    plan = make_int8_plan(decided.placement, statistics, settings)
    plan = refine_input_grids(plan, list(islice(samples, INPUT_SAMPLES)), symmetric=device.symmetric)
    plan = round_int8(plan, decided.model)
    correct, why_not = device.decide("bias_correction", wanted=config.full.bias_correction)
    if correct:
        plan = correct_biases(plan, decided.model, list(samples.take(CORRECTION_SAMPLES)), progress=progress)
    quantized = apply_int8(decided.model, plan, device.form)
    half, why_full = device.decide("fp16", wanted=flags.fp16)
    quantized, halved = store_half(quantized) if half else (quantized, None)
    broken = validate(quantized, device, skipped=[skip.node for skip in plan.skips])
    remarks = (str(halved or ""), why_not, why_full, _about_count(len(samples)), *broken)
    return Quantized(
        plan=plan,
        model=quantized,
        prepared=decided.model,
        notes=(*decided.notes, *filter(None, remarks)),
        statistics=statistics,
        runs_here=device.form.shield,
        device=_for_toolchain(device, config, flags),
    )


def _equalize(
    decided: Decided, look: Look, samples: Samples, settings: Int8Settings, *, ceilings: bool
) -> tuple[Decided, Mapping[str, TensorStatistics]]:
    """Equalise the model, and return the statistics of what came out of it."""
    seen = look(decided.model, decided.placement.measured, samples, channels=True)
    equal = equalize(decided.model, seen, per_channel=settings.per_channel, ceilings=ceilings)
    decided = decided.equalized(equal)
    measured = decided.placement.measured
    if settings.method == "MAX_MIN" and not equal.ceilings and set(measured) <= set(seen):
        return decided, scale_statistics(seen, equal.factors)  # extremes of rescaled channels need no second look
    return decided, look(decided.model, measured, samples, methods=(settings.method,))


def preview_integers(original: Model, config: QuantConfig) -> QuantPlan:
    """Return the plan without ranges: which layers will compute in integers, which not and why."""
    placement = decide_integers(original, config).placement
    settings = preset(config.full.target_device).settings(method="", per_channel=config.full.per_channel)
    return QuantPlan(integer_entries(placement, settings), placement.skips, (), placement)


def _require(device: Preset, original: Model, config: QuantConfig, flags: Flags) -> None:
    profiles = bool(config.ascend.dynamic_dims)
    missing = unmet_needs(device, original, optimize=flags.optimize, shapes=flags.shapes, profiles=profiles)
    if missing:
        raise _refusal("target_device", "; ".join(missing))


def _for_toolchain(device: Preset, config: QuantConfig, flags: Flags) -> dict[str, Any]:
    """Return what the manifest says to the target's own toolchain: for ASCEND, its profiles and the call of ``atc``."""
    facts: dict[str, Any] = {"target_device": device.name, "toolchain": device.toolchain}
    if device.name != "ASCEND":
        return facts
    ascend = config.ascend
    shapes = input_shapes(ascend.input_shape) if ascend.input_shape else tuple(flags.shapes.items())
    groups = profile_groups(ascend.dynamic_dims) if ascend.dynamic_dims else ()
    profiles = expand_profiles(shapes, groups) if groups else Profiles()
    options = {key: str(value) for key, value in ascend if value is not None}
    return {
        **facts,
        "profiles": {"batches": profiles.batches, "images": profiles.images},
        "atc": atc_arguments("MODEL.onnx", shapes, profiles, options),
    }


def _about_count(count: int) -> str:
    if count in RECOMMENDED:
        return ""
    return f"calibrated on {count} samples; {RECOMMENDED[0]} to {RECOMMENDED[-1]} are recommended"


def _refusal(key: str, message: str) -> ConfigError:
    section = "common_quant_param" if key == "quant_type" else "full_quant_param"
    return ConfigError([Problem(section=section, key=key, message=message)])
