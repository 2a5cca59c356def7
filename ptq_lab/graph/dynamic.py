"""Which nodes can multiply integers whose activations are quantized while the model runs, and why the others cannot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ptq_lab.errors import Problem
from ptq_lab.graph.lookups import LOOKUPS
from ptq_lab.graph.model import Model, constant, is_float
from ptq_lab.graph.operators import OPERATORS
from ptq_lab.graph.placement import Layer, Place, Placement
from ptq_lab.graph.skip import match_nodes
from ptq_lab.graph.targets import Rules, Skip, Target, find_targets, weight_of

PRODUCTS = ("MatMul", "Gemm")
REASONS: Mapping[str, str] = {
    "Conv": "a convolution of activations quantized at run time (ConvInteger) is slower than the float one",
    "ConvTranspose": "ONNX has no transposed convolution of integers",
    "LSTM": "ONNX has no LSTM of integers",
    "GRU": "ONNX has no GRU of integers",
    "RNN": "ONNX has no RNN of integers",
    "Slice": "only a matrix whose rows are sliced can be dequantized afterwards",
    "Gather": "only a matrix whose rows are looked up can be dequantized after the lookup",
}
"""Why a weight stays float, by operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicLayer:
    """A product of integers.

    Attributes
    ----------
    node, op_type : str
    sources : tuple of str
        The activations that are quantized at run time: one, or both operands.
    weight : str
        The constant operand; empty if both are activations.
    axis : int
        Axis of the weight, as it is stored, along which this product's output channels lie.
    """

    node: str
    op_type: str
    sources: tuple[str, ...]
    weight: str = ""
    axis: int = 0


@dataclass(frozen=True, slots=True)
class DynamicTargets:
    """All integer products, the weights they and the lookups read, what stays float, and unmatched skip patterns."""

    layers: tuple[DynamicLayer, ...]
    weights: tuple[Target, ...]
    skips: tuple[Skip, ...] = ()
    problems: tuple[Problem, ...] = ()


def find_dynamic(model: Model, skip: tuple[str, ...] = (), *, pairs: bool) -> DynamicTargets:
    """Find what can be computed in integers without calibration.

    Parameters
    ----------
    model : Model
    skip : tuple of str
        Patterns of nodes to leave in float.
    pairs : bool
        Also products of two activations, such as attention scores.
    """
    found = find_targets(model, Rules(min_size=0, min_channels=0, skip=skip))
    nodes = {node.name or "": node for node in model.graph}
    layers: dict[str, DynamicLayer] = {}
    weights: list[Target] = []
    skips = list(found.skips)
    for target in found.targets:
        users = [nodes[name] for name in target.nodes]
        reason = _first_reason(users, target)
        if reason:
            skips.append(_skip(target, reason))
            continue
        weights.append(target)
        layers.update({node.name or "": _layer(node, target) for node in users if node.op_type in PRODUCTS})
    matched = match_nodes(skip, ((name, node.op_type) for name, node in nodes.items())).nodes
    for node in _products_of_activations(nodes.values()):
        setting = f"skip_quant_node={matched[node.name or '']}" if node.name in matched else ""
        if pairs and not setting:
            layers[node.name or ""] = _layer(node)
        else:
            skips.append(_pair_skip(node, setting))
    order = {name: index for index, name in enumerate(nodes)}
    ordered = sorted(layers.values(), key=lambda layer: order[layer.node])
    skips.sort(key=lambda skip: (order.get(skip.node, len(order)), skip.tensor))
    return DynamicTargets(tuple(ordered), tuple(weights), tuple(skips), found.problems)


