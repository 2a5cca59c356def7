"""A small residual network with every kind of layer, and how the tests quantize it for a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ptq_lab.calibration import collect_statistics, open_samples
from ptq_lab.devices import Preset
from ptq_lab.graph import Model, load_model, place_integers
from ptq_lab.int8 import apply_int8, make_int8_plan, refine_input_grids, round_int8
from ptq_lab.plan import QuantPlan
from tests.models import model, node, random

Sample = dict[str, NDArray[Any]]

WEIGHTS = {
    "w1": random(6, 3, 3, 3, scale=0.3),
    "b1": random(6, scale=0.3),
    "w2": random(6, 6, 3, 3, scale=0.2),
    "up": random(6, 4, 2, 2, scale=0.3),
    "half": np.array(0.5, np.float32),
    "dense": random(4, 5, scale=0.5),
    "offset": random(5, scale=0.2),
    "last": random(5, 7, scale=0.5),
}


def residual() -> onnx.ModelProto:
    """Conv, Relu, Conv, residual Add, Relu, MaxPool, ConvTranspose, Mul with a constant, pooling, Gemm, MatMul."""
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"], "relu1"),
        node("Conv", ["r1", "w2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        node("Add", ["c2", "r1"], ["sum"], "add"),
        node("Relu", ["sum"], ["r2"], "relu2"),
        node("MaxPool", ["r2"], ["pooled"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("ConvTranspose", ["pooled", "up"], ["t"], "up", strides=[2, 2]),
        node("Mul", ["t", "half"], ["halved"], "halve"),
        node("GlobalAveragePool", ["halved"], ["g"], "mean"),
        node("Flatten", ["g"], ["flat"], "flatten"),
        node("Gemm", ["flat", "dense", "offset"], ["h"], "gemm"),
        node("MatMul", ["h", "last"], ["y"], "matmul"),
    ]
    return model(nodes, {"x": ("N", 3, 8, 8)}, ["y"], WEIGHTS, opset=17)


def samples(count: int = 8) -> list[Sample]:
    """Return inputs that fit :func:`residual`."""
    return [{"x": random(1, 3, 8, 8, seed=seed)} for seed in range(count)]


def quantize_for(
    preset: Preset,
    source: onnx.ModelProto | Model | None = None,
    *,
    skipped: str = "",
    inputs: Sequence[Sample] = (),
) -> tuple[QuantPlan, Model]:
    """Return plan and written model for a device, without bias correction."""
    original = load_model(residual() if source is None else source)
    placement = place_integers(original, {skipped: skipped} if skipped else {}, preset.flow)
    inputs = inputs or samples()
    statistics = collect_statistics(original, placement.measured, open_samples(inputs, original.inputs))
    plan = make_int8_plan(placement, statistics, preset.settings(method="MAX_MIN", per_channel=True))
    plan = round_int8(refine_input_grids(plan, inputs, symmetric=preset.symmetric), original)
    return plan, apply_int8(original, plan, preset.form)


def reread(written: Model) -> onnx.ModelProto:
    """Return the written file as it would be read by somebody else."""
    return onnx.load_model_from_string(written.serialize())
