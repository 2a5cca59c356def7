"""What nodes read and make: by name, as outputs of a copy of the model, and as stored numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import ShapeInferencePass

from ptq_lab.graph.absorbed import behind_activation
from ptq_lab.graph.model import Model, constant, constants, float32, is_float

_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """A tensor at one node.

    Attributes
    ----------
    node, op_type : str
    tensor : str
    index : int
        Which of the node's inputs or outputs.
    made : bool
        The node makes it; otherwise it reads it.
    fixed : bool
        A constant.
    """

    node: str
    op_type: str
    tensor: str
    index: int
    made: bool
    fixed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A constant as a quantized model stores it.

    Attributes
    ----------
    values : ndarray of float32
        Dequantized.
    scale : ndarray of float32, shape (C,) or (), or None
        Real units per step, if it is stored as codes.
    zero_point : ndarray of int64, shape of `scale`
    bits : int
        Of a code; 32 for floats.
    """

    values: NDArray[np.float32]
    scale: NDArray[np.float32] | None = None
    zero_point: NDArray[np.int64] | None = None
    bits: int = 32


def uses_of(original: Model, prepared: Model, *, fused: bool = False) -> tuple[Use, ...]:
    """Return the float tensors at the nodes of a model, inputs before outputs, nodes in the order of the graph.

    Parameters
    ----------
    original : Model
        Its nodes are meant; those inside subgraphs are not.
    prepared : Model
        What became of it by exact transformations: tensors are named as here. Of a node that is gone, such as a
        folded BatchNormalization, only the tensors are left that still exist under their names.
    fused : bool
        Leave out what stands between a layer and the Relu or Clip that its kernel takes along: asking for it would
        take the two apart.

    Examples
    --------
    >>> from onnx import helper
    >>> x, y = (helper.make_tensor_value_info(name, 1, ["n"]) for name in "xy")
    >>> graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], "act")], "g", [x], [y])
    >>> from ptq_lab.graph import load_model
    >>> model = load_model(helper.make_model(graph))
    >>> [(use.node, use.tensor, use.made) for use in uses_of(model, model)]
    [('act', 'x', False), ('act', 'y', True)]
    """
    typed = prepared.clone()
    ShapeInferencePass()(typed.ir_model)
    nodes = {node.name or "": node for node in typed.graph}
    known: dict[str, ir.Value] = {value.name or "": value for value in typed.graph.inputs}
    known |= {name: value for name, value in typed.graph.initializers.items() if not value.is_graph_input()}
    known |= {value.name or "": value for node in typed.graph for value in node.outputs}
    found = []
    for node in original.graph:
        if node.op_type == "Constant":
            continue
        twin = nodes.get(node.name or "")
        here = twin if twin is not None and twin.op_type == node.op_type else None
        for index, value, made in _ends(node if here is None else here):
            kept = known.get(value.name or "")
            if kept is None or not _may_be_float(kept) or (fused and _inside_kernel(kept)):
                continue
            fixed = constant(kept) is not None
            name = kept.name or ""
            found.append(
                Use(node=node.name or "", op_type=node.op_type, tensor=name, index=index, made=made, fixed=fixed)
            )
    return tuple(found)


def expose(model: Model, tensors: Sequence[str]) -> Model:
    """Return a copy whose outputs are the named tensors, of whatever type: outputs of nodes of the main graph.

    Unlike :func:`~ptq_lab.graph.observe.observe` it adds no node and takes codes as they are.
    """
    copy = model.clone()
    made = made_tensors(copy)
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(made[name] for name in tensors)
    return copy


def made_tensors(model: Model) -> dict[str, ir.Value]:
    """Return what the nodes of the main graph make, by name; constants are not made."""
    return {value.name: value for node in model.graph for value in node.outputs if value.name and not constant(value)}


def stored_tensor(model: Model, name: str) -> ir.TensorProtocol | None:
    """Return a constant of the main graph, if there is one of this name."""
    value = model.graph.initializers.get(name)
    value = value if value is not None else constants(model.graph).get(name)
    return constant(value)


def stored_operand(model: Model, use: Use) -> Stored | None:
    """Return what a node reads as a constant: floats, or codes behind a DequantizeLinear or a Cast.

    ``None`` if the model has no such node, or if what it reads there is computed in another way.
    """
    node = next((node for node in model.graph if node.name == use.node and node.op_type == use.op_type), None)
    if node is None or use.index >= len(node.inputs):
        return None
    value = node.inputs[use.index]
    producer = value.producer() if value is not None else None
    if producer is not None and producer.op_type == "Cast":
        value = producer.inputs[0]
    tensor = constant(value)
    if tensor is not None:
        return Stored(values=float32(tensor)) if is_float(tensor) else None
    return _dequantized(producer) if producer is not None and producer.op_type == "DequantizeLinear" else None


def _dequantized(node: ir.Node) -> Stored | None:
    operands = [constant(value) for value in node.inputs]
    if len(operands) < 2 or operands[0] is None or operands[1] is None:
        return None
    codes, scale = operands[0].numpy(), float32(operands[1])
    zero = operands[2] if len(operands) > 2 else None
    zero_point = np.broadcast_to(np.int64(0) if zero is None else zero.numpy().astype(np.int64), scale.shape)
    shape = [1] * codes.ndim
    if scale.ndim:
        shape[node.attributes.get_int("axis", 1) % codes.ndim] = -1
    steps = (codes.astype(np.int64) - zero_point.reshape(shape if scale.ndim else ())).astype(np.float32)
    values = steps * scale.reshape(shape if scale.ndim else ())
    return Stored(values=values, scale=scale, zero_point=zero_point, bits=int(operands[0].dtype.itemsize * 8))


def _ends(node: ir.Node) -> Iterator[tuple[int, ir.Value, bool]]:
    for made, values in ((False, node.inputs), (True, node.outputs)):
        yield from ((index, value, made) for index, value in enumerate(values) if value is not None and value.name)


def _inside_kernel(value: ir.Value) -> bool:
    return value.producer() is not None and behind_activation(value)[1] is not None


def _may_be_float(value: ir.Value) -> bool:
    tensor = constant(value)
    if tensor is not None:
        return is_float(tensor)
    return value.dtype is None or value.dtype in _FLOATS
