"""Integer products written into a graph: activations quantized while the model runs, in operators of ONNX alone.

Two forms. With one scale per tensor it is ``DynamicQuantizeLinear -> MatMulInteger -> Cast -> Mul``, which onnxruntime
fuses. With one scale per row the rows are quantized by ``QuantizeLinear`` along axis 0, and the sums come back through
a ``DequantizeLinear`` of int32 along axis 0. The obvious ``Cast -> Mul`` would be fused there too, with a bias that
follows added *before* the scale of its row, which is wrong (seen in onnxruntime 1.32). It does the same with the scales
of the columns where the weight has batch axes, so that a ``DequantizeLinear`` takes the sums there as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ptq_lab.graph.decode import GraphWriter, StoredWeight
from ptq_lab.graph.dynamic import DynamicLayer
from ptq_lab.graph.fold import drop_unused
from ptq_lab.graph.lookups import row_lookups
from ptq_lab.graph.model import Model, constant, constants
from ptq_lab.graph.opset import raise_opset
from ptq_lab.graph.rewrite import replace_lookup, replace_whole, take_place
from ptq_lab.graph.targets import weight_of
from ptq_lab.numerics import QuantizedWeight

TENSOR_OPSET = 11  # DynamicQuantizeLinear
ROWS_OPSET = 14  # QuantizeLinear along an axis; a Reshape that takes sizes of 0 as they are
_REDUCE_TAKES_AXES = 18  # from this opset as an input; before, as an attribute

_MIDDLE = np.array(128, np.uint8)
_PER_STEP = np.array(1 / 127, np.float32)
_SMALLEST = np.array(2.0**-120, np.float32)  # what a row of zeros is divided by


def products_opset(*, by_row: bool) -> int:
    """Return the lowest opset that can quantize activations at run time."""
    return ROWS_OPSET if by_row else TENSOR_OPSET


def insert_products(
    model: Model, layers: Sequence[DynamicLayer], weights: Mapping[str, QuantizedWeight], *, by_row: bool
) -> Model:
    """Return a copy whose products are computed in integers and whose tables are looked up as codes.

    Parameters
    ----------
    model : Model
        Not changed.
    layers : sequence of DynamicLayer
    weights : mapping
        Name of a weight to its symmetric 8-bit codes: those of the layers, and tables whose rows are looked up.
    by_row : bool
        One scale per row of an activation instead of one for all of it.
    """
    raised = raise_opset(model, products_opset(by_row=by_row))
    quantized = raised if raised is not model else model.clone()
    graph = quantized.graph
    write = GraphWriter(graph)
    holders, nodes = constants(graph), {node.name or "": node for node in graph}
    stored = {name: _store(graph, write, holders[name], weight) for name, weight in weights.items()}
    activations = _Rows(write, quantized.opset) if by_row else _Tensors(write)
    for layer in layers:
        node = nodes[layer.node]
        write.before = node
        if layer.weight:
            weight = _operand(write, node, stored[layer.weight], weights[layer.weight])
            product = activations.times(_turned(write, node, 0), weight)
        else:
            product = _of_activations(write, node, activations)
        take_place(graph, node, _with_bias(write, node, product))
    _remove_unread(graph)
    for name, codes in stored.items():
        _serve_the_rest(graph, write, holders[name], codes)
    drop_unused(graph)
    return quantized


@dataclass(frozen=True, slots=True)
class _Weight:
    """The right operand of a product: codes in the graph, scale per column or for all, and its shape."""

    codes: ir.Value
    scale: NDArray[np.float32]
    shape: tuple[int, ...]


class _Tensors:
    """Activations with one scale each."""

    def __init__(self, write: GraphWriter) -> None:
        self._write = write
        self._quantized: dict[ir.Value, tuple[ir.Value, ...]] = {}

    def times(self, left: ir.Value, weight: _Weight) -> ir.Value:
        """Return an activation times a weight."""
        codes, step, zero_point = self._quantize(left)
        sums = self._write.node("MatMulInteger", [codes, weight.codes, zero_point])
        if len(weight.shape) > 2 and weight.scale.ndim:
            return _dequantized(self._write, sums, step, weight.scale)
        return self._scaled(sums, step, self._write.constant(weight.scale))

    def times_activation(self, left: ir.Value, right: ir.Value) -> ir.Value:
        """Return the product of two activations."""
        (first, step, zero), (second, other_step, other_zero) = self._quantize(left), self._quantize(right)
        sums = self._write.node("MatMulInteger", [first, second, zero, other_zero])
        return self._scaled(sums, step, other_step)

    def _quantize(self, value: ir.Value) -> tuple[ir.Value, ...]:
        """Return codes, scale and zero point, once for all who read the activation."""
        if value not in self._quantized:
            self._quantized[value] = self._write.nodes("DynamicQuantizeLinear", [value], outputs=3)
        return self._quantized[value]

    def _scaled(self, sums: ir.Value, step: ir.Value, scale: ir.Value) -> ir.Value:
        numbers = self._write.node("Cast", [sums], {"to": ir.DataType.FLOAT})
        return self._write.node("Mul", [numbers, self._write.node("Mul", [step, scale])])


class _Rows:
    """Activations with a scale per row; what is no matrix is made one for the while."""

    def __init__(self, write: GraphWriter, opset: int) -> None:
        self._write = write
        self._opset = opset
        self._middle = write.constant(_MIDDLE)
        self._quantized: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}

    def times(self, left: ir.Value, weight: _Weight) -> ir.Value:
        """Return an activation times a weight."""
        codes, steps = self._quantize(left)
        if len(weight.shape) == 2:
            sums = self._write.node("MatMulInteger", [codes, weight.codes, self._middle])
            product = _dequantized(self._write, sums, steps, weight.scale, axis=0)
            columns = self._write.constant(np.array(weight.shape[-1:], np.int64))
            return product if _is_matrix(left) else self._reshape(product, self._leading(left), columns)
        rows = self._write.node("Reshape", [codes, self._shape(left)], {"allowzero": 1})
        sums = self._write.node("MatMulInteger", [rows, weight.codes, self._middle])
        one = self._write.constant(np.array([1], np.int64))
        steps = self._reshape(steps, self._leading(left), one)
        steps = self._write.node("Expand", [steps, self._joined(self._leading(sums), one)])
        steps = self._write.node("Reshape", [steps, self._write.constant(np.array([-1], np.int64))])
        flat = self._write.node("Flatten", [sums], {"axis": -1})
        product = _dequantized(self._write, flat, steps, weight.scale, axis=0)
        return self._write.node("Reshape", [product, self._shape(sums)], {"allowzero": 1})

    def _quantize(self, value: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Return the codes of all rows as a matrix and their scales, once for all who read the activation."""
        if value not in self._quantized:
            write = self._write
            rows = value if _is_matrix(value) else write.node("Flatten", [value], {"axis": -1})
            reach = self._largest(write.node("Abs", [rows]))
            steps = write.node("Mul", [reach, write.constant(_PER_STEP)])
            steps = write.node("Max", [steps, write.constant(_SMALLEST)])
            middles = write.node("Expand", [self._middle, write.node("Shape", [steps])])
            self._quantized[value] = write.node("QuantizeLinear", [rows, steps, middles], {"axis": 0}), steps
        return self._quantized[value]

    def _largest(self, rows: ir.Value) -> ir.Value:
        if self._opset < _REDUCE_TAKES_AXES:
            return self._write.node("ReduceMax", [rows], {"axes": [-1], "keepdims": 0})
        last = self._write.constant(np.array([-1], np.int64))
        return self._write.node("ReduceMax", [rows, last], {"keepdims": 0})

    def _shape(self, value: ir.Value) -> ir.Value:
        return self._write.node("Shape", [value])

    def _leading(self, value: ir.Value) -> ir.Value:
        """Return the sizes of all axes but the last."""
        ends = [self._write.constant(np.array([end], np.int64)) for end in (0, -1)]
        return self._write.node("Slice", [self._shape(value), *ends])

    def _joined(self, *shapes: ir.Value) -> ir.Value:
        return self._write.node("Concat", shapes, {"axis": 0})

    def _reshape(self, value: ir.Value, *shapes: ir.Value) -> ir.Value:
        return self._write.node("Reshape", [value, self._joined(*shapes)], {"allowzero": 1})


