"""How hard to try with weights: from the configuration to the rungs of the quality ladder."""

from __future__ import annotations

from typing import Any

from ptq_lab.calibration import Samples
from ptq_lab.config import QuantConfig
from ptq_lab.errors import SampleError
from ptq_lab.graph import Model, fold_batchnorm
from ptq_lab.graph.biases import bias_of, set_bias
from ptq_lab.plan import QuantPlan
from ptq_lab.search.climb import Rung, unfit
from ptq_lab.search.layer_inputs import find_linear
from ptq_lab.search.layer_rounding import Recipe

BALANCED_SAMPLES, BEST_SAMPLES = 32, 200
RECIPES = {
    "fast": Recipe(ranges=False, bias=False, after_activation=False, refit=False),
    "balanced": Recipe(),
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
}


def rungs_of(config: QuantConfig, samples: Samples) -> tuple[tuple[Rung, ...], tuple[str, ...]]:
    """Return what is to be tried, the simplest first, and what is to be said; nothing where weights are just rounded.

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
    effort = config.lab.effort or "balanced"
    names = ("balanced", "best") if effort == "best" else (effort,)
    rungs = []
    for name in names:
        recipe = _with_switches(RECIPES[name], config, gptq=strategy == "GPTQ" and name == effort)
        if recipe != RECIPES["fast"]:
            label = f"{name} with GPTQ" if strategy == "GPTQ" and name != "best" else name
            rungs.append(Rung(name=label, recipe=recipe, samples=_samples_for(recipe)))
    refusal = unfit(samples) if rungs else ""
    return ((), (refusal,)) if refusal else (tuple(rungs), ())


def prepare(model: Model, rungs: tuple[Rung, ...], plan: QuantPlan) -> Model:
    """Return the model with BatchNormalization folded, and with a bias of zeros where corrections need one."""
    prepared = fold_batchnorm(model)
    if any(rung.recipe.bias for rung in rungs):
        for layer in find_linear(prepared, plan):
            channels = layer.entry.shape[layer.entry.channel_axis]
            if layer.node.op_type != "MatMul" and len(layer.node.inputs) < 3 and layer.bias is not None:
                bias = bias_of(layer.node, channels)
                assert bias is not None  # it has one
                set_bias(prepared.graph, layer.node, bias)
    return prepared


def _with_switches(recipe: Recipe, config: QuantConfig, *, gptq: bool) -> Recipe:
    """Return a recipe in which what the configuration says wins."""
    changed: dict[str, Any] = {name: getattr(recipe, name) for name in Recipe.__slots__}
    if gptq:
        changed["gptq"] = True
    for key, name in _SWITCHES.items():
        value = getattr(config.rounding, key)
        if value is not None:
            changed[name] = value
    changed["positions"] = config.rounding.positions
    if config.rounding.offsets is not None:
        changed["offsets"] = 16 if config.rounding.offsets else 0
    return Recipe(**changed)


def _samples_for(recipe: Recipe) -> int:
    return BEST_SAMPLES if recipe.gptq or recipe.descent else BALANCED_SAMPLES
