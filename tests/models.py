"""Tiny ONNX models for the tests, each built from scratch with seeded weights.

Every builder returns a `Tiny`: the model, inputs that fit it, and which of its weights are to be found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Feeds = dict[str, NDArray[Any]]
Shape = Sequence[int | str]

FLOAT = TensorProto.FLOAT
_TYPES = {
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.float16): TensorProto.FLOAT16,
    np.dtype(np.float64): TensorProto.DOUBLE,
    np.dtype(np.int64): TensorProto.INT64,
    np.dtype(np.int32): TensorProto.INT32,
    np.dtype(np.bool_): TensorProto.BOOL,
    np.dtype(ml_dtypes.bfloat16): TensorProto.BFLOAT16,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiny:
    """A model, inputs that fit it, and the axis of every weight that is to be quantized."""

    proto: onnx.ModelProto
    feeds: Feeds
    weights: Mapping[str, int]


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> NDArray[np.float32]:
    """Return seeded float32 numbers, a little off centre so that mean corrections matter."""
    values = np.random.default_rng([seed, *shape]).normal(0.05, scale, shape)
    return values.astype(np.float32)


def node(op_type: str, inputs: Sequence[str], outputs: Sequence[str], name: str | None = None, **more: Any) -> Any:
    """Return a node named after its first output, or as said; ``name=""`` leaves it unnamed."""
    return helper.make_node(op_type, inputs, outputs, name=f"/{outputs[0]}/{op_type}" if name is None else name, **more)


def tensor(name: str, array: NDArray[Any]) -> TensorProto:
    """Return an initializer."""
    return numpy_helper.from_array(array, name)


def model(
    nodes: Sequence[Any],
    inputs: Mapping[str, Shape | tuple[int, Shape]],
    outputs: Sequence[str] | Mapping[str, int],
    weights: Mapping[str, NDArray[Any]] | None = None,
    *,
    opset: int = 18,
    ir_version: int = 8,
    domains: Sequence[str] = (),
    functions: Sequence[Any] = (),
) -> onnx.ModelProto:
    """Put a model together; inputs are float32 unless their shape comes with an element type."""
    typed: dict[str, Any] = {name: spec if _has_type(spec) else (FLOAT, spec) for name, spec in inputs.items()}
    kinds = outputs if isinstance(outputs, Mapping) else dict.fromkeys(outputs, FLOAT)
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in typed.items()],
        [helper.make_tensor_value_info(name, kind, _shape(weights, name)) for name, kind in kinds.items()],
        [tensor(name, array) for name, array in (weights or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    proto = helper.make_model(graph, opset_imports=imports, ir_version=ir_version, functions=functions)
    try:
        inferred = onnx.shape_inference.infer_shapes(proto)
    except RuntimeError:  # what onnx cannot infer may still run
        return proto
    for value, known in zip(proto.graph.output, inferred.graph.output, strict=True):
        value.CopyFrom(known)
    return proto


def _shape(weights: Mapping[str, NDArray[Any]] | None, name: str) -> tuple[int, ...] | None:
    return weights[name].shape if weights and name in weights else None


def _has_type(spec: Any) -> bool:
    return len(spec) == 2 and isinstance(spec[1], list | tuple)


def conv_relu(opset: int = 18) -> Tiny:
    """Conv with bias and ReLU; 27 elements per channel, so that lanes need padding."""
    nodes = [node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]), node("Relu", ["c"], ["y"])]
    weights = {"w": random(5, 3, 3, 3), "b": random(5)}
    proto = model(nodes, {"x": (1, 3, 6, 6)}, ["y"], weights, opset=opset)
    return Tiny(proto=proto, feeds={"x": random(1, 3, 6, 6, seed=1)}, weights={"w": 0})


def depthwise_batchnorm(opset: int = 18) -> Tiny:
    """A depthwise Conv, BatchNormalization, and a pointwise Conv with groups."""
    nodes = [
        node("Conv", ["x", "dw"], ["d"], group=6, pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["d", "gamma", "beta", "mean", "var"], ["n"]),
        node("Conv", ["n", "pw"], ["y"], group=2),
    ]
    numbers = {"gamma": random(6) + 1, "beta": random(6), "mean": random(6, seed=2), "var": np.abs(random(6)) + 1}
    weights = {"dw": random(6, 1, 3, 3), "pw": random(4, 3, 1, 1), **numbers}
    proto = model(nodes, {"x": ("N", 6, 5, 5)}, ["y"], weights, opset=opset)
    return Tiny(proto=proto, feeds={"x": random(2, 6, 5, 5, seed=1)}, weights={"dw": 0, "pw": 0})


def gemm(opset: int = 18) -> Tiny:
    """Gemm with its weight as B, as B transposed, as A, and as A transposed."""
    nodes = [
        node("Gemm", ["x", "b"], ["h1"]),
        node("Gemm", ["h1", "bt", "c"], ["h2"], transB=1, alpha=0.5),
        node("Gemm", ["a", "h2"], ["h3"]),
        node("Gemm", ["at", "h3"], ["y"], transA=1),
    ]
    weights = {"b": random(5, 7), "bt": random(6, 7), "c": random(6), "a": random(4, 3), "at": random(4, 9)}
    proto = model(nodes, {"x": (3, 5)}, ["y"], weights, opset=opset)
    return Tiny(proto=proto, feeds={"x": random(3, 5, seed=1)}, weights={"b": 1, "bt": 0, "a": 0, "at": 1})


def matmul(opset: int = 18) -> Tiny:
    """MatMul with its weight as B, batched B, and constant A."""
    nodes = [
        node("MatMul", ["x", "b"], ["h1"]),
        node("MatMul", ["h1", "batched"], ["h2"]),
        node("MatMul", ["a", "h2"], ["y"]),
    ]
    weights = {"b": random(5, 7), "batched": random(2, 7, 3), "a": random(6, 4)}
    proto = model(nodes, {"x": (2, 4, 5)}, ["y"], weights, opset=opset)
    return Tiny(proto=proto, feeds={"x": random(2, 4, 5, seed=1)}, weights={"b": 1, "batched": 2, "a": 0})


def gather(opset: int = 18) -> Tiny:
    """An embedding looked up by indices of rank 0 to 3, negative ones among them; each lookup is an output."""
    ranks: dict[str, tuple[int, ...]] = {"i0": (), "i1": (3,), "i2": (2, 4), "i3": (1, 2, 3)}
    nodes = [node("Gather", ["table", name], [f"y{name}"], axis=0) for name in ranks]
    inputs = {name: (TensorProto.INT64, shape) for name, shape in ranks.items()}
    picks = np.random.default_rng(3)
    feeds = {name: np.asarray(picks.integers(-11, 11, shape), np.int64) for name, shape in ranks.items()}
    proto = model(nodes, inputs, [f"y{name}" for name in ranks], {"table": random(11, 7)}, opset=opset)
    return Tiny(proto=proto, feeds=feeds, weights={"table": 0})


def sliced(opset: int = 18) -> Tiny:
    """Positions: a table whose rows are cut out, up to a length, by steps, backwards, and along an axis not named."""
    cuts = {"head": (0, 4, 0, 1), "steps": (1, 9, -2, 3), "back": (-1, -20, 0, -2), "tail": (-2, 99)}
    nodes: list[Any] = []
    inputs: dict[str, Any] = {}
    feeds: Feeds = {}
    for name, numbers in cuts.items():
        given = [f"{name}_{part}" for part in ("starts", "ends", "axes", "steps")[: len(numbers)]]
        nodes.append(node("Slice", ["table", *given], [name]))
        inputs |= {part: (int(TensorProto.INT64), (1,)) for part in given if not part.endswith(("axes", "steps"))}
        feeds |= {part: np.array([number]) for part, number in zip(given, numbers, strict=True)}
    fixed = {part: feeds.pop(part) for part in list(feeds) if part not in inputs}
    proto = model(nodes, inputs, list(cuts), {"table": random(11, 7), **fixed}, opset=opset)
    return Tiny(proto=proto, feeds=feeds, weights={"table": 0})


def gather_columns(opset: int = 18) -> Tiny:
    """A table looked up along its last axis, which is written as -1."""
    proto = model(
        [node("Gather", ["table", "i"], ["y"], axis=-1)],
        {"i": (TensorProto.INT64, (3,))},
        ["y"],
        {"table": random(4, 9)},
        opset=opset,
    )
    return Tiny(proto=proto, feeds={"i": np.array([0, 8, -1])}, weights={"table": 1})


def tied_embedding(opset: int = 18) -> Tiny:
    """A transformer's habit: the embedding is looked up in front and multiplied, transposed, at the end."""
    nodes = [
        node("Gather", ["table", "i"], ["h"], axis=0),
        node("Transpose", ["table"], ["tableT"], perm=[1, 0]),
        node("MatMul", ["h", "tableT"], ["y"]),
    ]
    proto = model(nodes, {"i": (TensorProto.INT64, ("n", "t"))}, ["y"], {"table": random(10, 6)}, opset=opset)
    return Tiny(proto=proto, feeds={"i": np.array([[1, 9, -2], [0, 3, 3]])}, weights={"table": 0})


