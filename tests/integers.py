"""A tiny model quantized to int8, step by step, for the tests that look at what came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ptq_lab.calibration import Samples, collect_statistics, open_samples
from ptq_lab.graph import Model, fold_batchnorm, load_model, place_integers
from ptq_lab.graph.qdq import Form
from ptq_lab.int8 import Int8Settings, apply_int8, make_int8_plan, round_int8
from ptq_lab.numerics import TensorStatistics
from ptq_lab.plan import QuantPlan
from tests.models import model, node, random


@dataclass(frozen=True, slots=True, kw_only=True)
class Integers:
    """The float model, its samples, the plan with codes, and the model written from it."""

    original: Model
    samples: Samples
    statistics: Mapping[str, TensorStatistics]
    plan: QuantPlan
    quantized: Model


def to_int8(
    proto: onnx.ModelProto,
    inputs: Sequence[Mapping[str, NDArray[Any]]],
    *,
    skip: Sequence[str] = (),
    method: str = "MAX_MIN",
    shield: bool = True,
) -> Integers:
    """Quantize a model on some inputs, without corrections."""
    prepared = fold_batchnorm(load_model(proto))
    placement = place_integers(prepared, dict.fromkeys(skip, "skipped"))
    samples = open_samples(list(inputs), prepared.inputs)
    tensors = [place.tensor for place in placement.places]
    statistics = collect_statistics(prepared, tensors, samples, methods=(method,))
    plan = round_int8(make_int8_plan(placement, statistics, Int8Settings(method=method)), prepared)
    written = apply_int8(prepared, plan, form=Form(shield=shield))
    return Integers(original=prepared, samples=samples, statistics=statistics, plan=plan, quantized=written)


def separable(pool: bool = False) -> onnx.ModelProto:
    """A Conv, a depthwise Conv whose channels differ a thousandfold, and a pointwise Conv, each with an activation."""
    deep = random(8, 1, 3, 3, seed=2) * np.logspace(-3, 0, 8, dtype=np.float32).reshape(8, 1, 1, 1)
    between = [node("MaxPool", ["a"], ["p"], kernel_shape=[2, 2])] if pool else []
    nodes = [
        node("Conv", ["x", "first"], ["c"], name="stem", pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["a"]),
        *between,
        node("Conv", ["p" if pool else "a", "deep"], ["d"], name="deep", group=8, pads=[1, 1, 1, 1]),
        node("Relu", ["d"], ["e"]),
        node("Conv", ["e", "last"], ["y"], name="point"),
    ]
    amplify = np.logspace(3, 0, 8, dtype=np.float32).reshape(1, 8, 1, 1)
    weights = {"first": random(8, 3, 3, 3), "deep": deep, "last": random(4, 8, 1, 1, seed=3) * amplify}
    return model(nodes, {"x": (1, 3, 10, 10)}, ["y"], weights)


def pictures(count: int = 4) -> list[dict[str, NDArray[Any]]]:
    """Inputs of `separable`."""
    return [{"x": random(1, 3, 10, 10, seed=10 + index)} for index in range(count)]
