"""FULL_QUANT: from a float model and samples to a model whose layers compute in int8."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from ptq_lab.calibration import Samples
from ptq_lab.calibration.recall import Calibrator
from ptq_lab.config import QuantConfig
from ptq_lab.config.ascend import input_shapes, profile_groups
from ptq_lab.devices import Preset, Profiles, atc_arguments, expand_profiles, preset, unmet_needs, validate
from ptq_lab.flags import Flags
from ptq_lab.graph import (
    Model,
    apply_plan,
    store_half,
)
from ptq_lab.int8 import apply_int8, make_int8_plan, refine_input_grids, round_int8, with_codes
from ptq_lab.int8_decisions import EFFORTS, Asked, Decided, decide_integers, refusal
from ptq_lab.int8_weights import shape_weights
from ptq_lab.numerics.ranges import TensorStatistics
from ptq_lab.plan import QuantPlan, round_weights
from ptq_lab.progress import Progress, Step
from ptq_lab.route import Quantized
from ptq_lab.runtime import Feeds, require_same
from ptq_lab.search.bias_correction import correct_biases
from ptq_lab.search.equalize import equalize, scale_statistics
from ptq_lab.search.judging import clearly_smaller, output_errors, outputs_of
from ptq_lab.search.local_correction import correct_biases_locally
from ptq_lab.search.smooth import smooth_for_output
from ptq_lab.search.weight_scales import measure_covariances, search_weight_scales
from ptq_lab.weight_quant import table_entries

INPUT_SAMPLES = 8
JUDGE_SAMPLES = 32  # at most a quarter of all
FEWEST_TO_SEARCH = 8
CORRECTIONS = {"SEQUENTIAL": correct_biases, "LOCAL": correct_biases_locally}
FEW = 10  # calibration samples below which agreement on them says nothing
RECOMMENDED = range(100, 501)  # calibration samples, by the document


def quantize_fully(
    original: Model, config: QuantConfig, samples: Samples, flags: Flags, *, progress: Progress
) -> Quantized:
    """Quantize weights and activations of a model to 8 bits, with ranges from calibration samples."""
    device = preset(config.full.target_device)
    _require(device, original, config, flags)
    asked = Asked(device, config, flags, EFFORTS[config.lab.effort or "balanced"])
    look = Calibrator(samples=samples, providers=config.lab.providers, executor=flags.executor, progress=progress)
    decided = decide_integers(original, config)
    if decided.widths:
        require_same(original, decided.model, next(iter(samples)))
    calibrated = _calibrated(_smooth(decided, asked, look), asked, look)
    if decided.widths:
        calibrated = _with_shaped(calibrated, asked, look, samples)
    searched = asked.effort.searches and len(samples) >= FEWEST_TO_SEARCH
    chosen = (_searched if searched else _first)(calibrated, asked, samples, look)
    if device.lookups and config.lab.quantize_ops != "all":
        chosen = _with_tables(chosen, config.common.skip_quant_node)
    half, why_full = device.decide("fp16", wanted=flags.fp16)
    quantized, halved = store_half(chosen.model) if half else (chosen.model, None)
    broken = validate(quantized, device, skipped=[skip.node for skip in chosen.plan.skips])
    remarks = (look.memory.note, str(halved or ""), why_full, _about_count(len(samples)), *broken)
    return replace(
        chosen,
        model=quantized,
        notes=(*chosen.notes, *filter(None, remarks)),
        runs_here=device.form.shield,
        device=_for_toolchain(device, config, flags),
    )


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A model that has seen its samples: what follows can be tried in several ways."""

    decided: Decided
    statistics: Mapping[str, TensorStatistics]

    def plan(self, asked: Asked, method: str, samples: Samples) -> QuantPlan:
        """Return the plan of one range method, with codes and without corrections."""
        device = asked.device
        settings = self.decided.settings(device, method, per_channel=asked.config.full.per_channel)
        plan = make_int8_plan(self.decided.placement, self.statistics, settings)
        plan = refine_input_grids(plan, list(islice(samples, INPUT_SAMPLES)), symmetric=device.symmetric)
        if self.decided.shaped is not None:
            plan = with_codes(plan, self.decided.model, self.decided.shaped.weights)
        return round_int8(plan, self.decided.model)


