"""Neighbouring convolutions between which channels may be rescaled: found, scaled, and their Clips moved along.

Behind Relu, and behind Clip for values below its bound, ``activation(k * x) = k * activation(x)`` for positive k. So
the output channels of one layer may be multiplied by k and the input channels of the next one divided by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ptq_lab.graph.absorbed import behind_activation, clip_bounds
from ptq_lab.graph.fold import drop_unused
from ptq_lab.graph.fold import replace_constant as replace_constant
from ptq_lab.graph.model import Model, constant, float32, shape_of
from ptq_lab.graph.opset import raise_opset
from ptq_lab.graph.qdq import QDQ_OPSET

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two convolutions with nothing but an activation between them, and nobody else who looks at it.

    Attributes
    ----------
    producer, consumer : str
        Names of the two Conv nodes.
    activation : str
        Name of the Relu or Clip between them; empty if there is none.
    tensor : str
        What the consumer reads.
    channels, rank : int
        Of `tensor`.
    limit : float or None
        Upper bound of the Clip.
    depthwise : bool
        The consumer looks at every channel by itself, so its weight has a scale per channel of `tensor`.
    """

    producer: str
    consumer: str
    activation: str
    tensor: str
    channels: int
    rank: int
    limit: float | None
    depthwise: bool


def find_pairs(model: Model) -> tuple[Pair, ...]:
    """Return the pairs Conv -> [Relu | Clip from 0] -> Conv of a model, in the order of the graph.

    Parameters
    ----------
    model : Model
        With BatchNormalization folded.

    Notes
    -----
    Weights, biases and the bounds of a Clip have to be constants of float32.
    """
    return tuple(_pairs(model))


def pair_weights(model: Model, pairs: tuple[Pair, ...]) -> dict[str, Floats]:
    """Return the weights of all layers of some pairs by node, in double precision, shape (out, in / groups, ...)."""
    wanted = {name for pair in pairs for name in (pair.producer, pair.consumer)}
    weights = {}
    for node in model.graph:
        if node.name in wanted:
            tensor = constant(node.inputs[1])
            assert tensor is not None  # find_pairs has looked
            weights[node.name or ""] = float32(tensor).astype(np.float64)
    return weights


def scale_pairs(model: Model, factors: Mapping[str, Floats]) -> Model:
    """Return a copy in which the tensors of some pairs carry values multiplied per channel.

    Parameters
    ----------
    model : Model
        Not changed.
    factors : mapping of str to ndarray, shape (C,)
        Tensor of a pair to positive factors: the producer's weight and bias are multiplied, the consumer's weight is
        divided. Bounds of a Clip stay where they are, see :func:`move_clips`.

    Examples
    --------
    >>> from onnx import helper, numpy_helper
    >>> from ptq_lab.graph import load_model
    >>> nodes = [helper.make_node("Conv", ["x", "v"], ["h"]), helper.make_node("Conv", ["h", "w"], ["y"])]
    >>> x, y = (helper.make_tensor_value_info(name, 1, [1, 1, 4]) for name in "xy")
    >>> weights = [numpy_helper.from_array(np.ones((1, 1, 1), np.float32), name) for name in "vw"]
    >>> graph = helper.make_graph(nodes, "g", [x], [y], weights)
    >>> model = load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    >>> scaled = scale_pairs(model, {"h": np.array([4.0])})
    >>> float(scaled.weight("v").item()), float(scaled.weight("w").item()), float(model.weight("v").item())
    (4.0, 0.25, 1.0)
    """
    pairs = tuple(pair for pair in find_pairs(model) if pair.tensor in factors)
    weights = pair_weights(model, pairs)
    biases: dict[str, Floats] = {}
    scaled = model.clone()
    nodes = {node.name or "": node for node in scaled.graph}
    for pair in pairs:
        factor = factors[pair.tensor]
        weights[pair.producer] = scale_outputs(weights[pair.producer], factor)
        weights[pair.consumer] = scale_inputs(weights[pair.consumer], 1.0 / factor)
        bias = _bias(nodes[pair.producer])
        if bias is not None:
            biases[pair.producer] = bias * factor
    for name, numbers in weights.items():
        replace_constant(scaled.graph, nodes[name], 1, numbers)
    for name, numbers in biases.items():
        replace_constant(scaled.graph, nodes[name], 2, numbers)
    return scaled


