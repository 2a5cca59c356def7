"""Lessons say what numerics computes, about demos, results and models of the user."""

from __future__ import annotations

import inspect as python_inspect
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import ptq_lab
from ptq_lab import lesson
from ptq_lab.errors import ModelError, PlanError, PtqLabError
from ptq_lab.graph import fold_batchnorm, load_model
from ptq_lab.lesson.granularity import BITS as GRANULARITY_BITS
from ptq_lab.lesson.granularity import block_size
from ptq_lab.numerics import dequantize_weight, quantize_weight, relative_error
from tests.models import conv_relu


def test_a_number_beyond_the_grid_is_clipped_and_one_within_is_off_by_half_a_step_at_most() -> None:
    inside, outside = lesson.number_line(0.7, bits=3), lesson.number_line(2.9, bits=3)
    assert not inside.is_clipped
    assert abs(inside.error) <= float(inside.params.scale) / 2
    assert outside.is_clipped
    assert "clipping" in str(outside)
    assert "rounding" in str(inside)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("symmetric", [False, True])
def test_zero_is_exact_on_every_grid_of_the_number_line(bits: int, symmetric: bool) -> None:
    line = lesson.number_line(0.0, bits=bits, symmetric=symmetric)
    assert (line.decoded, line.code) == (0.0, int(line.params.zero_point))
    assert not symmetric or line.code == 0


@pytest.mark.parametrize("wrong", [{"bits": 9}, {"bits": 0}, {"low": 0.5}, {"low": 0.0, "high": 0.0}, {"value": 4.0}])
def test_what_the_number_line_cannot_show_is_refused_in_one_sentence(wrong: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match="number line: "):
        lesson.number_line(**wrong)


def test_granularity_quantizes_a_depthwise_layer_and_finer_grids_cost_less_error_and_more_storage() -> None:
    found = lesson.granularity("digits_cnn").compare()
    assert found.shape[1] == 1 < found.shape[0]
    errors = [each.relative_error for each in found.divisions]
    stored = [each.bits_per_weight for each in found.divisions]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 2 * errors[1]
    assert stored == sorted(stored)


@pytest.mark.parametrize("bits", GRANULARITY_BITS)
def test_the_error_per_channel_is_that_of_quantizing_and_decoding_the_folded_weight(bits: int) -> None:
    folded = fold_batchnorm(load_model(ptq_lab.demo.load("digits_cnn").model_path))
    compared = lesson.granularity("digits_cnn", "block2/depthwise/Conv", bits=bits).compare()
    weight = folded.weight(compared.tensor)
    decoded = dequantize_weight(quantize_weight(weight, bits=bits, axis=0, correct=False))
    assert compared.divisions[1].relative_error == pytest.approx(relative_error(weight, decoded), rel=1e-4)


@pytest.mark.parametrize("size", [2, 9, 64, 100, 4096])
def test_a_block_divides_a_channel_without_a_rest(size: int) -> None:
    block = block_size(size)
    assert block == 0 or (size % block == 0 and 1 < block <= 32 and block < size)


def test_a_channel_whose_values_lie_within_half_a_step_of_zero_is_silenced() -> None:
    lessons = lesson.granularity("digits_cnn", bits=4)
    for tensor, node in lessons.layers[:6]:
        found = lessons.compare(tensor)
        weight = lessons.subject.model.weight(tensor)
        reach = np.abs(weight).reshape(len(weight), -1).max(axis=1)
        step = found.divisions[0].grid_of_channel[0][1]
        assert found.divisions[0].silenced == ((reach < step / 2) & (reach > 0)).sum(), node
        assert found.divisions[1].silenced == 0


def test_grids_of_the_picture_reach_over_the_channels_they_belong_to() -> None:
    found = lesson.granularity("digits_cnn", bits=4).compare()
    for division in found.divisions[:2]:
        for (low, high), (start, step) in zip(found.spans, division.grid_of_channel, strict=True):
            assert start <= low + step / 2
            assert start + 15 * step >= high - step / 2


def test_a_picture_of_many_channels_keeps_the_one_that_sets_the_range() -> None:
    found = lesson.granularity("digits_cnn", "block7/depthwise/Conv")
    weight = found.subject.model.weight(found.layer)
    assert len(weight) > len(found.compare().channels)
    assert int(np.abs(weight).reshape(len(weight), -1).max(axis=1).argmax()) in found.compare().channels


def test_fine_grids_gain_six_decibels_with_every_bit() -> None:
    for curve in lesson.widths("photo_denoiser").measure().curves:
        assert curve.db_per_bit == pytest.approx(6.02, abs=0.1)
        assert np.abs(np.subtract(curve.measured, curve.expected))[6:].max() < 0.5


def test_the_best_threshold_is_the_lowest_point_of_the_sum_of_both_errors() -> None:
    look = ptq_lab.inspect("photo_denoiser", "layer3/Conv (activation)").look(bits=4)
    assert look.best.total == min(cut.total for cut in look.thresholds)
    assert look.best.threshold < look.thresholds[-1].threshold
    assert look.best.sqnr_db > look.thresholds[-1].sqnr_db + 1


