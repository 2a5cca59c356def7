"""A piece of a graph as a model of its own: from some tensors to others."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from ptq_lab.graph.fold import drop_unused
from ptq_lab.graph.model import Model


def cut_segment(model: Model, sources: Sequence[str], outputs: Sequence[str]) -> Model:
    """Return the part of a model that computes `outputs` when `sources` are given.

    Parameters
    ----------
    model : Model
        Not changed.
    sources : sequence of str
        Tensors that will be fed; what lies before them is left out. Inputs of the model that are still needed stay.
    outputs : sequence of str
        Tensors to compute.

    Returns
    -------
    Model
        Its inputs are those of `sources` (and of the model) that it really reads.
    """
    segment = model.clone()
    graph = segment.graph
    values = {value.name or "": value for node in graph for value in node.outputs}
    for name in sources:
        if name in values:
            _feed(graph, values[name], name)
    wanted = [values[name] for name in outputs]
    graph.outputs.clear()
    graph.outputs.extend(wanted)
    for node in reversed(list(graph)):
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            graph.remove(node, safe=True)
    drop_unused(graph)
    for value in [value for value in graph.inputs if not value.uses()]:
        graph.inputs.remove(value)
    return segment


def _feed(graph: ir.Graph, value: ir.Value, name: str) -> None:
    dtype = value.dtype or _dtype_of(value)
    fed = ir.Value(name=f"{name}.fed", type=ir.TensorType(dtype), shape=value.shape)
    value.replace_all_uses_with(fed)
    value.name, fed.name = f"{name}.made", name
    graph.inputs.append(fed)


def _dtype_of(value: ir.Value) -> ir.DataType:
    """Return the element type of a tensor whose graph does not state it: a QuantizeLinear has its zero point's."""
    node = value.producer()
    zero_point = node.inputs[2] if node is not None and node.op_type == "QuantizeLinear" else None
    if zero_point is not None and zero_point.const_value is not None:
        return zero_point.const_value.dtype
    return ir.DataType.FLOAT