def move_clips(model: Model, ceilings: Mapping[str, Floats]) -> Model:
    """Return a copy in which the Clips of some pairs have other upper bounds.

    Parameters
    ----------
    model : Model
        Not changed.
    ceilings : mapping of str to ndarray, shape (1,) or (C,)
        Tensor of a pair to its bound. One bound stays a Clip; one per channel becomes a Relu and a Min, which an
        integer kernel turns into a Relu of its own and a Min of codes.
    """
    raised = raise_opset(model, QDQ_OPSET)  # bounds of a Clip are inputs there
    moved = raised if raised is not model else model.clone()
    pairs = {pair.activation: pair for pair in find_pairs(model) if pair.tensor in ceilings}
    for node in list(moved.graph):
        if node.name in pairs:
            pair = pairs[node.name or ""]
            _move_clip(moved.graph, node, ceilings[pair.tensor], pair.rank)
    drop_unused(moved.graph)
    return moved


def scale_outputs(weight: Floats, factor: Floats) -> Floats:
    """Multiply each output channel of a Conv weight."""
    return weight * factor.reshape(-1, *[1] * (weight.ndim - 1))


def scale_inputs(weight: Floats, factor: Floats) -> Floats:
    """Multiply each input channel of a Conv weight; the channels of `factor` are spread over its groups."""
    into = weight.shape[1]
    groups = factor.size // into
    grouped = weight.reshape(groups, weight.shape[0] // groups, into, -1) * factor.reshape(groups, 1, into, 1)
    return np.asarray(grouped.reshape(weight.shape))


def output_peaks(weight: Floats) -> Floats:
    """Return the largest magnitude of each output channel, shape (out,)."""
    return np.asarray(np.abs(weight).reshape(weight.shape[0], -1).max(axis=1))


def input_peaks(weight: Floats, channels: int) -> Floats:
    """Return the largest magnitude of each input channel over all outputs that read it, shape (channels,)."""
    groups = channels // weight.shape[1]
    grouped = np.abs(weight).reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    return np.asarray(grouped.max(axis=(1, 3)).reshape(-1))


def _pairs(model: Model) -> Iterator[Pair]:
    for node in model.graph:
        weight = _weight_shape(node)
        if weight is None or (len(node.inputs) > 2 and node.inputs[2] is not None and _bias(node) is None):
            continue
        value, activation = behind_activation(node.outputs[0])
        uses = list(value.uses())
        reader = uses[0].node if len(uses) == 1 and uses[0].idx == 0 and not value.is_graph_output() else None
        read = _weight_shape(reader) if reader is not None else None
        if reader is None or read is None or value.producer() not in (node, activation) or _is_unbounded(activation):
            continue
        groups = reader.attributes.get_int("group", 1)
        if read[1] * groups != weight[0]:
            continue
        yield Pair(
            producer=node.name or "",
            consumer=reader.name or "",
            activation=(activation.name or "") if activation is not None else "",
            tensor=value.name or "",
            channels=weight[0],
            rank=len(weight),
            limit=clip_bounds(activation)[1] if activation is not None and activation.op_type == "Clip" else None,
            depthwise=read[1] == 1,
        )


def _weight_shape(node: ir.Node) -> tuple[int, ...] | None:
    """Return the shape of a Conv's constant float32 weight."""
    if node.op_type != "Conv" or node.domain not in ("", "ai.onnx"):
        return None
    tensor = constant(node.inputs[1])
    return shape_of(tensor) if tensor is not None and tensor.dtype == ir.DataType.FLOAT else None


def _bias(node: ir.Node) -> Floats | None:
    tensor = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    return float32(tensor).astype(np.float64) if tensor is not None else None


def _is_unbounded(activation: ir.Node | None) -> bool:
    """Tell whether the bound of a Clip is computed at run time."""
    if activation is None or activation.op_type != "Clip" or len(activation.inputs) < 3:
        return False
    return activation.inputs[2] is not None and constant(activation.inputs[2]) is None


def _move_clip(graph: ir.Graph, clip: ir.Node, ceiling: Floats, rank: int) -> None:
    source, output = clip.inputs[0], clip.outputs[0]
    shape = () if ceiling.size == 1 else (1, -1, *[1] * (rank - 2))
    name = f"{output.name}.ceiling"
    tensor = ir.tensor(ceiling.astype(np.float32).reshape(shape), name=name)
    bound = ir.Value(name=name, const_value=tensor)
    graph.register_initializer(bound)
    if ceiling.size == 1:
        clip.resize_inputs(3)
        clip.replace_input_with(2, bound)
        return
    relu = ir.node("Relu", [source], name=clip.name)
    last = ir.node("Min", [relu.outputs[0], bound], name=name)
    graph.insert_before(clip, [relu, last])
    relu.outputs[0].name, last.outputs[0].name, output.name = f"{output.name}.rectified", output.name, None
    known = output.shape if output.shape is not None else ir.Shape([None, ceiling.size, *[None] * (rank - 2)])
    for made in (relu.outputs[0], last.outputs[0]):
        made.shape, made.type = known, output.type
    output.replace_all_uses_with(last.outputs[0], replace_graph_outputs=True)
    graph.remove(clip, safe=True)
