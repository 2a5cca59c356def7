"""Weights with a scale per block: decoded at load exactly as a float model with the dequantized weights computes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from ptq_lab.entries import TensorPlan
from ptq_lab.graph import Model, apply_plan, find_targets, load_model, required_opset
from ptq_lab.plan import QuantPlan, make_plan, round_weights
from tests.conftest import Run
from tests.graph.quantized import EVERYTHING, float_twin
from tests.graph.test_exact_decoding import difference
from tests.models import OPERATOR_MODELS, WIRINGS, gemm, model, node, random

MODELS = {name: OPERATOR_MODELS[name] for name in ("Conv", "Conv-depthwise", "Gemm", "MatMul")} | {
    name: WIRINGS[name] for name in ("constant nodes", "identity", "shared", "float16 constant nodes", "branches")
}


def in_blocks(original: Model, bits: int, block: int) -> QuantPlan:
    """Return a plan whose matrices and convolutions are divided."""
    plan = make_plan(find_targets(original, EVERYTHING), bits=bits)
    divided = (replace(entry, block=block if _fits(entry) else 0) for entry in plan.entries)
    return round_weights(replace(plan, entries=tuple(divided)), original.weight)


def _fits(entry: TensorPlan) -> bool:
    return not entry.by_row and (len(entry.shape) == 2 or entry.op_type == "Conv")


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("block", [2, 3, 4])
@pytest.mark.parametrize("name", MODELS)
def test_outputs_equal_those_of_the_float_twin_to_the_last_bit(name: str, block: int, bits: int, run: Run) -> None:
    tiny = MODELS[name]()
    original = load_model(tiny.proto)
    plan = in_blocks(original, bits, block)
    assert any(entry.block_length for entry in plan.entries)
    result = apply_plan(original, plan)
    twin = float_twin(original, plan)
    for level in ("all", "basic"):
        assert difference(run(result, tiny.feeds, optimize=level), run(twin, tiny.feeds, optimize=level)) == 0.0


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("block", [2, 3])
@pytest.mark.parametrize("name", MODELS)
def test_stored_bytes_are_those_the_plan_announces(name: str, block: int, bits: int) -> None:
    tiny = MODELS[name]()
    original = load_model(tiny.proto)
    plan = in_blocks(original, bits, block)
    result = apply_plan(original, plan)
    assert result.opset == max(original.opset, required_opset(plan))
    onnx.checker.check_model(onnx.load_from_string(result.serialize()), full_check=True)
    stored = {key: value.const_value for key, value in result.graph.initializers.items()}
    for entry in plan.entries:
        mine = [t.nbytes for key, t in stored.items() if key.startswith(f"{entry.tensor}.") and t is not None]
        assert sum(mine) == entry.bytes_after


@pytest.mark.parametrize("bits", [1, 9, 16])
def test_widths_without_blocks_keep_one_scale_per_channel(bits: int, run: Run) -> None:
    tiny = gemm()
    original = load_model(tiny.proto)
    plan = in_blocks(original, bits, 2)
    assert [entry.granularity for entry in plan.entries] == [
        f"per-channel ({entry.channels})" for entry in plan.entries
    ]
    twin = float_twin(original, plan)
    assert difference(run(apply_plan(original, plan), tiny.feeds), run(twin, tiny.feeds)) == 0.0


def test_a_channel_that_fits_into_one_block_has_one_scale_and_its_corrections() -> None:
    proto = model([node("MatMul", ["x", "w"], ["y"])], {"x": (2, 30)}, ["y"], {"w": random(30, 20)})
    (entry,) = in_blocks(load_model(proto), 4, 32).entries
    assert entry.block_length == 0
    assert entry.weight is not None
    assert entry.weight.scale.shape == (20,)
    assert entry.weight.offset.any()


def test_blocks_are_as_equal_as_can_be_and_say_so() -> None:
    proto = model([node("MatMul", ["x", "w"], ["y"])], {"x": (2, 48)}, ["y"], {"w": random(48, 20)})
    (entry,) = in_blocks(load_model(proto), 4, 32).entries
    assert (entry.block_length, entry.granularity) == (24, "blocks of 24 (40)")
    assert entry.bytes_after == 48 * 20 // 2 + 2 * 40 + 4 * 20  # a scale for each block, an offset for each channel
    assert np.shape(entry.weight.scale) == (20, 2)  # type: ignore[union-attr]


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e7])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
def test_scales_take_two_bytes_where_16_bit_floats_hold_them_and_four_elsewhere(
    bits: int, factor: float, run: Run
) -> None:
    weight = random(48, 20) * np.float32(factor)
    proto = model([node("MatMul", ["x", "w"], ["y"])], {"x": (2, 48)}, ["y"], {"w": weight})
    original = load_model(proto)
    plan = in_blocks(original, bits, 16)
    result = apply_plan(original, plan)
    scale = result.graph.initializers["w.scale"].const_value
    assert scale is not None
    assert scale.dtype.itemsize == (2 if factor == 1.0 else 4)
    stored = [value.const_value for key, value in result.graph.initializers.items() if key.startswith("w.")]
    assert sum(tensor.nbytes for tensor in stored if tensor is not None) == plan.entries[0].bytes_after
    feeds = {"x": random(2, 48, seed=1)}
    assert difference(run(result, feeds), run(float_twin(original, plan), feeds)) == 0.0
