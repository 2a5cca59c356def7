"""Tiny transformer layers in the styles of several exporters, with one outlying feature as real ones have it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ptq_lab.calibration import Samples, open_samples
from ptq_lab.graph import load_model
from tests.models import model, node, random

WIDTH, HEADS, HIDDEN = 16, 2, 32
OUTLIER = 3  # the feature that is far larger than the others behind a normalization
Nodes = list[onnx.NodeProto]


def transformer(style: str = "bias behind") -> onnx.ModelProto:
    """Return attention and feed-forward with residuals.

    Inputs are x (1, S, WIDTH) and mask (1, S); integer layers q, k, v (or qkv), o, f1, f2.
    """
    weights = _weights()
    linear = LINEAR[style]
    nodes = [
        node("LayerNormalization", ["x", "gamma0", "beta0"], ["n0"]),
        node("Sub", ["one", "mask"], ["hidden"]),
        node("Mul", ["hidden", "far"], ["bias"]),
        node("Unsqueeze", ["bias", "axis1"], ["bias3"]),
        node("Unsqueeze", ["bias3", "axis1"], ["bias4"]),
        *_projections(style, linear),
        *_attention(),
        *linear("o", "context", "attended"),
        node("Add", ["attended", "n0"], ["r0"]),
        node("LayerNormalization", ["r0", "gamma1", "beta1"], ["n1"]),
        *linear("f1", "n1", "h"),
        *_gelu(),
        *linear("f2", "gelu", "fed"),
        node("Add", ["fed", "n1"], ["r1"]),
        node("LayerNormalization", ["r1", "gamma2", "beta2"], ["y"]),
    ]
    inputs = {"x": (1, "S", WIDTH), "mask": (1, "S")}
    used = {name for each in nodes for name in each.input}
    return model(nodes, inputs, ["y"], {name: value for name, value in weights.items() if name in used})


def sentences(proto: onnx.ModelProto, count: int = 24) -> Samples:
    """Return samples of different lengths, without padding."""
    generator = np.random.default_rng(5)
    lengths = generator.integers(4, 12, count)
    given = [
        {"x": generator.normal(0, 1, (1, length, WIDTH)).astype(np.float32), "mask": np.ones((1, length), np.float32)}
        for length in lengths
    ]
    return open_samples(given, load_model(proto).inputs)


def _weights() -> dict[str, NDArray[Any]]:
    shapes = {"q": (WIDTH, WIDTH), "k": (WIDTH, WIDTH), "v": (WIDTH, WIDTH), "o": (WIDTH, WIDTH)}
    shapes |= {"f1": (WIDTH, HIDDEN), "f2": (HIDDEN, WIDTH)}
    weights: dict[str, NDArray[Any]] = {}
    for index, (name, shape) in enumerate(shapes.items()):
        weights[name] = random(*shape, seed=index, scale=0.25)
        weights[f"{name}.transposed"] = np.ascontiguousarray(weights[name].T)
        weights[f"{name}.bias"] = random(shape[1], seed=10 + index, scale=0.3)
    weights["qkv"] = np.concatenate([weights[name] for name in "qkv"], axis=1)
    weights["qkv.transposed"] = np.ascontiguousarray(weights["qkv"].T)
    weights["qkv.bias"] = np.concatenate([weights[f"{name}.bias"] for name in "qkv"])
    for index in range(3):
        weights[f"gamma{index}"] = 1.0 + random(WIDTH, seed=20 + index, scale=0.1)
        weights[f"beta{index}"] = random(WIDTH, seed=30 + index, scale=0.1)
    for index in range(2):
        weights[f"gamma{index}"][OUTLIER] = np.float32(25.0)
        for name in ("q", "k", "v", "qkv") if index == 0 else ("f1",):
            weights[name][OUTLIER] *= np.float32(0.05)
            weights[f"{name}.transposed"][:, OUTLIER] *= np.float32(0.05)
    numbers = {"one": 1.0, "far": -10000.0, "root": 8**0.5, "sqrt2": 2**0.5, "half": 0.5}
    weights |= {name: np.array(value, np.float32) for name, value in numbers.items()}
    split = np.array([0, -1, HEADS, WIDTH // HEADS], np.int64)
    joined = np.array([0, -1, WIDTH], np.int64)
    rows, back = np.array([-1, WIDTH], np.int64), np.array([1, -1, WIDTH], np.int64)
    shapes_of = {"split": split, "joined": joined, "rows": rows, "back": back, "axis1": np.array([1], np.int64)}
    shapes_of |= {"rows.f2": np.array([-1, HIDDEN], np.int64), "back.f1": np.array([1, -1, HIDDEN], np.int64)}
    return {**weights, **shapes_of, "thirds": np.array([WIDTH] * 3, np.int64), "back.qkv": back * [1, 1, 3]}


def _bias_behind(name: str, source: str, output: str) -> Nodes:
    return [
        node("MatMul", [source, name], [f"{output}.product"], name=name),
        node("Add", [f"{output}.product", f"{name}.bias"], [output]),
    ]


def _bias_in_front(name: str, source: str, output: str) -> Nodes:
    return [
        node("MatMul", [source, name], [f"{output}.product"], name=name),
        node("Add", [f"{name}.bias", f"{output}.product"], [output]),
    ]


def _gemm(name: str, source: str, output: str) -> Nodes:
    """Return a Gemm on rows, as frameworks write a linear layer that was flattened."""
    rows, back = ("rows.f2" if name == "f2" else "rows"), f"back.{name}" if name in ("f1", "qkv") else "back"
    return [
        node("Reshape", [source, rows], [f"{output}.rows"]),
        node("Gemm", [f"{output}.rows", f"{name}.transposed", f"{name}.bias"], [f"{output}.flat"], name=name, transB=1),
        node("Reshape", [f"{output}.flat", back], [output]),
    ]


LINEAR: dict[str, Callable[[str, str, str], Nodes]] = {
    "bias behind": _bias_behind,
    "bias in front": _bias_in_front,
    "gemm": _gemm,
    "fused qkv": _bias_behind,
}
"""Style to how it writes a linear layer."""


def _projections(style: str, linear: Callable[[str, str, str], Nodes]) -> Nodes:
    if style == "fused qkv":
        return [*linear("qkv", "n0", "qkv.out"), node("Split", ["qkv.out", "thirds"], ["q0", "k0", "v0"], axis=2)]
    return [*linear("q", "n0", "q0"), *linear("k", "n0", "k0"), *linear("v", "n0", "v0")]


def _attention() -> Nodes:
    return [
        *(node("Reshape", [f"{name}0", "split"], [f"{name}1"]) for name in "qkv"),
        node("Transpose", ["q1"], ["q2"], perm=[0, 2, 1, 3]),
        node("Transpose", ["k1"], ["k2"], perm=[0, 2, 3, 1]),
        node("Transpose", ["v1"], ["v2"], perm=[0, 2, 1, 3]),
        node("MatMul", ["q2", "k2"], ["scores"], name="scores"),
        node("Div", ["scores", "root"], ["scaled"]),
        node("Add", ["scaled", "bias4"], ["masked"], name="mask"),
        node("Softmax", ["masked"], ["weights"], axis=-1),
        node("MatMul", ["weights", "v2"], ["mixed"], name="mixed"),
        node("Transpose", ["mixed"], ["turned"], perm=[0, 2, 1, 3]),
        node("Reshape", ["turned", "joined"], ["context"]),
    ]


def _gelu() -> Nodes:
    return [
        node("Div", ["h", "sqrt2"], ["g0"]),
        node("Erf", ["g0"], ["g1"]),
        node("Add", ["g1", "one"], ["g2"]),
        node("Mul", ["h", "g2"], ["g3"]),
        node("Mul", ["g3", "half"], ["gelu"]),
    ]
