"""How hard to try with weights: from the configuration to the rungs of the quality ladder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ptq_lab.budget import limits_output
from ptq_lab.calibration import Samples, collect_statistics
from ptq_lab.config import QuantConfig
from ptq_lab.errors import SampleError
from ptq_lab.graph import Model, fold_batchnorm
from ptq_lab.graph.biases import set_bias
from ptq_lab.graph.pairs import find_pairs
from ptq_lab.plan import QuantPlan
from ptq_lab.progress import Progress
from ptq_lab.runtime import require_same
from ptq_lab.search.climb import Rung, unfit
from ptq_lab.search.equalize import equalize_layers
from ptq_lab.search.layer_inputs import find_linear
from ptq_lab.search.layer_rounding import Recipe

BALANCED_SAMPLES, BEST_SAMPLES = 32, 200
RECIPES = {
    "fast": Recipe(ranges=False, bias=False, after_activation=False, refit=False),
    "balanced": Recipe(positions=2048),
    "best": Recipe(gptq=True, descent=True, blend=None, offsets=7),
}
_SWITCHES = {
    "search_ranges": "ranges",
    "correct_biases": "bias",
    "fit_activations": "after_activation",
    "gptq": "gptq",
    "descend": "descent",
    "refit_scales": "refit",
    "blend": "blend",
    "positions": "positions",
}


def rungs_of(config: QuantConfig, samples: Samples) -> tuple[tuple[Rung, ...], tuple[str, ...]]:
    """Return what is to be tried, the simplest first, and what is to be said; nothing where weights are just rounded.

    Without an effort named, real samples mean balanced, except where ``init_scale`` asks for an error of each weight.

    Raises
    ------
    SampleError
        If the configuration asks for GPTQ, and there are no samples.
    """
    strategy = config.weight.quant_strategy
    if samples.random:
        if strategy == "GPTQ":
            message = "quant_strategy=GPTQ rounds by what layers read, so it needs samples"
            hint = "give samples (--samples), or calibrate_path in [data_preprocess_param]"
            raise SampleError(f"[weight_quant_param] {message}; {hint}")
        return (), ()
    effort = config.lab.effort or ("fast" if _asks_for_errors(config) else "balanced")
    names = ("balanced", "best") if effort == "best" else (effort,)
    rungs = []
    for name in names:
        recipe = _with_switches(RECIPES[name], config, gptq=strategy == "GPTQ" and name == effort)
        if recipe != RECIPES["fast"]:
            label = f"{name} with GPTQ" if strategy == "GPTQ" and name != "best" else name
            rungs.append(Rung(name=label, recipe=recipe, samples=_samples_for(recipe)))
    refusal = unfit(samples) if rungs else ""
    return ((), (refusal,)) if refusal else (tuple(rungs), ())


@dataclass(frozen=True, slots=True)
class Prepared:
    """The float model that gets rounded, and what is to be said about it."""

    model: Model
    notes: tuple[str, ...] = ()


def prepare(
    model: Model, rungs: tuple[Rung, ...], plan: QuantPlan, config: QuantConfig, samples: Samples, *, progress: Progress
) -> Prepared:
    """Return a model of the same function that is kinder to round; the original itself where nothing is tried.

    BatchNormalization is folded (without trials only where :func:`must_fold` says so), layers whose mean is to be
    corrected get a bias, and with one scale per tensor the ranges of neighbouring layers are balanced.

    Raises
    ------
    InferenceError
        If onnxruntime fails, or the function is not the same.
    """
    if not rungs and not must_fold(config):
        return Prepared(model)
    prepared = fold_batchnorm(model)
    if not rungs:
        require_same(model, prepared, next(iter(samples)))
        return Prepared(prepared)
    notes: tuple[str, ...] = ()
    if any(rung.recipe.bias for rung in rungs):
        _give_biases(prepared, plan)
    if not config.weight.per_channel and config.lab.equalize:
        pairs = [pair.tensor for pair in find_pairs(prepared)]
        seen = collect_statistics(prepared, pairs, samples, channels=True, progress=progress) if pairs else {}
        equal = equalize_layers(prepared, seen)
        prepared, notes = equal.model, tuple(filter(None, (equal.note,)))
    require_same(model, prepared, next(iter(samples)))
    return Prepared(prepared, notes)


def must_fold(config: QuantConfig) -> bool:
    """Tell whether BatchNormalization is folded even where nothing is tried.

    That is where weights stay codes at run time, because onnxruntime could not do it at load then, and where a given
    width is entropy-coded: four floats per channel are as many bytes as the codes of a small layer.
    """
    return config.weight.dequant_strategy is not None or (config.lab.coded and config.common.bit_num != 0)


def _give_biases(model: Model, plan: QuantPlan) -> None:
    """Give zeros to the layers that have no bias but could have one, so that corrections do not make the file grow."""
    for layer in find_linear(model, plan):
        if layer.bias is not None and layer.node.op_type != "MatMul" and len(layer.node.inputs) < 3:
            set_bias(model.graph, layer.node, layer.bias)


def _asks_for_errors(config: QuantConfig) -> bool:
    """Tell whether init_scale says how large the error of each weight shall be, which no step may change."""
    return config.common.bit_num == 0 and not limits_output(config)


def _with_switches(recipe: Recipe, config: QuantConfig, *, gptq: bool) -> Recipe:
    """Return a recipe in which what the configuration says wins."""
    changed: dict[str, Any] = {name: getattr(recipe, name) for name in Recipe.__slots__}
    if gptq:
        changed["gptq"] = True
    for key, name in _SWITCHES.items():
        value = getattr(config.rounding, key)
        if value is not None:
            changed[name] = value
    if config.rounding.offsets is not None:
        changed["offsets"] = 16 if config.rounding.offsets else 0
    return Recipe(**changed)


def _samples_for(recipe: Recipe) -> int:
    return BEST_SAMPLES if recipe.rounds else BALANCED_SAMPLES
