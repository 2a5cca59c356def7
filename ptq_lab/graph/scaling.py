"""Features of a tensor rescaled for some layers: in what computes them where nobody else looks, else by one Mul.

A *gain* is an array that broadcasts against a tensor from its last axis on. To absorb it is to change the constants
behind the tensor so that they produce ``tensor * gain``: the scale of a LayerNormalization, the columns and the bias
of a MatMul, and through an attention head the columns of the value projection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ptq_lab.graph.decode import GraphWriter
from ptq_lab.graph.fold import drop_unused, replace_constant
from ptq_lab.graph.model import Model, constant, float32, shape_of
from ptq_lab.graph.placement import Layer

Gain = NDArray[np.float64]
_BESIDE = ("Shape", "Size")  # readers that do not look at the values


@dataclass(frozen=True, slots=True)
class _Edit:
    """Multiply a constant input of a node."""

    node: ir.Node
    index: int
    gain: Gain


def divide_features(model: Model, divisors: Mapping[str, NDArray[np.float64]], layers: Sequence[Layer]) -> Model:
    """Return a model that computes the same, in which some layers read a tensor with smaller features.

    Parameters
    ----------
    model : Model
        Not changed.
    divisors : mapping of str to ndarray, shape (K,)
        Tensor to one positive number per index of its last axis.
    layers : sequence of Layer
        MatMul and Gemm layers; those that read a tensor of `divisors` get their weights multiplied in exchange.

    Notes
    -----
    Other readers of the tensor see what they saw before. Exact up to the rounding of float32.

    Examples
    --------
    >>> from onnx import helper, numpy_helper
    >>> from ptq_lab.graph import load_model, place_integers
    >>> x, y = (helper.make_tensor_value_info(name, 1, ["n", 2]) for name in "xy")
    >>> weight = numpy_helper.from_array(np.eye(2, dtype=np.float32), "w")
    >>> graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    >>> model = load_model(helper.make_model(graph))
    >>> divided = divide_features(model, {"x": np.array([2.0, 4.0])}, place_integers(model, {}).layers)
    >>> [node.op_type for node in divided.graph], divided.weight("w").tolist()
    (['Mul', 'MatMul'], [[2.0, 0.0], [0.0, 4.0]])
    """
    changed = model.clone()
    graph = changed.graph
    nodes = {node.name: node for node in graph}
    for tensor, divisor in divisors.items():
        readers = [(nodes[layer.node], layer) for layer in layers if layer.source == tensor]
        value = readers[0][0].inputs[0]
        assert value is not None  # a layer reads something
        _divide(graph, value, np.asarray(divisor, np.float64), [node for node, _ in readers])
        for node, layer in readers:
            shape = (-1, 1) if layer.axis == 1 else (1, -1)
            _apply(graph, _Edit(node, 1, np.asarray(divisor, np.float64).reshape(shape)))
    drop_unused(graph)
    return changed


def _divide(graph: ir.Graph, value: ir.Value, divisor: Gain, readers: Sequence[ir.Node]) -> None:
    seen = [use.node for use in value.uses() if use.node.op_type not in _BESIDE]
    alone = not value.is_graph_output() and all(node in readers for node in seen)
    edits = _absorb(value, 1.0 / divisor) if alone else None
    if edits is not None:
        for edit in edits:
            _apply(graph, edit)
        return
    writer = GraphWriter(graph)
    order = list(graph)
    producer = value.producer()
    writer.before = order[order.index(producer) + 1] if producer is not None else order[0]
    factor = writer.weight(f"{value.name}.smoothing", ir.tensor((1.0 / divisor).astype(np.float32)))
    product = writer.node("Mul", [value, factor])
    product.name = f"{factor.name}.product"
    product.shape, product.type = value.shape, value.type
    for node in readers:
        node.replace_input_with(0, product)


def _apply(graph: ir.Graph, edit: _Edit) -> None:
    tensor = constant(edit.node.inputs[edit.index])
    assert tensor is not None  # only constants get edits
    replace_constant(graph, edit.node, edit.index, float32(tensor).astype(np.float64) * edit.gain)


def _absorb(value: ir.Value | None, gain: Gain) -> list[_Edit] | None:
    """Return the edits that multiply a tensor; ``None`` if there is no exact way. Does not look at its readers."""
    node = value.producer() if value is not None else None
    if node is None or node.domain not in ("", "ai.onnx") or node.op_type not in ABSORBERS:
        return None
    return ABSORBERS[node.op_type](node, gain)


def _through(value: ir.Value | None, gain: Gain) -> list[_Edit] | None:
    """Absorb in a tensor that has one reader, which is known already."""
    if value is None or value.is_graph_output():
        return None
    readers = [use for use in value.uses() if use.node.op_type not in _BESIDE]
    return _absorb(value, gain) if len(readers) == 1 else None


def _into_norm(node: ir.Node, gain: Gain) -> list[_Edit] | None:
    indices = range(1, len(node.inputs))
    last_axis = node.attributes.get_int("axis", -1) == -1
    if not last_axis or any(_features(node.inputs[index], -1) != gain.shape for index in indices):
        return None
    return [_Edit(node, index, gain) for index in indices]


def _into_matmul(node: ir.Node, gain: Gain) -> list[_Edit] | None:
    """Scale the columns of a weight, or hand on to the values that attention mixes: rows are mixed, columns stay."""
    if constant(node.inputs[1]) is not None:
        return [_Edit(node, 1, gain)] if _features(node.inputs[1], -1) == gain.shape else None
    mixes_rows_alike = gain.ndim < 2 or gain.shape[-2] == 1
    return _through(node.inputs[1], gain) if mixes_rows_alike else None


def _into_gemm(node: ir.Node, gain: Gain) -> list[_Edit] | None:
    transposed = node.attributes.get_int("transB", 0) == 1
    fits = _features(node.inputs[1], 0 if transposed else -1) == gain.shape
    if not fits or any(constant(value) is None for value in node.inputs[2:]):
        return None
    weight = _Edit(node, 1, gain.reshape(-1, 1) if transposed else gain)
    return [weight, *(_Edit(node, index, gain) for index in range(2, len(node.inputs)))]


def _into_sum(node: ir.Node, gain: Gain) -> list[_Edit] | None:
    """Scale the constant of a bias Add, and what it is added to."""
    index = _constant_operand(node, gain)
    rest = _through(node.inputs[1 - index], gain) if index is not None else None
    return [_Edit(node, index, gain), *rest] if index is not None and rest is not None else None


def _into_product(node: ir.Node, gain: Gain) -> list[_Edit] | None:
    """Scale a factor per feature. A factor for all stays: it belongs to forms such as GELU that runtimes fuse."""
    index = _constant_operand(node, gain)
    if index is None:
        return None
    tensor = constant(node.inputs[index])
    if tensor is not None and tensor.size == gain.size and tensor.size > 1:
        return [_Edit(node, index, gain)]
    return _through(node.inputs[1 - index], gain)


def _into_relu(node: ir.Node, gain: Gain) -> list[_Edit] | None:
    return _through(node.inputs[0], gain)  # gains are positive, and a ReLU commutes with those


def _into_transpose(node: ir.Node, gain: Gain) -> list[_Edit] | None:
    """Move the axes of a gain back: output axis i is input axis ``permutation[i]``."""
    permutation = list(node.attributes.get_ints("perm", ()))
    if not permutation or gain.ndim > len(permutation):
        return None
    full = gain.reshape((1,) * (len(permutation) - gain.ndim) + gain.shape)
    return _through(node.inputs[0], _trimmed(np.transpose(full, np.argsort(permutation))))


def _into_reshape(node: ir.Node, gain: Gain) -> list[_Edit] | None:
    """Heads joined into features, or features split into heads; exact when they are the last axes on both sides."""
    if gain.ndim == 1:
        heads = _heads_behind(node.inputs[0])
        fits = heads is not None and heads[0] * heads[1] == gain.size
        return _through(node.inputs[0], gain.reshape(heads)) if heads is not None and fits else None
    heads = _last_two(node.inputs[1])
    if gain.ndim != 2 or heads is None or heads != gain.shape:
        return None
    return _through(node.inputs[0], gain.reshape(-1))


def _heads_behind(value: ir.Value | None) -> tuple[int, int] | None:
    """Return (heads, size of one) from the Reshape that splits the values in front of an attention's output."""
    for op_type, index in (("Transpose", 0), ("MatMul", 1), ("Transpose", 0)):
        node = value.producer() if value is not None else None
        if node is None or node.op_type != op_type:
            return None
        value = node.inputs[index]
    node = value.producer() if value is not None else None
    return _last_two(node.inputs[1]) if node is not None and node.op_type == "Reshape" else None


