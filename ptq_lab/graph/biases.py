"""The bias of a layer: the third input of Conv and Gemm, or the constant that is added behind a MatMul."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ptq_lab.graph.added_bias import added_bias, set_added_bias
from ptq_lab.graph.fold import replace_constant
from ptq_lab.graph.model import constant, float32


def bias_of(node: ir.Node, channels: int) -> NDArray[np.float32] | None:
    """Return the bias of a Conv, Gemm or MatMul, zeros where one can be put in, ``None`` where none can.

    Parameters
    ----------
    node : onnx_ir.Node
    channels : int
        How many outputs it has.
    """
    if node.op_type == "MatMul":
        return added_bias(node)
    factors = [node.attributes.get_float(name, 1.0) for name in ("alpha", "beta")]
    if node.op_type not in ("Conv", "Gemm") or factors != [1.0, 1.0]:
        return None
    given = node.inputs[2] if len(node.inputs) > 2 else None
    if given is None:
        return np.zeros(channels, np.float32)
    tensor = constant(given)
    if tensor is None or tensor.size not in (1, channels):
        return None
    return np.array(np.broadcast_to(float32(tensor).reshape(-1), channels))


def set_bias(graph: ir.Graph, node: ir.Node, bias: NDArray[np.float32]) -> None:
    """Give a node for which :func:`bias_of` finds one another bias, of its own; shape (C,)."""
    if node.op_type == "MatMul":
        set_added_bias(graph, node, bias)
    else:
        replace_constant(graph, node, 2, bias.astype(np.float64))
