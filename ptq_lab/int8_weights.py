"""The weights of integer models: how wide their codes are, and codes that the quality ladder finds for them.

Kernels take int8, but a file may hold fewer bits. Such codes are found while activations are still float; ranges of
activations and corrections of biases come after that, and start from the model with rounded weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ptq_lab.calibration import Samples
from ptq_lab.config import QuantConfig
from ptq_lab.config.layer_bits import SECTION as PINS
from ptq_lab.errors import ConfigError, Problem
from ptq_lab.graph import Model, Placement
from ptq_lab.graph.placement import Layer
from ptq_lab.int8 import Int8Settings, integer_entries
from ptq_lab.numerics import QuantizedWeight
from ptq_lab.pins import pinned_bits
from ptq_lab.plan import QuantPlan, TensorPlan, round_weights
from ptq_lab.progress import Progress
from ptq_lab.search.climb import Rung, climb
from ptq_lab.search.layer_rounding import LayerSteps
from ptq_lab.search.rounded import rounded_model
from ptq_lab.weight_effort import rungs_of

FULL_WIDTH = 8  # bits that an integer kernel takes
NARROWEST = 2  # with one bit there is no code for zero beside another one on either side
THIN = 27  # weights behind one output (3 x 3 of three colours): 8 bits cost such a layer little, fewer cost it much


@dataclass(frozen=True, slots=True, kw_only=True)
class Widths:
    """Widths of weights that are not stored in 8 bits, by tensor, and what is to be said about names of layers."""

    bits: Mapping[str, int]
    notes: tuple[str, ...] = ()

    @property
    def narrow(self) -> bool:
        """Whether there are any."""
        return bool(self.bits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaped:
    """Codes that were found for float activations.

    Attributes
    ----------
    before, model : Model
        The float model, and the one that computes with what the codes stand for.
    weights : mapping of str to QuantizedWeight
        By tensor.
    layers : tuple of LayerSteps
        What was done to each layer.
    notes : tuple of str
        What is to be said.
    interrupted : str
        How far the ladder came, if the user stopped it.
    """

    before: Model
    model: Model
    weights: Mapping[str, QuantizedWeight]
    layers: tuple[LayerSteps, ...] = ()
    notes: tuple[str, ...] = ()
    interrupted: str = ""


def choose_widths(placement: Placement, settings: Int8Settings, config: QuantConfig) -> Widths:
    """Return how wide each weight is stored.

    ``[ptq_lab] weight_bits`` decides, but layers with few weights behind one output keep 8 bits, and
    ``[ptq_lab.layer_bits]`` has the last word.

    Raises
    ------
    ConfigError
        If a width is none that a kernel's int8 can hold.
    """
    asked = config.lab.weight_bits
    entries = integer_entries(placement, settings)
    wide = {layer.weight for layer in placement.layers if _is_thin(layer)}
    chosen = {entry.tensor: FULL_WIDTH if entry.tensor in wide else asked for entry in entries}
    pinned, problems = pinned_bits(config.layer_bits, entries, skips=placement.skips)
    _check_pins(config, takes_narrow=settings.narrow)
    chosen |= pinned
    notes = tuple(map(str, problems))
    spared = sum(entry.tensor in wide and entry.tensor not in pinned for entry in entries)
    if asked < FULL_WIDTH and spared:
        kept = f"{spared} layer{'' if spared == 1 else 's'} with at most {THIN} weights behind one output"
        notes += (f"weight_bits={asked}: {kept} keep 8 bits; [{PINS}] type:Conv={asked} takes them along",)
    return Widths(bits={tensor: bits for tensor, bits in chosen.items() if bits != FULL_WIDTH}, notes=notes)


def shape_weights(
    model: Model,
    entries: tuple[TensorPlan, ...],
    config: QuantConfig,
    samples: Samples,
    *,
    progress: Progress,
) -> Shaped | None:
    """Let the quality ladder find codes for the weights of an integer model, as far as the effort says.

    Parameters
    ----------
    model : Model
        Float, BatchNormalization folded.
    entries : tuple of TensorPlan
        Of its integer layers.
    config : QuantConfig
    samples : Samples
    progress : Progress

    Returns
    -------
    Shaped or None
        ``None`` where nothing is tried; with the weights rounded to the nearest step where nothing helped.

    Raises
    ------
    InferenceError
        If onnxruntime fails.
    """
    rungs, about = rungs_of(config, samples)
    if not rungs:
        return Shaped(before=model, model=model, weights={}, notes=about) if about else None
    once = {entry.tensor: entry for entry in entries}
    plan = round_weights(QuantPlan(tuple(once.values())), model.weight)
    rungs = tuple(_symmetric(rung) for rung in rungs)
    if all(entry.bits == FULL_WIDTH for entry in plan.entries):
        rungs = rungs[-1:]  # the lower rungs differ by less than the noise of a judge
    climbed = climb(plan, model, samples, rungs, providers=config.lab.providers, progress=progress)
    plan = replace(climbed.plan, entries=tuple(_even(entry) for entry in climbed.plan.entries))
    found = {entry.tensor: entry.weight for entry in plan.entries if entry.weight is not None}
    return Shaped(
        before=model,
        model=rounded_model(model, plan),
        weights=found,
        layers=climbed.layers,
        notes=climbed.notes,
        interrupted=climbed.interrupted,
    )


def _symmetric(rung: Rung) -> Rung:
    """Return a rung whose channels have no offsets: kernels know none for weights."""
    return replace(rung, recipe=replace(rung.recipe, offsets=0))


def _even(entry: TensorPlan) -> TensorPlan:
    """Take the one code of 8 bits away that has no counterpart on the other side of zero; kernels may not know it."""
    if entry.weight is None or entry.bits != FULL_WIDTH:
        return entry
    codes = np.maximum(entry.weight.codes, -(2 ** (FULL_WIDTH - 1) - 1))
    return replace(entry, weight=replace(entry.weight, codes=codes))


def _is_thin(layer: Layer) -> bool:
    return math.prod(layer.shape) // layer.shape[layer.axis] <= THIN


def _check_pins(config: QuantConfig, *, takes_narrow: bool) -> None:
    device = config.full.target_device
    for name, bits in config.layer_bits:
        if bits == FULL_WIDTH or (takes_narrow and NARROWEST <= bits < FULL_WIDTH):
            continue
        allowed = f"{NARROWEST} to {FULL_WIDTH} bits" if takes_narrow else f"{FULL_WIDTH} bits for {device}"
        raise ConfigError([Problem(section=PINS, key=name, message=f"FULL_QUANT takes {allowed}, not {bits}")])
