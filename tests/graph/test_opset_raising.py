"""Raising the opset: what the model computes stays, or it is refused with what to do instead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ptq_lab.errors import ModelError, PtqLabError
from ptq_lab.graph import load_model, raise_opset, required_onnxruntime, required_opset
from ptq_lab.graph.opset import ir_version_for, onnxruntime_for
from ptq_lab.runtime import require_same
from tests.conftest import Run
from tests.graph.quantized import float_twin, plan_of, quantized
from tests.models import OPERATOR_MODELS, Tiny, conv_relu, depthwise_batchnorm, matmul, model, node, random

KERNEL = random(20, 3, 5, 5)  # 6000 bytes: large enough to be kept out of the converter's way


def image(opset: int, nodes: Sequence[Any], outputs: Sequence[str] = ("y",), **weights: np.ndarray[Any, Any]) -> Tiny:
    """A Conv whose output ``c``, 20 channels of 6x6, goes through the nodes given."""
    front = node("Conv", ["x", "w"], ["c"], pads=[2, 2, 2, 2])
    proto = model([front, *nodes], {"x": (1, 3, 6, 6)}, outputs, {"w": KERNEL, **weights}, opset=opset)
    return Tiny(proto=proto, feeds={"x": random(1, 3, 6, 6, seed=1)}, weights={"w": 0})


def batchnorm(opset: int) -> Tiny:
    names = ["gamma", "beta", "mean", "var"]
    numbers = {name: np.abs(random(20, seed=index)) + 0.5 for index, name in enumerate(names)}
    return image(opset, [node("BatchNormalization", ["c", *names], ["y"])], ("y",), **numbers)


SCALES = np.array([1, 1, 2, 2], np.float32)
NOTHING = np.zeros(0, np.float32)

OLD: dict[str, Callable[[], Tiny]] = {
    "plain": lambda: conv_relu(9),
    "BatchNormalization-9": lambda: batchnorm(9),
    "BatchNormalization-13": lambda: batchnorm(13),
    "depthwise-10": lambda: depthwise_batchnorm(10),
    "ReduceMean-13": lambda: image(13, [node("ReduceMean", ["c"], ["y"], axes=[2, 3], keepdims=0)]),
    "ReduceMean-17-all": lambda: image(17, [node("ReduceMean", ["c"], ["y"])]),
    "ReduceSum-11": lambda: image(11, [node("ReduceSum", ["c"], ["y"], axes=[1])]),
    "Split-13": lambda: image(13, [node("Split", ["c"], ["y", "z"], axis=1)], ["y", "z"]),
    "Split-11": lambda: image(11, [node("Split", ["c"], ["y", "z"], axis=1, split=[5, 15])], ["y", "z"]),
    "Resize-10": lambda: image(10, [node("Resize", ["c", "s"], ["y"], mode="nearest")], s=SCALES),
    "Resize-11": lambda: image(11, [node("Resize", ["c", "roi", "s"], ["y"], mode="linear")], s=SCALES, roi=NOTHING),
    "Resize-13": lambda: image(13, [node("Resize", ["c", "", "s"], ["y"], mode="linear")], s=SCALES),
    "Upsample-9": lambda: image(9, [node("Upsample", ["c", "s"], ["y"], mode="nearest")], s=SCALES),
    "Pad-10": lambda: image(10, [node("Pad", ["c"], ["y"], pads=[0, 0, 1, 1, 0, 0, 1, 1], mode="reflect")]),
    "Pad-13": lambda: image(13, [node("Pad", ["c", "p"], ["y"])], p=np.array([0, 0, 1, 2, 0, 0, 0, 1])),
    "Dropout-10": lambda: image(10, [node("Dropout", ["c"], ["d"], ratio=0.4), node("Relu", ["d"], ["y"])]),
    "Clip-10": lambda: image(10, [node("Clip", ["c"], ["y"], min=-0.5, max=0.75)]),
    "Slice-9": lambda: image(9, [node("Slice", ["c"], ["y"], axes=[2], starts=[1], ends=[5])]),
    "Softmax-11": lambda: image(11, [node("Softmax", ["c"], ["y"], axis=1)]),
    "Squeeze-11": lambda: image(
        11, [node("GlobalAveragePool", ["c"], ["g"]), node("Squeeze", ["g"], ["y"], axes=[2, 3])]
    ),
    "Unsqueeze-11": lambda: image(11, [node("Unsqueeze", ["c"], ["y"], axes=[0])]),
    "Flatten-9": lambda: image(9, [node("Flatten", ["c"], ["y"])]),
    "AveragePool-9": lambda: image(9, [node("AveragePool", ["c"], ["y"], kernel_shape=[2, 2], strides=[2, 2])]),
    "PRelu-9": lambda: image(9, [node("PRelu", ["c", "slope"], ["y"])], slope=random(20, 1, 1)),
    "HardSwish-14": lambda: image(14, [node("HardSwish", ["c"], ["y"])]),
    "LayerNormalization-17": lambda: image(17, [node("LayerNormalization", ["c", "g"], ["y"])], g=random(6)),
}


@pytest.mark.parametrize("opset", [18, 21])
@pytest.mark.parametrize("name", OLD)
def test_a_raised_model_computes_what_the_old_one_computes(name: str, opset: int, run: Run) -> None:
    tiny = OLD[name]()
    original = load_model(tiny.proto)
    before = original.serialize()
    raised = raise_opset(original, opset)
    assert raised.opset == opset
    assert original.serialize() == before, "the original was changed"
    wanted, got = run(original, tiny.feeds), run(raised, tiny.feeds)
    assert wanted.keys() == got.keys()
    for output, value in wanted.items():
        np.testing.assert_allclose(got[output], value, rtol=1e-5, atol=1e-6)
    require_same(original, raised, tiny.feeds)
    names = {n.name for n in original.graph}
    assert {n.name for n in original.graph if n.op_type == "Conv"} <= {n.name for n in raised.graph} & names


@pytest.mark.parametrize("bits", [4, 5])
@pytest.mark.parametrize("name", OLD)
def test_an_old_model_is_quantized_exactly_at_a_width_that_needs_a_newer_opset(name: str, bits: int, run: Run) -> None:
    tiny = OLD[name]()
    original, result, plan = quantized(tiny.proto, bits)
    assert "w" in {entry.tensor for entry in plan.entries} or name in ("depthwise-10",)
    wanted, got = run(float_twin(original, plan), tiny.feeds), run(result, tiny.feeds)
    assert all(np.array_equal(got[output], value) for output, value in wanted.items())
    onnx.checker.check_model(onnx.load_from_string(result.serialize()))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("opset", [9, 11, 13, 17])
def test_native_widths_leave_the_opset_alone(bits: int, opset: int) -> None:
    assert quantized(matmul(opset).proto, bits)[1].opset == opset


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21])
@pytest.mark.parametrize("name", [name for name in OPERATOR_MODELS if "Gemm" not in name])
def test_operators_of_every_age_reach_both_packed_opsets(name: str, opset: int, run: Run) -> None:
    tiny = OPERATOR_MODELS[name]()
    proto = onnx.ModelProto.FromString(tiny.proto.SerializeToString())
    proto.opset_import[0].version = opset
    original = load_model(proto)
    try:
        wanted = run(original, tiny.feeds)
    except Exception:  # an operator that this opset did not have in this form
        pytest.skip("onnxruntime has no such model")
    for newer in (18, 21):
        got = run(raise_opset(original, newer), tiny.feeds)
        assert all(np.allclose(got[output], value, atol=1e-5) for output, value in wanted.items())


def test_when_no_definition_changed_only_the_number_moves_and_names_stay() -> None:
    original = load_model(matmul(13).proto)
    raised = raise_opset(original, 18)
    assert [n.name for n in raised.graph] == [n.name for n in original.graph]
    assert (raised.opset, raised.ir_model.ir_version) == (18, 8)
    assert raise_opset(raised, 18) is raised
    assert raise_opset(raised, 7) is raised


def test_the_converter_never_sees_a_large_weight_and_gives_it_back_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    import ptq_lab.graph.opset as room

    seen: list[int] = []
    convert = room._convert_proto

    def watched(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
        seen.extend(len(array.raw_data) for array in proto.graph.initializer)
        return convert(proto, opset)

    monkeypatch.setattr(room, "_convert_proto", watched)
    original = load_model(OLD["Split-13"]().proto)
    raised = raise_opset(original, 18)
    assert all(size <= 4096 for size in seen)
    assert np.array_equal(raised.weight("w"), original.weight("w"))
    assert [value.name for value in raised.graph.inputs] == ["x"]


def branch(name: str, nodes: Sequence[Any], output: str) -> onnx.GraphProto:
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)])


def with_if(opset: int) -> Tiny:
    then = branch("then", [node("ReduceMean", ["c"], ["t"], axes=[1], keepdims=1)], "t")
    other = branch("else", [node("Relu", ["c"], ["e"])], "e")
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("If", ["flag"], ["y"], then_branch=then, else_branch=other),
    ]
    inputs: dict[str, Any] = {"x": (1, 3, 6, 6), "flag": (TensorProto.BOOL, ())}
    proto = model(nodes, inputs, ["y"], {"w": KERNEL}, opset=opset)
    return Tiny(proto=proto, feeds={"x": random(1, 3, 6, 6), "flag": np.array(True)}, weights={"w": 0})


def with_function(opset: int, op_type: str, **attributes: Any) -> Tiny:
    body = [node(op_type, ["a"], ["b"], **attributes)]
    function = helper.make_function("mine", "Twist", ["a"], ["b"], body, [helper.make_opsetid("", opset)])
    nodes = [node("Conv", ["x", "w"], ["c"]), node("Twist", ["c"], ["y"], domain="mine")]
    proto = model(nodes, {"x": (1, 3, 6, 6)}, ["y"], {"w": KERNEL}, opset=opset, domains=["mine"], functions=[function])
    return Tiny(proto=proto, feeds={"x": random(1, 3, 6, 6)}, weights={"w": 0})


def with_domain(opset: int, *more: Any) -> Tiny:
    nodes = [
        node("Conv", ["x", "w"], ["c"], pads=[2, 2, 2, 2]),
        node("QuickGelu", ["c"], ["y" if not more else "g"], domain="com.microsoft"),
        *more,
    ]
    proto = model(nodes, {"x": (1, 3, 6, 6)}, ["y"], {"w": KERNEL}, opset=opset, domains=["com.microsoft"])
    return Tiny(proto=proto, feeds={"x": random(1, 3, 6, 6)}, weights={"w": 0})


@pytest.mark.parametrize(
    "tiny",
    [
        pytest.param(with_if(13), id="changed operator in a subgraph"),
        pytest.param(with_function(14, "Relu"), id="function whose operators stayed"),
        pytest.param(with_function(13, "ReduceMean", axes=[1]), id="function with a changed operator"),
        pytest.param(with_domain(13), id="operator of onnxruntime"),
        pytest.param(with_domain(13, node("ReduceMean", ["g"], ["y"], axes=[1])), id="and a changed operator"),
    ],
)
def test_what_the_converter_does_not_know_is_either_right_or_refused_in_one_line(tiny: Tiny, run: Run) -> None:
    original = load_model(tiny.proto)
    refusal = ""
    try:
        raised = raise_opset(original, 18)
        require_same(original, raised, tiny.feeds)
    except PtqLabError as error:
        refusal = str(error)
    if refusal:
        assert "\n" not in refusal
        assert "<ModelProto>" in refusal
        assert "bit_num=8 or 16" in refusal
    else:
        np.testing.assert_allclose(run(raised, tiny.feeds)["y"], run(original, tiny.feeds)["y"], rtol=1e-5, atol=1e-6)


def test_a_function_whose_operators_stayed_is_raised_with_the_model() -> None:
    raised = raise_opset(load_model(with_function(14, "Relu").proto), 18)
    proto = onnx.load_from_string(raised.serialize())
    assert proto.functions[0].opset_import[0].version == 18


def test_a_function_with_a_changed_operator_is_refused() -> None:
    with pytest.raises(ModelError, match="local functions cannot be raised"):
        raise_opset(load_model(with_function(13, "ReduceMean", axes=[1]).proto), 18)


def test_the_standard_domain_may_be_spelled_out(run: Run) -> None:
    tiny = matmul(13)
    tiny.proto.opset_import[0].domain = "ai.onnx"
    original = load_model(tiny.proto)
    assert original.opset == 13
    raised = raise_opset(original, 18)
    assert raised.opset == 18
    onnx.checker.check_model(onnx.load_from_string(raised.serialize()))
    assert np.array_equal(run(raised, tiny.feeds)["y"], run(original, tiny.feeds)["y"])


@pytest.mark.parametrize(("bits", "opset"), [(1, 18), (2, 18), (3, 18), (4, 21), (5, 18), (8, 7), (15, 18), (16, 7)])
def test_each_width_asks_for_the_lowest_opset_that_can_decode_it(bits: int, opset: int) -> None:
    assert required_opset(plan_of(load_model(matmul().proto), bits)) == opset


def test_int4_asks_for_an_onnxruntime_that_has_its_kernel() -> None:
    plan = plan_of(load_model(matmul().proto), 4)
    assert required_onnxruntime(plan, 21) == "1.23"
    assert required_onnxruntime(plan_of(load_model(matmul().proto), 5), 18) == "1.14"


def test_version_tables_only_ever_rise() -> None:
    opsets = range(7, 26)
    releases = [tuple(map(int, onnxruntime_for(opset).split("."))) for opset in opsets]
    assert releases == sorted(releases)
    assert [ir_version_for(opset) for opset in opsets] == sorted(ir_version_for(opset) for opset in opsets)
    for opset in opsets:
        declared = [row[1] for row in helper.VERSION_TABLE if row[2] == opset]
        assert not declared or ir_version_for(opset) == min(declared)
