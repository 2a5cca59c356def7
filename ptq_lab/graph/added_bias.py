"""The bias of a MatMul: a constant that an Add of its own puts on."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ptq_lab.graph.fold import replace_constant
from ptq_lab.graph.model import constant, float32, shape_of


def added_bias(matmul: ir.Node) -> NDArray[np.float32] | None:
    """Return the bias that is added to a MatMul, shape (N,).

    ``None`` if there is none: something else reads the product, or what is added is not one constant per feature.
    """
    found = _find(matmul)
    tensor = constant(found[0].inputs[found[1]]) if found is not None else None
    return float32(tensor).reshape(-1) if tensor is not None else None


def set_added_bias(graph: ir.Graph, matmul: ir.Node, bias: NDArray[np.float32]) -> None:
    """Replace the bias that is added to a MatMul; others who use the same constant keep theirs."""
    found = _find(matmul)
    assert found is not None  # asked for a MatMul with a bias only
    node, index = found
    tensor = constant(node.inputs[index])
    assert tensor is not None  # _find says so
    replace_constant(graph, node, index, bias.astype(np.float64).reshape(shape_of(tensor)))


def _find(matmul: ir.Node) -> tuple[ir.Node, int] | None:
    """Return the Add behind a MatMul and which of its inputs is the bias."""
    product, weight = matmul.outputs[0], matmul.inputs[1]
    uses = list(product.uses())
    if len(uses) != 1 or product.is_graph_output() or uses[0].node.op_type != "Add":
        return None
    add, index = uses[0].node, 1 - uses[0].idx
    tensor = constant(add.inputs[index])
    if tensor is None or weight is None:
        return None
    sizes = shape_of(tensor)
    features = _features(weight)
    per_feature = bool(sizes) and sizes[-1] == tensor.size and len(sizes) <= 2
    return (add, index) if per_feature and tensor.size == features else None


def _features(weight: ir.Value) -> int:
    """Return the output features of a weight: a float constant, or codes, packed or not, behind a DequantizeLinear."""
    node = weight.producer()
    stored = node.inputs[0] if node is not None and node.op_type == "DequantizeLinear" else weight
    tensor = constant(stored)
    if tensor is not None:
        return shape_of(tensor)[-1]
    features = stored.shape[-1] if stored is not None and stored.shape is not None else 0
    return features if isinstance(features, int) else 0