def conv_transpose(opset: int = 18) -> Tiny:
    """ConvTranspose: plain, in groups, and depthwise."""
    nodes = [
        node("ConvTranspose", ["x", "plain"], ["h1"]),
        node("ConvTranspose", ["h1", "groups"], ["h2"], group=2, strides=[2, 2]),
        node("ConvTranspose", ["h2", "deep"], ["y"], group=6),
    ]
    weights = {"plain": random(3, 4, 3, 3), "groups": random(4, 3, 2, 2), "deep": random(6, 1, 3, 3)}
    proto = model(nodes, {"x": (1, 3, 4, 4)}, ["y"], weights, opset=opset)
    feeds = {"x": random(1, 3, 4, 4, seed=1)}
    return Tiny(proto=proto, feeds=feeds, weights={"plain": 1, "groups": 1, "deep": 0})


def recurrent(op_type: str, *, both_ways: bool = False, opset: int = 18) -> Tiny:
    """LSTM, GRU or RNN with sequence lengths and an initial state, which are no weights."""
    gates, hidden, size = {"LSTM": 4, "GRU": 3, "RNN": 1}[op_type], 5, 3
    ways = 1 + both_ways
    inputs = ["x", "w", "r", "b", "lens", "h0"]
    attributes: dict[str, Any] = {"hidden_size": hidden, "direction": "bidirectional" if both_ways else "forward"}
    nodes = [node(op_type, inputs, ["y", "last"], **attributes)]
    weights: dict[str, NDArray[Any]] = {
        "w": random(ways, gates * hidden, size),
        "r": random(ways, gates * hidden, hidden, scale=0.3),
        "b": random(ways, 2 * gates * hidden, scale=0.3),
        "lens": np.array([4, 2], np.int32),
        "h0": random(ways, 2, hidden),
    }
    proto = model(nodes, {"x": (4, 2, size)}, ["y", "last"], weights, opset=opset)
    return Tiny(proto=proto, feeds={"x": random(4, 2, size, seed=1)}, weights={"w": 1, "r": 1})


