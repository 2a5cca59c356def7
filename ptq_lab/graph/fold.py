"""BatchNormalization folded into the layer in front of it: the same function, fewer operators."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ptq_lab.graph.model import Model, constant, float32
from ptq_lab.graph.operators import OPERATORS

_FOLDS_INTO = ("Conv", "ConvTranspose", "Gemm")


def fold_batchnorm(model: Model) -> Model:
    """Return a copy in which every BatchNormalization that can be is part of the layer in front of it.

    Notes
    -----
    With ``k = gamma / sqrt(variance + epsilon)``: weights of output channel c are multiplied by ``k[c]``, and the bias
    becomes ``(bias - mean) * k + beta``. Done in double precision. A BatchNormalization stays when its layer's
    output has other readers, or when a number it needs is not a constant.
    """
    folded = model.clone()
    for node in list(folded.graph):
        if node.op_type == "BatchNormalization" and node.domain in ("", "ai.onnx"):
            _fold(folded.graph, node)
    drop_unused(folded.graph)
    return folded


def drop_unused(graph: ir.Graph) -> None:
    """Remove initializers that nothing reads."""
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            del graph.initializers[name]


def _fold(graph: ir.Graph, norm: ir.Node) -> None:
    source = norm.inputs[0]
    layer = source.producer() if source is not None else None
    if source is None or layer is None or layer.op_type not in _FOLDS_INTO:
        return
    if len(source.uses()) != 1 or source.is_graph_output() or norm.attributes.get_int("training_mode", 0) == 1:
        return
    numbers = [constant(value) for value in norm.inputs[1:5]]
    weight = constant(layer.inputs[1])
    bias = layer.inputs[2] if len(layer.inputs) > 2 else None
    if weight is None or any(number is None for number in numbers) or (bias is not None and constant(bias) is None):
        return
    gamma, beta, mean, variance = (float32(number).astype(np.float64) for number in numbers if number is not None)
    gain = gamma / np.sqrt(variance + norm.attributes.get_float("epsilon", 1e-5))
    old_bias = np.zeros_like(mean) if bias is None else _numbers(bias)
    old_bias = old_bias * layer.attributes.get_float("beta", 1.0) if layer.op_type == "Gemm" else old_bias
    scaled = _scale_channels(layer, float32(weight).astype(np.float64), gain)
    if scaled is None:
        return
    replace_constant(graph, layer, 1, scaled)
    if layer.op_type == "Gemm":
        layer.attributes["beta"] = ir.AttrFloat32("beta", 1.0)
    replace_constant(graph, layer, 2, (old_bias - mean) * gain + beta)
    output = norm.outputs[0]
    layer.outputs[0].shape, layer.outputs[0].type = output.shape, output.type
    name, output.name = output.name, None
    output.replace_all_uses_with(layer.outputs[0], replace_graph_outputs=True)
    layer.outputs[0].name = name
    graph.remove(norm, safe=True)


def _scale_channels(
    layer: ir.Node, weight: NDArray[np.float64], gain: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Multiply each output channel of a weight; ``None`` where channels are spread over two axes."""
    groups = layer.attributes.get_int("group", 1)
    if layer.op_type == "ConvTranspose" and groups > 1:
        into, per_group = weight.shape[0] // groups, weight.shape[1]
        grouped = weight.reshape(groups, into, per_group, -1) * gain.reshape(groups, 1, per_group, 1)
        return grouped.reshape(weight.shape)
    axis = OPERATORS[layer.op_type].axis(layer, 1, weight.shape)
    if weight.shape[axis] != gain.size:
        return None
    shape = [1] * weight.ndim
    shape[axis] = -1
    return weight * gain.reshape(shape)


def replace_constant(graph: ir.Graph, layer: ir.Node, index: int, numbers: NDArray[np.float64]) -> None:
    """Give the layer a constant of its own; the old one's name moves along if nobody else uses it."""
    old = layer.inputs[index] if index < len(layer.inputs) else None
    name = f"{layer.name}.bias" if old is None else old.name or ""
    if old is not None:
        layer.replace_input_with(index, None)
        if not old.uses() and not old.is_graph_output():
            producer = old.producer()
            if producer is None:
                del graph.initializers[name]
            else:
                old.name = None
                graph.remove(producer, safe=True)
    taken = set(graph.initializers) | {value.name for node in graph for value in node.outputs}
    while name in taken:
        name += "_folded"
    tensor = ir.tensor(numbers.astype(np.float32), name=name)
    value = ir.Value(name=name, const_value=tensor)
    graph.register_initializer(value)
    if index >= len(layer.inputs):
        layer.resize_inputs(index + 1)
    layer.replace_input_with(index, value)


def _numbers(value: ir.Value) -> NDArray[np.float64]:
    tensor = constant(value)
    assert tensor is not None  # the caller has looked
    return float32(tensor).astype(np.float64)
