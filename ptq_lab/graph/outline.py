"""Names of a model without its weights, quickly: what an editor wants to know while somebody types."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx

from ptq_lab.errors import ModelError
from ptq_lab.graph.lazy import read_without_weights
from ptq_lab.graph.model import Model, constants, is_float, name_nodes

_FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """Names in a model.

    Attributes
    ----------
    nodes : tuple of (str, str)
        Name and operator of every node of the main graph, named as :func:`ptq_lab.load_model` does.
    weights : tuple of str
        Float constants of two axes or more.
    inputs : tuple of (str, tuple)
        Name and sizes of what has to be fed; a size that is not fixed is text.
    """

    nodes: tuple[tuple[str, str], ...]
    weights: tuple[str, ...]
    inputs: tuple[tuple[str, tuple[int | str, ...]], ...]


def outline_file(path: Path) -> Outline:
    """Read the names in a model file; its weights are passed over.

    Raises
    ------
    ModelError
        If it is no whole ONNX model, or cannot be read.
    """
    try:
        proto, _ = read_without_weights(path)
    except Exception as fault:  # protobuf, mmap and the operating system have a say
        raise ModelError(f"{path}: cannot be read ({fault})") from fault
    return outline_proto(proto)


def outline_proto(proto: onnx.ModelProto) -> Outline:
    """Return the names in a model in memory, which is not changed.

    Examples
    --------
    >>> node = onnx.helper.make_node("Relu", ["x"], ["y"])
    >>> spec = [onnx.helper.make_tensor_value_info(name, 1, ("N", 3)) for name in "xy"]
    >>> graph = onnx.helper.make_graph([node], "tiny", spec[:1], spec[1:])
    >>> outline = outline_proto(onnx.helper.make_model(graph))
    >>> outline.nodes, outline.inputs
    ((('Relu_0', 'Relu'),), (('x', ('N', 3)),))
    """
    graph = proto.graph
    named = [_Named(node.name, node.op_type) for node in graph.node]
    name_nodes(named)
    constant = {tensor.name for tensor in graph.initializer}
    return Outline(
        nodes=tuple((node.name or "", node.op_type) for node in named),
        weights=tuple(each.name for each in graph.initializer if len(each.dims) > 1 and each.data_type in _FLOATS),
        inputs=tuple((value.name, _sizes(value)) for value in graph.input if value.name not in constant),
    )


def outline_model(model: Model) -> Outline:
    """Return the names in a model that is loaded already."""
    tensors = ((name, value.const_value) for name, value in constants(model.graph).items())
    return Outline(
        nodes=tuple((node.name or "", node.op_type) for node in model.graph),
        weights=tuple(
            name for name, tensor in tensors if tensor is not None and is_float(tensor) and len(tensor.shape) > 1
        ),
        inputs=tuple((spec.name, spec.shape) for spec in model.inputs),
    )


@dataclass(slots=True)
class _Named:
    name: str | None
    op_type: str


def _sizes(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    return tuple(size.dim_value or size.dim_param or "?" for size in value.type.tensor_type.shape.dim)