def _dequantized(
    write: GraphWriter, sums: ir.Value, steps: ir.Value, scale: NDArray[np.float32], *, axis: int | None = None
) -> ir.Value:
    """Scale rows (or all), then columns; the largest column scale goes first, so that nothing overflows on the way."""
    largest = np.asarray(scale if scale.ndim == 0 else np.abs(scale).max() or np.float32(1))  # 0 as alpha is
    steps = write.node("Mul", [steps, write.constant(largest)])
    numbers = write.node("DequantizeLinear", [sums, steps], {} if axis is None else {"axis": axis})
    return numbers if scale.ndim == 0 else write.node("Mul", [numbers, write.constant(scale / largest)])


def _store(graph: ir.Graph, write: GraphWriter, holder: ir.Value, weight: QuantizedWeight) -> StoredWeight:
    """Store a weight, and replace the lookups of its rows."""
    tensor = constant(holder)
    assert tensor is not None  # constants() returns nothing else
    lookups = row_lookups(graph, holder)
    stored = StoredWeight(write, holder.name or "", weight, by_row=bool(lookups))
    for node in lookups:
        replace_lookup(graph, write, node, stored, tensor.dtype)
    return stored


def _serve_the_rest(graph: ir.Graph, write: GraphWriter, holder: ir.Value, stored: StoredWeight) -> None:
    """Decode a weight for those who read it otherwise, such as a subgraph, so that it is not stored twice."""
    if not holder.uses():
        return
    tensor, producer = constant(holder), holder.producer()
    assert tensor is not None  # constants() returns nothing else
    if producer is None:
        del graph.initializers[holder.name or ""]
    replace_whole(graph, write, holder, stored, tensor.dtype)
    if producer is not None:
        graph.remove(producer, safe=True)


