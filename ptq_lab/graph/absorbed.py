"""Activation functions that an integer kernel takes along: which they are, and what they guarantee."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ptq_lab.graph.model import constant, float32, shape_of


def behind_activation(value: ir.Value) -> tuple[ir.Value, ir.Node | None]:
    """Return the tensor behind a Relu or Clip that an integer kernel absorbs, and that node.

    A Min with constant bounds behind a Relu comes along: codes are limited just as well as what they stand for.
    """
    reader = _only_reader(value)
    if reader is None or not (reader.op_type == "Relu" or (reader.op_type == "Clip" and clip_bounds(reader)[0] == 0.0)):
        return value, None
    after = _only_reader(reader.outputs[0])
    if reader.op_type == "Relu" and after is not None and is_ceiling(after):
        return after.outputs[0], reader
    return reader.outputs[0], reader


def _only_reader(value: ir.Value) -> ir.Node | None:
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def is_ceiling(node: ir.Node) -> bool:
    """Tell whether a node is a Min of something and constant bounds, none negative, that do not enlarge it."""
    if node.op_type != "Min" or node.domain not in ("", "ai.onnx") or len(node.inputs) != 2:
        return False
    value, bounds = node.inputs[0], constant(node.inputs[1])
    if value is None or value.shape is None or bounds is None or bounds.dtype != ir.DataType.FLOAT:
        return False
    sizes, limits = list(value.shape), shape_of(bounds)
    if len(limits) > len(sizes) or float32(bounds).min(initial=0.0) < 0.0:
        return False
    return all(limit in (1, size) for limit, size in zip(reversed(limits), reversed(sizes), strict=False))


def clip_bounds(node: ir.Node) -> tuple[float | None, float | None]:
    """Return the constant bounds of a Clip, from inputs (opset 11 on) or attributes."""
    if len(node.inputs) == 1:
        return node.attributes.get_float("min", None), node.attributes.get_float("max", None)
    bounds: list[float | None] = []
    for index in (1, 2):
        tensor = constant(node.inputs[index]) if index < len(node.inputs) else None
        bounds.append(float(np.asarray(float32(tensor)).reshape(-1)[0]) if tensor is not None else None)
    return bounds[0], bounds[1]
