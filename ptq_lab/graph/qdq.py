"""Integers written into a graph: QuantizeLinear and DequantizeLinear where onnxruntime turns them into kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ptq_lab.graph.added_bias import set_added_bias
from ptq_lab.graph.decode import CODES, SCALE, GraphWriter, StoredCodes
from ptq_lab.graph.fold import drop_unused
from ptq_lab.graph.model import Model, constant, constants, float32
from ptq_lab.graph.opset import raise_opset
from ptq_lab.graph.placement import Layer, Place, Placement
from ptq_lab.graph.shield import shield_layers
from ptq_lab.numerics import QuantizedWeight, dequantize_weight

PACKED = "packed"
QDQ_OPSET = 13  # QuantizeLinear and DequantizeLinear with an axis
_BIAS_LIMIT = 2**30  # of an int32 bias: half of what fits, so that the sum in the kernel does not overflow


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How a device wants integers written; the default is onnxruntime's.

    Attributes
    ----------
    biases : {"int32", "float", "rounded"}
        Codes behind a DequantizeLinear; float numbers as they are; or the float numbers that the codes stand for.
    unsigned_tensors : bool
        Weights with a single scale are stored as uint8: the same numbers, code and zero point moved up by 128.
    weight_pairs : bool
        Weights stay float numbers, already rounded, behind QuantizeLinear and DequantizeLinear.
    shield : bool
        Keep onnxruntime from quantizing what stays float, see `ptq_lab.graph.shield`; other runtimes do not need it.
    """

    biases: Literal["int32", "float", "rounded"] = "int32"
    unsigned_tensors: bool = False
    weight_pairs: bool = False
    shield: bool = True


@dataclass(frozen=True, slots=True)
class Grid:
    """Scale and zero point of one activation tensor, uint8 or int8."""

    scale: np.float32
    zero_point: NDArray[Any]


def insert_qdq(
    model: Model,
    placement: Placement,
    grids: Mapping[str, Grid],
    weights: Mapping[str, QuantizedWeight],
    biases: Mapping[str, NDArray[np.float32]],
    *,
    form: Form = Form(),
) -> Model:
    """Return a copy with quantized activations, weights and biases.

    Parameters
    ----------
    model : Model
        Float, BatchNormalization folded; not changed.
    placement : Placement
    grids : mapping
        Activation tensor to its grid; every place needs one.
    weights : mapping
        Layer node to its codes.
    biases : mapping
        Layer node to its float bias, where it has one; that of a MatMul is added in float.
    form : Form
        How the device wants them written.
    """
    raised = raise_opset(model, QDQ_OPSET)
    quantized = raised if raised is not model else model.clone()
    writer = _Writing(quantized.graph, grids, form)
    for place in placement.places:
        writer.place(place)
    for layer in placement.layers:
        writer.layer(layer, weights[layer.node], biases.get(layer.node))
    if form.shield:
        shield_layers(quantized.graph, {layer.node for layer in placement.layers})
    drop_unused(quantized.graph)
    return quantized


def codes_name(tensor: str) -> str:
    """Return what the codes of an activation tensor, a weight or a bias are called in the quantized graph."""
    return f"{tensor}.{CODES}"


def bias_name(layer: Layer) -> str:
    """Return what the bias of a layer is called, whether it had one in the float model or not."""
    return layer.bias or f"{layer.node}.bias"


