"""The quality ladder for weights: layer after layer, on inputs that the quantized layers before it give."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ptq_lab.entries import TensorPlan
from ptq_lab.graph import Model
from ptq_lab.numerics import QuantizedWeight, dequantize_weight, weight_error
from ptq_lab.numerics.rounding import settle
from ptq_lab.plan import QuantPlan, in_blocks
from ptq_lab.progress import Progress, Step, silent
from ptq_lab.runtime import CPU, Feeds
from ptq_lab.search.layer_inputs import Linear, find_linear, read_layer
from ptq_lab.search.layer_rounding import LayerSteps, LayerWork, Recipe, Solved
from ptq_lab.search.shelf import IN_MEMORY
from ptq_lab.search.twins import Twins

PER_INPUT = 32  # positions that rounding wants for each input of an output, or it learns the samples by heart
MOST_NUMBERS = 12 << 20  # read by a layer at all its positions, in float and in quantized form each
# Other codes than the multiples of the chosen step would take more bits, and another error than was asked for.
_CODES_STAY = {"ranges": False, "after_activation": False, "gptq": False, "descent": False, "refit": False}
_ROWS = 2048  # channels of a table treated at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Improved:
    """A plan with better codes, and what was done to each layer."""

    plan: QuantPlan
    layers: tuple[LayerSteps, ...]
    stopped: bool = False  # by the user, before the last layer


def improve_weights(
    plan: QuantPlan,
    model: Model,
    samples: Iterable[Feeds],
    recipe: Recipe,
    *,
    memory: int = IN_MEMORY,
    providers: Sequence[str] = CPU,
    progress: Progress = silent,
) -> Improved:
    """Return the plan with codes, scales and biases that serve the outputs of its layers.

    Parameters
    ----------
    plan : QuantPlan
        Of weights alone, with codes.
    model : Model
        The float model, BatchNormalization folded.
    samples : iterable of {input name: array}
        One in eight judges the steps, the others shape them.
    recipe : Recipe
    memory : int
        Bytes of activations kept in memory; the result does not depend on it.
    providers : sequence of str
    progress : Progress
        Told once per layer.

    Raises
    ------
    InferenceError
        If onnxruntime fails.
    """
    linear = find_linear(model, plan)
    entries = {entry.tensor: entry for entry in plan.entries}
    solved = {layer.entry.tensor for layer in linear if layer.alone}
    for tensor, entry in entries.items():
        if tensor not in solved and recipe.ranges:
            entries[tensor] = _settled(entry, model.weight(tensor))
    biases, taken = dict(plan.biases), []
    with Twins(model, samples, memory=memory, providers=providers) as twins:
        twins.replace({t: _values(e) for t, e in entries.items() if t not in solved}, {})
        with suppress(KeyboardInterrupt):  # what is done is worth keeping; a second one ends the run
            for layer in _in_order(linear, twins):
                layer = replace(layer, entry=entries[layer.entry.tensor])
                found = _solve(layer, twins, model.weight(layer.entry.tensor), recipe)
                entries[layer.entry.tensor] = replace(layer.entry, weight=found.weight)
                changed = {}
                if found.bias is not None and found.bias is not layer.bias:
                    changed = {layer.name: found.bias}
                biases |= changed
                taken.append(found.taken)
                twins.replace({layer.entry.tensor: dequantize_weight(found.weight)}, changed)
                progress(Step("round", len(taken), len(linear), layer.name))
    better = replace(plan, entries=tuple(entries.values()), biases=biases)
    return Improved(plan=better, layers=tuple(taken), stopped=len(taken) < len(linear))


def _in_order(linear: Sequence[Linear], twins: Twins) -> Iterator[Linear]:
    """Yield every layer when what it reads is known."""
    wanted = (name for layer in linear for name in (layer.pooled, layer.source) if name)
    for source in twins.walk(list(dict.fromkeys(wanted))):
        yield from (layer for layer in linear if layer.source == source)


def _solve(layer: Linear, twins: Twins, values: NDArray[np.float32], recipe: Recipe) -> Solved:
    weight = layer.entry.weight
    assert weight is not None  # the plan has codes
    recipe = replace(recipe, **_CODES_STAY) if layer.entry.has_single_step else recipe
    inputs = math.prod(layer.entry.shape) // layer.entry.shape[layer.entry.channel_axis]
    positions = max(recipe.positions, PER_INPUT * inputs if recipe.rounds else 0)
    positions = min(positions, MOST_NUMBERS // (layer.groups * inputs))
    read = read_layer(layer, twins, range(twins.count), positions)
    if not (np.isfinite(read.inputs).all() and np.isfinite(read.floats).all()):
        return Solved(weight, layer.bias, LayerSteps(layer.name, reason="it reads NaN or infinite values"))
    return LayerWork(layer, read, layer.rows(values), recipe, weight).solve()


def _settled(entry: TensorPlan, values: NDArray[np.float32]) -> TensorPlan:
    """Give a weight of which it is not known what reads it the grids of the least squared error."""
    old = entry.weight
    assert old is not None  # the plan has codes
    if entry.axis is None or entry.has_single_step or entry.symmetric or entry.bits > 8:  # symmetric: no offsets
        return entry
    if entry.block_length:
        searched = in_blocks(entry, values, search=True)
        better = weight_error(values, searched) < weight_error(values, old)
        return replace(entry, weight=searched) if better else entry
    front = np.moveaxis(values, entry.axis, 0)
    rows = front.reshape(len(front), -1)
    codes, scale, offset = np.empty(rows.shape, old.codes.dtype), np.empty_like(old.scale), np.empty_like(old.offset)
    top = np.float32(2 ** (entry.bits - 1))
    for start in range(0, len(rows), _ROWS):
        part = slice(start, start + _ROWS)
        steps = settle(np.ascontiguousarray(rows[part].T)[None], entry.bits)
        codes[part] = (steps.codes[0].T - top).astype(codes.dtype)
        scale[part] = steps.scale.reshape(-1)
        offset[part] = steps.offset.reshape(-1) + top * scale[part]
    whole = np.ascontiguousarray(np.moveaxis(codes.reshape(front.shape), 0, entry.axis))
    found = replace(
        old,
        codes=whole,
        scale=scale,
        offset=offset,
        step=scale.astype(np.float64),
        zero_point=np.rint(-offset / scale).astype(np.int32),
        spread_correction=np.ones(scale.shape),
        mean_correction=np.zeros(scale.shape),
    )
    return replace(entry, weight=found) if weight_error(values, found) < weight_error(values, old) else entry


def _values(entry: TensorPlan) -> NDArray[np.float32]:
    weight: QuantizedWeight | None = entry.weight
    assert weight is not None  # the plan has codes
    return dequantize_weight(weight)
