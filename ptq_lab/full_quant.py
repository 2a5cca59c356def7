"""FULL_QUANT: from a float model and samples to a model whose layers compute in int8."""

from __future__ import annotations

from itertools import islice

from ptq_lab.calibration import Samples, collect_statistics
from ptq_lab.config import QuantConfig
from ptq_lab.errors import ConfigError, Problem
from ptq_lab.graph import Model, Placement, fold_batchnorm, match_nodes, place_integers, store_half
from ptq_lab.int8 import Int8Settings, apply_int8, make_int8_plan, refine_input_grids, round_int8
from ptq_lab.plan import QuantPlan
from ptq_lab.progress import Progress
from ptq_lab.route import Quantized
from ptq_lab.search.bias_correction import correct_biases

CORRECTION_SAMPLES = 32  # means need no more
INPUT_SAMPLES = 8


def decide_integers(original: Model, config: QuantConfig) -> tuple[Model, Placement, tuple[str, ...]]:
    """Return the model with BatchNormalization folded, where integers will flow, and what is to be said."""
    nodes = ((node.name or "", node.op_type) for node in original.graph)
    matches = match_nodes(config.common.skip_quant_node, nodes)
    prepared = fold_batchnorm(original)
    placement = place_integers(prepared, matches.nodes)
    if not placement.layers:
        message = "FULL_QUANT finds no layer in this model that can compute in int8"
        raise ConfigError([Problem(section="common_quant_param", key="quant_type", message=message)])
    return prepared, placement, tuple(map(str, matches.unmatched))


def quantize_fully(
    original: Model, config: QuantConfig, samples: Samples, *, fp16: bool, progress: Progress
) -> Quantized:
    """Quantize weights and activations of a model to 8 bits, with ranges from calibration samples."""
    prepared, placement, notes = decide_integers(original, config)
    method = config.lab.activation_quant_method or config.full.activation_quant_method
    settings = Int8Settings(method=method, per_channel=config.full.per_channel)
    statistics = collect_statistics(
        prepared,
        [place.tensor for place in placement.places],
        samples,
        methods=(settings.method,),
        providers=config.lab.providers,
        progress=progress,
    )
    plan = make_int8_plan(placement, statistics, settings)
    plan = refine_input_grids(plan, list(islice(iter(samples), INPUT_SAMPLES)))
    plan = round_int8(plan, prepared)
    if config.full.bias_correction:
        plan = correct_biases(plan, prepared, list(samples.take(CORRECTION_SAMPLES)), progress=progress)
    quantized = apply_int8(prepared, plan)
    if fp16:
        quantized, halved = store_half(quantized)
        notes += (str(halved),)
    return Quantized(plan=plan, model=quantized, prepared=prepared, notes=notes)


def preview_integers(original: Model, config: QuantConfig) -> QuantPlan:
    """Return the plan without ranges: which layers will compute in integers, which not and why."""
    _, placement, _ = decide_integers(original, config)
    return QuantPlan((), placement.skips, (), placement)
