"""Which operators have weights, and along which axis their output channels lie: one table.

To add an operator, add a row here and one to the table in its test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

Shape = tuple[int, ...]
AxisRule = Callable[[ir.Node, int, Shape], int]


@dataclass(frozen=True, slots=True)
class Operator:
    """Facts about one operator.

    Attributes
    ----------
    weights : tuple of int
        Indices of the inputs that may be weights.
    axis : callable
        ``(node, input index, weight shape) -> axis`` of the output channels.
    always : bool
        Whether these inputs are weights by their nature. A MatMul of two activations is nothing to
        report; a Conv whose kernel is computed at run time is.
    """

    weights: tuple[int, ...]
    axis: AxisRule
    always: bool = True


def _first(node: ir.Node, index: int, shape: Shape) -> int:
    """Conv: (out, in/groups, kernel...)."""
    return 0


def _second(node: ir.Node, index: int, shape: Shape) -> int:
    """LSTM, GRU, RNN: (directions, gates * hidden, ...): the gates, not the one or two directions."""
    return 1


def _conv_transpose(node: ir.Node, index: int, shape: Shape) -> int:
    """ConvTranspose: (in, out/groups, kernel...); a depthwise one has its channels in front."""
    depthwise = node.attributes.get_int("group", 1) > 1 and shape[1] == 1
    return 0 if depthwise else 1


def _gemm(node: ir.Node, index: int, shape: Shape) -> int:
    """Gemm: columns of B or rows of A, unless transposed."""
    transposed = bool(node.attributes.get_int("transB" if index == 1 else "transA", 0))
    return int(transposed) if index == 0 else 1 - int(transposed)


def _matmul(node: ir.Node, index: int, shape: Shape) -> int:
    """MatMul: columns of B or rows of A, behind any batch axes."""
    return len(shape) - (1 if index == 1 else 2)


def _gather(node: ir.Node, index: int, shape: Shape) -> int:
    """Gather: the axis that is looked up; Slice has no such attribute, and is a table's only along its rows."""
    return node.attributes.get_int("axis", 0) % len(shape)


OPERATORS: dict[str, Operator] = {
    "Conv": Operator((1,), _first),
    "ConvTranspose": Operator((1,), _conv_transpose),
    "Gemm": Operator((0, 1), _gemm, always=False),
    "MatMul": Operator((0, 1), _matmul, always=False),
    "Gather": Operator((0,), _gather, always=False),
    "Slice": Operator((0,), _gather, always=False),
    "LSTM": Operator((1, 2), _second),
    "GRU": Operator((1, 2), _second),
    "RNN": Operator((1, 2), _second),
}
