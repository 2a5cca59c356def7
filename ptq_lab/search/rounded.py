"""The float model that computes with what codes stand for."""

from __future__ import annotations

from ptq_lab.graph import Model
from ptq_lab.graph.biases import set_bias
from ptq_lab.numerics import dequantize_weight
from ptq_lab.plan import QuantPlan
from ptq_lab.search.twins import overwrite


def rounded_model(model: Model, plan: QuantPlan) -> Model:
    """Return a copy of a float model with the values that the codes of a plan stand for, and the plan's biases.

    Its weights are on their grids already, so it shows what activations are like once weights are codes.

    Parameters
    ----------
    model : Model
        Not changed.
    plan : QuantPlan
        Of weights alone, with codes.
    """
    rounded = model.clone()
    nodes = {node.name or "": node for node in rounded.graph}
    for entry in plan.entries:
        if entry.weight is not None:
            overwrite(rounded.graph, entry.tensor, dequantize_weight(entry.weight))
    for name, bias in plan.biases.items():
        set_bias(rounded.graph, nodes[name], bias)
    return rounded
