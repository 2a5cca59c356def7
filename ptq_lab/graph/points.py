"""Where two forms of a layer hold the same numbers: behind the bias, the normalisation and the activation of both.

One tool adds a bias inside a layer, another behind it; BatchNormalization may be folded into the weights; a Relu may be
part of the grid on which a result is rounded. Results are compared as far in front as they mean the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ptq_lab.graph.forms import ACTIVATIONS, INTEGER_RESULTS, TRANSPARENT, Constants, form_of, operand
from ptq_lab.graph.found_layers import FoundLayer, FoundModel
from ptq_lab.graph.matching import Pair
from ptq_lab.graph.model import constant, float32

_CODERS = ("QuantizeLinear", "DynamicQuantizeLinear", "DequantizeLinear")
_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE}
_KEEP_TYPE = ACTIVATIONS | {"Add", "Sub", "Mul", "Div", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Pad"}
_KEEP_TYPE |= {"ReduceMean", "Reshape", "Flatten", "Transpose", "Slice", "Squeeze", "Unsqueeze", "BatchNormalization"}
_STAGES = ("bias", "norm", "activation")


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """A tensor, and the grid it is on if it holds codes.

    Attributes
    ----------
    tensor : str
    dtype : onnx_ir.DataType
        Of the tensor.
    scale : float or None
        Real units per step; ``None`` for real numbers.
    zero_point : int
    """

    tensor: str
    dtype: ir.DataType
    scale: float | None = None
    zero_point: int = 0

    def real(self, values: NDArray[np.generic]) -> NDArray[np.float32]:
        """Return real numbers.

        Examples
        --------
        >>> Point("x", ir.DataType.UINT8, 0.5, 128).real(np.array([128, 130], np.uint8)).tolist()
        [0.0, 1.0]
        """
        numbers = values.astype(np.float32)
        return numbers if self.scale is None else (numbers - np.float32(self.zero_point)) * np.float32(self.scale)

    def stored(self, numbers: NDArray[np.float32]) -> NDArray[np.generic]:
        """Return real numbers as the tensor holds them."""
        kind = self.dtype.numpy()
        if self.scale is None:
            return np.asarray(numbers, kind)
        limits = np.iinfo(kind)
        codes = np.rint(numbers / np.float32(self.scale)) + self.zero_point
        return np.asarray(np.clip(codes, limits.min, limits.max), kind)


@dataclass(frozen=True, slots=True, eq=False)
class _Result:
    """A layer's result at a stage, and where scale and zero point are if it holds codes."""

    value: ir.Value
    grid: tuple[ir.Value | None, ir.Value | None] | None


def same_point(pair: Pair, first: FoundModel, second: FoundModel) -> tuple[Point, Point] | None:
    """Return where both layers of a pair hold the same numbers, as far in front of any activation as that is.

    ``None`` if a result is given as codes whose grid is no constant.
    """
    ways = _Way(pair.first, first.constants), _Way(pair.second, second.constants)
    for way, other in (ways, ways[::-1]):
        if "bias" in other.inside and "bias" not in way.inside:
            way.go("bias")
    for way, other in (ways, ways[::-1]):
        if "norm" in way.steps and "norm" not in other.steps:
            way.go("norm")
    for way, other in (ways, ways[::-1]):
        absorbs = "activation" in other.inside or (other.holds_codes and "activation" not in other.steps)
        if absorbs and way.next_is("activation"):
            way.go("activation")
    points = [_point(way.at) for way in ways]
    return (points[0], points[1]) if points[0] is not None and points[1] is not None else None


def has_norm(layer: FoundLayer, constants: Constants) -> bool:
    """Tell whether a BatchNormalization follows a layer."""
    return "norm" in _Way(layer, constants).steps


def entry_points(layer: FoundLayer, results: Collection[ir.Value]) -> list[Point] | None:
    """Return where a layer's activations can be handed in, one per operand that is none of its weights.

    Parameters
    ----------
    layer : FoundLayer
    results : collection of onnx_ir.Value
        What the layers of its model give: behind that nothing belongs to this one.

    Notes
    -----
    Q/DQ pairs and run-time quantization stay part of the layer. ``None`` if a grid is no constant, or an operand is no
    real number at all, such as the indices of a lookup.
    """
    points = []
    slots = [slot for slot in layer.form.slots if operand(layer.node, slot.index) in layer.sources]
    for slot, source in zip(slots, layer.sources, strict=False):
        value = _before_codes(source, results)
        dtype = _dtype(value)
        if dtype in _FLOATS:
            points.append(Point(value.name or "", dtype))
            continue
        grid = (operand(layer.node, slot.scale), operand(layer.node, slot.zero_point))
        found = _point(_Result(source, grid)) if slot.codes and slot.scale is not None else None
        if found is None:
            return None
        points.append(found)
    return points


