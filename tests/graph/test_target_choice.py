"""Which weights are found, along which axis, and the reason for each that stays float."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from ptq_lab.graph import Rules, Skip, find_targets, load_model
from tests.graph.quantized import EVERYTHING
from tests.models import (
    FLOAT,
    OPERATOR_MODELS,
    WIRINGS,
    Tiny,
    branches,
    conv_relu,
    depthwise_batchnorm,
    identity_only,
    identity_shared,
    matmul,
    model,
    node,
    random,
    recurrent,
    shared,
    tied_embedding,
    weight_is_output,
)


def find(tiny: Tiny | onnx.ModelProto, rules: Rules = EVERYTHING) -> tuple[dict[str, int], dict[str, Skip]]:
    found = find_targets(load_model(tiny.proto if isinstance(tiny, Tiny) else tiny), rules)
    skips = {skip.tensor: skip for skip in found.skips}
    assert len(skips) == len(found.skips), "a weight is listed twice"
    targets = {target.tensor: target.axis for target in found.targets}
    assert not skips.keys() & targets.keys(), "a weight is both quantized and left alone"
    return targets, skips


@pytest.mark.parametrize("name", [*OPERATOR_MODELS, *WIRINGS])
def test_every_weight_is_found_once_with_the_axis_of_its_output_channels(name: str) -> None:
    tiny = {**OPERATOR_MODELS, **WIRINGS}[name]()
    assert find(tiny)[0] == dict(tiny.weights)


def test_targets_come_in_the_order_of_the_graph_with_all_their_nodes() -> None:
    found = find_targets(load_model(identity_shared().proto), EVERYTHING).targets
    assert [target.nodes for target in found] == [("/h1/MatMul", "/h2/MatMul", "/y/MatMul")]
    both = find_targets(load_model(tied_embedding().proto), EVERYTHING).targets[0]
    assert both.nodes == ("/h/Gather", "/y/MatMul")
    assert both.by_row
    order = [target.tensor for target in find_targets(load_model(matmul().proto), EVERYTHING).targets]
    assert order == ["b", "batched", "a"]


def test_bytes_are_those_stored_in_the_original() -> None:
    found = find_targets(load_model(WIRINGS["float16"]().proto), EVERYTHING).targets
    assert {target.tensor: target.bytes for target in found} == {"table": 9 * 5 * 2, "w": 5 * 6 * 2}


def test_lstm_state_and_lengths_are_no_weights_and_no_skips() -> None:
    targets, skips = find(recurrent("LSTM", both_ways=True))
    assert set(targets) == {"w", "r"}
    assert not skips


@pytest.mark.parametrize(("limit", "kept"), [(134, True), (135, False), (136, False)])
def test_a_weight_needs_strictly_more_elements_than_the_limit(limit: int, kept: bool) -> None:
    targets, skips = find(conv_relu(), Rules(min_size=limit, min_channels=0))
    assert ("w" in targets) == kept
    if not kept:
        assert skips["w"].reason == f"135 elements are not more than min_quant_weight_size={limit}"
        assert skips["w"].setting == f"min_quant_weight_size={limit}"


@pytest.mark.parametrize(("limit", "kept"), [(4, True), (5, False), (6, False)])
def test_a_weight_needs_strictly_more_channels_than_the_limit(limit: int, kept: bool) -> None:
    targets, skips = find(conv_relu(), Rules(min_channels=limit))
    assert ("w" in targets) == kept
    if not kept:
        assert skips["w"].reason == f"5 channels are not more than min_quant_weight_channel={limit}"
        assert skips["w"].setting == f"min_quant_weight_channel={limit}"


def test_the_default_channel_limit_leaves_16_channels_in_float_and_takes_17() -> None:
    for channels in (16, 17):
        proto = model([node("Conv", ["x", "w"], ["y"])], {"x": (1, 2, 5, 5)}, ["y"], {"w": random(channels, 2, 3, 3)})
        assert ("w" in find(proto, Rules())[0]) == (channels == 17)


def test_the_channel_limit_counts_the_channel_axis_of_any_operator() -> None:
    proto = model([node("MatMul", ["x", "w"], ["y"])], {"x": (1, 40)}, ["y"], {"w": random(40, 8)})
    assert find(proto, Rules())[1]["w"].reason == "8 channels are not more than min_quant_weight_channel=16"


def single(op_type: str, weight: Any, *, more: tuple[str, ...] = (), **attributes: Any) -> onnx.ModelProto:
    return model([node(op_type, ["x", "w", *more], ["y"], **attributes)], {"x": ("a", "b")}, ["y"], {"w": weight})


def run_time_kernel() -> onnx.ModelProto:
    nodes = [node("Relu", ["k"], ["w"]), node("Conv", ["x", "w"], ["y"])]
    return model(nodes, {"x": (1, 2, 5, 5), "k": (3, 2, 3, 3)}, ["y"])


def input_kernel() -> onnx.ModelProto:
    proto = model([node("Conv", ["x", "w"], ["y"])], {"x": (1, 2, 5, 5), "w": (3, 2, 3, 3)}, ["y"])
    proto.graph.initializer.append(onnx.numpy_helper.from_array(random(3, 2, 3, 3), "w"))
    return proto


def quantized_already() -> onnx.ModelProto:
    nodes = [node("DequantizeLinear", ["q", "s"], ["w"]), node("Conv", ["x", "w"], ["y"])]
    weights = {"s": np.array(0.1, np.float32)}
    proto = model(nodes, {"x": (1, 2, 5, 5)}, ["y"], weights)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((3, 2, 3, 3), np.int8), "q"))
    return proto


def double() -> onnx.ModelProto:
    return model(
        [node("MatMul", ["x", "w"], ["y"])],
        {"x": (TensorProto.DOUBLE, (2, 4))},
        {"y": TensorProto.DOUBLE},
        {"w": random(4, 3).astype(np.float64)},
    )


def double_in_a_constant() -> onnx.ModelProto:
    value = onnx.numpy_helper.from_array(random(4, 3).astype(np.float64))
    nodes = [node("Constant", [], ["w"], value=value), node("MatMul", ["x", "w"], ["y"])]
    return model(nodes, {"x": (TensorProto.DOUBLE, (2, 4))}, {"y": TensorProto.DOUBLE})


REASONS: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "one axis": (lambda: single("MatMul", random(4)), "a weight needs two axes or more, this one has 1"),
    "no axis": (
        lambda: model([node("Gather", ["w", "i"], ["y"])], {"i": (TensorProto.INT64, ())}, ["y"], {"w": random(9)}),
        "a weight needs two axes or more, this one has 1",
    ),
    "float64": (double, "float64 weights are not quantized"),
    "float64 Constant": (double_in_a_constant, "float64 weights are not quantized"),
    "output": (lambda: weight_is_output().proto, "it is an output of the model as well"),
    "empty": (lambda: single("MatMul", np.zeros((0, 3), np.float32)), "it is empty"),
    "input": (input_kernel, "it is an input of the model"),
    "run time": (run_time_kernel, "it is computed by Relu at run time"),
    "quantized": (quantized_already, "it is quantized already"),
    "unknown operator": (
        lambda: single("Add", random(32, 32)),
        "Add is not an operator whose weights are known",
    ),
}


@pytest.mark.parametrize("name", REASONS)
def test_each_weight_that_stays_float_has_its_reason_and_no_setting_is_blamed(name: str) -> None:
    build, reason = REASONS[name]
    targets, skips = find(build())
    assert "w" not in targets
    assert (skips["w"].reason, skips["w"].setting) == (reason, "")
    assert skips["w"].node


def test_a_tensor_too_large_to_fold_stays_float_unless_its_rows_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import ptq_lab.graph.targets as room

    monkeypatch.setattr(room, "_FOLDING_LIMIT", 50)
    assert find(OPERATOR_MODELS["Gather"]())[0] == {"table": 0}  # 77 elements, decoded row by row
    for tiny, name in ((conv_relu(), "w"), (tied_embedding(), "table")):  # the second is multiplied whole as well
        targets, skips = find(tiny)
        assert not targets
        assert skips[name].reason.startswith("larger than 1 GiB")
    monkeypatch.setattr(room, "_FOLDING_LIMIT", 135)
    assert find(conv_relu())[0] == {"w": 0}


def test_small_constants_of_unknown_operators_and_activations_are_not_worth_a_line() -> None:
    nodes = [node("Add", ["x", "w"], ["h"]), node("MatMul", ["h", "x"], ["y"])]
    targets, skips = find(model(nodes, {"x": (4, 4)}, ["y"], {"w": random(4, 4)}))
    assert not targets
    assert not skips


def test_a_constant_of_two_unknown_operators_is_listed_once() -> None:
    nodes = [node("Add", ["x", "w"], ["h"]), node("Mul", ["h", "w"], ["y"])]
    _, skips = find(model(nodes, {"x": (32, 32)}, ["y"], {"w": random(32, 32)}))
    assert skips["w"].node == "/h/Add"


def test_an_identity_in_between_is_nothing_to_report() -> None:
    assert find(identity_only()) == ({"w": 1}, {})


def test_what_lies_in_a_subgraph_is_listed_and_what_is_captured_is_quantized_once() -> None:
    targets, skips = find(branches())
    assert set(targets) == {"w"}
    assert skips.keys() == {"inner"}
    assert "inside the subgraph of /y/If (If)" in skips["inner"].reason


def test_a_shared_weight_is_left_alone_as_a_whole_when_one_of_its_nodes_is() -> None:
    for name in ("/h/MatMul", "/y/MatMul"):
        targets, skips = find(shared(), Rules(min_channels=0, skip=(name,)))
        assert not targets
        assert skips["w"].setting == f"skip_quant_node={name}"
    assert "for /y/MatMul, which shares it" in skips["w"].reason


def test_skip_patterns_leave_the_other_weights_in_the_plan() -> None:
    targets, skips = find(depthwise_batchnorm(), Rules(min_channels=0, skip=("/d/*",)))
    assert targets == {"pw": 0}
    assert skips["dw"].reason == skips["dw"].setting == "skip_quant_node=/d/*"


def test_a_pattern_that_matches_nothing_is_a_warning_with_the_nearest_names() -> None:
    found = find_targets(load_model(matmul().proto), Rules(min_channels=0, skip=("/h1/Matmul", "type:Conv")))
    assert len(found.targets) == 3
    first, second = found.problems
    assert first.level == second.level == "warning"
    assert "'/h1/Matmul' matches no node" in str(first)
    assert "/h1/MatMul" in first.hint
    assert "'type:Conv' matches no node" in str(second)


def test_graph_inputs_with_a_default_count_only_before_ir_version_4() -> None:
    old = WIRINGS["listed inputs"]().proto
    assert set(find(old)[0]) == {"w"}
    old.ir_version = 4
    targets, skips = find(old)
    assert not targets
    assert skips["w"].reason == "it is an input of the model"


def test_custom_operators_with_a_known_name_are_not_taken_for_it() -> None:
    nodes = [node("Conv", ["x", "w"], ["y"], domain="mine")]
    proto = model(nodes, {"x": (1, 2, 5, 5)}, {"y": FLOAT}, {"w": random(32, 8, 3, 3)}, domains=["mine"])
    targets, skips = find(proto)
    assert not targets
    assert skips.keys() == {"w"}
