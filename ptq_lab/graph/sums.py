"""Where the sums of an integer product become real numbers, and the weight's scale among what they are multiplied by.

``ConvInteger`` and ``MatMulInteger`` give integers. Tools put ``Cast -> Mul`` or a ``DequantizeLinear`` behind them,
and multiply the scale of the activation, which is known at run time only, with that of the weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ptq_lab.graph.model import constant, float32

_MOVES = ("Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity")


@dataclass(frozen=True, slots=True, eq=False)
class Scaled:
    """The real numbers behind integer sums, and the constant factors they were multiplied by."""

    value: ir.Value
    factors: tuple[NDArray[np.float32], ...]

    def scale(self, columns: int) -> NDArray[np.float32] | None:
        """Return the product of the factors: of shape (columns,) or (); ``None`` if they are of another size."""
        total = np.ones((), np.float32)
        for factor in self.factors:
            if factor.size not in (1, columns):
                return None
            total = np.asarray(total * (factor.reshape(()) if factor.size == 1 else factor.reshape(-1)), np.float32)
        return total


def scaled_sums(node: ir.Node) -> Scaled | None:
    """Follow the integer sums of a node to where their scale is applied; ``None`` if that is not found.

    Notes
    -----
    A multiplication counts if one of its factors is computed at run time. Behind a ``DequantizeLinear``, one by a
    number per column counts as well: ptq_lab divides the scale like this.
    """
    value = node.outputs[0]
    while (reader := _only_reader(value)) is not None:
        if reader.op_type in _MOVES:
            value = reader.outputs[0]
        elif reader.op_type == "DequantizeLinear":
            factors, _ = _factors(reader.inputs[1])
            return _by_column(reader.outputs[0], factors)
        elif reader.op_type == "Mul":
            factors, at_run_time = _factors(_other(reader, value))
            return Scaled(reader.outputs[0], tuple(factors)) if at_run_time else None
        else:
            return None
    return None


def _by_column(value: ir.Value, factors: list[NDArray[np.float32]]) -> Scaled:
    reader = _only_reader(value)
    tensor = constant(_other(reader, value)) if reader is not None and reader.op_type == "Mul" else None
    if reader is not None and tensor is not None and tensor.size > 1:
        return Scaled(reader.outputs[0], (*factors, float32(tensor)))
    return Scaled(value, tuple(factors))


def _factors(value: ir.Value | None) -> tuple[list[NDArray[np.float32]], bool]:
    """Return the constants in a product, and whether something is in it that is none."""
    tensor = constant(value)
    if tensor is not None:
        return [float32(tensor)], False
    node = value.producer() if value is not None else None
    if node is None or node.op_type not in ("Mul", *_MOVES):
        return [], True
    parts = [_factors(each) for each in (node.inputs if node.op_type == "Mul" else node.inputs[:1])]
    return [factor for factors, _ in parts for factor in factors], any(at_run_time for _, at_run_time in parts)


def _other(node: ir.Node, value: ir.Value) -> ir.Value | None:
    return node.inputs[1] if node.inputs[0] is value else node.inputs[0]


def _only_reader(value: ir.Value) -> ir.Node | None:
    uses = [use for use in value.uses() if use.node.op_type != "Shape"]
    return uses[0].node if len(uses) == 1 else None
