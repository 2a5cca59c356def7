"""Where integers flow in a fully quantized model: which layers compute in int8, which tensors carry codes.

The rules are onnxruntime's: a Conv becomes an integer kernel only between a DequantizeLinear and a
QuantizeLinear, with nothing but an absorbed activation in front of the latter; Gemm and MatMul need no
QuantizeLinear behind them. A tensor made by a float operator keeps its float readers, so that quantizing a layer does
not quantize the residual path around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from ptq_lab.graph.absorbed import behind_activation as behind_activation
from ptq_lab.graph.absorbed import clip_bounds as clip_bounds
from ptq_lab.graph.absorbed import is_ceiling
from ptq_lab.graph.flow import BETWEEN, MOVES, ONE_GRID, SAME_GRID, TAKES_CONSTANTS, Flow
from ptq_lab.graph.lookups import looks_up_rows
from ptq_lab.graph.model import Model, constant, float32, is_float, shape_of
from ptq_lab.graph.operators import OPERATORS
from ptq_lab.graph.targets import Skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer that computes in integers.

    Attributes
    ----------
    node, op_type : str
    weight : str
        Name of its weight.
    shape : tuple of int
        Of the weight.
    axis : int
        Output channels of the weight.
    bias : str
        Name of its bias, empty if it has none.
    source : str
        The tensor it reads.
    output : str
        The tensor behind its absorbed activation, or its own output.
    bytes : int
        Of the weight in float.
    """

    node: str
    op_type: str
    weight: str
    shape: tuple[int, ...]
    axis: int
    bias: str
    source: str
    output: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A tensor that carries codes.

    Attributes
    ----------
    tensor : str
    node : str
        What makes it; empty for an input of the model.
    integer : bool
        Made by an integer kernel: every reader gets the dequantized tensor. Otherwise only `readers` do.
    readers : tuple of (node, input index)
        Who reads the codes.
    never_negative : bool
        Behind a ReLU or the like: zero must be the lowest code.
    limit : float or None
        Upper end of a Clip; no range may reach beyond it.
    grid : str
        Tensors with the same non-empty grid share scale and zero point.
    ceiling : str
        The Min that makes the tensor from what its kernel makes, when that limits every channel by itself; becomes
        a Min of codes.
    known : (low, high) or None
        Range of a constant that carries codes; there is nothing to measure.
    """

    tensor: str
    node: str
    integer: bool
    readers: tuple[tuple[str, int], ...] = ()
    never_negative: bool = False
    limit: float | None = None
    grid: str = ""
    ceiling: str = ""
    known: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """All integer layers, all tensors that carry codes (in the order of the graph), and what stays float."""

    layers: tuple[Layer, ...]
    places: tuple[Place, ...]
    skips: tuple[Skip, ...] = ()

    @property
    def measured(self) -> tuple[str, ...]:
        """The tensors whose ranges have to be measured: all that carry codes but constants."""
        return tuple(place.tensor for place in self.places if place.known is None)


def place_integers(model: Model, skipped: dict[str, str], flow: Flow = Flow()) -> Placement:  # noqa: B008 - frozen
    """Decide where integers flow.

    Parameters
    ----------
    model : Model
        With BatchNormalization folded.
    skipped : dict of str to str
        Nodes to leave in float, each with the pattern that says so.
    flow : Flow
        Which operators the device computes in integers.
    """
    if flow.everything:
        model = model.clone()
        ShapeInferencePass()(model.ir_model)  # element types tell which results carry codes
    return _Placing(model.graph, skipped, flow).run()


@dataclass(slots=True)
class _Placing:
    graph: ir.Graph
    skipped: dict[str, str]
    flow: Flow
    layers: dict[str, Layer] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    skips: list[Skip] = field(default_factory=list)

    def run(self) -> Placement:
        for node in self.graph:
            if node.domain in ("", "ai.onnx") and node.op_type in (*self.flow.layers, *self.flow.reasons):
                self._consider_layer(node)
        needed = self._needed()
        for node in self.graph:
            if node.name in self.layers:
                self._place_layer(node)
            elif node.name in self.skipped or node.name in {skip.node for skip in self.skips}:
                continue
            elif self.flow.everything:
                self._place_any(node)
            elif node.op_type in self.flow.between:
                self._place_between(node, needed)
            elif node.op_type in self.flow.residuals:
                self._place_residual(node)
        order = {value.name: index for index, value in enumerate(self._values())}
        places = sorted(self.places.values(), key=lambda place: order.get(place.tensor, -1))
        return Placement(tuple(self.layers.values()), tuple(places), tuple(self.skips))

    def _values(self) -> Iterator[ir.Value]:
        yield from self.graph.inputs
        for node in self.graph:
            yield from node.outputs

    def _consider_layer(self, node: ir.Node) -> None:
        index = OPERATORS[node.op_type].weights[0] if node.op_type not in self.flow.layers else 1
        value = node.inputs[index] if len(node.inputs) > index else None
        tensor = constant(value)
        if value is None or tensor is None:
            if value is not None and node.op_type == "MatMul":
                self.skips.append(_two_activations(node, value))
            return
        if node.op_type not in self.flow.layers and not is_float(tensor):
            return  # sizes that are looked up
        if node.op_type == "Slice" and not looks_up_rows(node):
            return  # a constant, but no table
        shape = shape_of(tensor)
        reason, setting = self._why_float(node, tensor, shape)
        if reason:
            self.skips.append(
                Skip(
                    node=node.name or "",
                    op_type=node.op_type,
                    tensor=value.name or "",
                    shape=shape,
                    bytes=tensor.nbytes,
                    reason=reason,
                    setting=setting,
                )
            )
            return
        source, bias = node.inputs[0], node.inputs[2] if len(node.inputs) > 2 else None
        self.layers[node.name or ""] = Layer(
            node=node.name or "",
            op_type=node.op_type,
            weight=value.name or "",
            shape=shape,
            axis=OPERATORS[node.op_type].axis(node, 1, shape),
            bias=(bias.name or "") if bias is not None else "",
            source=(source.name or "") if source is not None else "",
            output=behind_activation(node.outputs[0])[0].name or "",
            bytes=tensor.nbytes,
        )

    def _why_float(self, node: ir.Node, tensor: ir.TensorProtocol, shape: tuple[int, ...]) -> tuple[str, str]:
        pattern = self.skipped.get(node.name or "")
        if pattern is not None:
            return f"skip_quant_node={pattern}", f"skip_quant_node={pattern}"
        if node.op_type not in self.flow.layers:
            return self.flow.reasons[node.op_type], "target_device"
        if tensor.dtype != ir.DataType.FLOAT:
            return f"its weight is {tensor.dtype}, and integer kernels replace float32 ones", ""
        if len(shape) < 2 or (node.op_type in ("Gemm", "MatMul") and len(shape) > 2):
            return f"onnxruntime has no integer kernel for a weight of {len(shape)} axes here", ""
        if constant(node.inputs[0]) is not None:
            return "it reads a constant", ""
        attributes = node.attributes
        if node.op_type == "ConvTranspose" and shape[1] > 1 and attributes.get_int("group", 1) > 1:
            return "the output channels of its weight are spread over two axes", ""
        if not self.flow.shared_weights and len(node.inputs[1].uses() if node.inputs[1] else ()) > 1:
            return "other nodes use its weight as well, which the device does not allow", "target_device"
        if node.op_type == "Gemm" and (
            attributes.get_float("alpha", 1.0) != 1.0
            or attributes.get_float("beta", 1.0) != 1.0
            or attributes.get_int("transA", 0) != 0
        ):
            return "Gemm with alpha, beta or transA has no integer kernel", ""
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        return ("its bias is computed at run time", "") if bias is not None and constant(bias) is None else ("", "")

    def _needed(self) -> set[str]:
        """Return the tensors whose codes reach an integer layer, possibly through operators in between."""
        needed: set[str] = set()
        for node in reversed(list(self.graph)):
            outputs = {value.name or "" for value in node.outputs}
            behind = behind_activation(node.outputs[0])[0].name or "" if node.outputs else ""
            wanted = node.op_type in self.flow.between and bool((outputs | {behind}) & needed)
            if node.name in self.layers:
                needed.add(self.layers[node.name or ""].source)
            elif wanted and node.name not in self.skipped:
                needed.update(value.name or "" for value in _activations(node))
        return needed

    def _place_layer(self, node: ir.Node) -> None:
        layer = self.layers[node.name or ""]
        source = node.inputs[0]
        assert source is not None  # a layer always reads something
        self._read(source, node, 0)
        if self.flow.everything or layer.op_type in self.flow.outputs:
            self._add(node)

    def _place_between(self, node: ir.Node, needed: set[str]) -> None:
        inputs = _activations(node)
        output, _ = behind_activation(node.outputs[0])
        made_by_integers = [value for value in inputs if self._is_integer(value)]
        with_constant = node.op_type in ("Add", "Mul") and len(inputs) < 2
        if not made_by_integers or with_constant or (output.name or "") not in needed:
            return
        for index, value in enumerate(node.inputs):
            if value is not None and value in inputs:
                self._read(value, node, index)
        self._add(node)
        if node.op_type in SAME_GRID or node.op_type in ONE_GRID:
            self._join([value.name or "" for value in (*inputs, output)])

    def _place_residual(self, node: ir.Node) -> None:
        """Let a shortcut carry codes when the other operand comes straight from a convolution."""
        values = _activations(node)
        makers = {value: value.producer() for value in values if len(value.uses()) == 1}
        made = [value for value, maker in makers.items() if maker is not None and _is_convolution(maker, self.layers)]
        if len(values) < 2 or not made:
            return
        for index, value in enumerate(node.inputs):
            if value is not None and value is not made[0]:
                self._read(value, node, index)

    def _place_any(self, node: ir.Node) -> None:
        """Let an operator read and make codes, whatever it computes, if its result is float."""
        results = [value for value in node.outputs if value.dtype == ir.DataType.FLOAT]
        if not results or node.op_type == "Constant" or self._is_integer(behind_activation(results[0])[0]):
            return
        inputs = []
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype == ir.DataType.FLOAT and constant(value) is None:
                inputs.append(value.name or "")
                self._read(value, node, index)
            elif value is not None and node.op_type in TAKES_CONSTANTS:
                self._read_constant(value, node, index)
        for value in results:
            self._add(node, value)
        if inputs and node.op_type in (*MOVES, *ONE_GRID):
            self._join([*inputs, *(behind_activation(value)[0].name or "" for value in results)])

    def _read_constant(self, value: ir.Value, node: ir.Node, index: int) -> None:
        tensor = constant(value)
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or not np.isfinite(numbers := float32(tensor)).all():
            return
        self._read(value, node, index)
        ends = float(numbers.min(initial=0.0)), float(numbers.max(initial=0.0))
        self.places[value.name or ""] = replace(self.places[value.name or ""], node="", known=ends)

    def _is_integer(self, value: ir.Value) -> bool:
        place = self.places.get(value.name or "")
        return place is not None and place.integer

    def _read(self, value: ir.Value, node: ir.Node, index: int) -> None:
        name = value.name or ""
        if name not in self.places:
            producer = value.producer()
            never_negative, limit = _bounds(value, self.places)
            self.places[name] = Place(
                tensor=name,
                node=(producer.name or "") if producer else "",
                integer=False,
                never_negative=never_negative,
                limit=limit,
            )
        place = self.places[name]
        self.places[name] = replace(place, readers=(*place.readers, (node.name or "", index)))

    def _add(self, node: ir.Node, value: ir.Value | None = None) -> None:
        output, _ = behind_activation(node.outputs[0] if value is None else value)
        name = output.name or ""
        never_negative, limit = _bounds(output, self.places)
        maker = output.producer()
        self.places[name] = Place(
            tensor=name,
            node=node.name or "",
            integer=True,
            never_negative=never_negative,
            limit=limit,
            ceiling=(maker.name or "") if maker is not None and maker is not node and maker.op_type == "Min" else "",
        )

    def _join(self, names: list[str]) -> None:
        """Let tensors share one grid; whoever shares with one of them already comes along."""
        old = {self.places[name].grid for name in names} - {""}
        grid = min(old, default=names[0])
        for name, place in self.places.items():
            if name in names or place.grid in old:
                self.places[name] = replace(place, grid=grid)


def _is_convolution(node: ir.Node, layers: Mapping[str, Layer]) -> bool:
    return node.name in layers and node.op_type in ("Conv", "ConvTranspose")


def _two_activations(node: ir.Node, value: ir.Value) -> Skip:
    return Skip(
        node=node.name or "",
        op_type=node.op_type,
        tensor=value.name or "",
        shape=(),
        bytes=0,
        reason="it multiplies two activations, such as attention scores; those stay float",
    )


def _activations(node: ir.Node) -> list[ir.Value]:
    """Return the inputs of an operator that carry activations, not parameters such as a shape."""
    count = len(node.inputs) if node.op_type in ("Add", "Mul", "Concat") else 1
    return [value for value in node.inputs[:count] if value is not None and constant(value) is None]


def _bounds(value: ir.Value, places: dict[str, Place]) -> tuple[bool, float | None]:
    """Return what the operator that makes a tensor guarantees: never negative, and an upper limit."""
    node = value.producer()
    if node is None:
        return False, None
    if node.op_type in ("Relu", "Sigmoid"):
        return True, 1.0 if node.op_type == "Sigmoid" else None
    if node.op_type == "Clip":
        low, high = clip_bounds(node)
        return low is not None and low >= 0.0, high
    if is_ceiling(node) and node.inputs[0] is not None:
        return _bounds(node.inputs[0], places)
    inputs = [places.get(source.name or "") for source in _activations(node)]
    if node.op_type in BETWEEN and node.op_type != "LeakyRelu" and inputs:
        return all(place is not None and place.never_negative for place in inputs), None
    return False, None