def bias_codes(
    bias: NDArray[np.float32], source_scale: float, weight_scale: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return int32 codes of a bias and their scale ``source_scale * weight_scale``.

    Raises
    ------
    OverflowError
        If a code would not fit; :func:`safe_weight_scale` prevents it.
    """
    scale = (np.float32(source_scale) * np.broadcast_to(weight_scale, bias.shape)).astype(np.float32)
    codes = np.rint(bias.astype(np.float64) / scale)
    if np.abs(codes).max(initial=0.0) > 2**31 - 1:
        raise OverflowError("a bias does not fit into 32 bits at this scale")
    return codes.astype(np.int32), scale


def safe_weight_scale(
    scale: NDArray[np.float32], bias: NDArray[np.float32] | None, source_scale: float
) -> NDArray[np.float32]:
    """Return weight scales large enough that no bias overflows int32; weights must be rounded to these.

    The original raises the scale but keeps the weight codes of the old one; here the scale comes first.
    """
    if bias is None:
        return scale
    needed = np.abs(bias.astype(np.float64)) / (source_scale * _BIAS_LIMIT)
    smallest = needed if scale.ndim else needed.max(initial=0.0)
    return np.asarray(np.maximum(scale, smallest), np.float32)


class _Writing:
    """One graph being filled with Q/DQ pairs."""

    def __init__(self, graph: ir.Graph, grids: Mapping[str, Grid], form: Form) -> None:
        self._graph = graph
        self._form = form
        self._grids = grids
        self._write = GraphWriter(graph)
        self._nodes = {node.name or "": node for node in graph}
        self._values: dict[str, ir.Value] = {value.name or "": value for value in graph.inputs}
        for node in graph:
            self._values.update({value.name or "": value for value in node.outputs})
        self._constants = constants(graph)
        self._scales: dict[bytes, ir.Value] = {}

    def place(self, place: Place) -> None:
        if place.known is not None:
            self._place_constant(place)
            return
        value = self._values[place.tensor]
        scale, zero_point = self._numbers(place.tensor)
        readers = [(use.node, use.idx) for use in value.uses()]
        if not place.integer:
            meant = set(place.readers)
            readers = [(node, index) for node, index in readers if (node.name, index) in meant]
        self._write.before = self._after(value)
        codes = self._codes(place, value, scale, zero_point)
        codes.name = codes_name(place.tensor)
        dequantized = self._write.node("DequantizeLinear", [codes, scale, zero_point])
        dequantized.shape, dequantized.type = value.shape, value.type
        for node, index in readers:
            node.replace_input_with(index, dequantized)
        if place.integer and value.is_graph_output():
            index = self._graph.outputs.index(value)
            self._graph.outputs[index] = dequantized
            dequantized.name, value.name = value.name, f"{value.name}.float"
        if place.ceiling:
            self._graph.remove(self._nodes[place.ceiling], safe=True)

    def _place_constant(self, place: Place) -> None:
        """Store a constant operand as codes, for those who read it as such."""
        grid, value = self._grids[place.tensor], self._constants[place.tensor]
        tensor = constant(value)
        assert tensor is not None  # placement has looked
        spread = np.iinfo(grid.zero_point.dtype)
        codes = np.rint(float32(tensor) / grid.scale) + np.float32(grid.zero_point)
        codes = np.clip(codes, spread.min, spread.max).astype(spread.dtype)
        self._write.before = next(iter(self._graph))
        scale = np.asarray(grid.scale, np.float32)
        dequantized = self._dequantized(place.tensor, codes, scale, None, grid.zero_point)
        meant = set(place.readers)
        for node, index in [(use.node, use.idx) for use in value.uses()]:
            if (node.name, index) in meant:
                node.replace_input_with(index, dequantized)

    def _codes(self, place: Place, value: ir.Value, scale: ir.Value, zero_point: ir.Value) -> ir.Value:
        """Quantize a tensor; a ceiling per channel becomes a Min of codes, unless no code can lie above it."""
        if not place.ceiling:
            return self._write.node("QuantizeLinear", [value, scale, zero_point])
        unlimited, bounds = self._nodes[place.ceiling].inputs
        tensor = constant(bounds)
        assert unlimited is not None  # placement has looked
        assert tensor is not None
        grid = self._grids[place.tensor]
        spread = np.iinfo(grid.zero_point.dtype)
        limits = np.rint(float32(tensor) / grid.scale) + np.float32(grid.zero_point)
        limits = np.clip(limits, spread.min, spread.max).astype(grid.zero_point.dtype)
        codes = self._write.node("QuantizeLinear", [unlimited, scale, zero_point])
        if limits.min() == spread.max:
            return codes
        codes.type = ir.TensorType(ir.DataType.from_numpy(limits.dtype))
        codes.shape = unlimited.shape
        limited = self._write.node("Min", [codes, self._write.constant(limits)])
        limited.type, limited.shape = codes.type, codes.shape
        return limited

    def layer(self, layer: Layer, weight: QuantizedWeight, bias: NDArray[np.float32] | None) -> None:
        node = self._nodes[layer.node]
        self._write.before = node
        axis = layer.axis if weight.scale.ndim else None
        node.replace_input_with(1, self._weight(layer.weight, weight, axis))
        if bias is not None and layer.op_type == "MatMul":
            set_added_bias(self._graph, node, bias)
        elif bias is not None:
            if len(node.inputs) < 3:
                node.resize_inputs(3)
            node.replace_input_with(2, self._bias(layer, weight, bias))

    def _weight(self, name: str, weight: QuantizedWeight, axis: int | None) -> ir.Value:
        codes: NDArray[Any] = weight.codes
        zero_point: NDArray[Any] = weight.zero_point.astype(codes.dtype)
        if self._form.unsigned_tensors and axis is None:
            codes = (codes.astype(np.int16) + 128).astype(np.uint8)
            zero_point = (zero_point.astype(np.int16) + 128).astype(np.uint8)
        if weight.bits < 8:
            return self._dequantized_packed(name, weight, axis, zero_point)
        if not self._form.weight_pairs:
            return self._dequantized(name, codes, weight.scale, axis, zero_point)
        rounded = self._write.weight(f"{name}.rounded", ir.tensor(dequantize_weight(weight)))
        numbers = [self._write.weight(f"{name}.{SCALE}", ir.tensor(weight.scale)), self._write.constant(zero_point)]
        along = {"axis": axis} if axis is not None else {}
        stored = self._write.node("QuantizeLinear", [rounded, *numbers], along)
        return self._write.node("DequantizeLinear", [stored, *numbers], along)

    def _dequantized_packed(
        self, name: str, weight: QuantizedWeight, axis: int | None, zero_point: NDArray[Any]
    ) -> ir.Value:
        """Unpack codes to the int8 that integer kernels take, which onnxruntime does once, when it loads the file."""
        codes = StoredCodes(self._write, f"{name}.{PACKED}", weight).as_bytes()
        codes.name, codes.shape = codes_name(name), ir.Shape(weight.codes.shape)
        codes.type = ir.TensorType(ir.DataType.INT8)
        scale = self._write.weight(f"{name}.{SCALE}", ir.tensor(weight.scale))
        along = {"axis": axis} if axis is not None else {}
        return self._write.node("DequantizeLinear", [codes, scale, self._write.constant(zero_point)], along)

    def _bias(self, layer: Layer, weight: QuantizedWeight, bias: NDArray[np.float32]) -> ir.Value:
        name = bias_name(layer)
        if self._form.biases == "float":
            return self._write.weight(name, ir.tensor(bias))
        codes, scale = bias_codes(bias, float(self._grids[layer.source].scale), weight.scale)
        if self._form.biases == "rounded":
            return self._write.weight(name, ir.tensor((codes * scale.astype(np.float64)).astype(np.float32)))
        return self._dequantized(name, codes, scale, 0, np.zeros(scale.shape, np.int32))

    def _numbers(self, tensor: str) -> tuple[ir.Value, ir.Value]:
        grid = self._grids[tensor]
        scale = self._write.constant(np.asarray(grid.scale, np.float32))
        return scale, self._write.constant(np.asarray(grid.zero_point))

    def _dequantized(
        self,
        name: str,
        codes: NDArray[Any],
        scale: NDArray[np.float32],
        axis: int | None,
        zero_point: NDArray[Any],
    ) -> ir.Value:
        inputs = [
            self._write.weight(codes_name(name), ir.tensor(codes)),
            self._write.weight(f"{name}.{SCALE}", ir.tensor(scale)),
            self._write.constant(zero_point),
        ]
        return self._write.node("DequantizeLinear", inputs, {"axis": axis} if axis is not None else {})

    def _after(self, value: ir.Value) -> ir.Node | None:
        """Return the node to write in front of: whatever follows the producer of a value."""
        producer = value.producer()
        if producer is None:
            return next(iter(self._graph), None)
        nodes = list(self._graph)
        index = nodes.index(producer)
        return nodes[index + 1] if index + 1 < len(nodes) else None


def float_bias(model: Model, layer: Layer) -> NDArray[np.float32] | None:
    """Return the bias of a layer in float, if it has one."""
    if not layer.bias:
        return None
    tensor = constants(model.graph)[layer.bias].const_value
    assert tensor is not None  # placement keeps constant biases only
    return float32(tensor)
