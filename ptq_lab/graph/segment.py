"""A piece of a graph as a model of its own: from some tensors to others; or all of it, cut open in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

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
    makers = {value.name or "": value for node in model.graph for value in node.outputs}
    starts = [name for name in sources if name in makers]
    given = [value.name or "" for value in model.graph.inputs]
    graph = ir.convenience.extract(model.graph, [*given, *starts], list(outputs))
    for value in [value for value in graph.inputs if not value.uses()]:
        graph.inputs.remove(value)
    for value in graph.inputs:
        if value.dtype is None and value.name in makers:
            value.type = ir.TensorType(_dtype_of(makers[value.name]))
    functions = [function.clone() for function in model.ir_model.functions.values()]
    return Model(ir.Model(graph, ir_version=model.ir_model.ir_version, functions=functions), model.label)


def cut_open(model: Model, codes: Mapping[str, ir.DataType]) -> Model:
    """Return a copy in which some inner tensors are made as before, but read from inputs of the graph.

    Parameters
    ----------
    model : Model
        Not changed.
    codes : mapping of str to onnx_ir.DataType
        Tensor to its element type; the input that stands for it is called :func:`given_name`.
    """
    opened = model.clone()
    values = {value.name or "": value for node in opened.graph for value in node.outputs}
    for name, dtype in codes.items():
        given = ir.Value(name=given_name(name), type=ir.TensorType(dtype), shape=values[name].shape)
        values[name].replace_all_uses_with(given)
        opened.graph.inputs.append(given)
    return opened


def given_name(tensor: str) -> str:
    """Return what the input is called that stands for an inner tensor."""
    return f"{tensor}.given"


def _dtype_of(value: ir.Value) -> ir.DataType:
    """Return the element type of a tensor whose graph does not state it: a QuantizeLinear has its zero point's."""
    node = value.producer()
    zero_point = node.inputs[2] if node is not None and node.op_type == "QuantizeLinear" else None
    if zero_point is not None and zero_point.const_value is not None:
        return zero_point.const_value.dtype
    return ir.DataType.FLOAT
