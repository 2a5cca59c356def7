"""One step per tensor: the error that was asked for, sizes by entropy, and steps by sensitivity better than by rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptq_lab import demo
from ptq_lab.graph import Model, Rules, find_targets, load_model
from ptq_lab.numerics import dequantize_weight, quantize_step, relative_error
from ptq_lab.numerics.entropy import code_entropy
from ptq_lab.numerics.step import step_codes, step_costs, try_step
from ptq_lab.plan import QuantPlan, make_plan, round_weights
from ptq_lab.progress import silent
from ptq_lab.search.coded import CodedSteps, count_codes
from ptq_lab.search.sensitivity import Sensitivity, changes_of, measure_sensitivity
from ptq_lab.search.trials import Trials

DIGITS = demo.load("digits_cnn")
Measured = tuple[Model, QuantPlan, Sensitivity, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def measured() -> Measured:
    model = load_model(DIGITS.model_path)
    samples = [{"image": image[None]} for image in np.load(DIGITS.calib_path)["image"].astype(np.float32)[:24]]
    plan = make_plan(find_targets(model, Rules(min_channels=0)), bits=8)
    return model, plan, measure_sensitivity(model, plan, samples[:8], single_step=True), samples


def choices_of(measured: Measured, **pins: int) -> CodedSteps:
    model, plan, _, _ = measured
    named = {entry.tensor: pins[entry.node] for entry in plan.entries if entry.node in pins}
    return CodedSteps(plan=plan, read=model.weight, pins=named)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 3.0), st.floats(-50, 50))
def test_codes_of_a_step_stay_within_their_width_and_decode_to_its_multiples(
    seed: int, step: float, shift: float
) -> None:
    values = (np.random.default_rng(seed).normal(size=(7, 30)) + shift).astype(np.float32)
    found = quantize_step(values, step)
    half = 1 << (found.bits - 1)
    assert -half <= found.codes.min()
    assert found.codes.max() < half
    assert int(found.codes.max()) - int(found.codes.min()) >= half - 1 or found.bits == 1  # no width is wasted
    tried = try_step(values, step)
    wanted = step_codes(values, step) * (tried.spread * step) + tried.mean
    np.testing.assert_allclose(dequantize_weight(found), wanted, rtol=1e-4, atol=1e-4 * np.abs(values).max())


def test_a_step_too_fine_for_16_bits_is_refused() -> None:
    with pytest.raises(ValueError, match=r"need 1[78] bits"):
        quantize_step(np.array([-1.0, 1.0], np.float32), 1e-5)


def test_costs_of_a_large_tensor_are_those_of_all_its_values() -> None:
    values = np.random.default_rng(1).laplace(size=(1536, 384)).astype(np.float32)
    steps = np.array([0.05, 0.2, 0.8])
    noise, entropy = step_costs(values, steps)
    for step, one, bits in zip(steps.tolist(), noise, entropy, strict=True):
        error = try_step(values, step).error ** 2 * float((values.astype(np.float64) ** 2).sum())
        assert one == pytest.approx(error, rel=0.03)
        assert bits == pytest.approx(code_entropy(step_codes(values, step)), abs=0.03)


@pytest.mark.parametrize("target", [0.02, 0.1])
def test_by_the_rule_every_weight_makes_the_error_asked_for(measured: Measured, target: float) -> None:
    model, _, _, _ = measured
    plan = choices_of(measured).by_rule(target, progress=silent)
    for entry in plan.entries:
        assert entry.coding is not None
        assert entry.weight is not None
        assert entry.channels == 1
        decoded = dequantize_weight(entry.weight)
        assert relative_error(model.weight(entry.tensor), decoded) <= 1.01 * target
        assert entry.coding.entropy == code_entropy(entry.weight.codes)
        assert entry.coding.levels == len(np.unique(entry.weight.codes))


def test_steps_by_sensitivity_lose_less_than_the_rule_at_its_bytes_on_other_samples(measured: Measured) -> None:
    model, _, sensitivity, samples = measured
    choices, judges = choices_of(measured), Trials(model, sensitivity.tensors, samples[8:])
    for target in (0.05, 0.1):
        rule = choices.by_rule(target, progress=silent)
        size = sum(entry.bytes_after for entry in rule.entries)
        found = choices.tables(sensitivity).within_size(size)
        assert found is not None
        ours = choices.rounded(found.labels)
        assert sum(entry.bytes_after for entry in ours.entries) <= 1.02 * size
        assert judges.error(changes_of(ours, model.weight)) < 0.8 * judges.error(changes_of(rule, model.weight))


def test_pinned_weights_keep_their_width_and_their_grids(measured: Measured) -> None:
    _, plan, sensitivity, _ = measured
    first = plan.entries[0]
    choices = choices_of(measured, **{first.node: 3})
    for made in (choices.by_rule(0.05, progress=silent), choices.rounded(choices.tables(sensitivity).smallest.labels)):
        pinned = made[first.tensor]
        assert (pinned.bits, pinned.channels, pinned.has_single_step) == (3, first.channels, False)
        assert all(entry.has_single_step for entry in made.entries[1:])


def test_a_plan_of_steps_goes_through_json_and_is_rounded_again_to_the_same_codes(measured: Measured) -> None:
    model, _, _, _ = measured
    plan = choices_of(measured).by_rule(0.05, progress=silent)
    again = round_weights(QuantPlan.from_json(plan.to_json()), model.weight)
    assert again == plan
    for one, other in zip(plan.entries, again.entries, strict=True):
        assert one.weight is not None
        assert other.weight is not None
        np.testing.assert_array_equal(one.weight.codes, other.weight.codes)
        assert other.weight.scale == one.weight.scale


def test_a_new_width_takes_the_step_away(measured: Measured) -> None:
    plan = choices_of(measured).by_rule(0.05, progress=silent)
    entry = plan.entries[0]
    edited = plan.with_bits({entry.tensor: entry.bits})[entry.tensor]
    assert (edited.coding, edited.weight) == (None, None)


def test_counting_the_codes_of_packed_weights_leaves_the_codes_alone(measured: Measured) -> None:
    model, plan, _, _ = measured
    packed = round_weights(plan.with_bits(4), model.weight)
    for entry in count_codes(packed).entries:
        assert entry.coding is not None
        assert entry.coding.entropy <= 4.0
        assert entry.coding.levels <= 16
        assert entry.bytes_after <= entry.packed_bytes + 1
        assert replace(entry, coding=None) == packed[entry.tensor]


def test_constant_and_zero_weights_take_no_bits() -> None:
    for value in (0.0, 3.0):
        found = quantize_step(np.full(20, value, np.float32), 7.0 * value or 1.0)
        assert code_entropy(found.codes) == 0.0
        np.testing.assert_allclose(dequantize_weight(found), value, rtol=1e-6)
