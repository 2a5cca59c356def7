"""Which layers of a plan run as integer kernels, read from the graph that onnxruntime made."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from ptq_lab.graph import Model, load_model
from ptq_lab.graph.kernels import count_kernels, original_name
from ptq_lab.plan import QuantPlan
from ptq_lab.runtime import optimized_model
from tests.graph.test_shield import only_where_it_happens
from tests.integers import Integers, pictures, separable, to_int8
from tests.models import model, node, random


def dense() -> Integers:
    """A Gemm, a MatMul, and a MatMul of two activations."""
    nodes = [
        node("Gemm", ["x", "g", "b"], ["h"], name="gemm"),
        node("Relu", ["h"], ["r"]),
        node("MatMul", ["r", "m"], ["k"], name="matmul"),
        node("MatMul", ["k", "r"], ["y"], name="scores"),
    ]
    weights = {"g": random(8, 6), "b": random(6), "m": random(6, 4)}
    proto = model(nodes, {"x": (4, 8)}, ["y"], weights)
    return to_int8(proto, [{"x": random(4, 8, seed=seed)} for seed in (1, 2)])


def kernels_of(done: Integers) -> Any:
    return count_kernels(optimized_model(done.quantized), done.plan)


def test_every_convolution_is_found_as_an_integer_kernel() -> None:
    report = kernels_of(to_int8(separable(), pictures()))
    assert [(layer.node, layer.kernel) for layer in report.layers] == [
        ("stem", "QLinearConv"),
        ("deep", "QLinearConv"),
        ("point", "QLinearConv"),
    ]
    assert str(report) == "3 of 3 layers run as int8"
    assert report.notes == ()


def test_gemm_and_matmul_are_found_and_a_matmul_of_two_activations_is_no_layer() -> None:
    report = kernels_of(dense())
    assert [layer.node for layer in report.layers] == ["gemm", "matmul"]
    assert {layer.kernel for layer in report.layers} <= {"QGemm", "MatMulIntegerToFloat", "QLinearMatMul"}
    assert report.integer == 2


def test_before_onnxruntime_has_optimized_the_same_layers_are_float_with_a_reason() -> None:
    done = to_int8(separable(), pictures())
    report = count_kernels(done.quantized, done.plan)
    assert report.integer == 0
    assert {layer.kernel for layer in report.layers} == {"Conv"}
    assert "3 of 3 layers do not run as int8" in " ".join(report.notes) or len(report.notes) > 1
    assert "stem" in report.notes[0]


def test_a_layer_whose_float_output_somebody_reads_is_named_with_that_reader() -> None:
    done = to_int8(separable(), pictures())
    changed = done.quantized.clone()
    layer = next(value for value in changed.graph if value.name == "point")
    reader = ir.node("Sin", [layer.outputs[0]], name="peek")
    reader.outputs[0].name = "peeked"
    reader.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    changed.graph.append(reader)
    changed.graph.outputs.append(reader.outputs[0])
    report = count_kernels(optimized_model(changed), done.plan)
    assert [layer.node for layer in report.layers if not layer.integer] == ["point"]
    assert "Sin" in report.notes[0]
    assert report.notes[0].startswith("1 of 3 layers do not run as int8")


def by_hand(*nodes: ir.Node, codes: str = "") -> Model:
    graph = ir.Graph([], [], nodes=nodes, initializers=[], opset_imports={"": 17}, name="by_hand")
    for item in nodes:
        for value in item.inputs:
            if value is not None and value.name == codes:
                value.const_value = ir.tensor(np.zeros((8, 3, 3, 3), np.int8), name=codes)
                graph.register_initializer(value)
    return Model(ir.Model(graph, ir_version=8), "by_hand")


def test_a_kernel_that_decodes_at_run_time_is_not_an_integer_kernel() -> None:
    done = dense()
    optimized = by_hand(ir.node("MatMulNBits", [ir.Value(name="r"), ir.Value(name="packed")], name="matmul"))
    layer = next(layer for layer in count_kernels(optimized, done.plan).layers if layer.node == "matmul")
    assert (layer.kernel, layer.integer) == ("MatMulNBits", False)
    assert "computes in float" in layer.why


def test_a_layer_without_a_trace_is_not_counted_as_an_integer_kernel() -> None:
    done = dense()
    report = count_kernels(by_hand(), done.plan)
    assert (report.integer, [layer.kernel for layer in report.layers]) == (0, ["", ""])
    assert "gemm, matmul" in report.notes[0]


@pytest.mark.parametrize("name", ["anything", "stem_token_3", "stem"])
def test_a_layer_is_found_by_its_codes_whatever_its_node_is_called(name: str) -> None:
    done = to_int8(separable(), pictures())
    inputs = [ir.Value(name=text) for text in ("x", "s", "z", "first.codes", "ws", "wz", "ys", "yz")]
    report = count_kernels(by_hand(ir.node("QLinearConv", inputs, name=name), codes="first.codes"), done.plan)
    assert (report.layers[0].node, report.layers[0].kernel) == ("stem", "QLinearConv")
    assert report.unasked == ()


def test_two_layers_with_one_weight_are_told_apart() -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["h"], name="one"),
        node("Relu", ["h"], ["r"]),
        node("MatMul", ["r", "w"], ["y"], name="two"),
    ]
    proto = model(nodes, {"x": (4, 6)}, ["y"], {"w": random(6, 6)})
    done = to_int8(proto, [{"x": random(4, 6, seed=1)}])
    report = kernels_of(done)
    assert [layer.node for layer in report.layers] == ["one", "two"]
    assert report.integer == 2
    assert report.unasked == ()


@only_where_it_happens
def test_a_float_layer_that_onnxruntime_rounds_by_itself_is_reported_and_with_the_shield_there_is_none() -> None:
    bare = kernels_of(to_int8(separable(), pictures(), skip=("deep",), shield=False))
    assert bare.unasked == ("deep",)
    assert any("rounds a float layer to 8 bits by itself" in note and "deep" in note for note in bare.notes)
    shielded = kernels_of(to_int8(separable(), pictures(), skip=("deep",)))
    assert shielded.unasked == ()
    assert shielded.notes == ()
    assert str(shielded) == "2 of 2 layers run as int8"


def test_a_plan_for_weights_only_gives_an_empty_report() -> None:
    report = count_kernels(load_model(separable()), QuantPlan(()))
    assert (report.layers, report.unasked, report.notes) == ((), (), ())


def test_what_onnxruntime_adds_to_a_name_is_taken_off_and_nothing_else() -> None:
    names = ("conv", "conv_token_1", "conv_token_1_token_22", "fused conv", "conv_nchwc", "a_token_of_b")
    assert [original_name(ir.node("Conv", [], name=name)) for name in names] == [*["conv"] * 5, "a_token_of_b"]
