"""What became of a plan in onnxruntime: which layers run as integer kernels, and which do not and why.

Reads a model that onnxruntime has optimized (see `ptq_lab.runtime.optimized_model`); a Q/DQ model says what is wanted,
only the optimized one says what runs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from ptq_lab.graph.model import Model
from ptq_lab.graph.qdq import codes_name

if TYPE_CHECKING:  # the plan is built from this room's targets, so it lies above
    from ptq_lab.graph.placement import Layer
    from ptq_lab.plan import QuantPlan

INTEGER_KERNELS = {  # operator to the index of its weight
    "QLinearConv": 3,
    "QLinearMatMul": 3,
    "QGemm": 3,
    "MatMulIntegerToFloat": 1,
    "MatMulInteger": 1,
    "ConvInteger": 1,
    "DynamicQuantizeMatMul": 1,
}
FLOAT_KERNELS = ("Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "MatMulNBits")
_MOVES = ("DequantizeLinear", "QuantizeLinear", "Transpose", "Reshape", "Cast", "ReorderInput", "ReorderOutput")
_EIGHT_BITS = (ir.DataType.INT8, ir.DataType.UINT8)
_RENAMED = re.compile(r"^(?:fused )?(.*?)(?:_token_\d+|_nchwc|_nhwc)*$", re.DOTALL)
_NAMED = 4  # layers in a sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerKernel:
    """How one layer runs.

    Attributes
    ----------
    node, op_type : str
        As in the original model.
    kernel : str
        The operator in the optimized model; empty if it was not found there.
    why : str
        Why it computes in float; empty if it computes in integers.
    """

    node: str
    op_type: str
    kernel: str
    why: str = ""

    @property
    def integer(self) -> bool:
        """Whether it computes in integers."""
        return not self.why


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelReport:
    """How all layers of a plan run.

    Attributes
    ----------
    layers : tuple of LayerKernel
        In the order of the plan.
    unasked : tuple of str
        Layers outside the plan whose weights onnxruntime rounded to 8 bits by itself.
    """

    layers: tuple[LayerKernel, ...]
    unasked: tuple[str, ...] = ()

    @property
    def integer(self) -> int:
        """How many layers compute in integers."""
        return sum(layer.integer for layer in self.layers)

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence per reason why layers compute in float, and one about layers quantized unasked."""
        reasons = Counter(layer.why for layer in self.layers if not layer.integer)
        found = [
            f"{count} of {len(self.layers)} layers do not run as int8 ({why}): {_names(self._with(why))}"
            for why, count in reasons.items()
        ]
        if self.unasked:
            layers = "a float layer" if len(self.unasked) == 1 else f"{len(self.unasked)} float layers"
            scales = "one scale for the whole weight"
            found.append(f"onnxruntime rounds {layers} to 8 bits by itself, with {scales}: {_names(self.unasked)}")
        return tuple(found)

    def _with(self, why: str) -> tuple[str, ...]:
        return tuple(layer.node for layer in self.layers if layer.why == why)

    def __str__(self) -> str:
        return f"{self.integer} of {len(self.layers)} layers run as int8"


def count_kernels(optimized: Model, plan: QuantPlan) -> KernelReport:
    """Find every layer of an integer plan in the model that onnxruntime made of it.

    Parameters
    ----------
    optimized : Model
        What onnxruntime runs.
    plan : QuantPlan
        With a placement; without one the report is empty.

    Notes
    -----
    A layer is found by whom its codes go to, else by its node name (onnxruntime adds to it when it changes layouts),
    else by the tensor it makes.

    Examples
    --------
    >>> from ptq_lab.plan import QuantPlan
    >>> from onnx import helper
    >>> x, y = (helper.make_tensor_value_info(name, 1, [2]) for name in "xy")
    >>> from ptq_lab.graph import load_model
    >>> model = load_model(helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "", [x], [y])))
    >>> str(count_kernels(model, QuantPlan(())))
    '0 of 0 layers run as int8'
    """
    planned = plan.placement.layers if plan.placement is not None else ()
    index = _Index(optimized.graph)
    found = {layer.node: index.find(layer) for layer in planned}
    kernels = tuple(_describe(layer, found[layer.node]) for layer in planned)
    matched = {id(node) for node in found.values()}
    codes = {codes_name(layer.weight) for layer in planned}
    unasked = [
        original_name(node)
        for node in optimized.graph
        if id(node) not in matched and (name := _eight_bit_weight(node)) and name.rstrip("_") not in codes
    ]
    return KernelReport(layers=kernels, unasked=tuple(unasked))