def constant_nodes(opset: int = 18, dtype: Any = np.float32) -> Tiny:
    """Weights in Constant nodes, and no value infos that would tell their type."""
    kind = _TYPES[np.dtype(dtype)]
    nodes = [
        node("Constant", [], ["w1"], value=tensor("", random(5, 7).astype(dtype))),
        node("MatMul", ["x", "w1"], ["h"]),
        node("Constant", [], ["w2"], value=tensor("", random(7, 4).astype(dtype))),
        node("MatMul", ["h", "w2"], ["y"]),
    ]
    proto = model(nodes, {"x": (kind, (3, 5))}, {"y": kind}, opset=opset)
    feeds = {"x": random(3, 5, seed=1).astype(dtype)}
    return Tiny(proto=proto, feeds=feeds, weights={"w1": 1, "w2": 1})


def identity_shared(opset: int = 18) -> Tiny:
    """One large weight, used directly, through an Identity, and through an Identity of the Identity."""
    nodes = [
        node("Identity", ["w"], ["same"]),
        node("Identity", ["same"], ["again"]),
        node("MatMul", ["x", "w"], ["h1"]),
        node("MatMul", ["h1", "same"], ["h2"]),
        node("MatMul", ["h2", "again"], ["y"]),
    ]
    proto = model(nodes, {"x": (2, 40)}, ["y"], {"w": random(40, 40, scale=0.2)}, opset=opset)
    return Tiny(proto=proto, feeds={"x": random(2, 40, seed=1)}, weights={"w": 1})


