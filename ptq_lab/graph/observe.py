"""A copy of a model that tells what its inner tensors hold: the tensors themselves, or their extremes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from ptq_lab.errors import ModelError
from ptq_lab.graph.decode import GraphWriter
from ptq_lab.graph.model import Model

_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
_AXES_ARE_AN_INPUT = {"ReduceMin": 18, "ReduceMax": 18, "ReduceSum": 13}  # from this opset; before, an attribute
_CHANNELS = 1


def observe(
    model: Model,
    tensors: Sequence[str],
    *,
    reduce: bool = False,
    drop_outputs: bool = True,
    channel_ranks: Mapping[str, int] | None = None,
) -> tuple[Model, dict[str, tuple[str, ...]]]:
    """Return a copy of a model whose outputs are the named tensors, or what is to be known about them.

    Ask only for tensors that onnxruntime keeps: what stands between a Conv and its Relu is gone once both are
    fused, and asking for it prevents the fusion. Everything comes out as float32.

    Parameters
    ----------
    model : Model
        Not changed; the copy shares its weights.
    tensors : sequence of str
        Float tensors of the main graph: graph inputs or outputs of nodes.
    reduce : bool
        Give four numbers per tensor instead of its values: minimum, maximum, sum and number of elements. The sum
        is there because onnxruntime's minimum and maximum pass over NaN, and a sum does not.
    drop_outputs : bool
        Leave out the model's own outputs, so that what only they need is not computed.
    channel_ranks : mapping of str to int
        With `reduce`: tensors whose minimum and maximum are wanted per channel (axis 1), shape (C,), and their
        ranks (2 or more).

    Returns
    -------
    observed : Model
    outputs : dict of str to tuple of str
        Tensor to the names of its outputs: one, or with `reduce` (minimum, maximum, sum, size).

    Raises
    ------
    ModelError
        If the model has no such tensor, or it is a constant, or not of a float type.

    Examples
    --------
    >>> from onnx import helper
    >>> x, y = (helper.make_tensor_value_info(name, 1, ["n", 4]) for name in "xy")
    >>> graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    >>> from ptq_lab.graph import load_model
    >>> observed, outputs = observe(load_model(helper.make_model(graph)), ["y"], reduce=True)
    >>> [spec.name for spec in observed.outputs] == list(outputs["y"])
    True
    """
    copy = model.clone()
    wanted = _find(copy, tensors)
    writer = _Observer(copy)
    if drop_outputs:
        copy.graph.outputs.clear()
    ranks = channel_ranks or {}
    outputs: dict[str, tuple[str, ...]] = {}
    for name, value in wanted.items():
        outputs[name] = writer.reduced(value, ranks.get(name)) if reduce else (writer.whole(value),)
    return copy, outputs


class _Observer:
    """Adds outputs to a graph."""

    def __init__(self, model: Model) -> None:
        self._graph = model.graph
        self._opset = model.opset
        self._writer = GraphWriter(model.graph)

    def whole(self, value: ir.Value) -> str:
        """Give a tensor as it is."""
        if value.dtype not in (None, ir.DataType.FLOAT):
            return self._give(self._float32(value))
        if value.is_graph_input():  # an input may not be an output at the same time
            return self._give(self._writer.node("Identity", [value]))
        return self._give(value)

    def reduced(self, value: ir.Value, channel_rank: int | None) -> tuple[str, str, str, str]:
        """Give minimum, maximum, sum and size of a tensor."""
        size = self._writer.node("Size", [value])
        value = self._float32(value)
        rank = channel_rank or (value.shape.rank() if value.shape is not None else 0)
        low, high, total = (
            self._channels(operator, value, rank) for operator in ("ReduceMin", "ReduceMax", "ReduceSum")
        )
        if channel_rank is None:
            low, high = self._all("ReduceMin", low), self._all("ReduceMax", high)
        else:
            low.shape = high.shape = ir.Shape([None])  # one per channel
        total, size.shape = self._all("ReduceSum", total), ir.Shape([])
        return self._give(low), self._give(high), self._give(total), self._give(size, ir.DataType.INT64)

    def _channels(self, operator: str, value: ir.Value, rank: int) -> ir.Value:
        """Reduce over all axes but the channels; in two steps onnxruntime reduces twice as fast as in one."""
        axes = [axis for axis in range(rank) if axis != _CHANNELS]
        if rank <= _CHANNELS:  # not known, or no channels
            return value
        if self._opset < _AXES_ARE_AN_INPUT[operator]:
            return self._writer.node(operator, [value], {"keepdims": 0, "axes": axes})
        inputs = [value, self._writer.constant(np.array(axes, np.int64))]
        return self._writer.node(operator, inputs, {"keepdims": 0})

    def _all(self, operator: str, value: ir.Value) -> ir.Value:
        single = self._writer.node(operator, [value], {"keepdims": 0})
        single.shape = ir.Shape([])
        return single

    def _float32(self, value: ir.Value) -> ir.Value:
        if value.dtype in (None, ir.DataType.FLOAT):
            return value
        cast = self._writer.node("Cast", [value], {"to": int(ir.DataType.FLOAT)})
        cast.shape = value.shape
        return cast

    def _give(self, value: ir.Value, dtype: ir.DataType = ir.DataType.FLOAT) -> str:
        if value.dtype is None:
            value.dtype = dtype
        if value not in self._graph.outputs:
            self._graph.outputs.append(value)
        return value.name or ""


def _find(model: Model, tensors: Sequence[str]) -> dict[str, ir.Value]:
    """Return the tensors by name, with their element types and (where they can be inferred) ranks."""
    values = {value.name or "": value for value in model.graph.inputs if value.const_value is None}
    values |= {value.name or "": value for node in model.graph for value in node.outputs if value.name}
    for name in tensors:
        if name not in values:
            raise ModelError(_unknown(model, name, values), tensor=name)
    wanted = {name: values[name] for name in tensors}
    if any(value.dtype is None or value.shape is None for value in wanted.values()):
        ShapeInferencePass()(model.ir_model)
    for name, value in wanted.items():
        if value.dtype is not None and value.dtype not in _FLOATS:
            raise ModelError(
                f"{model.label}: the tensor {name} is of type {value.dtype.name.lower()}; "
                "only float tensors can be observed",
                tensor=name,
            )
    return wanted


def _unknown(model: Model, name: str, values: Mapping[str, ir.Value]) -> str:
    if name in model.graph.initializers:
        return f"{model.label}: the tensor {name} is a constant; there is nothing to observe about it"
    near = difflib.get_close_matches(name, values, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{model.label}: has no tensor called {name!r} in its main graph{hint}"
