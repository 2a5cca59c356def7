"""Every rule of the validator can fail: each is broken once, by editing the written file, and says so."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ptq_lab.devices import PRESETS, validate
from ptq_lab.devices.checks import RULES
from ptq_lab.graph import load_model
from tests.devices.quantized import quantize_for, reread

Proto = onnx.ModelProto
Node = onnx.NodeProto


@dataclass(frozen=True, slots=True)
class Break:
    """A way to break a rule: on which device, how, and what is to be said."""

    rule: str
    device: str
    edit: Callable[[Proto], None]
    said: str


def at(proto: Proto, name: str) -> Node:
    """Return a node by its name."""
    found: Node = next(item for item in proto.graph.node if item.name == name)
    return found


def maker(proto: Proto, tensor: str) -> Node:
    """Return the node that makes a tensor."""
    found: Node = next(item for item in proto.graph.node if tensor in item.output)
    return found


def stored(proto: Proto, name: str) -> NDArray[Any]:
    """Return the numbers of an initializer."""
    return numpy_helper.to_array(next(tensor for tensor in proto.graph.initializer if tensor.name == name)).copy()


def put(proto: Proto, item: Node, index: int, array: NDArray[Any]) -> None:
    """Give a node a new constant as its input."""
    name = f"new{len(proto.graph.initializer)}"
    proto.graph.initializer.append(numpy_helper.from_array(array, name))
    item.input[index] = name


def quantizer(proto: Proto, tensor: str) -> Node:
    """Return the QuantizeLinear that reads a tensor."""
    readers = (item for item in proto.graph.node if item.op_type == "QuantizeLinear")
    found: Node = next(item for item in readers if item.input[0] == tensor)
    return found


def around(proto: Proto, tensor: str) -> Iterator[Node]:
    """Return the pair behind a tensor."""
    first = quantizer(proto, tensor)
    yield first
    yield next(
        item for item in proto.graph.node if item.op_type == "DequantizeLinear" and item.input[0] == first.output[0]
    )


def without_pair(proto: Proto, tensor: str) -> None:
    """Let the readers of codes read the float tensor."""
    first, second = around(proto, tensor)
    for item in proto.graph.node:
        for index, source in enumerate(item.input):
            if source == second.output[0]:
                item.input[index] = tensor
    proto.graph.node.remove(first)
    proto.graph.node.remove(second)


def signed_activation(proto: Proto) -> None:
    for item in around(proto, "r1"):
        put(proto, item, 2, np.array(0, np.int8))


def many_scales(proto: Proto) -> None:
    for item in around(proto, "r1"):
        put(proto, item, 1, np.full(6, 0.1, np.float32))
        put(proto, item, 2, np.zeros(6, np.uint8))


def shifted_zero(proto: Proto) -> None:
    for item in around(proto, "r1"):
        put(proto, item, 2, np.array(3, np.int8))


def other_scale(proto: Proto) -> None:
    _, second = around(proto, "r1")
    put(proto, second, 1, np.array(0.5, np.float32))


def float_weight(proto: Proto) -> None:
    put(proto, at(proto, "conv2"), 1, np.ones((6, 6, 3, 3), np.float32))


def integer_transposed(proto: Proto) -> None:
    codes = numpy_helper.from_array(np.ones((6, 4, 2, 2), np.int8), "up.codes")
    scale = numpy_helper.from_array(np.array(0.1, np.float32), "up.scale")
    proto.graph.initializer.extend([codes, scale])
    item = helper.make_node("DequantizeLinear", ["up.codes", "up.scale"], ["up.float"], "up.decode")
    proto.graph.node.insert(0, item)
    at(proto, "up").input[1] = "up.float"


def float_source(proto: Proto) -> None:
    without_pair(proto, "flat")


def weight_zero(proto: Proto) -> None:
    put(proto, maker(proto, at(proto, "conv1").input[1]), 2, np.full(6, 1, np.int8))


def weight_type(proto: Proto) -> None:
    item = maker(proto, at(proto, "conv1").input[1])
    put(proto, item, 0, np.full((6, 3, 3, 3), 128, np.uint8))
    put(proto, item, 2, np.full(6, 128, np.uint8))


def weight_lowest(proto: Proto) -> None:
    item = maker(proto, at(proto, "conv1").input[1])
    codes = stored(proto, item.input[0])
    codes.reshape(-1)[0] = -128
    put(proto, item, 0, codes)


def weight_codes(proto: Proto) -> None:
    item = at(proto, "conv1")
    decode = maker(proto, item.input[1])
    encode = maker(proto, decode.input[0])
    put(proto, decode, 0, np.rint(stored(proto, encode.input[0])).astype(np.int8))


def many_gemm_scales(proto: Proto) -> None:
    item = maker(proto, at(proto, "gemm").input[1])
    put(proto, item, 1, np.full(5, 0.1, np.float32))
    put(proto, item, 2, np.zeros(5, np.int8))
    item.attribute.append(helper.make_attribute("axis", 1))


def wrong_axis(proto: Proto) -> None:
    item = maker(proto, at(proto, "conv2").input[1])
    for attribute in item.attribute:
        attribute.i = 1


def float_bias(proto: Proto) -> None:
    put(proto, at(proto, "conv1"), 2, np.ones(6, np.float32))


def other_bias_scale(proto: Proto) -> None:
    item = maker(proto, at(proto, "conv1").input[2])
    put(proto, item, 1, stored(proto, item.input[1]) * np.float32(2))


def free_bias(proto: Proto) -> None:
    item = at(proto, "conv1")
    put(proto, item, 2, stored(proto, item.input[2]) * np.float32(1.0001) + np.float32(1e-5))


def float_output(proto: Proto) -> None:
    without_pair(proto, "r1")


def before_relu(proto: Proto) -> None:
    first, second = around(proto, "r1")
    proto.graph.node.remove(first)
    proto.graph.node.remove(second)
    relu = at(proto, "relu1")
    relu.input[0] = second.output[0]
    for item in proto.graph.node:
        if item is not relu and item.name != "relu1":
            for index, source in enumerate(item.input):
                if source == second.output[0]:
                    item.input[index] = "r1"
    first.input[0] = "c1"
    place = list(proto.graph.node).index(relu)
    proto.graph.node.insert(place, second)
    proto.graph.node.insert(place, first)


def float_shortcut(proto: Proto) -> None:
    at(proto, "add").input[1] = "r1"


def moved_grid(proto: Proto) -> None:
    for item in around(proto, "pooled"):
        put(proto, item, 1, np.array(0.5, np.float32))


def float_product(proto: Proto) -> None:
    without_pair(proto, "halved")


BREAKS = [
    Break("_activation_grids", "CPU", signed_activation, "r1: its codes are int8, and CPU wants uint8"),
    Break("_activation_grids", "CPU", many_scales, "r1: it has 6 scales"),
    Break("_activation_grids", "NVGPU", shifted_zero, "r1: its zero point is 3, and NVGPU wants 0"),
    Break("_pairs_agree", "CPU", other_scale, "r1: QuantizeLinear and DequantizeLinear have different grids"),
    Break("_float_layers", "DSP", float_weight, r"conv2 \(Conv\): its weight is float, and DSP computes Conv"),
    Break("_layer_operators", "CPU", integer_transposed, "up .*its weight is integer, and CPU has no such layer"),
    Break("_layer_operators", "ASCEND", float_source, "gemm .*does not read codes"),
    Break("_weight_codes", "KIRIN", weight_zero, "conv1 .*a zero point that is not 0"),
    Break("_weight_codes", "CPU", weight_type, "conv1 .*codes are uint8, and CPU wants int8"),
    Break("_weight_codes", "NVGPU", weight_lowest, "conv1 .*uses the code -128"),
    Break("_weight_codes", "ASCEND", weight_codes, "conv1 .*not stored as a pair on float numbers"),
    Break("_granularity", "KIRIN", many_gemm_scales, "gemm .*5 scales, and KIRIN wants one per Gemm"),
    Break("_granularity", "NVGPU", wrong_axis, r"conv2 .*do not lie along its output channels \(axis 0\)"),
    Break("_biases", "CPU", float_bias, "conv1 .*bias is not int32"),
    Break("_biases", "DSP", other_bias_scale, "conv1 .*the scale of its bias is not"),
    Break("_biases", "ASCEND", free_bias, "conv1 .*bias does not lie on the int32 grid"),
    Break("_outputs", "KIRIN", float_output, "conv1 .*its output carries no codes"),
    Break("_outputs", "CPU", before_relu, "conv1 .*in front of its activation function"),
    Break("_shortcuts", "NVGPU", float_shortcut, "add .*shortcut of this sum carries no codes"),
    Break("_shared_grids", "DSP", moved_grid, "pool .*different grids"),
    Break("_everything", "DSP", float_product, "halve .*carries no codes, and DSP computes everything"),
]


@pytest.mark.parametrize("broken", BREAKS, ids=lambda broken: f"{broken.device}-{broken.edit.__name__}")
def test_a_broken_rule_is_named_with_the_place_where_it_is_broken(broken: Break) -> None:
    plan, written = quantize_for(PRESETS[broken.device])
    proto = reread(written)
    skipped = [skip.node for skip in plan.skips]
    assert validate(load_model(proto), PRESETS[broken.device], skipped=skipped) == ()
    broken.edit(proto)
    model = load_model(proto)
    sentences = validate(model, PRESETS[broken.device], skipped=skipped)
    assert any(re.search(broken.said, sentence) for sentence in sentences), sentences


def test_every_rule_is_broken_by_one_of_these_tests() -> None:
    assert {broken.rule for broken in BREAKS} == {rule.__name__ for rule in RULES}


def test_a_node_left_out_on_purpose_breaks_no_rule() -> None:
    for name in ("CPU", "DSP", "NVGPU", "KIRIN"):
        plan, written = quantize_for(PRESETS[name], skipped="conv2")
        skipped = [skip.node for skip in plan.skips]
        assert "conv2" in skipped
        assert validate(written, PRESETS[name], skipped=skipped) == ()
        assert any("conv2" in sentence for sentence in validate(written, PRESETS[name]))


def test_checking_does_not_change_the_model() -> None:
    _, written = quantize_for(PRESETS["DSP"])
    before = written.serialize()
    validate(written, PRESETS["DSP"])
    assert written.serialize() == before