def test_the_range_in_use_of_an_activation_is_that_of_the_plan(integers: Any) -> None:
    inspection = ptq_lab.inspect(integers)
    grids = {each.tensor: each for each in integers.plan.activations}
    for tensor in [tensor for tensor, _ in inspection.tensors if tensor in grids][:5]:
        chosen = inspection.look(tensor).chosen
        assert (chosen.low, chosen.high) == (min(0.0, grids[tensor].low), max(0.0, grids[tensor].high))
        assert grids[tensor].method in chosen.name


def test_one_channel_of_a_weight_shows_the_grid_that_the_plan_gave_it(four_bits: Any) -> None:
    entry = four_bits.plan.entries[2]
    look = ptq_lab.inspect(four_bits, entry.node).look(channel=5)
    step, zero = float(entry.weight.step[5]), int(entry.weight.zero_point[5])
    assert look.chosen.name == "the plan"
    assert look.chosen.low == pytest.approx((-8 - zero) * step)
    assert look.chosen.high == pytest.approx((7 - zero) * step)


def test_the_widest_channel_is_named_and_sets_the_range() -> None:
    inspection = ptq_lab.inspect("digits_cnn", "block1/depthwise/Conv")
    look = inspection.look()
    assert look.spans is not None
    weight = inspection.subject.model.weight(look.tensor)
    reach = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    assert look.spans.widest == int(reach.argmax())
    assert f"Channel {look.spans.widest} of {len(weight)}" in str(inspection)


def test_another_width_of_a_tensor_does_not_read_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    inspection = ptq_lab.inspect("photo_denoiser", "layer3/Conv (activation)")
    first = inspection.look(bits=8)
    monkeypatch.setattr(inspection, "_watch", None)
    assert inspection.look(bits=4).histogram is first.histogram


def test_an_explorer_can_be_inspected_with_its_samples() -> None:
    card = ptq_lab.demo.load("digits_cnn")
    explorer = ptq_lab.explore(card.model_path, card.calib_path)
    menu = dict(ptq_lab.inspect(explorer).tensors)
    assert any("(activation)" in words for words in menu.values())
    assert any("(weight)" in words for words in menu.values())


def test_a_model_of_the_user_needs_samples_for_activations_only(model_file: Path) -> None:
    alone = ptq_lab.inspect(model_file)
    assert all("(weight)" in words for _, words in alone.tensors)
    first = onnx.load(model_file).graph.input[0]
    shape = [size.dim_value or 1 for size in first.type.tensor_type.shape.dim]
    samples = [{first.name: np.random.default_rng(0).normal(size=shape).astype(np.float32)} for _ in range(2)]
    seen = ptq_lab.inspect(model_file, samples=samples)
    (activation,) = [tensor for tensor, words in seen.tensors if "Conv" in words and "(activation)" in words]
    assert seen.look(activation).histogram.low == 0.0  # behind the ReLU that becomes part of the layer
    with pytest.raises(PlanError, match="need samples"):
        ptq_lab.inspect(model_file, activation)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: ptq_lab.inspect("digits_cmn"), "did you mean digits_cnn"),
        (lambda: ptq_lab.inspect("digits_cnn", "block1/deptwise/Conv"), "did you mean block1/depthwise/Conv"),
        (lambda: ptq_lab.inspect("digits_cnn").look(bits=9), "2..8"),
        (lambda: ptq_lab.inspect("digits_cnn").look(channel=99), "no channel 99"),
        (lambda: lesson.granularity("digits_cnn", bits=1), "2..8"),
        (lambda: lesson.widths("digits_cnn", "nothing"), "nothing"),
        (lambda: lesson.pictures("digits_transformer"), "takes no picture"),
        (lambda: lesson.pictures("photo_denoiser", bits=9), "no variant"),
        (lambda: lesson.pictures("photo_denoiser").draw(99), "no sample 99"),
    ],
)
def test_a_wrong_question_gets_one_sentence_that_says_what_is_allowed(call: Any, word: str) -> None:
    with pytest.raises(PtqLabError, match=word) as refusal:
        call()
    assert "\n" not in str(refusal.value)


def test_a_model_without_weights_to_quantize_is_refused() -> None:
    x, y = (onnx.helper.make_tensor_value_info(name, 1, [1, 4]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    for begin in (lesson.granularity, lesson.widths, ptq_lab.inspect):
        with pytest.raises(ModelError, match="no weight"):
            begin(model)


def test_every_lesson_prints_itself_without_a_notebook() -> None:
    for begin in (lesson.number_line, lesson.granularity, lesson.widths, lesson.inspect, lesson.pictures):
        assert len(str(begin()).splitlines()) > 2
        assert "Examples" in (python_inspect.getdoc(begin) or "")


def test_a_weight_of_zeros_is_shown_without_a_fault() -> None:
    made = conv_relu().proto
    for tensor in made.graph.initializer:
        if len(tensor.dims) == 4:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros(tuple(tensor.dims), np.float32), tensor.name))
    look = ptq_lab.inspect(made).look()
    assert look.best.total == 0.0
    assert str(ptq_lab.inspect(made))
    assert str(lesson.granularity(made))
    assert str(lesson.widths(made))
