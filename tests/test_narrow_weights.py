"""Integer models whose weights are stored in fewer than 8 bits: the same kernels, exact codes, smaller files."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ptq_lab
from ptq_lab.demo import load
from ptq_lab.errors import ConfigError
from ptq_lab.graph import load_model, raise_opset
from ptq_lab.graph.kernels import count_kernels
from ptq_lab.int8 import apply_int8, with_codes
from ptq_lab.int8_weights import THIN
from ptq_lab.numerics import QuantizedWeight, dequantize_weight, quantize_symmetric
from ptq_lab.numerics.weights import decoded_by
from ptq_lab.plan import QuantPlan
from ptq_lab.result import QuantResult
from ptq_lab.runtime import optimized_model
from tests.conftest import Run
from tests.integers import Integers, pictures, separable, to_int8

DIGITS, WORDS = load("digits_cnn"), load("digits_transformer")
RESULTS: dict[str, QuantResult] = {}  # equal settings are run once for all tests


def full(chosen: Any = DIGITS, *, pins: dict[str, int] | None = None, **lab: Any) -> QuantResult:
    key = f"{chosen.name} {pins} {lab}"
    if key not in RESULTS:
        config = {"common_quant_param": {"quant_type": "FULL_QUANT"}, "ptq_lab": lab, "ptq_lab.layer_bits": pins or {}}
        RESULTS[key] = ptq_lab.quantize(chosen.model_path, config, samples=chosen.calib_path, evaluate=chosen.evaluate)
    return RESULTS[key]


@pytest.fixture(scope="module")
def small() -> Integers:
    return to_int8(separable(), pictures())


def with_width(small: Integers, bits: int, *, signs: bool = False) -> QuantPlan:
    """Return the plan with weights of a width; with `signs`, every other channel has a step below zero."""
    entries = []
    for entry in small.plan.entries:
        weight = quantize_symmetric(small.original.weight(entry.tensor), bits=bits, axis=0)
        if signs:
            sign = np.where(np.arange(weight.scale.size) % 2, 1, -1).astype(np.float32)
            codes = (weight.codes * sign.reshape(-1, 1, 1, 1)).astype(weight.codes.dtype)
            weight = decoded_by(codes, bits=bits, axis=0, scale=weight.scale * sign)
        entries.append(replace(entry, bits=bits, weight=weight))
    return replace(small.plan, entries=tuple(entries))


def as_int8(plan: QuantPlan) -> QuantPlan:
    """Return the plan with the same codes, each in a byte of its own."""
    entries = (replace(entry, bits=8, weight=replace(_codes(entry.weight), bits=8)) for entry in plan.entries)
    return replace(plan, entries=tuple(entries))


def _codes(weight: QuantizedWeight | None) -> QuantizedWeight:
    assert weight is not None
    return weight


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("level", ["off", "all"])
def test_packed_codes_give_to_the_last_bit_what_codes_in_bytes_give(
    small: Integers, bits: int, level: str, run: Run
) -> None:
    plan, model = with_width(small, bits, signs=True), raise_opset(small.original, 21)
    narrow, wide = apply_int8(model, plan), apply_int8(model, as_int8(plan))
    feeds = pictures()[0]
    assert np.array_equal(run(narrow, feeds, optimize=level)["y"], run(wide, feeds, optimize=level)["y"])


@pytest.mark.parametrize("bits", [3, 4])
def test_onnxruntime_unpacks_once_and_runs_the_kernels_it_runs_for_bytes(small: Integers, bits: int) -> None:
    plan, model = with_width(small, bits), raise_opset(small.original, 21)
    narrow = optimized_model(apply_int8(model, plan))
    wide = optimized_model(apply_int8(model, as_int8(plan)))
    assert [node.op_type for node in narrow.graph] == [node.op_type for node in wide.graph]
    assert count_kernels(narrow, plan).integer == count_kernels(wide, plan).integer == 3
    weights = [value.const_value.numpy() for name, value in narrow.graph.initializers.items() if ".codes" in name]  # type: ignore[union-attr]
    assert max(np.abs(each).max() for each in weights if each.ndim == 4) <= 2 ** (bits - 1)


def test_a_demo_with_four_bits_is_smaller_and_still_runs_in_integers() -> None:
    four, eight = full(weight_bits=4).report, full(weight_bits=8).report
    assert four.summary.integer_layers == four.summary.integer_total == eight.summary.integer_total
    assert four.summary.bytes_after < 0.75 * eight.summary.bytes_after
    assert four.summary.metric_after is not None
    assert four.summary.metric_after > 0.98
    assert four.summary.onnxruntime_required == "1.23"


def test_layers_with_few_weights_behind_one_output_keep_8_bits_and_say_so() -> None:
    result = full(weight_bits=4)
    for entry in result.plan.entries:
        behind = math.prod(entry.shape) // entry.shape[entry.channel_axis]
        assert entry.bits == (8 if behind <= THIN else 4)
    assert sum("keep 8 bits" in note for note in result.report.summary.notes) == 1


def test_pins_have_the_last_word_about_a_width_and_unknown_names_are_told() -> None:
    result = full(pins={"type:Conv": 6, "stem/Conv": 5, "stem/Con": 4}, effort="fast")
    assert {entry.node: entry.bits for entry in result.plan.entries}["stem/Conv"] == 5
    assert {entry.bits for entry in result.plan.entries if entry.op_type == "Conv"} == {5, 6}
    assert any("stem/Con:" in note for note in result.report.summary.notes)
    previewed = ptq_lab.preview(DIGITS.model_path, result.config)
    assert [entry.bits for entry in previewed.entries] == [entry.bits for entry in result.plan.entries]


@pytest.mark.parametrize(("device", "bits"), [("CPU", 1), ("CPU", 16), ("NVGPU", 4)])
def test_a_width_that_no_kernel_can_take_is_refused_before_anything_is_read(device: str, bits: int) -> None:
    config: dict[str, dict[str, Any]] = {
        "common_quant_param": {"quant_type": "FULL_QUANT"},
        "full_quant_param": {"target_device": device},
        "ptq_lab.layer_bits": {"stem/Conv": bits},
    }
    with pytest.raises(ConfigError, match=r"stem/Conv: FULL_QUANT takes .* not"):
        ptq_lab.preview(DIGITS.model_path, config)


def test_the_steps_of_the_ladder_stand_in_the_report_and_codes_are_symmetric() -> None:
    result = full(weight_bits=4)
    assert {row.node for row in result.report.steps} == {entry.node for entry in result.plan.entries}
    told = json.loads(json.dumps(result.manifest))["rounding"]
    assert len(told) == len(result.plan.entries)
    for entry in result.plan.entries:
        weight = _codes(entry.weight)
        assert not weight.offset.any()
        assert -(2 ** (entry.bits - 1)) <= weight.codes.min()
        assert weight.codes.min() > -128


def test_with_8_bits_the_best_effort_judges_shaped_weights_beside_the_others_and_takes_no_worse_one() -> None:
    notes = full(effort="best").report.summary.notes
    (chosen,) = [note for note in notes if note.startswith("chosen by")]
    name, _, told = chosen.rpartition(" (")
    errors = dict(each.rsplit(" ", 1) for each in told.rstrip(")").split(", "))
    assert {"MAX_MIN with shaped weights", "MSE with shaped weights"} <= set(errors)
    assert float(errors[name.rsplit(": ", 1)[1]]) <= float(errors["MAX_MIN"])


def test_a_transformer_keeps_its_tables_and_products_in_integers_with_four_bits() -> None:
    summary = full(WORDS, weight_bits=4).report.summary
    assert summary.integer_layers == summary.integer_total
    assert summary.cosine_mean > 0.97


def test_two_models_can_be_compared_when_one_of_them_has_packed_weights() -> None:
    result = full(weight_bits=4)
    report = ptq_lab.compare(DIGITS.model_path, result.model_path, samples=DIGITS.calib_path)
    assert report.summary.cosine_mean > 0.99
    assert sum(row.bits == 4 for row in report.layers) == sum(entry.bits == 4 for entry in result.plan.entries)


def test_a_channel_of_almost_no_weight_gets_steps_that_leave_its_bias_room(small: Integers) -> None:
    entry = small.plan.entries[0]
    weight = _codes(entry.weight)
    tiny = replace(weight, scale=np.full_like(weight.scale, -1e-20))
    model, layer = small.original.clone(), small.plan.placement.layers[0]  # type: ignore[union-attr]
    assert layer.bias == ""  # without a bias nothing has to fit
    kept = with_codes(small.plan, model, {entry.tensor: tiny}).entries[0]
    assert np.array_equal(_codes(kept.weight).scale, tiny.scale)
    biased = to_int8(with_bias(separable()), pictures())
    found = _codes(with_codes(biased.plan, biased.original, {entry.tensor: tiny}).entries[0].weight)
    assert (found.scale < tiny.scale).all()
    assert np.abs(dequantize_weight(found)).max() <= np.abs(dequantize_weight(tiny)).max() + 1e-15
    assert apply_int8(biased.original, with_codes(biased.plan, biased.original, {entry.tensor: tiny}))


def with_bias(proto: Any) -> Any:
    """Give the first Conv a bias of ones."""
    from onnx import numpy_helper

    proto.graph.initializer.append(numpy_helper.from_array(np.ones(8, np.float32), "ones"))
    proto.graph.node[0].input.append("ones")
    return proto


@pytest.mark.models
def test_mobilenet_with_four_bits_and_integer_kernels_keeps_78_of_100_right(models_folder: Path) -> None:
    path, data = models_folder / "mobilenet_v1_075" / "model.onnx", models_folder.parent / "data"
    if not path.is_file() or not (data / "imagenet-eval").is_dir():
        pytest.skip(f"{path} or {data / 'imagenet-eval'} does not exist")
    images = {
        "image_to_format": "RGB",
        "normalize_mean": [127.5] * 3,
        "normalize_std": [127.5] * 3,
        "center_crop_width": 224,
        "center_crop_height": 224,
    }
    config: dict[str, Any] = {
        "common_quant_param": {"quant_type": "FULL_QUANT"},
        "data_preprocess_param": images,
        "ptq_lab": {"weight_bits": 4, "effort": "best"},
    }
    result = ptq_lab.quantize(
        load_model(path), config, samples=data / "imagenet-calib", evaluate=data / "imagenet-eval"
    )
    summary = result.report.summary
    assert summary.metric_after is not None
    assert summary.metric_after >= 0.78
    assert summary.integer_layers == summary.integer_total == 28
    assert summary.bytes_after < 1_480_000
