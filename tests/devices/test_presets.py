"""Every preset produces the file its device takes, and a file that computes what the float model does."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from ptq_lab.devices import PRESETS, preset, unmet_needs, validate
from ptq_lab.errors import ConfigError
from ptq_lab.graph import OPERATORS, fold_batchnorm, load_model, place_integers
from ptq_lab.graph.flow import Flow
from ptq_lab.graph.qdq import Form
from ptq_lab.int8 import Int8Settings
from ptq_lab.numerics import cosine
from tests.conftest import Run
from tests.devices.quantized import quantize_for, reread, residual, samples
from tests.models import model, node, random

NAMES = list(PRESETS)


def codes_types(proto: onnx.ModelProto) -> Counter[str]:
    """Count the element types of the zero points of all QuantizeLinear nodes on activations."""
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    found = [item for item in proto.graph.node if item.op_type == "QuantizeLinear" and item.input[0] not in stored]
    return Counter(stored[item.input[2]].dtype.name for item in found)


def read_from_codes(proto: onnx.ModelProto, name: str) -> list[bool]:
    """Tell for every input of a node whether a DequantizeLinear makes it."""
    made = {output: item.op_type for item in proto.graph.node for output in item.output}
    wanted = next(item for item in proto.graph.node if item.name == name)
    return [made.get(source) == "DequantizeLinear" for source in wanted.input]


@pytest.mark.parametrize("name", NAMES)
def test_a_written_file_is_valid_onnx_and_keeps_the_rules_of_its_device(name: str) -> None:
    plan, written = quantize_for(PRESETS[name])
    proto = reread(written)
    onnx.checker.check_model(proto, full_check=True)
    assert validate(load_model(proto), PRESETS[name], skipped=[skip.node for skip in plan.skips]) == ()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("optimize", ["off", "all"])
def test_a_written_file_computes_what_the_float_model_does(name: str, optimize: str, run: Run) -> None:
    _, written = quantize_for(PRESETS[name])
    for sample in samples(3):
        wanted = run(residual(), sample)["y"]
        assert cosine(wanted, run(written, sample, optimize=optimize)["y"]) > 0.99


@pytest.mark.parametrize("name", NAMES)
def test_a_file_for_one_device_breaks_the_rules_of_every_other(name: str) -> None:
    _, written = quantize_for(PRESETS[name])
    proto = reread(written)
    for other in NAMES:
        broken = validate(load_model(proto), PRESETS[other], skipped=["up"])
        assert bool(broken) == (other != name), (other, broken)


def test_tensorrt_gets_signed_codes_around_zero_float_biases_and_no_pair_behind_a_layer() -> None:
    plan, written = quantize_for(PRESETS["NVGPU"])
    proto = reread(written)
    assert {activation.zero_point for activation in plan.activations} == {0}
    assert set(codes_types(proto)) == {"int8"}
    assert read_from_codes(proto, "conv1") == [True, True, False]
    assert read_from_codes(proto, "add") == [False, True]
    quantized = {item.input[0] for item in proto.graph.node if item.op_type == "QuantizeLinear"}
    assert not quantized & {"c1", "c2", "sum", "t", "y"}


def test_of_two_convolutions_in_a_sum_tensorrt_gets_codes_from_one() -> None:
    nodes = [
        node("Conv", ["x", "a"], ["left"], "left"),
        node("Conv", ["x", "b"], ["right"], "right"),
        node("Add", ["left", "right"], ["y"], "add"),
    ]
    proto = model(nodes, {"x": (1, 3, 8, 8)}, ["y"], {"a": random(4, 3, 1, 1), "b": random(4, 3, 1, 1, seed=1)})
    _, written = quantize_for(PRESETS["NVGPU"], proto)
    assert read_from_codes(reread(written), "add") == [False, True]
    assert validate(written, PRESETS["NVGPU"]) == ()


def test_on_a_dsp_every_float_result_carries_codes_and_so_do_constant_operands() -> None:
    plan, written = quantize_for(PRESETS["DSP"])
    assert {activation.tensor for activation in plan.activations} >= {
        "r1",
        "r2",
        "pooled",
        "t",
        "halved",
        "g",
        "h",
        "y",
    }
    assert read_from_codes(reread(written), "halve") == [True, True]
    assert {entry.op_type: entry.axis is None for entry in plan.entries} == {
        "Conv": False,
        "ConvTranspose": False,
        "Gemm": True,
        "MatMul": True,
    }


def test_on_a_dsp_weights_with_one_scale_are_asymmetric_and_unsigned() -> None:
    plan, written = quantize_for(PRESETS["DSP"])
    weight = plan["dense"].weight
    assert weight is not None
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in reread(written).graph.initializer}
    codes = stored["dense.codes"]
    assert codes.dtype == np.uint8
    assert codes.min() == 0
    assert codes.max() == 255  # the whole range, which a symmetric grid leaves unused
    np.testing.assert_array_equal(codes.astype(int) - 128, weight.codes)


def test_ascend_gets_rounded_float_biases_and_pairs_on_float_weights() -> None:
    plan, written = quantize_for(PRESETS["ASCEND"])
    proto = reread(written)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    conv = next(item for item in proto.graph.node if item.name == "conv1")
    source = next(activation.scale for activation in plan.activations if activation.tensor == "x")
    weight = plan["w1"].weight
    assert weight is not None
    codes = stored[conv.input[2]] / (np.float64(source) * weight.scale)
    np.testing.assert_allclose(codes, np.rint(codes), atol=1e-3)
    assert not np.array_equal(stored[conv.input[2]], plan.biases["conv1"])
    assert set(codes_types(proto)) == {"int8"}
    assert [skip.node for skip in plan.skips] == ["up"]


def test_ascend_leaves_weights_that_two_nodes_share_in_float() -> None:
    nodes = [node("MatMul", ["x", "w"], ["h"], "first"), node("MatMul", ["h", "w"], ["y"], "second")]
    proto = model(nodes, {"x": (1, 3, 8, 8)}, ["y"], {"w": random(8, 8)})
    placement = quantize_for(PRESETS["KIRIN"], proto)[0].placement
    assert placement is not None
    assert len(placement.layers) == 2
    with_ascend = quantize_for(PRESETS["ASCEND"], proto)[0]
    assert [skip.node for skip in with_ascend.skips] == ["first", "second"]
    assert "other nodes use its weight" in with_ascend.skips[0].reason


def test_kirin_quantizes_layers_and_nothing_between_them() -> None:
    plan, written = quantize_for(PRESETS["KIRIN"])
    proto = reread(written)
    assert read_from_codes(proto, "gemm") == [True, True, True]
    assert read_from_codes(proto, "mean") == [False]
    assert {"h", "y"} <= {activation.tensor for activation in plan.activations}
    assert plan["dense"].axis is None
    assert not plan["dense"].symmetric
    assert plan["w1"].symmetric


def test_only_kirin_switches_bias_correction_off_and_only_ascend_fp16() -> None:
    decided = {name: PRESETS[name].decide("bias_correction", wanted=True) for name in NAMES}
    assert [name for name, (value, _) in decided.items() if not value] == ["KIRIN"]
    assert decided["KIRIN"][1]
    assert PRESETS["KIRIN"].decide("bias_correction", wanted=False) == (False, "")
    assert [name for name in NAMES if not PRESETS[name].decide("fp16", wanted=True)[0]] == ["ASCEND"]


@pytest.mark.parametrize("name", NAMES)
def test_every_operator_with_a_weight_is_a_layer_or_has_its_reason(name: str) -> None:
    flow = PRESETS[name].flow
    others = set(OPERATORS) - set(flow.layers)
    assert flow.everything or others == set(flow.reasons)
    assert not set(flow.layers) & set(flow.reasons)
    sentences = [*flow.reasons.values(), *(reason for _, reason in PRESETS[name].left_float)]
    assert all(len(sentence.split()) > 3 for sentence in sentences)


def test_the_reason_of_a_device_stands_in_the_plan() -> None:
    plan, _ = quantize_for(PRESETS["KIRIN"])
    skip = next(skip for skip in plan.skips if skip.node == "up")
    assert (skip.op_type, skip.setting, skip.shape) == ("ConvTranspose", "target_device", (6, 4, 2, 2))
    assert "Kirin" in skip.reason


def test_without_scales_per_channel_every_weight_has_one() -> None:
    for name in NAMES:
        settings = PRESETS[name].settings(method="MAX_MIN", per_channel=False)
        placement = quantize_for(PRESETS[name])[0].placement
        assert placement is not None
        assert {settings.axis_of(layer) for layer in placement.layers} == {None}


def test_an_unknown_device_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'TPU'.*CPU, KIRIN, NVGPU, DSP, ASCEND"):
        preset("TPU")


def test_ascend_asks_for_its_optimizer_and_for_sizes_of_free_axes() -> None:
    free = load_model(residual())
    both = unmet_needs(PRESETS["ASCEND"], free, optimize="general", shapes={}, profiles=False)
    assert len(both) == 2
    assert "ascend_oriented" in both[0]
    assert "axis 0 (N) of the input x" in both[1]
    optimize = "ascend_oriented:Ascend310P"
    assert unmet_needs(PRESETS["ASCEND"], free, optimize=optimize, shapes={"x": (1, 3, 8, 8)}, profiles=False) == ()
    assert unmet_needs(PRESETS["ASCEND"], free, optimize=optimize, shapes={}, profiles=True) == ()
    assert unmet_needs(PRESETS["CPU"], free, optimize=None, shapes={}, profiles=False) == ()


def test_the_cpu_preset_is_what_the_rooms_do_by_themselves() -> None:
    cpu = PRESETS["CPU"]
    assert replace(cpu.flow, reasons={}) == Flow()
    assert cpu.form == Form()
    settings = cpu.settings(method="MAX_MIN", per_channel=True)
    assert replace(settings, channel_operators=Int8Settings().channel_operators) == Int8Settings()
    assert set(cpu.flow.layers) <= set(cpu.channel_operators)


def test_a_bias_too_large_for_the_scale_of_an_asymmetric_weight_widens_that_scale(run: Run) -> None:
    weights = {"w": random(8, 5, scale=0.001), "b": np.array([1e6, -2e6, 0, 1, 2], np.float32)}
    nodes = [node("Flatten", ["x"], ["f"], "flatten", axis=3), node("Gemm", ["f", "w", "b"], ["y"], "gemm")]
    proto = model(nodes, {"x": (1, 3, 8, 8)}, ["y"], weights)
    _, written = quantize_for(PRESETS["KIRIN"], proto)
    assert validate(written, PRESETS["KIRIN"]) == ()
    bias = next(tensor for tensor in reread(written).graph.initializer if tensor.name == "b.codes")
    assert 2**29 < np.abs(numpy_helper.to_array(bias)).max() < 2**31
    sample = samples(1)[0]
    assert cosine(run(proto, sample)["y"], run(written, sample, optimize="off")["y"]) > 0.9999


def test_an_infinite_constant_operand_stays_float_on_a_dsp() -> None:
    mask = np.where(np.arange(8) < 4, 0.0, -np.inf).astype(np.float32)
    nodes = [
        node("MatMul", ["x", "w"], ["h"], "matmul"),
        node("Add", ["h", "mask"], ["masked"], "mask"),
        node("Softmax", ["masked"], ["y"], "softmax"),
    ]
    proto = model(nodes, {"x": (1, 3, 8, 8)}, ["y"], {"w": random(8, 8), "mask": mask})
    placement = place_integers(load_model(proto), {}, PRESETS["DSP"].flow)
    assert placement.measured == tuple(place.tensor for place in placement.places)
    assert "mask" not in placement.measured


def test_everything_may_be_quantized_for_any_device_that_has_no_objection(run: Run) -> None:
    cpu = PRESETS["CPU"]
    everything = replace(cpu, flow=replace(cpu.flow, everything=True))
    plan, written = quantize_for(everything)
    assert validate(written, everything, skipped=[skip.node for skip in plan.skips]) == ()
    assert len(plan.activations) > len(quantize_for(cpu)[0].activations)
    sample = samples(1)[0]
    assert cosine(run(residual(), sample)["y"], run(written, sample, optimize="all")["y"]) > 0.99


@pytest.mark.models
@pytest.mark.parametrize("name", NAMES)
def test_a_trained_residual_network_keeps_its_answers_on_every_device(
    name: str, models_folder: Path, run: Run, rng: np.random.Generator
) -> None:
    original = fold_batchnorm(load_model(models_folder / "resnet20_cifar10" / "model.onnx"))
    inputs = [{"image": rng.normal(0, 1, (1, 3, 32, 32)).astype(np.float32)} for _ in range(12)]
    plan, written = quantize_for(PRESETS[name], original, inputs=inputs)
    assert validate(written, PRESETS[name], skipped=[skip.node for skip in plan.skips]) == ()
    assert not plan.skips
    likeness = []
    for sample in inputs[:4]:
        (wanted,), (got,) = run(original, sample).values(), run(written, sample, optimize="off").values()
        likeness.append(cosine(wanted, got))
    assert min(likeness) > 0.98