def _operand(write: GraphWriter, node: ir.Node, stored: StoredWeight, weight: QuantizedWeight) -> _Weight:
    """Return a stored weight as a node reads it: through a Transpose, transposed by Gemm, and times its alpha."""
    right = node.inputs[1]
    assert right is not None  # a product has two operands
    order = weight_of(right)[1]
    codes, shape = stored.codes, weight.codes.shape
    if _turns(node, 1):
        order = (1, 0) if order is None else (order[1], order[0])
    if order is not None:
        codes = write.node("Transpose", [codes], {"perm": order})  # onnxruntime does this once, when it loads the model
        shape = tuple(shape[axis] for axis in order)
    gain = node.attributes.get_float("alpha", 1.0) if node.op_type == "Gemm" else 1.0
    return _Weight(codes, np.asarray(weight.scale * np.float32(gain), np.float32), shape)


def _of_activations(write: GraphWriter, node: ir.Node, activations: _Tensors | _Rows) -> ir.Value:
    assert isinstance(activations, _Tensors)  # the columns of an activation have no scale of their own
    product = activations.times_activation(_turned(write, node, 0), _turned(write, node, 1))
    gain = node.attributes.get_float("alpha", 1.0) if node.op_type == "Gemm" else 1.0
    return product if gain == 1.0 else write.node("Mul", [product, write.constant(np.array(gain, np.float32))])


def _turned(write: GraphWriter, node: ir.Node, index: int) -> ir.Value:
    """Return an operand, transposed if the node would."""
    value = node.inputs[index]
    assert value is not None  # a product has two operands
    return write.node("Transpose", [value], {"perm": (1, 0)}) if _turns(node, index) else value


def _turns(node: ir.Node, index: int) -> bool:
    return node.op_type == "Gemm" and node.attributes.get_int(("transA", "transB")[index], 0) != 0


def _with_bias(write: GraphWriter, node: ir.Node, product: ir.Value) -> ir.Value:
    """Add the bias of a Gemm."""
    bias = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
    if bias is None:
        return product
    beta = node.attributes.get_float("beta", 1.0)
    if beta != 1.0:
        bias = write.node("Mul", [bias, write.constant(np.array(beta, np.float32))])
    return write.node("Add", [product, bias])


def _is_matrix(value: ir.Value) -> bool:
    return value.shape is not None and len(value.shape) == 2


def _remove_unread(graph: ir.Graph) -> None:
    """Remove the constants and their Transposes whose readers are gone."""
    for node in reversed(list(graph)):
        read = any(value.uses() or value.is_graph_output() for value in node.outputs)
        if node.op_type in ("Constant", "Identity", "Transpose") and not read:
            graph.remove(node, safe=True)
