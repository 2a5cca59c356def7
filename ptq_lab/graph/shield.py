"""Float layers kept float: onnxruntime must not quantize what a plan left alone.

From release 1.23 on, a Conv, ConvTranspose or Gemm with a float weight that stands between a DequantizeLinear and a
QuantizeLinear is rounded by onnxruntime itself when it loads the model: to 8 bits with *one* scale for the weight,
which can ruin a depthwise layer. It does not do so behind a DequantizeLinear that has a scale per channel, so such
a layer reads the same codes through one whose scales are all equal: the same numbers, at no cost.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from ptq_lab.graph.decode import GraphWriter
from ptq_lab.graph.model import constant, is_float, shape_of

SELF_QUANTIZED = ("Conv", "ConvTranspose", "Gemm")  # a MatMul is left alone
_LOOKED_THROUGH = ("MaxPool", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice")
_CHANNELS = 1  # axis of an activation


def shield_layers(graph: ir.Graph, layers: Collection[str]) -> tuple[str, ...]:
    """Let every float layer behind codes read them in a way that keeps onnxruntime from quantizing it.

    Parameters
    ----------
    graph : onnx_ir.Graph
        With Q/DQ pairs in it; changed in place.
    layers : collection of str
        Nodes that are meant to compute in integers.

    Returns
    -------
    tuple of str
        The nodes that needed it.

    Notes
    -----
    Where the number of channels is one or not known from the weight, or where operators that onnxruntime moves
    a DequantizeLinear across stand in between, a Max of a single tensor (a copy) does the same.
    """
    writer = GraphWriter(graph)
    return tuple(
        node.name or ""
        for node in list(graph)
        if node.op_type in SELF_QUANTIZED
        and node.domain in ("", "ai.onnx")
        and node.name not in layers
        and _has_float_weight(node)
        and _shield(graph, writer, node)
    )


def _has_float_weight(node: ir.Node) -> bool:
    tensor = constant(node.inputs[1])
    return tensor is not None and is_float(tensor)


def _shield(graph: ir.Graph, writer: GraphWriter, node: ir.Node) -> bool:
    source = node.inputs[0]
    decoder = _decoder(source)
    if source is None or decoder is None:
        return False
    writer.before = node
    channels = _channels_read(node)
    if source.producer() is decoder and channels > 1:
        shielded = _decode_per_channel(writer, decoder, channels)
    else:
        shielded = writer.node("Max", [source])
    shielded.shape, shielded.type = source.shape, source.type
    node.replace_input_with(0, shielded)
    if not source.uses() and not source.is_graph_output():
        graph.remove(decoder, safe=True)
    return True


def _decoder(value: ir.Value | None) -> ir.Node | None:
    """Return the DequantizeLinear of an activation that onnxruntime can bring right in front of a value's reader."""
    node = value.producer() if value is not None else None
    while node is not None and node.op_type in _LOOKED_THROUGH:
        before = node.inputs[0]
        node = before.producer() if before is not None else None
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def _channels_read(node: ir.Node) -> int:
    """Return how many input channels a weight says there are, 0 if their axis is not that of an activation."""
    tensor = constant(node.inputs[1])
    assert tensor is not None  # shield_layers has looked
    shape = shape_of(tensor)
    if node.op_type == "Conv":
        return shape[1] * node.attributes.get_int("group", 1)
    if node.op_type == "ConvTranspose":
        return shape[0]
    return 0 if node.attributes.get_int("transA", 0) else shape[node.attributes.get_int("transB", 0)]


def _decode_per_channel(writer: GraphWriter, decoder: ir.Node, channels: int) -> ir.Value:
    codes, *numbers = decoder.inputs
    assert codes is not None  # a DequantizeLinear has an input
    repeated = []
    for value in numbers:
        tensor = constant(value)
        assert tensor is not None  # scales and zero points are written as constants
        repeated.append(writer.constant(np.full(channels, tensor.numpy())))
    return writer.node("DequantizeLinear", [codes, *repeated], {"axis": _CHANNELS})
