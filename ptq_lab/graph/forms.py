"""The operators that layers are computed with, in every form tools write them in: one table.

A Conv may be written as ``Conv``, ``FusedConv``, ``QLinearConv`` or ``ConvInteger``; all of them are of one kind, and
have their operands in the same roles, though at other inputs. To add a form, add a row.

Sources: the operators of ONNX, and onnxruntime's ``ContribOperators.md`` for those of ``com.microsoft``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

DOMAINS = ("", "ai.onnx", "com.microsoft", "com.ms.internal.nhwc")
ACTIVATIONS = frozenset(
    {"Relu", "Clip", "LeakyRelu", "PRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Elu", "Selu", "Tanh", "Gelu", "Mish"}
    | {"Softplus", "ThresholdedRelu", "QLinearLeakyRelu", "QLinearSigmoid", "QuickGelu", "FastGelu"}
)
TRANSPARENT = ("QuantizeLinear", "DequantizeLinear", "Cast", "Identity")
"""What a tensor keeps its meaning behind."""


@dataclass(frozen=True, slots=True)
class Slot:
    """An operand: at which input it is, and at which ones its scale and zero point are, if it is given as codes."""

    index: int
    scale: int | None = None
    zero_point: int | None = None
    codes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One way to write a kind of layer.

    Attributes
    ----------
    kind : str
        What all forms of the same layer share.
    slots : tuple of Slot
        The operands, in the same order (their *roles*) for all forms of a kind.
    weights : tuple of int
        Roles that a constant may have.
    result : Slot or None
        Where scale and zero point of the output are, if that is given as codes.
    bias : int or None
        Which input.
    """

    kind: str
    slots: tuple[Slot, ...]
    weights: tuple[int, ...] = (1,)
    result: Slot | None = None
    bias: int | None = None

    @property
    def sums(self) -> bool:
        """Whether it gives sums of products of codes, whose scale is applied behind it."""
        return any(slot.codes and slot.scale is None for slot in self.slots)


_FLOATS = (Slot(0), Slot(1))
_LINEAR = (Slot(0, 1, 2, codes=True), Slot(3, 4, 5, codes=True))
_INTEGERS = (Slot(0, None, 2, codes=True), Slot(1, None, 3, codes=True))


def _recurrent(*, codes: bool = False) -> tuple[Slot, ...]:
    if codes:
        return (Slot(0), Slot(1, 8, 9, codes=True), Slot(2, 10, 11, codes=True))
    return (Slot(0), Slot(1), Slot(2))


FORMS: dict[str, Form] = {
    "Conv": Form(kind="Conv", slots=_FLOATS, bias=2),
    "FusedConv": Form(kind="Conv", slots=_FLOATS, bias=2),
    "QLinearConv": Form(kind="Conv", slots=_LINEAR, result=Slot(0, 6, 7), bias=8),
    "ConvInteger": Form(kind="Conv", slots=_INTEGERS),
    "ConvTranspose": Form(kind="ConvTranspose", slots=_FLOATS, bias=2),
    "MatMul": Form(kind="MatMul", slots=_FLOATS, weights=(0, 1)),
    "FusedMatMul": Form(kind="MatMul", slots=_FLOATS, weights=(0, 1)),
    "Gemm": Form(kind="MatMul", slots=_FLOATS, weights=(0, 1), bias=2),
    "FusedGemm": Form(kind="MatMul", slots=_FLOATS, weights=(0, 1), bias=2),
    "QLinearMatMul": Form(kind="MatMul", slots=_LINEAR, weights=(0, 1), result=Slot(0, 6, 7)),
    "QGemm": Form(kind="MatMul", slots=_LINEAR, weights=(0, 1), result=Slot(0, 7, 8), bias=6),
    "MatMulInteger": Form(kind="MatMul", slots=_INTEGERS, weights=(0, 1)),
    "MatMulIntegerToFloat": Form(
        kind="MatMul", slots=(Slot(0, 2, 4, codes=True), Slot(1, 3, 5, codes=True)), weights=(0, 1), bias=6
    ),
    "DynamicQuantizeMatMul": Form(kind="MatMul", slots=(Slot(0), Slot(1, 2, 3, codes=True)), bias=4),
    "MatMulNBits": Form(kind="MatMul", slots=(Slot(0), Slot(1, 2, 3)), bias=5),
    "Gather": Form(kind="Gather", slots=_FLOATS, weights=(0,)),
    "Slice": Form(kind="Gather", slots=_FLOATS, weights=(0,)),
    "GatherBlockQuantized": Form(kind="Gather", slots=(Slot(0, 2, 3), Slot(1)), weights=(0,)),
    "LSTM": Form(kind="LSTM", slots=_recurrent(), weights=(1, 2), bias=3),
    "GRU": Form(kind="GRU", slots=_recurrent(), weights=(1, 2), bias=3),
    "RNN": Form(kind="RNN", slots=_recurrent(), weights=(1, 2), bias=3),
    "DynamicQuantizeLSTM": Form(kind="LSTM", slots=_recurrent(codes=True), weights=(1, 2), bias=3),
    "Attention": Form(kind="Attention", slots=_FLOATS, bias=2),
    "QAttention": Form(
        kind="Attention", slots=(Slot(0, 3, 6, codes=True), Slot(1, 4, 7, codes=True)), bias=2
    ),
}  # fmt: skip

INTEGER_RESULTS = {"QLinearAdd": (6, 7), "QLinearMul": (6, 7), "QLinearLeakyRelu": (3, 4), "QLinearSigmoid": (3, 4)}
"""Other operators that give codes: at which inputs scale and zero point of what they give are."""


def form_of(node: ir.Node) -> Form | None:
    """Return the form that a node has, if it is a layer at all.

    Examples
    --------
    >>> form_of(ir.node("QGemm", [], domain="com.microsoft")).kind, form_of(ir.node("Relu", []))
    ('MatMul', None)
    """
    return FORMS.get(node.op_type) if node.domain in DOMAINS else None


def operand(node: ir.Node, index: int | None) -> ir.Value | None:
    """Return an input of a node, if it has it."""
    return node.inputs[index] if index is not None and index < len(node.inputs) else None


@dataclass(slots=True)
class Constants:
    """Which values of a graph never change, however they are made."""

    fixed: set[ir.Value] = field(default_factory=set)

    @classmethod
    def of(cls, graph: ir.Graph) -> Constants:
        """Look at all nodes, in their order."""
        found = cls()
        for node in graph:
            if node.op_type.startswith(("Random", "Multinomial")) or _has_subgraph(node):
                continue
            if (node.inputs or node.op_type == "Constant") and all(
                value is None or value in found for value in node.inputs
            ):
                found.fixed.update(node.outputs)
        return found

    def __contains__(self, value: ir.Value) -> bool:
        return value in self.fixed or (value.const_value is not None and not value.is_graph_input())


def _has_subgraph(node: ir.Node) -> bool:
    kinds = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    return any(isinstance(attribute, ir.Attr) and attribute.type in kinds for attribute in node.attributes.values())
