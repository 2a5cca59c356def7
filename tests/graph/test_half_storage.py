"""`fp16=True`: what stays float takes half the bytes, and what does not fit stays as it was."""

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from ptq_lab.graph import apply_plan, load_model, store_half
from tests.conftest import Run
from tests.graph.quantized import plan_of, quantized
from tests.models import branches, matmul, model, node, random


def wide(**weights: NDArray[Any]) -> onnx.ModelProto:
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Add", ["h", "b"], ["y"])]
    return model(nodes, {"x": (2, 30)}, ["y"], {"w": random(30, 40), "b": random(40)} | weights)


def test_large_floats_are_halved_small_ones_stay_and_the_note_counts_them(run: Run) -> None:
    original = load_model(wide())
    before = original.serialize()
    halved, facts = store_half(original)
    assert original.serialize() == before
    assert (facts.tensors, facts.bytes_saved, facts.kept) == (1, 30 * 40 * 2, ())
    assert 0 < facts.worst_relative_error < 1e-3
    assert "1 tensors that stay float" in str(facts)
    stored = {array.name: array.data_type for array in onnx.load_from_string(halved.serialize()).graph.initializer}
    assert stored == {"b": onnx.TensorProto.FLOAT, "w.half": onnx.TensorProto.FLOAT16}
    feeds = {"x": random(2, 30, seed=1)}
    np.testing.assert_allclose(run(halved, feeds)["y"], run(original, feeds)["y"], atol=0.02)
    onnx.checker.check_model(onnx.load_from_string(halved.serialize()), full_check=True)


@pytest.mark.parametrize("value", [7e4, np.inf, np.nan])
def test_a_tensor_with_a_value_that_does_not_fit_stays_float32(value: float) -> None:
    weight = random(30, 40)
    weight[3, 3] = value
    halved, facts = store_half(load_model(wide(w=weight)))
    assert facts.kept == ("w",)
    assert facts.tensors == 0
    assert "1 do not fit into 16 bits" in str(facts)
    assert np.array_equal(halved.weight("w"), weight, equal_nan=True)


@pytest.mark.parametrize("bits", [1, 4, 5, 8, 11])
def test_codes_scales_and_offsets_of_quantized_weights_stay_as_they_are(bits: int, run: Run) -> None:
    tiny = matmul()
    _, result, _ = quantized(tiny.proto, bits)
    halved, facts = store_half(result)
    assert facts.tensors == 0
    assert np.array_equal(run(halved, tiny.feeds)["y"], run(result, tiny.feeds)["y"])


def test_scales_of_many_channels_stay_float32_and_other_floats_of_that_name_do_not() -> None:
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Mul", ["h", "norm.scale"], ["y"])]
    proto = model(nodes, {"x": (2, 5)}, ["y"], {"w": random(5, 200), "norm.scale": random(200)})
    original = load_model(proto)
    halved, facts = store_half(apply_plan(original, plan_of(original, 8)))
    kinds = {array.name: array.data_type for array in onnx.load_from_string(halved.serialize()).graph.initializer}
    assert kinds["w.scale"] == kinds["w.offset"] == onnx.TensorProto.FLOAT
    assert facts.tensors == 1
    assert kinds["norm.scale.half"] == onnx.TensorProto.FLOAT16


def test_a_weight_that_a_subgraph_captures_is_widened_for_it_too(run: Run) -> None:
    tiny = branches()
    proto = tiny.proto
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(random(6, 6), "w"))
    big = model([node("MatMul", ["x", "w"], ["y"])], {"x": (2, 12)}, ["y"], {"w": random(12, 12)})
    halved, facts = store_half(load_model(big))
    assert facts.tensors == 1
    assert run(halved, {"x": random(2, 12)})["y"].shape == (2, 12)
    assert np.array_equal(
        run(store_half(load_model(proto))[0], tiny.feeds)["y"], run(load_model(proto), tiny.feeds)["y"]
    )


def test_inputs_and_outputs_of_the_model_keep_their_type(run: Run) -> None:
    proto = model([node("MatMul", ["x", "w"], ["y"])], {"x": (2, 12)}, ["y", "w"], {"w": random(12, 12)})
    halved, facts = store_half(load_model(proto))
    assert facts.tensors == 0
    assert run(halved, {"x": random(2, 12)})["w"].dtype == np.float32


def test_tensors_that_are_to_be_kept_stay_float32() -> None:
    kept, told = store_half(load_model(wide()), keep=["w"])
    stored = {array.name: array.data_type for array in onnx.load_from_string(kept.serialize()).graph.initializer}
    assert stored == {"b": onnx.TensorProto.FLOAT, "w": onnx.TensorProto.FLOAT}
    assert told.tensors == 0