def _before_codes(value: ir.Value, results: Collection[ir.Value]) -> ir.Value:
    """Return the real numbers that codes were made of; run-time quantization makes a matrix of them before."""
    behind: tuple[str, ...] = ()
    while value not in results and (node := value.producer()) is not None and node.op_type in (*_CODERS, *behind):
        value, behind = node.inputs[0] or value, ("Flatten", "Identity")
    return value


class _Way:
    """What follows a layer, step by step, and how far it was followed."""

    def __init__(self, layer: FoundLayer, constants: Constants) -> None:
        self._constants = constants
        grid = layer.grid
        inputs = (operand(layer.node, grid.scale), operand(layer.node, grid.zero_point)) if grid is not None else None
        self.at = _Result(layer.result, inputs)
        self.inside = set(_inside(layer))
        self.steps: dict[str, _Result] = {}
        self._passed: set[str] = set()
        result = self.at
        for stage in _STAGES:
            following = self._following(result, stage)
            if following is not None:
                self.steps[stage] = result = following

    @property
    def holds_codes(self) -> bool:
        """Whether the result is given as codes."""
        return self.at.grid is not None

    def go(self, stage: str) -> None:
        """Take the result behind a stage, if there is one."""
        if stage in self.steps:
            self.at = self.steps[stage]
            self._passed.update(_STAGES[: _STAGES.index(stage) + 1])

    def next_is(self, stage: str) -> bool:
        """Tell whether nothing else lies between here and a stage."""
        between = _STAGES[: _STAGES.index(stage)]
        return stage in self.steps and all(each in self._passed or each not in self.steps for each in between)

    def _following(self, result: _Result, stage: str) -> _Result | None:
        for node, index in _readers(result.value):
            if _is_stage(stage, node, index, self._constants):
                grid = INTEGER_RESULTS.get(node.op_type)
                return _Result(node.outputs[0], (operand(node, grid[0]), operand(node, grid[1])) if grid else None)
        return None


def _is_stage(stage: str, node: ir.Node, index: int, constants: Constants) -> bool:
    if stage == "norm":
        return node.op_type == "BatchNormalization"
    if stage == "activation":
        return node.op_type in ACTIVATIONS
    if node.op_type not in ("Add", "QLinearAdd"):
        return False
    other = operand(node, {0: 3, 3: 0}[index] if node.op_type == "QLinearAdd" else 1 - index)
    return other is not None and other in constants


def _readers(value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    """Yield who reads a tensor and at which input, looking through what only stores it differently."""
    for use in value.uses():
        if use.node.op_type in (*TRANSPARENT, "Reshape"):  # run-time quantization makes matrices of everything
            if use.idx == 0:
                yield from _readers(use.node.outputs[0])
        else:
            yield use.node, use.idx


def _inside(layer: FoundLayer) -> Iterator[str]:
    if operand(layer.node, layer.form.bias) is not None:
        yield "bias"
    activation = layer.node.attributes.get("activation")
    if isinstance(activation, ir.Attr) and activation.type == ir.AttributeType.STRING and activation.as_string():
        yield "activation"


def _dtype(value: ir.Value) -> ir.DataType | None:
    """Return a tensor's type; behind onnxruntime's own operators, which tell none, that of their weights."""
    node = value.producer()
    while value.dtype is None and node is not None and node.op_type in _KEEP_TYPE and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    form = form_of(node) if value.dtype is None and node is not None else None
    if node is None or form is None or form.slots[-1].codes:
        return value.dtype
    weight = constant(operand(node, form.slots[-1].index))
    return weight.dtype if weight is not None else None


def _point(result: _Result) -> Point | None:
    value = result.value
    if result.grid is None:
        dtype = _dtype(value) or ir.DataType.FLOAT
        return Point(value.name or "", dtype) if dtype in _FLOATS else None
    scale, zero = constant(result.grid[0]), constant(result.grid[1])
    if scale is None or scale.size != 1 or zero is None or zero.size != 1:
        return None
    return Point(
        value.name or "", zero.dtype, float(float32(scale).reshape(())), int(zero.numpy().astype(np.int64).reshape(()))
    )