def identity_only(opset: int = 18) -> Tiny:
    """A large weight that reaches its only user through an Identity."""
    nodes = [node("Identity", ["w"], ["same"]), node("MatMul", ["x", "same"], ["y"])]
    proto = model(nodes, {"x": (2, 40)}, ["y"], {"w": random(40, 40)}, opset=opset)
    return Tiny(proto=proto, feeds={"x": random(2, 40, seed=1)}, weights={"w": 1})


def shared(opset: int = 18) -> Tiny:
    """One weight used by two MatMul nodes, as B of one and as A of the other."""
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("MatMul", ["w", "h"], ["y"])]
    proto = model(nodes, {"x": (6, 6)}, ["y"], {"w": random(6, 6)}, opset=opset)
    return Tiny(proto=proto, feeds={"x": random(6, 6, seed=1)}, weights={"w": 1})


def nameless(opset: int = 18) -> Tiny:
    """Nodes without a name, with one name twice, and with the name an unnamed node would be given."""
    nodes = [
        node("MatMul", ["x", "w0"], ["h0"], name=""),
        node("MatMul", ["h0", "w1"], ["h1"], name="MatMul_0"),
        node("MatMul", ["h1", "w2"], ["h2"], name="twin"),
        node("MatMul", ["h2", "w3"], ["y"], name="twin"),
    ]
    weights = {f"w{index}": random(5, 5, seed=index) for index in range(4)}
    proto = model(nodes, {"x": (2, 5)}, ["y"], weights, opset=opset)
    return Tiny(proto=proto, feeds={"x": random(2, 5, seed=9)}, weights=dict.fromkeys(weights, 1))


def half_precision(opset: int = 18) -> Tiny:
    """A float16 model: MatMul and a float16 table."""
    nodes = [
        node("Gather", ["table", "i"], ["rows"], axis=0),
        node("MatMul", ["rows", "w"], ["y"]),
    ]
    weights = {"table": random(9, 5).astype(np.float16), "w": random(5, 6).astype(np.float16)}
    proto = model(nodes, {"i": (TensorProto.INT64, (4,))}, {"y": TensorProto.FLOAT16}, weights, opset=opset)
    return Tiny(proto=proto, feeds={"i": np.array([0, -1, 4, 8])}, weights={"table": 0, "w": 1})


def brain_float(opset: int = 18) -> Tiny:
    """A bfloat16 table, looked up and widened."""
    nodes = [node("Gather", ["table", "i"], ["rows"], axis=0), node("Cast", ["rows"], ["y"], to=FLOAT)]
    weights = {"table": random(9, 5).astype(ml_dtypes.bfloat16)}
    proto = model(nodes, {"i": (TensorProto.INT64, (4,))}, ["y"], weights, opset=opset)
    return Tiny(proto=proto, feeds={"i": np.array([0, -1, 4, 8])}, weights={"table": 0})


