"""Layers whose weights can be rounded by what they read, and samples of what that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ptq_lab.entries import TensorPlan
from ptq_lab.graph import Model
from ptq_lab.graph.absorbed import clip_bounds
from ptq_lab.graph.biases import bias_of
from ptq_lab.graph.model import constant
from ptq_lab.graph.window import window_of
from ptq_lab.numerics.windows import Window, window_rows
from ptq_lab.plan import QuantPlan
from ptq_lab.search.twins import Twins

Array = NDArray[np.float32]

PER_POOLED = 16  # positions in front of a pooling for each input
_STRIDE = 7919  # a prime: moves the positions from sample to sample


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Linear:
    """A layer that multiplies what it reads with a constant weight.

    Attributes
    ----------
    node : onnx_ir.Node
    entry : TensorPlan
        Of its weight.
    alone : bool
        Whether nobody else uses the weight, so that its codes may follow from what this layer reads.
    source : str
        The tensor it reads.
    groups : int
    bias : ndarray of float32, shape (C,), or None
        None where the layer cannot have one.
    pooled : str
        What is averaged over all positions to give `source`, empty if nothing is.
    shortcut : str
        What is added to its output, empty if nothing is.
    low, high : float
        Where the activation behind it cuts off.
    """

    node: ir.Node
    entry: TensorPlan
    alone: bool
    source: str
    groups: int
    bias: Array | None
    pooled: str = ""
    shortcut: str = ""
    low: float = -math.inf
    high: float = math.inf

    @property
    def name(self) -> str:
        """Its node's name."""
        return self.node.name or ""

    def rows(self, weight: Array) -> Array:
        """Arrange a weight as (groups, K, rows), for K inputs of one output."""
        front = np.moveaxis(weight, self.entry.channel_axis, 0)
        return np.ascontiguousarray(np.swapaxes(front.reshape(self.groups, len(front) // self.groups, -1), 1, 2))

    def whole(self, rows: Array) -> Array:
        """Arrange rows as the weight again."""
        shape = list(self.entry.shape)
        channels = shape.pop(self.entry.channel_axis)
        front = np.swapaxes(rows, 1, 2).reshape(channels, *shape)
        return np.ascontiguousarray(np.moveaxis(front, 0, self.entry.channel_axis))


def find_linear(model: Model, plan: QuantPlan) -> list[Linear]:
    """Return the Conv, Gemm and MatMul layers of a plan, in the order of the graph."""
    entries = {entry.tensor: entry for entry in plan.entries}
    return [layer for node in model.graph if (layer := _linear(node, entries)) is not None]


def _linear(node: ir.Node, entries: dict[str, TensorPlan]) -> Linear | None:
    weight = node.inputs[1] if node.op_type in _LAYERS and len(node.inputs) > 1 else None
    entry = entries.get(weight.name or "") if weight is not None else None
    if weight is None or entry is None:
        return None
    source = node.inputs[0]
    if source is None or constant(source) is not None:
        return None
    if (node.op_type == "MatMul" and len(entry.shape) != 2) or bool(node.attributes.get_int("transA", 0)):
        return None
    axis = {"Conv": 0, "Gemm": 1 - node.attributes.get_int("transB", 0), "MatMul": 1}[node.op_type]
    if axis != entry.channel_axis:
        return None
    bias = bias_of(node, entry.shape[entry.channel_axis])
    shortcut, low, high = _behind(node, added=node.op_type == "MatMul" and bias is not None)
    return Linear(
        node=node,
        entry=entry,
        alone=len(list(weight.uses())) == 1 and node.attributes.get_float("alpha", 1.0) == 1.0,
        source=source.name or "",
        groups=node.attributes.get_int("group", 1),
        bias=bias,
        pooled=_pooled(source),
        shortcut=shortcut,
        low=low,
        high=high,
    )


_LAYERS = ("Conv", "Gemm", "MatMul")


def _pooled(source: ir.Value) -> str:
    """Return the channels-first feature map of which a tensor is the mean, seen through changes of shape."""
    maker = source.producer()
    while maker is not None and maker.op_type in _SHAPES:
        before = maker.inputs[0]
        maker = None if before is None else before.producer()
    if maker is None or maker.op_type not in ("GlobalAveragePool", "ReduceMean"):
        return ""
    value = maker.inputs[0]
    return "" if value is None or constant(value) is not None else value.name or ""


_SHAPES = ("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Dropout", "Identity")


def _behind(node: ir.Node, *, added: bool) -> tuple[str, float, float]:
    """Return what is added behind a layer and where the activation behind that cuts off."""
    value, shortcut = node.outputs[0], ""
    if added:
        value = next(iter(value.uses())).node.outputs[0]
    reader = _only_reader(value)
    if reader is not None and reader.op_type == "Add":
        other = next((each for each in reader.inputs if each is not value), None)
        if other is not None and constant(other) is None:
            shortcut, reader = other.name or "", _only_reader(reader.outputs[0])
    if reader is not None and reader.op_type == "Relu":
        return shortcut, 0.0, math.inf
    if reader is not None and reader.op_type == "Clip":
        low, high = clip_bounds(reader)
        return shortcut, -math.inf if low is None else low, math.inf if high is None else high
    return shortcut, -math.inf, math.inf


def _only_reader(value: ir.Value) -> ir.Node | None:
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """What a layer reads, sampled.

    Attributes
    ----------
    floats, inputs : ndarray of float32, shape (groups, N, K)
        In the float model, and in the quantized one at the same positions.
    samples : ndarray of int, shape (N,)
        Which sample each position is from.
    wanted_shortcut, shortcut : ndarray of float32, shape (N, C), or None
        The same of what is added behind the layer.
    pooled : ndarray of float32, shape (1, M, K), or None
        In the quantized model, at positions in front of the pooling that gives the inputs.
    """

    floats: Array
    inputs: Array
    samples: NDArray[np.int64]
    wanted_shortcut: Array | None
    shortcut: Array | None
    pooled: Array | None = None


def read_layer(layer: Linear, twins: Twins, samples: Sequence[int], positions: int) -> Read:
    """Sample what a layer reads.

    Parameters
    ----------
    layer : Linear
    twins : Twins
        In front of the layer.
    samples : sequence of int
        Which samples to look at.
    positions : int
        About how many positions in all.
    """
    each = max(1, positions // len(samples))
    added = layer.shortcut in twins.known
    found: list[list[Array]] = [[], [], [], []]
    ids = []
    for sample in samples:
        sides = twins.values(layer.source, sample)
        taken = [_rows(layer, values, each, sample) for values in sides]
        if added:
            taken += [_same_places(layer, values, each, sample) for values in twins.values(layer.shortcut, sample)]
        for kept, rows in zip(found, taken, strict=False):
            kept.append(rows)
        ids.append(np.full(taken[0].shape[1], sample))
    floats, inputs = (np.concatenate(kept, axis=1) for kept in found[:2])
    samples_of_rows = np.concatenate(ids)
    pooled = _in_front(layer, twins, samples, inputs.shape[2], max(1, PER_POOLED * inputs.shape[2] // len(samples)))
    if added:
        wanted, given = (np.concatenate(kept, axis=0) for kept in found[2:])
        if len(wanted) == inputs.shape[1]:  # or else what is added is broadcast
            return Read(floats, inputs, samples_of_rows, wanted, given, pooled)
    return Read(floats, inputs, samples_of_rows, None, None, pooled)


def _in_front(layer: Linear, twins: Twins, samples: Sequence[int], inputs: int, each: int) -> Array | None:
    """Return positions in front of a pooling, if the layer's inputs are the channels of what is pooled."""
    if layer.pooled not in twins.known or layer.groups != 1:
        return None
    found = []
    for sample in samples:
        values = np.asarray(twins.values(layer.pooled, sample)[1], np.float32)
        if values.ndim < 3 or values.shape[1] != inputs:
            return None
        found.append(_spread(np.moveaxis(values, 1, -1).reshape(-1, inputs), each, sample))
    rows = np.concatenate(found)
    return rows[None] if np.isfinite(rows).all() else None


def _rows(layer: Linear, values: NDArray[Any], most: int, sample: int) -> Array:
    values = np.asarray(values, np.float32)
    if layer.node.op_type == "Conv":
        window = window_of(layer.node, layer.entry.shape, values.shape[2:])
        return window_rows(values, window, most, shift=sample * _STRIDE)
    rows = _spread(values.reshape(-1, values.shape[-1]), most, sample)
    return rows[None, :, :]


def _same_places(layer: Linear, values: NDArray[Any], most: int, sample: int) -> Array:
    """Return what is added at the positions that :func:`_rows` takes."""
    values = np.asarray(values, np.float32)
    if layer.node.op_type != "Conv":
        return _spread(values.reshape(-1, values.shape[-1]), most, sample)
    rank = values.ndim - 2
    ones, zeros = (1,) * rank, (0,) * rank
    point = Window(kernel=ones, strides=ones, dilations=ones, pads_begin=zeros, pads_end=zeros)
    return np.asarray(window_rows(values, point, most, shift=sample * _STRIDE)[0])


def _spread(rows: Array, most: int, sample: int) -> Array:
    stride = max(1, len(rows) // most)
    return np.asarray(rows[(stride // 2 + sample * _STRIDE) % stride :: stride])
