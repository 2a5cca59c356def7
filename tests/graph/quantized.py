"""Quantize a tiny model in one call, and build the float model that it must equal."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import numpy_helper

from ptq_lab.graph import Model, Rules, apply_plan, find_targets, load_model, raise_opset, required_opset
from ptq_lab.numerics import dequantize_weight
from ptq_lab.plan import QuantPlan, make_plan, round_weights

EVERYTHING = Rules(min_channels=0)


def plan_of(model: Model, bits: int, *, rules: Rules = EVERYTHING, **how: Any) -> QuantPlan:
    """Return the plan of a model with its codes."""
    return round_weights(make_plan(find_targets(model, rules), bits=bits, **how), model.weight)


def quantized(source: Any, bits: int, **how: Any) -> tuple[Model, Model, QuantPlan]:
    """Return the model loaded, the model quantized, and the plan between them."""
    model = load_model(source)
    plan = plan_of(model, bits, **how)
    return model, apply_plan(model, plan), plan


def float_twin(model: Model, plan: QuantPlan) -> onnx.ModelProto:
    """Return the float model of the same opset whose weights are the dequantized ones."""
    proto = onnx.load_from_string(raise_opset(model, required_opset(plan)).serialize())
    values = {entry.tensor: dequantize_weight(entry.weight) for entry in plan.entries if entry.weight is not None}
    holders = list(proto.graph.initializer)
    for node in proto.graph.node:
        if node.op_type == "Constant" and node.output[0] in values:
            node.attribute[0].t.name = node.output[0]
            holders.append(node.attribute[0].t)
    for holder in holders:
        if holder.name in values:
            dtype = numpy_helper.to_array(holder).dtype
            holder.CopyFrom(numpy_helper.from_array(values.pop(holder.name).astype(dtype), holder.name))
    assert not values, f"no holder for {list(values)}"
    return proto
