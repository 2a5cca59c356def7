"""A Q/DQ graph read back: which tensors carry codes on which grids, which layers have integer weights and biases."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import ShapeInferencePass

from ptq_lab.graph.absorbed import behind_activation
from ptq_lab.graph.model import Model, constant, is_float, shape_of
from ptq_lab.graph.operators import OPERATORS

Node = ir.Node

Q, DQ = "QuantizeLinear", "DequantizeLinear"
_CONVOLUTIONS = ("Conv", "ConvTranspose")


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Scale and zero point of a QuantizeLinear or DequantizeLinear."""

    scale: NDArray[np.float32]
    zero_point: NDArray[Any]

    def same(self, other: Grid) -> bool:
        """Tell whether two grids mean the same: one scale for all channels and equal scales for each do."""
        if self.scale.size > 1 and other.scale.size > 1 and self.scale.shape != other.scale.shape:
            return False
        scales = bool(np.all(self.scale == other.scale))
        zero_points = bool(np.all(self.zero_point == other.zero_point))
        return self.zero_point.dtype == other.zero_point.dtype and scales and zero_points


@dataclass(frozen=True, slots=True, eq=False)
class Bias:
    """The stored numbers of a bias: codes with their grid, or float without."""

    numbers: NDArray[Any]
    grid: Grid | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layer:
    """A layer with an integer weight.

    Attributes
    ----------
    node : onnx_ir.Node
    weight : Grid
    codes : ndarray
    axis, channel_axis : int
        Where its scales lie, and where its output channels do.
    paired : bool
        Stored as float numbers behind a pair.
    source : Grid or None
        Of the activation it reads; ``None`` if that is float.
    bias : Bias or None
    """

    node: ir.Node
    weight: Grid
    codes: NDArray[Any]
    axis: int
    channel_axis: int
    paired: bool
    source: Grid | None
    bias: Bias | None


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """What is to be known about a Q/DQ graph.

    Attributes
    ----------
    graph : onnx_ir.Graph
        A copy, with element types.
    skipped : frozenset of str
        Nodes that are meant to stay float.
    activations : dict of str to Grid
        Tensor to the grid on which it is quantized.
    pairs : list of (str, Grid, Grid)
        Tensor, grid of its QuantizeLinear, grid of a DequantizeLinear behind it.
    layers : list of Layer
    float_layers : list of onnx_ir.Node
        Those that could have an integer weight and have a constant float one.
    """

    graph: ir.Graph
    skipped: frozenset[str]
    activations: dict[str, Grid]
    pairs: list[tuple[str, Grid, Grid]]
    layers: list[Layer]
    float_layers: list[ir.Node]

    @classmethod
    def read(cls, model: Model, skipped: Collection[str] = ()) -> Written:
        """Read a model, which is not changed; `skipped` are nodes that are meant to stay float."""
        typed = model.clone()
        ShapeInferencePass()(typed.ir_model)  # element types tell which results could carry codes
        written = cls(typed.graph, frozenset(skipped), {}, [], [], [])
        for node in typed.graph:
            if node.op_type == Q and constant(node.inputs[0]) is None:
                written.activations[_name(node.inputs[0])] = _grid(node)
            elif node.op_type == DQ and (maker := _maker(node.inputs[0])) is not None and maker.op_type == Q:
                written.pairs.append((_name(maker.inputs[0]), _grid(maker), _grid(node)))
            elif node.op_type in OPERATORS and node.domain in ("", "ai.onnx"):
                written._read_layer(node)
        return written

    def _read_layer(self, node: ir.Node) -> None:
        if len(node.inputs) < 2:
            return
        tensor = constant(node.inputs[1])
        reader = _maker(node.inputs[1])
        if tensor is not None and is_float(tensor) and len(shape_of(tensor)) > 1:
            self.float_layers.append(node)
        if reader is None or reader.op_type != DQ:
            return
        quantizer = _maker(reader.inputs[0])
        paired = quantizer is not None and quantizer.op_type == Q
        stored = constant(quantizer.inputs[0] if quantizer is not None and paired else reader.inputs[0])
        if stored is None:
            return  # the product of two activations
        grid, codes = _grid(reader), stored.numpy()
        axis = reader.attributes.get_int("axis", 1)
        self.layers.append(
            Layer(
                node=node,
                weight=grid,
                codes=_codes_of(codes, grid, axis) if paired else codes,
                axis=axis % max(codes.ndim, 1),
                channel_axis=OPERATORS[node.op_type].axis(node, 1, codes.shape),
                paired=paired,
                source=self.grid_behind(node.inputs[0]),
                bias=_bias(node),
            )
        )

    def grid_behind(self, value: ir.Value | None) -> Grid | None:
        """Return the grid of a tensor that comes out of a DequantizeLinear."""
        maker = _maker(value)
        return _grid(maker) if maker is not None and maker.op_type == DQ else None

    def carries_codes(self, value: ir.Value) -> bool:
        """Tell whether a tensor is read from codes."""
        return self.grid_behind(value) is not None

    def makes_codes(self, value: ir.Value) -> bool:
        """Tell whether what an operator makes is quantized, right away or behind an activation it absorbs."""
        behind, _ = behind_activation(value)
        return self._quantized(value) or self._quantized(behind) or bool(self._limited(value))

    def before_activation(self, value: ir.Value) -> bool:
        """Tell whether nothing but a Relu or Clip from 0 reads a tensor's codes."""
        readers = [use.node for use in value.uses()]
        if len(readers) != 1 or readers[0].op_type != Q:
            return False
        behind = [use.node for use in readers[0].outputs[0].uses()]
        if len(behind) != 1 or behind[0].op_type != DQ:
            return False
        return behind_activation(behind[0].outputs[0])[1] is not None

    def from_convolution(self, value: ir.Value) -> bool:
        """Tell whether a tensor comes straight from an integer convolution and nobody else reads it."""
        maker = _maker(value)
        mine = any(layer.node is maker for layer in self.layers)
        return maker is not None and mine and maker.op_type in _CONVOLUTIONS and len(value.uses()) == 1

    def grids_around(self, node: ir.Node) -> list[Grid | None]:
        """Return the grids of an operator's inputs and of its quantized outputs; nothing if it makes no codes."""
        made = [self._grid_of(behind_activation(value)[0]) for value in node.outputs]
        if not any(grid is not None for grid in made):
            return []
        return [*(self.grid_behind(value) for value in node.inputs), *made]

    def float_results(self) -> Iterator[tuple[ir.Node, ir.Value]]:
        """Yield every float result of an operator that is not a constant, a Q, a DQ or an absorbed activation."""
        absorbed = {id(behind_activation(node.outputs[0])[1]) for node in self.graph if node.outputs}
        for node in self.graph:
            if node.op_type in (Q, DQ, "Constant") or id(node) in absorbed:
                continue
            for value in node.outputs:
                if value.dtype == ir.DataType.FLOAT and constant(value) is None:
                    yield node, value

    def _quantized(self, value: ir.Value) -> bool:
        return any(use.node.op_type == Q for use in value.uses())

    def _limited(self, value: ir.Value) -> list[ir.Node]:
        """Return QuantizeLinear nodes behind the Relu that reads a tensor, with a Min of codes behind them."""
        readers = [use.node for use in value.uses() if use.node.op_type == "Relu"]
        return [use.node for reader in readers for use in reader.outputs[0].uses() if use.node.op_type == Q]

    def _grid_of(self, value: ir.Value) -> Grid | None:
        found = [use.node for use in value.uses() if use.node.op_type == Q]
        return _grid(found[0]) if found else None