def branches(opset: int = 18) -> Tiny:
    """An If whose branches hold a weight of their own and use one of the outer graph."""
    then = helper.make_graph(
        [node("MatMul", ["h", "inner"], ["t"], name="inside")],
        "then",
        [],
        [helper.make_tensor_value_info("t", FLOAT, None)],
        [tensor("inner", random(6, 6, seed=4))],
    )
    other = helper.make_graph(
        [node("MatMul", ["h", "w"], ["e"], name="captures")],
        "else",
        [],
        [helper.make_tensor_value_info("e", FLOAT, None)],
    )
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("If", ["flag"], ["y"], then_branch=then, else_branch=other),
    ]
    inputs: dict[str, Any] = {"x": (2, 6), "flag": (TensorProto.BOOL, ())}
    proto = model(nodes, inputs, ["y"], {"w": random(6, 6)}, opset=opset)
    return Tiny(proto=proto, feeds={"x": random(2, 6, seed=1), "flag": np.array(False)}, weights={"w": 1})


def listed_inputs(opset: int = 9) -> Tiny:
    """IR version 3: every initializer is listed as an input as well, and that is no way to change it."""
    tiny = conv_relu(opset)
    proto = tiny.proto
    for array in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(array.name, array.data_type, array.dims))
    proto.ir_version = 3
    return tiny


def weight_is_output(opset: int = 18) -> Tiny:
    """A weight that the model gives out as well."""
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("MatMul", ["h", "v"], ["y"])]
    proto = model(nodes, {"x": (2, 5)}, ["y", "w"], {"w": random(5, 5), "v": random(5, 5, seed=2)}, opset=opset)
    return Tiny(proto=proto, feeds={"x": random(2, 5, seed=1)}, weights={"v": 1})


def clashing_names(opset: int = 18) -> Tiny:
    """Inputs, nodes and tensors with the very names that new nodes and tensors would get."""
    nodes = [
        node("MatMul", ["q0", "w"], ["q2"], name="q1"),
        node("Add", ["q2", "k1"], ["h"], name="q3"),
        node("MatMul", ["h", "w.codes"], ["y"], name="q4"),
    ]
    weights = {"w": random(5, 6), "w.codes": random(6, 7)}
    proto = model(nodes, {"q0": (2, 5), "k1": (2, 6)}, ["y"], weights, opset=opset)
    feeds = {"q0": random(2, 5, seed=1), "k1": random(2, 6, seed=2)}
    return Tiny(proto=proto, feeds=feeds, weights={"w": 1, "w.codes": 1})


def image_classifier() -> tuple[Tiny, NDArray[np.int64]]:
    """A Gemm that tells four directions apart without a doubt, and the right answers."""
    labels = np.arange(24) % 4
    directions = np.eye(4, 20, dtype=np.float32)
    proto = model([node("Gemm", ["x", "w"], ["y"], transB=1)], {"x": ("N", 20)}, ["y"], {"w": directions * 3})
    feeds = {"x": directions[labels] + random(24, 20, scale=0.05)}
    return Tiny(proto=proto, feeds=feeds, weights={"w": 0}), labels


OPERATOR_MODELS: dict[str, Callable[[], Tiny]] = {
    "Conv": conv_relu,
    "Conv-depthwise": depthwise_batchnorm,
    "ConvTranspose": conv_transpose,
    "Gemm": gemm,
    "MatMul": matmul,
    "Gather": gather,
    "Gather-columns": gather_columns,
    "Gather-tied": tied_embedding,
    "Slice": sliced,
    "LSTM": lambda: recurrent("LSTM"),
    "LSTM-both-ways": lambda: recurrent("LSTM", both_ways=True),
    "GRU": lambda: recurrent("GRU"),
    "GRU-both-ways": lambda: recurrent("GRU", both_ways=True),
    "RNN": lambda: recurrent("RNN"),
    "RNN-both-ways": lambda: recurrent("RNN", both_ways=True),
}
"""Every operator of the table, in every form that has an axis rule of its own."""

WIRINGS: dict[str, Callable[[], Tiny]] = {
    "constant nodes": constant_nodes,
    "identity": identity_shared,
    "identity only": identity_only,
    "shared": shared,
    "nameless": nameless,
    "float16": half_precision,
    "float16 constant nodes": lambda: constant_nodes(dtype=np.float16),
    "bfloat16": brain_float,
    "branches": branches,
    "listed inputs": listed_inputs,
    "weight is output": weight_is_output,
    "clashing names": clashing_names,
}
"""The ways in which a weight can reach its operator."""