def _with_shaped(calibrated: Calibrated, asked: Asked, look: Calibrator, samples: Samples) -> Calibrated:
    """Let the quality ladder shape the weights, and look at the activations that come of them.

    They stay as they are where the ladder is not to climb, or has nothing to stand on.
    """
    decided, config = calibrated.decided, asked.config
    entries = decided.entries(asked.device, per_channel=config.full.per_channel)
    shaped = shape_weights(decided.model, entries, config, samples, progress=look.progress)
    if shaped is None:
        return calibrated
    if not shaped.layers:
        return replace(calibrated, decided=replace(decided, notes=(*decided.notes, *shaped.notes)))
    decided = decided.carrying(shaped)
    return Calibrated(decided, look(decided.model, decided.placement.measured, methods=asked.methods))


def _calibrated(decided: Decided, asked: Asked, look: Calibrator) -> Calibrated:
    """Let a model see its samples, equalised if that is wanted."""
    device, config = asked.device, asked.config
    if not asked.wants("ptq_lab", "equalize", config.lab.equalize):
        return Calibrated(decided, look(decided.model, decided.placement.measured, methods=asked.methods))
    ceilings = device.form.shield and config.lab.quantize_ops != "all"  # onnxruntime alone takes a Min of codes
    return Calibrated(*_equalize(decided, asked, look, ceilings=ceilings))


def _first(calibrated: Calibrated, asked: Asked, samples: Samples, look: Calibrator) -> Quantized:
    """Quantize with the range method that is asked for, and nothing tried."""
    plan = calibrated.plan(asked, asked.methods[0], samples)
    few = list(samples.take(asked.effort.correction_samples)) if _corrects(asked)[0] else []
    return _finished(calibrated, asked, _corrected(plan, calibrated, asked, few, look.progress))


def _searched(calibrated: Calibrated, asked: Asked, samples: Samples, look: Calibrator) -> Quantized:
    """Try every range method with usual, with searched and with shaped weights; keep what is best on held-out samples.

    Only ranges, and what becomes of the biases once the choice is made, come from all samples; so do weights of fewer
    than 8 bits, which every candidate has in common.
    """
    edge = len(samples) - _judges(samples)
    most, before = asked.effort.correction_samples, calibrated.decided.before
    fit, judges = list(samples.take(min(edge, most))), list(samples.part(edge, len(samples)))
    tried = dict(_candidates(calibrated, asked, samples, fit, look))
    wanted, errors, best = outputs_of(before, judges, providers=look.providers), {}, asked.methods[0]
    for index, (name, (made, plan)) in enumerate(tried.items()):
        corrected = _corrected(plan, made, asked, fit, look.progress)
        written = apply_int8(made.decided.model, corrected, asked.device.form)
        errors[name] = output_errors(wanted, outputs_of(written, judges, providers=look.providers))
        best = name if clearly_smaller(errors[name], errors[best]) else best
        look.progress(Step("choose", index + 1, len(tried), name))
    told = ", ".join(f"{name} {error.mean():.3g}" for name, error in errors.items())
    seen = "every step has seen" if calibrated.decided.shaped is not None else "only ranges have seen"
    note = f"chosen by 1 - cosine of the output on {len(judges)} samples that {seen}: {best} ({told})"
    made, plan = tried[best]
    everything = [*fit, *judges][:most]
    return _finished(made, asked, _corrected(plan, made, asked, everything, look.progress), note)