def _maker(value: ir.Value | None) -> ir.Node | None:
    return value.producer() if value is not None else None


def _name(value: ir.Value | None) -> str:
    return (value.name or "") if value is not None else ""


def _grid(node: ir.Node) -> Grid:
    scale = constant(node.inputs[1])
    zero_point = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    numbers = np.asarray(scale.numpy() if scale is not None else np.nan, np.float32)
    return Grid(numbers, zero_point.numpy() if zero_point is not None else np.zeros(numbers.shape, np.uint8))


def _codes_of(values: NDArray[Any], grid: Grid, axis: int) -> NDArray[Any]:
    """Return the codes that a QuantizeLinear makes of a weight, before they are cut to the range of their type."""
    shape = [1] * values.ndim
    if grid.scale.ndim:
        shape[axis] = -1
    return np.asarray(np.rint(values / grid.scale.reshape(shape)) + grid.zero_point.reshape(shape).astype(np.float32))


def _bias(node: ir.Node) -> Bias | None:
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is None:
        return None
    tensor = constant(value)
    if tensor is not None:
        return Bias(tensor.numpy(), None)
    maker = _maker(value)
    stored = constant(maker.inputs[0]) if maker is not None and maker.op_type == DQ else None
    return Bias(stored.numpy(), _grid(maker)) if maker is not None and stored is not None else None