def _last_two(shape: ir.Value | None) -> tuple[int, int] | None:
    """Return the last two sizes of a Reshape's target, if they are constants (alone or at the end of a Concat)."""
    sizes: list[int] = []
    node = shape.producer() if shape is not None else None
    parts = node.inputs if node is not None and node.op_type == "Concat" else [shape]
    for part in reversed(parts):
        tensor = constant(part)
        if tensor is None:
            break
        sizes = [*(int(size) for size in tensor.numpy().reshape(-1)), *sizes]
    if len(sizes) < 2 or min(sizes[-2:]) < 1:
        return None
    return sizes[-2], sizes[-1]


def _constant_operand(node: ir.Node, gain: Gain) -> int | None:
    """Return which of two operands is a constant that a gain can be multiplied into."""
    found = [index for index in (0, 1) if constant(node.inputs[index]) is not None]
    tensor = constant(node.inputs[found[0]]) if len(found) == 1 else None
    if tensor is None or gain.ndim != 1:
        return None
    shape = shape_of(tensor)
    return found[0] if not shape or shape[-1] in (1, gain.size) else None


def _features(value: ir.Value | None, axis: int) -> tuple[int, ...]:
    """Return the size of a constant along one axis, as the shape of the gain that fits it."""
    tensor = constant(value)
    sizes = shape_of(tensor) if tensor is not None else ()
    return (sizes[axis],) if sizes else ()


def _trimmed(gain: Gain) -> Gain:
    """Drop leading axes of length 1."""
    return gain.reshape(gain.shape[next((i for i, size in enumerate(gain.shape) if size > 1), gain.ndim - 1) :])


ABSORBERS: Mapping[str, Callable[[ir.Node, Gain], list[_Edit] | None]] = {
    "LayerNormalization": _into_norm,
    "MatMul": _into_matmul,
    "Gemm": _into_gemm,
    "Add": _into_sum,
    "Mul": _into_product,
    "Relu": _into_relu,
    "Transpose": _into_transpose,
    "Reshape": _into_reshape,
}
"""Operator to how its output is multiplied by changing constants behind it."""