def smoothable(model: Model, found: DynamicTargets) -> Placement:
    """Return the products whose operands may be rescaled against each other, as what carries codes."""
    nodes = {node.name or "": node for node in model.graph}
    targets = {target.tensor: target for target in found.weights}
    layers, places = [], {}
    for product in found.layers:
        node, target = nodes[product.node], targets.get(product.weight)
        if target is None or len(target.shape) != 2 or not _reads_directly(node, target):
            continue
        source = product.sources[0]
        producer = node.inputs[0].producer() if node.inputs[0] is not None else None
        places[source] = Place(tensor=source, node=(producer.name or "") if producer is not None else "", integer=False)
        layer = Layer(
            node=product.node,
            op_type=product.op_type,
            weight=product.weight,
            shape=target.shape,
            axis=target.axis,
            bias="",
            source=source,
            output=node.outputs[0].name or "",
            bytes=target.bytes,
        )
        layers.append(layer)
    return Placement(tuple(layers), tuple(places.values()))


def _reads_directly(node: ir.Node, target: Target) -> bool:
    """Tell whether a product takes its operands as they are, and nobody else takes its weight."""
    weight = node.inputs[1]
    plain = weight is not None and weight.name == target.tensor and len(target.nodes) == 1
    return plain and node.attributes.get_int("transA", 0) == 0


def _first_reason(users: Sequence[ir.Node], target: Target) -> str:
    """Return why one of the nodes that use a weight cannot take codes, which leaves it float for all; or nothing."""
    for node in users:
        reason = _why_float(node, target)
        if reason:
            return reason if node is users[0] else f"{node.name} uses it as well: {reason}"
    return ""


def _why_float(node: ir.Node, target: Target) -> str:
    """Return why a node cannot take a weight as codes, or nothing."""
    if node.op_type in LOOKUPS and target.by_row:
        return ""
    if node.op_type not in PRODUCTS:
        return REASONS[node.op_type]
    holder = weight_of(node.inputs[1])[0] if node.inputs[1] is not None else None
    if holder is None or holder.name != target.tensor:
        return "it is the left operand, and activations are quantized there"
    if constant(node.inputs[0]) is not None:
        return "it multiplies a constant"
    tensor = constant(holder)
    if tensor is None or tensor.dtype != ir.DataType.FLOAT:
        return f"its product is computed in {tensor.dtype if tensor else 'another type'}, and integers replace float32"
    return ""


def _products_of_activations(nodes: Iterable[ir.Node]) -> Iterable[ir.Node]:
    for node in nodes:
        if node.op_type not in PRODUCTS or node.domain not in ("", "ai.onnx"):
            continue
        operands = node.inputs[:2]
        if all(value is not None and constant(value) is None and _is_plain(value) for value in operands):
            yield node


def _is_plain(value: ir.Value) -> bool:
    """Tell whether an operand is a float32 activation, as far as the graph says, and no constant in disguise."""
    tensor = constant(weight_of(value)[0])
    return value.dtype in (None, ir.DataType.FLOAT) and not (tensor is not None and is_float(tensor))


def _layer(node: ir.Node, target: Target | None = None) -> DynamicLayer:
    operands = node.inputs[:2] if target is None else node.inputs[:1]
    return DynamicLayer(
        node=node.name or "",
        op_type=node.op_type,
        sources=tuple(value.name or "" for value in operands if value is not None),
        weight="" if target is None else target.tensor,
        axis=0 if target is None else _channel_axis(node, target.shape),
    )


def _channel_axis(node: ir.Node, shape: tuple[int, ...]) -> int:
    """Return the axis of a weight that becomes the last of the product."""
    right = node.inputs[1]
    assert right is not None  # a product has two operands
    order = weight_of(right)[1] or tuple(range(len(shape)))
    return order[OPERATORS[node.op_type].axis(node, 1, tuple(shape[axis] for axis in order))]


def _skip(target: Target, reason: str) -> Skip:
    return Skip(
        node=target.nodes[0],
        op_type=target.op_type,
        tensor=target.tensor,
        shape=target.shape,
        bytes=target.bytes,
        reason=reason,
    )


def _pair_skip(node: ir.Node, setting: str) -> Skip:
    second = node.inputs[1]
    return Skip(
        node=node.name or "",
        op_type=node.op_type,
        tensor=(second.name or "") if second is not None else "",
        shape=(),
        bytes=0,
        reason=setting or "it multiplies two activations; only ALWC quantizes both",
        setting=setting or "quant_strategy",
    )
