"""Plans for integer arithmetic: grids for activations, symmetric codes for weights, and how they get into a graph.

The counterpart of `plan.make_plan` and `plan.round_weights` for models that compute in int8.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq_lab.errors import ModelError
from ptq_lab.graph import Model, Placement, insert_qdq
from ptq_lab.graph.placement import Layer, Place
from ptq_lab.graph.qdq import Form, Grid, float_bias, safe_weight_scale
from ptq_lab.numerics import QuantizedWeight, QuantSpec, choose_params, quantize_symmetric, quantize_weight
from ptq_lab.numerics.affine import along_axis
from ptq_lab.numerics.input_grid import finest_grid
from ptq_lab.numerics.ranges import choose_range
from ptq_lab.plan import ActivationPlan, QuantPlan, TensorPlan

Statistics = Mapping[str, Any]  # tensor name -> calibration.TensorStatistics


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Settings:
    """What a configuration and a device say about integer plans.

    Attributes
    ----------
    method : str
        Range method of activations.
    per_channel : bool
        One weight scale per output channel, or one per tensor.
    signed : bool
        int8 activations instead of uint8.
    symmetric : bool
        Activation grids with a zero point in the middle.
    channel_operators : tuple of str
        Layers that may have a weight scale per output channel; the others have one per tensor.
    symmetric_tensors : bool
        Weights with one scale have codes around 0 as well; those with a scale per channel always have.
    narrow : bool
        Weights may be stored in fewer than 8 bits, which the runtime unpacks when it loads the file.
    bits : mapping of str to int
        Widths of weights that are not stored in 8 bits, by tensor; kernels get all of them as int8.
    """

    method: str = "MAX_MIN"
    per_channel: bool = True
    signed: bool = False
    symmetric: bool = False
    channel_operators: tuple[str, ...] = ("Conv", "ConvTranspose", "Gemm", "MatMul")
    symmetric_tensors: bool = True
    narrow: bool = True
    bits: Mapping[str, int] = field(default_factory=dict)

    def axis_of(self, layer: Layer) -> int | None:
        """Return the axis along which the weight of a layer has scales, or ``None`` for a single one."""
        return layer.axis if self.per_channel and layer.op_type in self.channel_operators else None


def make_int8_plan(placement: Placement, statistics: Statistics, settings: Int8Settings) -> QuantPlan:
    """Decide the grid of every activation and the kind of every weight; reads no weight.

    Parameters
    ----------
    placement : Placement
    statistics : mapping
        Tensor to its statistics, for every place.
    settings : Int8Settings
    """
    ranges = _ranges(placement.places, statistics, settings.method)
    activations = tuple(_activation(place, *ranges[place.tensor], settings) for place in placement.places)
    return QuantPlan(integer_entries(placement, settings), placement.skips, activations, placement)


def integer_entries(placement: Placement, settings: Int8Settings) -> tuple[TensorPlan, ...]:
    """Return what will happen to the weight of every integer layer."""
    return tuple(
        TensorPlan(
            tensor=layer.weight,
            nodes=(layer.node,),
            op_type=layer.op_type,
            shape=layer.shape,
            bits=settings.bits.get(layer.weight, 8),
            axis=settings.axis_of(layer),
            channel_axis=layer.axis,
            correct=False,
            symmetric=settings.symmetric_tensors or settings.axis_of(layer) is not None,
            bytes_before=layer.bytes,
        )
        for layer in placement.layers
    )


def refine_input_grids(
    plan: QuantPlan, samples: Sequence[Mapping[str, NDArray[Any]]], *, symmetric: bool = False
) -> QuantPlan:
    """Choose the grids of the model's inputs by the error of real values.

    Normalised 8-bit pictures take 256 values that may lie exactly half way between the levels of the obvious
    grid; no histogram shows that. A symmetric grid has no zero point to choose, and its levels do not hit them.
    """
    if symmetric:
        return plan
    refined = []
    for activation in plan.activations:
        if not activation.node and activation.tensor in samples[0]:
            values = np.concatenate([sample[activation.tensor].reshape(-1) for sample in samples])
            spec = QuantSpec(bits=8, signed=activation.signed)
            scale, zero_point = finest_grid(values, activation.low, activation.high, spec)
            activation = replace(activation, scale=scale, zero_point=zero_point)
        refined.append(activation)
    return replace(plan, activations=tuple(refined))


def round_int8(plan: QuantPlan, model: Model) -> QuantPlan:
    """Round every weight that has no codes yet, with scales that let its bias fit into 32 bits.

    Raises
    ------
    ModelError
        If a weight holds NaN or infinity.
    """
    assert plan.placement is not None  # int8 plans have one
    scales = {activation.tensor: activation.scale for activation in plan.activations}
    biases = {layer.node: bias for layer in plan.placement.layers if (bias := float_bias(model, layer)) is not None}
    entries = []
    for entry, layer in zip(plan.entries, plan.placement.layers, strict=True):
        if entry.weight is None:
            entry = replace(entry, weight=_round(entry, layer, model, scales[layer.source], biases.get(layer.node)))
        entries.append(entry)
    return replace(plan, entries=tuple(entries), biases={**biases, **plan.biases})


def with_codes(plan: QuantPlan, model: Model, weights: Mapping[str, QuantizedWeight]) -> QuantPlan:
    """Give the weights of an integer plan codes that were found for float activations.

    Parameters
    ----------
    plan : QuantPlan
        With the grids of its activations.
    model : Model
        The float model that holds what the codes stand for, and the biases that belong to them.
    weights : mapping of str to QuantizedWeight
        By tensor; symmetric.

    Notes
    -----
    A channel of almost no weight may have steps so fine that its bias does not fit into 32 bits. Such a channel gets
    coarser steps, on which it says the same to well below the rounding of its output.
    """
    assert plan.placement is not None  # int8 plans have one
    scales = {activation.tensor: activation.scale for activation in plan.activations}
    entries = []
    for entry, layer in zip(plan.entries, plan.placement.layers, strict=True):
        found = weights.get(entry.tensor)
        if found is not None:
            entry = replace(entry, weight=_with_room(found, float_bias(model, layer), scales[layer.source]))
        entries.append(entry)
    return replace(plan, entries=tuple(entries))


def apply_int8(model: Model, plan: QuantPlan, form: Form = Form()) -> Model:  # noqa: B008 - frozen
    """Write an integer plan into its float model, in the form that a device wants."""
    assert plan.placement is not None  # int8 plans have one
    return insert_qdq(model, plan.placement, grids_of(plan), weights_of(plan), plan.biases, form=form)


def grids_of(plan: QuantPlan) -> dict[str, Grid]:
    """Return the grids of a plan as the graph room takes them."""
    return {
        activation.tensor: Grid(
            np.float32(activation.scale),
            np.asarray(activation.zero_point, "int8" if activation.signed else "uint8"),
        )
        for activation in plan.activations
    }


def weights_of(plan: QuantPlan) -> dict[str, QuantizedWeight]:
    """Return the codes of a plan by layer node."""
    return {entry.node: entry.weight for entry in plan.entries if entry.weight is not None}


def method_for(place: Place, method: str) -> str:
    """Return the range method of a tensor: the one asked for, but MAX_MIN instead of KL for a model's input.

    Pictures take 256 values, which leaves most of the 2048 bins of the KL search empty; its divergence then
    says nothing, and it cuts off nearly everything.
    """
    return "MAX_MIN" if method == "KL" and not place.node else method


def _ranges(places: Sequence[Place], statistics: Statistics, method: str) -> dict[str, tuple[float, float]]:
    """Return the range of every place; tensors on one grid get the union of theirs."""
    ranges = {}
    together: dict[str, list[str]] = defaultdict(list)
    for place in places:
        if place.known is not None:
            low, high = place.known
        else:
            chosen = method_for(place, method)
            low, high = choose_range(statistics[place.tensor], chosen, never_negative=place.never_negative)
        low = 0.0 if place.never_negative else low
        ranges[place.tensor] = (low, high if place.limit is None else min(high, place.limit))
        together[place.grid or place.tensor].append(place.tensor)
    for tensors in together.values():
        union = min(ranges[tensor][0] for tensor in tensors), max(ranges[tensor][1] for tensor in tensors)
        ranges.update(dict.fromkeys(tensors, union))
    return ranges


def _activation(place: Place, low: float, high: float, settings: Int8Settings) -> ActivationPlan:
    spec = QuantSpec(bits=8, signed=settings.signed, symmetric=settings.symmetric, narrow=settings.symmetric)
    params = choose_params(low, high, spec)
    return ActivationPlan(
        tensor=place.tensor,
        node=place.node,
        low=low,
        high=high,
        method=method_for(place, settings.method),
        scale=float(np.float32(params.scale)),
        zero_point=int(params.zero_point),
        signed=settings.signed,
    )


def _round(
    entry: TensorPlan, layer: Layer, model: Model, source_scale: float, bias: NDArray[np.float32] | None
) -> QuantizedWeight:
    values = model.weight(entry.tensor)
    try:
        plain = (
            quantize_symmetric(values, bits=entry.bits, axis=entry.axis)
            if entry.symmetric
            else quantize_weight(values, bits=8, axis=None, correct=False)
        )
    except ValueError as error:
        raise ModelError(
            f"{entry.node} ({entry.op_type}): the weight {entry.tensor} holds NaN or infinite values; repair the "
            f"model, or leave the node out: skip_quant_node={entry.node}",
            node=entry.node,
            tensor=entry.tensor,
        ) from error
    safe = safe_weight_scale(plain.scale, bias, source_scale)
    return plain if np.array_equal(safe, plain.scale) else _resized(entry, values, safe)


def _resized(entry: TensorPlan, values: NDArray[np.float32], smallest: NDArray[np.float32]) -> QuantizedWeight:
    return quantize_symmetric(values, bits=entry.bits, axis=entry.axis, smallest=smallest)


def _with_room(weight: QuantizedWeight, bias: NDArray[np.float32] | None, source_scale: float) -> QuantizedWeight:
    """Return a weight whose steps, of either sign, leave its bias room in 32 bits."""
    size = np.abs(weight.scale)
    safe = safe_weight_scale(size, bias, source_scale)
    if np.array_equal(safe, size):
        return weight
    scale = np.where(safe > size, np.copysign(safe, weight.scale), weight.scale).astype(np.float32)
    shrunk = along_axis(np.asarray(weight.scale / scale, np.float32), weight.codes.ndim, weight.axis)
    codes = np.rint(weight.codes * shrunk).astype(weight.codes.dtype)
    return replace(weight, codes=codes, scale=scale, step=scale.astype(np.float64))