def count_layers(optimized: Model) -> tuple[int, int]:
    """Return how many layers of a model that onnxruntime has optimized are integer kernels, and how many there are."""
    integer = sum(node.op_type in INTEGER_KERNELS for node in optimized.graph)
    return integer, integer + sum(node.op_type in FLOAT_KERNELS for node in optimized.graph)


def original_name(node: ir.Node) -> str:
    """Return a node's name without what onnxruntime adds to it.

    Examples
    --------
    >>> [original_name(ir.node("Conv", [], name=name)) for name in ("conv1_token_12", "fused conv2", "y_nchwc")]
    ['conv1', 'conv2', 'y']
    """
    found = _RENAMED.match(node.name or "")
    return found.group(1) if found else node.name or ""


class _Index:
    """Nodes of an optimized graph by what may tell which layer they were."""

    def __init__(self, graph: ir.Graph) -> None:
        kernels = [node for node in graph if node.op_type in INTEGER_KERNELS or node.op_type in FLOAT_KERNELS]
        self._initializers = graph.initializers
        self._by_name = {original_name(node): node for node in kernels}
        self._by_name |= {node.name or "": node for node in kernels}
        self._by_output = {value.name or "": node for node in kernels for value in node.outputs}

    def find(self, layer: Layer) -> ir.Node | None:
        """Return the node that computes a layer; a weight of several layers is told apart by their names."""
        named = self._by_name.get(layer.node)
        readers = self._readers(codes_name(layer.weight))
        if named is not None and (named in readers or not readers):
            return named
        if len(readers) == 1:
            return readers[0]
        outputs = (layer.output, codes_name(layer.output))
        made = (self._by_output.get(name) or self._by_name.get(name) for name in outputs)
        return named or next((node for node in made if node is not None), None)

    def _readers(self, codes: str) -> list[ir.Node]:
        value = self._initializers.get(codes)
        return list(_behind(value)) if value is not None else []


def _behind(value: ir.Value) -> Iterator[ir.Node]:
    """Yield the nodes that use a tensor, looking through those that only move or decode it."""
    for use in value.uses():
        if use.node.op_type in _MOVES:
            yield from _behind(use.node.outputs[0])
        else:
            yield use.node


def _describe(layer: Layer, node: ir.Node | None) -> LayerKernel:
    kernel = node.op_type if node is not None else ""
    why = "" if kernel in INTEGER_KERNELS else _why_float(node)
    return LayerKernel(node=layer.node, op_type=layer.op_type, kernel=kernel, why=why)


def _why_float(node: ir.Node | None) -> str:
    if node is None:
        return "onnxruntime merged them into something else"
    if node.op_type == "MatMulNBits":
        return "MatMulNBits decodes the weight and computes in float"
    if not _reads_codes(node.inputs[0]):
        return f"{node.op_type} reads a tensor that is not quantized"
    output = node.outputs[0]
    readers = sorted({reader.op_type for reader in _behind(output)} - set(INTEGER_KERNELS))
    if output.is_graph_output():
        readers.append("the user of the model")
    told = f"; what it makes is read in float by {', '.join(readers)}" if readers else ""
    return f"onnxruntime keeps {node.op_type}{told}"


def _reads_codes(value: ir.Value | None) -> bool:
    node = value.producer() if value is not None else None
    while node is not None and node.op_type in _MOVES and node.op_type != "DequantizeLinear":
        source = node.inputs[0]
        node = source.producer() if source is not None else None
    return node is not None and node.op_type == "DequantizeLinear"


def _eight_bit_weight(node: ir.Node) -> str:
    """Return the name of the 8-bit constant that a layer computes with, if it does."""
    index = INTEGER_KERNELS.get(node.op_type)
    if index is None and node.op_type not in FLOAT_KERNELS:
        return ""
    index = 1 if index is None else index
    value = node.inputs[index] if len(node.inputs) > index else None
    decoder = value.producer() if value is not None else None
    if decoder is not None and decoder.op_type == "DequantizeLinear":
        value = decoder.inputs[0]
    tensor = value.const_value if value is not None else None
    is_codes = tensor is not None and tensor.dtype in _EIGHT_BITS and node.op_type != "MatMulNBits"
    return (value.name or "") if value is not None and is_codes else ""


def _names(names: tuple[str, ...]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