def _judges(samples: Samples) -> int:
    return min(JUDGE_SAMPLES, len(samples) // 4)


def _candidates(
    calibrated: Calibrated, asked: Asked, samples: Samples, fit: Sequence[Feeds], look: Calibrator
) -> Iterator[tuple[str, tuple[Calibrated, QuantPlan]]]:
    """Yield what is to be tried, by name; the usual way comes first and wins a draw."""
    decided = calibrated.decided
    if decided.widths:
        yield from ((method, (calibrated, calibrated.plan(asked, method, samples))) for method in asked.methods)
        return
    covariances = measure_covariances(decided.model, decided.placement, fit, progress=look.progress)
    for method in asked.methods:
        plan = calibrated.plan(asked, method, samples)
        yield method, (calibrated, plan)
        searched = search_weight_scales(plan, decided.model, covariances)
        yield f"{method} with searched weight scales", (calibrated, searched)
    shaped = _with_shaped(calibrated, asked, look, samples.part(0, len(samples) - _judges(samples)))
    if shaped.decided.shaped is not None:
        for method in asked.methods:
            yield f"{method} with shaped weights", (shaped, shaped.plan(asked, method, samples))


def _corrects(asked: Asked) -> tuple[bool, str]:
    """Tell whether biases are corrected, and why not if that was wanted."""
    wanted = asked.wants("full_quant_param", "bias_correction", asked.config.full.bias_correction)
    return asked.device.decide("bias_correction", wanted=wanted)


def _corrected(
    plan: QuantPlan, calibrated: Calibrated, asked: Asked, samples: Sequence[Feeds], progress: Progress
) -> QuantPlan:
    if not _corrects(asked)[0]:
        return plan
    return CORRECTIONS[asked.config.lab.bias_correction_mode](
        plan, calibrated.decided.model, samples, progress=progress
    )


def _finished(calibrated: Calibrated, asked: Asked, plan: QuantPlan, note: str = "") -> Quantized:
    decided, shaped = calibrated.decided, calibrated.decided.shaped
    about = shaped.notes if shaped is not None else ()
    return Quantized(
        plan=plan,
        model=apply_int8(decided.model, plan, asked.device.form),
        prepared=decided.before,
        notes=tuple(filter(None, (*decided.notes, *about, _corrects(asked)[1], note))),
        statistics=calibrated.statistics,
        fitted=True,
        rounding=shaped.layers if shaped is not None else (),
        interrupted=shaped.interrupted if shaped is not None else "",
    )


def _with_tables(done: Quantized, skip: tuple[str, ...]) -> Quantized:
    """Store tables whose rows are looked up as codes: nothing computes with them, but they may be most of a file."""
    tables = round_weights(table_entries(done.prepared, skip), done.prepared.weight)
    if not tables.entries:
        return done
    stored = {entry.tensor for entry in tables.entries}
    skips = tuple(each for each in done.plan.skips if each.tensor not in stored)
    plan = replace(done.plan, entries=(*done.plan.entries, *tables.entries), skips=skips)
    return replace(done, plan=plan, model=apply_plan(done.model, tables))


def _smooth(decided: Decided, asked: Asked, look: Calibrator) -> Decided:
    """Smooth what MatMuls read, as strongly as asked for or as the output likes best."""
    device, config = asked.device, asked.config
    given = ("full_quant_param", "smooth_alpha") in config.given
    if not device.form.shield or not (given or asked.effort.corrects):
        return decided
    settings = device.settings(method="MAX_MIN", per_channel=config.full.per_channel)
    alpha = config.full.smooth_alpha if given else None
    moved = smooth_for_output(
        decided.model,
        decided.place,
        look.samples,
        settings,
        alpha=alpha,
        providers=look.providers,
        progress=look.progress,
        memory=look.memory,
    )
    return decided if moved.alpha is None else decided.smoothed(moved)


def _equalize(
    decided: Decided, asked: Asked, look: Calibrator, *, ceilings: bool
) -> tuple[Decided, Mapping[str, TensorStatistics]]:
    """Equalise the model, and return the statistics of what came out of it."""
    seen = look(decided.model, decided.placement.measured, channels=True)
    settings = asked.device.settings(method="", per_channel=asked.config.full.per_channel)
    equal = equalize(decided.model, seen, per_channel=settings.per_channel, ceilings=ceilings)
    decided = decided.equalized(equal)
    measured = decided.placement.measured
    if asked.methods == ("MAX_MIN",) and not equal.ceilings and set(measured) <= set(seen):
        return decided, scale_statistics(seen, equal.factors)  # extremes of rescaled channels need no second look
    return decided, look(decided.model, measured, methods=asked.methods)


def preview_integers(original: Model, config: QuantConfig) -> QuantPlan:
    """Return the plan without ranges: which layers will compute in integers, which not and why."""
    decided = decide_integers(original, config)
    placement, device = decided.placement, preset(config.full.target_device)
    layers = decided.entries(device, per_channel=config.full.per_channel)
    tables = table_entries(original, config.common.skip_quant_node).entries if device.lookups else ()
    stored = {entry.tensor for entry in tables}
    skips = tuple(each for each in placement.skips if each.tensor not in stored)
    return QuantPlan((*layers, *tables), skips, (), placement)


def _require(device: Preset, original: Model, config: QuantConfig, flags: Flags) -> None:
    profiles = bool(config.ascend.dynamic_dims)
    missing = unmet_needs(device, original, optimize=flags.optimize, shapes=flags.shapes, profiles=profiles)
    if missing:
        raise refusal("target_device", "; ".join(missing))


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
    warning = f"calibrated on {count} samples; {RECOMMENDED[0]} to {RECOMMENDED[-1]} are recommended"
    if count < FEW:
        warning += "; so few fit themselves: judge the result by a metric on other data, not by the cosine above"
    return warning
