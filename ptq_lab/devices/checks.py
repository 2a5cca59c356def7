"""A written Q/DQ model held against the rules of a preset; what breaks them comes out in words."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ptq_lab.devices.preset import Preset
from ptq_lab.graph import Model
from ptq_lab.graph.flow import MOVES, ONE_GRID
from ptq_lab.graph.written import Layer, Node, Written

Rule = Callable[[Written, Preset], Iterator[str]]

_CLOSE = 1e-3  # of a step: how far a rounded bias may lie from its grid; from code 1000 on more, as float32 has


def validate(model: Model, preset: Preset, *, skipped: Collection[str] = ()) -> tuple[str, ...]:
    """Tell where a written Q/DQ model breaks the rules of a device.

    Parameters
    ----------
    model : Model
        As `ptq_lab.int8.apply_int8` wrote it; not changed.
    preset : Preset
    skipped : collection of str
        Nodes that are meant to stay float: those of the plan's skips.

    Returns
    -------
    tuple of str
        One sentence per violation, in the order of the rules and the graph; empty when all is well.

    Examples
    --------
    >>> from onnx import helper
    >>> from ptq_lab.devices import PRESETS
    >>> from ptq_lab.graph import load_model
    >>> x, y = (helper.make_tensor_value_info(name, 1, [2, 4]) for name in "xy")
    >>> w = helper.make_tensor("w", 1, [4, 4], [1.0] * 16)
    >>> graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"], name="dense")], "g", [x], [y], [w])
    >>> validate(load_model(helper.make_model(graph)), PRESETS["NVGPU"])
    ('dense (MatMul): its weight is float, and NVGPU computes MatMul in integers',)
    >>> validate(load_model(helper.make_model(graph)), PRESETS["NVGPU"], skipped=["dense"])
    ()
    """
    written = Written.read(model, skipped)
    return tuple(sentence for rule in RULES for sentence in rule(written, preset))


def unmet_needs(
    preset: Preset, model: Model, *, optimize: str | None, shapes: Mapping[str, Sequence[int]], profiles: bool
) -> tuple[str, ...]:
    """Tell what a device needs to know and was not told.

    Parameters
    ----------
    preset : Preset
    model : Model
    optimize : str or None
        The converter's ``--optimize``.
    shapes : mapping of str to sequence of int
        Sizes of inputs that were given, by name.
    profiles : bool
        Whether dynamic shapes are declared with their profiles.

    Examples
    --------
    >>> from onnx import helper
    >>> from ptq_lab.devices import PRESETS
    >>> from ptq_lab.graph import load_model
    >>> x, y = (helper.make_tensor_value_info(name, 1, ["n", 4]) for name in "xy")
    >>> graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    >>> model = load_model(helper.make_model(graph))
    >>> for sentence in unmet_needs(PRESETS["ASCEND"], model, optimize=None, shapes={"x": (1, 4)}, profiles=False):
    ...     print(sentence)
    ASCEND needs optimize=ascend_oriented
    """
    found = []
    if preset.optimize and preset.optimize not in (optimize or ""):
        found.append(f"{preset.name} needs optimize={preset.optimize}")
    if not preset.fixed_shapes or profiles:
        return tuple(found)
    for spec in model.inputs:
        free = [(axis, size) for axis, size in enumerate(spec.shape) if isinstance(size, str)]
        if free and spec.name not in shapes:
            axis, size = free[0]
            found.append(
                f"{preset.name} needs fixed shapes, and axis {axis} ({size}) of the input {spec.name} has no size; "
                "give inputShape, or profiles in [ascend_context]"
            )
    return tuple(found)


def _activation_grids(written: Written, preset: Preset) -> Iterator[str]:
    for name, grid in written.activations.items():
        if grid.zero_point.dtype.name != preset.dtype:
            yield f"{name}: its codes are {grid.zero_point.dtype}, and {preset.name} wants {preset.dtype}"
        if grid.scale.size != 1:
            yield f"{name}: it has {grid.scale.size} scales, and {preset.name} wants one per activation"
        if preset.symmetric and grid.zero_point.any():
            yield f"{name}: its zero point is {grid.zero_point.reshape(-1)[0]}, and {preset.name} wants 0"


def _pairs_agree(written: Written, preset: Preset) -> Iterator[str]:
    for name, made, read in written.pairs:
        if not made.same(read):
            yield f"{name}: QuantizeLinear and DequantizeLinear have different grids"


def _float_layers(written: Written, preset: Preset) -> Iterator[str]:
    for node in written.float_layers:
        if node.op_type in preset.flow.layers and node.name not in written.skipped:
            yield f"{_said(node)}: its weight is float, and {preset.name} computes {node.op_type} in integers"


def _layer_operators(written: Written, preset: Preset) -> Iterator[str]:
    for layer in written.layers:
        if layer.node.op_type not in preset.flow.layers:
            yield f"{_said(layer.node)}: its weight is integer, and {preset.name} has no such layer"
        if layer.source is None:
            yield f"{_said(layer.node)}: its weight is integer, but it does not read codes"


def _weight_codes(written: Written, preset: Preset) -> Iterator[str]:
    for layer in written.layers:
        grid, said = layer.weight, _said(layer.node)
        channels = grid.scale.size > 1
        symmetric = channels or preset.symmetric_tensors
        dtype = "uint8" if preset.form.unsigned_tensors and not grid.scale.ndim else "int8"
        if grid.zero_point.dtype.name != dtype:
            yield f"{said}: its weight codes are {grid.zero_point.dtype}, and {preset.name} wants {dtype}"
        if symmetric and grid.zero_point.any() and dtype == "int8":
            yield f"{said}: its weight has a zero point that is not 0, and {preset.name} wants it symmetric"
        if symmetric and dtype == "int8" and layer.codes.min(initial=0) < -127:
            yield f"{said}: its weight uses the code -128, and {preset.name} wants -127..127"
        if layer.paired != preset.form.weight_pairs:
            wanted = "as a pair on float numbers" if preset.form.weight_pairs else "as codes"
            yield f"{said}: its weight is not stored {wanted}, as {preset.name} wants it"


def _granularity(written: Written, preset: Preset) -> Iterator[str]:
    for layer in written.layers:
        scales, said = layer.weight.scale, _said(layer.node)
        if scales.size == 1:
            continue
        if layer.node.op_type not in preset.channel_operators:
            yield f"{said}: its weight has {scales.size} scales, and {preset.name} wants one per {layer.node.op_type}"
        elif layer.axis != layer.channel_axis or scales.size != layer.codes.shape[layer.channel_axis]:
            yield f"{said}: the scales of its weight do not lie along its output channels (axis {layer.channel_axis})"


def _biases(written: Written, preset: Preset) -> Iterator[str]:
    for layer in written.layers:
        bias, said = layer.bias, _said(layer.node)
        if bias is None or layer.source is None:
            continue
        form = "int32" if bias.grid is not None else "float"
        wanted = "int32" if preset.form.biases == "int32" else "float"
        if form != wanted or (bias.grid is not None and bias.numbers.dtype != np.int32):
            yield f"{said}: its bias is not {wanted}, as {preset.name} wants it"
        elif preset.form.biases != "float":
            step = layer.source.scale.astype(np.float64) * layer.weight.scale
            yield from _bias_steps(layer, step, said, preset)


def _bias_steps(layer: Layer, step: NDArray[np.float64], said: str, preset: Preset) -> Iterator[str]:
    bias = layer.bias
    assert bias is not None  # the caller has looked
    if bias.grid is not None:
        if bias.grid.zero_point.any() or not np.allclose(bias.grid.scale, step, rtol=1e-5):
            yield f"{said}: the scale of its bias is not that of its input times that of its weight"
        return
    codes = bias.numbers / step
    if np.any(np.abs(codes - np.rint(codes)) > _CLOSE * np.maximum(1.0, np.abs(codes) * 1e-3)):
        yield f"{said}: its bias does not lie on the int32 grid, as {preset.name} wants it"


def _outputs(written: Written, preset: Preset) -> Iterator[str]:
    for layer in written.layers:
        if layer.node.op_type in preset.flow.outputs and not written.makes_codes(layer.node.outputs[0]):
            yield f"{_said(layer.node)}: its output carries no codes, and {preset.name} wants them there"
        if written.before_activation(layer.node.outputs[0]):
            yield f"{_said(layer.node)}: its output is quantized in front of its activation function"


def _shortcuts(written: Written, preset: Preset) -> Iterator[str]:
    for node in written.graph:
        if node.op_type not in preset.flow.residuals or node.name in written.skipped:
            continue
        straight = [value for value in node.inputs if value is not None and written.from_convolution(value)]
        others = [value for value in node.inputs if value is not None and value not in straight[:1]]
        if straight and not all(written.carries_codes(value) for value in others):
            yield f"{_said(node)}: the shortcut of this sum carries no codes, and {preset.name} wants them there"


def _shared_grids(written: Written, preset: Preset) -> Iterator[str]:
    flow = preset.flow
    moving = {*MOVES, *ONE_GRID}
    moving = moving if flow.everything else moving & set(flow.between)
    for node in written.graph:
        if node.op_type not in moving or node.domain not in ("", "ai.onnx"):
            continue
        grids = [grid for grid in written.grids_around(node) if grid is not None]
        if len(grids) > 1 and not all(grid.same(grids[0]) for grid in grids):
            yield f"{_said(node)}: it moves codes, but its inputs and output are on different grids"


def _everything(written: Written, preset: Preset) -> Iterator[str]:
    if not preset.flow.everything:
        return
    for node, value in written.float_results():
        if node.name not in written.skipped and not written.makes_codes(value):
            yield f"{_said(node)}: its output carries no codes, and {preset.name} computes everything in integers"


def _said(node: Node) -> str:
    return f"{node.name} ({node.op_type})"


RULES: tuple[Rule, ...] = (
    _activation_grids,
    _pairs_agree,
    _float_layers,
    _layer_operators,
    _weight_codes,
    _granularity,
    _biases,
    _outputs,
    _shortcuts,
    _shared_grids,
    _everything,
)
"""All rules; each reads what it wants from the preset and yields sentences."""
