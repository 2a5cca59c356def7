"""Pieces of a graph: they compute what the whole computes, subgraphs and all."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from ptq_lab.graph import Model, load_model
from ptq_lab.graph.segment import cut_open, cut_segment, given_name
from tests.conftest import Run
from tests.models import random


def branching() -> Model:
    """``y = If(sum(h) > 0, h * w, k)`` behind ``h = Relu(x)``; both branches read values of the outer graph."""
    then = helper.make_graph(
        [helper.make_node("Mul", ["h", "w"], ["t"], name="inner")],
        "then",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)],
    )
    otherwise = helper.make_graph(
        [helper.make_node("Identity", ["k"], ["e"])],
        "else",
        [],
        [helper.make_tensor_value_info("e", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node("Exp", ["x"], ["unused"]),
        helper.make_node("ReduceSum", ["h"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=otherwise),
    ]
    numbers = {"w": random(4), "k": random(4, seed=1), "zero": np.array(0, np.float32), "other": random(2)}
    weights = [numpy_helper.from_array(array, name) for name, array in numbers.items()]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    return load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def proto(model: Model) -> onnx.ModelProto:
    return onnx.load_model_from_string(model.serialize())


def test_a_piece_with_a_subgraph_takes_along_what_its_branches_read(run: Run) -> None:
    model = branching()
    feeds = {"x": random(4, seed=3) + np.float32(1)}
    piece = cut_segment(model, ["h"], ["y"])
    assert [value.name for value in piece.graph.inputs] == ["h"]
    assert set(piece.graph.initializers) == {"w", "k", "zero"}
    wanted = run(proto(model), feeds)["y"]
    np.testing.assert_array_equal(run(proto(piece), {"h": np.maximum(feeds["x"], 0)})["y"], wanted)


def test_cutting_leaves_the_model_as_it_was() -> None:
    model = branching()
    before = model.serialize()
    piece = cut_segment(model, [], ["s"])
    piece.graph.inputs[0].name = "renamed"
    assert [node.op_type for node in piece.graph] == ["Relu", "ReduceSum"]
    assert model.serialize() == before


def test_a_model_cut_open_still_makes_what_it_no_longer_reads(run: Run) -> None:
    model = branching()
    opened = cut_open(model, {"h": ir.DataType.FLOAT})
    opened.graph.outputs.append(next(node for node in opened.graph if node.op_type == "Relu").outputs[0])
    x, h = -np.ones(4, np.float32), np.full(4, 2, np.float32)
    got = run(proto(opened), {"x": x, given_name("h"): h})
    np.testing.assert_array_equal(got["h"], np.zeros(4))
    np.testing.assert_allclose(got["y"], 2 * random(4), rtol=1e-6)
