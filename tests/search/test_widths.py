"""Mixed bits: the front is the hull of all allocations, predictions hold, budgets hold on the file that is written."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptq_lab import demo, quantize
from ptq_lab.errors import ConfigError
from ptq_lab.graph import Rules, find_targets, load_model
from ptq_lab.numerics import dequantize_weight, quantize_weight, relative_error
from ptq_lab.numerics.entropy import code_entropy
from ptq_lab.numerics.step import find_step, step_codes, try_step
from ptq_lab.numerics.width_errors import width_errors
from ptq_lab.plan import QuantPlan, make_plan
from ptq_lab.progress import Step
from ptq_lab.search.allocate import Tables, meet_error
from ptq_lab.search.front import fit_error, fit_size, pareto_front
from ptq_lab.search.packed import PackedWidths
from ptq_lab.search.sensitivity import Sensitivity, changes_of, measure_sensitivity
from ptq_lab.search.trials import Trials
from tests.models import random

DIGITS = demo.load("digits_cnn")
MIXED: dict[str, Any] = {"quant_type": "WEIGHT_QUANT", "bit_num": 0, "min_quant_weight_channel": 0}
TABLES = st.integers(1, 4).flatmap(
    lambda layers: st.tuples(
        st.lists(st.lists(st.floats(0, 10), min_size=4, max_size=4), min_size=layers, max_size=layers),
        st.lists(st.lists(st.integers(1, 9), min_size=4, max_size=4), min_size=layers, max_size=layers),
    )
)


def tables(drawn: tuple[list[list[float]], list[list[int]]]) -> tuple[np.ndarray, np.ndarray]:
    """More bytes, less error, as widths have it."""
    costs = np.sort(np.array(drawn[0]))[:, ::-1].copy()
    return costs, np.cumsum(np.array(drawn[1], float), axis=1)


@given(TABLES)
@settings(max_examples=80, deadline=None)
def test_no_allocation_lies_below_the_front(drawn: tuple[list[list[float]], list[list[int]]]) -> None:
    costs, sizes = tables(drawn)
    front = pareto_front(costs, sizes, np.ones(costs.shape, bool))
    rows = np.arange(len(costs))
    for columns in itertools.product(range(costs.shape[1]), repeat=len(costs)):
        size, error = sizes[rows, columns].sum(), costs[rows, columns].sum()
        assert error >= np.interp(size, front.sizes, front.errors) - 1e-9
    for point in range(len(front.sizes)):
        columns = front.columns(point)
        assert sizes[rows, columns].sum() == pytest.approx(front.sizes[point])
        assert costs[rows, columns].sum() == pytest.approx(front.errors[point], abs=1e-9)


@given(TABLES, st.floats(0, 40))
@settings(max_examples=80, deadline=None)
def test_a_size_is_kept_and_what_is_left_of_it_used(
    drawn: tuple[list[list[float]], list[list[int]]], size: float
) -> None:
    costs, sizes = tables(drawn)
    front = pareto_front(costs, sizes, np.ones(costs.shape, bool))
    columns, rows = fit_size(front, size), np.arange(len(costs))
    if columns is None:
        assert sizes[:, 0].sum() > size
        return
    assert sizes[rows, columns].sum() <= size
    within = int(np.flatnonzero(front.sizes <= size)[-1])
    assert costs[rows, columns].sum() <= front.errors[within] + 1e-9


def test_a_limit_on_the_error_takes_the_smallest_point_that_keeps_it() -> None:
    costs, sizes = np.array([[4.0, 1.0], [2.0, 0.5]]), np.array([[1.0, 2.0], [1.0, 2.0]])
    front = pareto_front(costs, sizes, np.ones((2, 2), bool))
    chosen = fit_error(front, 3.5)
    assert chosen is not None
    assert chosen.tolist() == [1, 0]
    assert fit_error(front, 1.0) is None


@given(st.integers(0, 10_000), st.sampled_from([0.005, 0.02, 0.1]), st.floats(-6, 6))
@settings(max_examples=40, deadline=None)
def test_a_step_makes_the_error_it_was_looked_up_for(seed: int, target: float, size: float) -> None:
    values = (random(40, 25, seed=seed) * 10.0**size).astype(np.float32)
    found = find_step(values, target)
    decoded = step_codes(values, found.step) * np.float32(found.spread * found.step) + np.float32(found.mean)
    assert found.met
    assert found.error == pytest.approx(target, rel=0.01)
    assert relative_error(values, decoded) == pytest.approx(found.error, rel=1e-3)


def test_a_step_agrees_with_plain_bisection() -> None:
    values = random(64, 64, seed=3)
    low, high = 0.0, float(values.max() - values.min())
    while high - low > 1e-7 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if try_step(values, middle).error < 0.05 else (low, middle)
    assert find_step(values, 0.05).step == pytest.approx(low, rel=0.02)


@pytest.mark.parametrize("values", [np.full((4, 4), 3.0), np.zeros((2, 8)), np.array([[7.0]])])
def test_a_constant_has_a_step(values: np.ndarray) -> None:
    assert np.isfinite(find_step(values.astype(np.float32), 0.02).error)


@given(st.lists(st.integers(-128, 127), min_size=1, max_size=400))
@settings(max_examples=60, deadline=None)
def test_entropy_is_that_of_the_counts(codes: list[int]) -> None:
    array = np.array(codes, np.int8)
    share = np.unique(array, return_counts=True)[1] / array.size
    assert code_entropy(array) == pytest.approx(float(-(share * np.log2(share)).sum()), abs=1e-9)


def test_errors_of_all_widths_are_those_of_rounding() -> None:
    values = random(64, 300, seed=5)
    power = float((values.astype(np.float64) ** 2).sum())
    found = width_errors(values, range(1, 9), axis=0)
    for bits, error in zip(range(1, 9), found, strict=True):
        decoded = dequantize_weight(quantize_weight(values, bits=bits, axis=0))
        assert error == pytest.approx(relative_error(values, decoded) ** 2 * power, rel=1e-3)


@pytest.fixture(scope="module")
def measured() -> tuple[QuantPlan, Sensitivity, list[dict[str, Any]]]:
    model = load_model(DIGITS.model_path)
    samples = [{"image": image[None]} for image in np.load(DIGITS.calib_path)["image"].astype(np.float32)[:24]]
    plan = make_plan(find_targets(model, Rules(min_channels=0)), bits=8)
    return plan, measure_sensitivity(model, plan, samples[:8]), samples


def tables_of(
    plan: QuantPlan, sensitivity: Sensitivity, widths: Iterable[int], pins: Mapping[str, int] | None = None
) -> Tables:
    read = load_model(DIGITS.model_path).weight
    return PackedWidths(plan=plan, read=read, allowed=tuple(widths), pins=pins or {}).tables(sensitivity)


def test_predictions_order_allocations_as_runs_do(measured: Any) -> None:
    plan, sensitivity, samples = measured
    model = load_model(DIGITS.model_path)
    found = tables_of(plan, sensitivity, range(2, 9))
    trials = Trials(model, sensitivity.tensors, samples[8:])
    generator, expected, run = np.random.default_rng(0), [], []
    for _ in range(24):
        bits = dict(zip(sensitivity.tensors, generator.integers(4, 9, len(plan.entries)).tolist(), strict=True))
        expected.append(found.allocation(found.columns(bits)).predicted)
        run.append(trials.error(changes_of(plan.with_bits(bits), model.weight)))
    ranks = [np.argsort(np.argsort(numbers)) for numbers in (expected, run)]
    assert np.corrcoef(*ranks)[0, 1] > 0.8


def test_threads_measure_the_same_and_a_deadline_leaves_a_usable_rest(measured: Any) -> None:
    plan, sensitivity, samples = measured
    model = load_model(DIGITS.model_path)
    with ThreadPoolExecutor(2) as threads:
        shared = measure_sensitivity(model, plan, samples[:8], executor=threads)
    np.testing.assert_array_equal(shared.gains, sensitivity.gains)
    cut = measure_sensitivity(model, plan, samples[:8], deadline=0.0)
    assert cut.measured == 1
    assert cut.gains[0] == sensitivity.gains[0]
    assert (cut.gains > 0).all()


def test_pins_hold_whatever_the_budget(measured: Any) -> None:
    plan, sensitivity, _ = measured
    pinned = sensitivity.tensors[0]
    found = tables_of(plan, sensitivity, (4, 8), {pinned: 2})
    for point in range(len(found.front.sizes)):
        bits = found.allocation(found.front.columns(point)).labels
        assert bits[pinned] == 2
        assert {width for tensor, width in bits.items() if tensor != pinned} <= {4, 8}


def test_runs_correct_a_prediction_that_is_wrong_by_a_factor(measured: Any) -> None:
    plan, sensitivity, _ = measured
    found = tables_of(plan, sensitivity, range(2, 9))
    limit = 30 * found.most_exact.predicted

    def three_times(bits: Any) -> float:
        return 3 * found.allocation(found.columns(bits)).predicted

    chosen = meet_error(found, limit, three_times)
    assert chosen is not None
    assert 0.6 * limit < chosen.measured <= limit
    assert meet_error(found, found.most_exact.predicted, three_times) is None


@pytest.mark.parametrize("target", [0.02, 0.1])
def test_every_weight_gets_the_fewest_bits_that_keep_its_error(target: float) -> None:
    config = {"common_quant_param": MIXED, "mixed_bit_weight_quant_param": {"init_scale": target}}
    result = quantize(DIGITS.model_path, config, samples=DIGITS.calib_path)
    model = load_model(DIGITS.model_path)
    for row, entry in zip(result.report.layers, result.plan.entries, strict=True):
        assert row.relative_error is not None
        assert row.relative_error <= target
        values = model.weight(entry.tensor)
        fewer = quantize_weight(values, bits=entry.bits - 1, axis=entry.axis)
        assert relative_error(values, dequantize_weight(fewer)) > target


@pytest.mark.parametrize(
    "budget",
    [
        {"target_size_mb": 0.125},
        {"average_bits": 5.0},
        {"compression_ratio": 3.2},
        {"min_cosine": 0.999},
        {"max_metric_drop": 0.02},
        {"average_bits": 4.5, "target_size_mb": 0.14},
    ],
    ids=str,
)
def test_a_budget_holds_on_what_is_written(budget: dict[str, float], tmp_path: Path) -> None:
    config = {"common_quant_param": MIXED, "ptq_lab.mixed_bit": budget}
    result = quantize(
        DIGITS.model_path, config, tmp_path / "q.onnx", samples=DIGITS.calib_path, evaluate=DIGITS.evaluate
    )
    summary, size = result.report.summary, (tmp_path / "q.onnx").stat().st_size
    counts = np.array([np.prod(entry.shape) for entry in result.plan.entries])
    average = float((counts * [entry.bits for entry in result.plan.entries]).sum() / counts.sum())
    assert size <= 1e6 * budget.get("target_size_mb", np.inf)
    assert average <= budget.get("average_bits", np.inf) + 1e-9
    assert summary.compression_ratio >= budget.get("compression_ratio", 0.0)
    assert summary.cosine_mean >= budget.get("min_cosine", 0.0) - 5e-4  # it was met on the samples that judge
    assert (summary.metric_drop or 0.0) <= budget.get("max_metric_drop", np.inf)


def test_auto_tune_is_coarser_than_eight_bits_and_near_its_cosine() -> None:
    tuned = {"auto_tune": True}
    config = {"common_quant_param": MIXED, "mixed_bit_weight_quant_param": tuned, "ptq_lab": {"effort": "fast"}}
    result = quantize(DIGITS.model_path, config, samples=DIGITS.calib_path)  # nothing is gained after the search
    assert 0.994 < result.report.summary.cosine_mean < 0.9975
    assert any("widths by sensitivity" in note for note in result.report.summary.notes)


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ({"target_size_mb": 0.02}, r"target_size_mb: no allocation is so small; with bits=.* it takes .* to .*"),
        ({"min_cosine": 0.99999999}, r"min_cosine: no allocation keeps a cosine .* the most exact one reaches 0\.99"),
        ({"max_metric_drop": 0.1}, r"max_metric_drop: needs something that evaluates"),
        ({"compression_ratio": 40.0}, r"target_size_mb: no allocation is so small"),
    ],
    ids=str,
)
def test_what_cannot_be_reached_is_said_before_anything_is_measured(
    budget: dict[str, Any], words: str, tmp_path: Path
) -> None:
    config = {"common_quant_param": MIXED, "ptq_lab.mixed_bit": budget}
    told: list[Step] = []
    with pytest.raises(ConfigError, match=words):
        quantize(DIGITS.model_path, config, tmp_path / "q.onnx", samples=DIGITS.calib_path, progress=told.append)
    assert list(tmp_path.iterdir()) == []
    assert "sensitivity" not in {step.stage for step in told}


def test_pins_that_take_more_than_an_average_are_said_before_anything_is_measured() -> None:
    config = {"common_quant_param": MIXED, "ptq_lab.mixed_bit": {"average_bits": 5}, "ptq_lab.layer_bits": {"*": 8}}
    told: list[Step] = []
    with pytest.raises(ConfigError, match=r"average_bits: no allocation is so small; .* 8\.00 bits on average"):
        quantize(DIGITS.model_path, config, samples=DIGITS.calib_path, progress=told.append)
    assert told == []


def test_a_metric_that_no_allocation_keeps_is_said_before_anything_is_measured(tmp_path: Path) -> None:
    config = {"common_quant_param": MIXED, "ptq_lab.mixed_bit": {"max_metric_drop": 0.001, "bits": [1]}}
    told: list[Step] = []
    with pytest.raises(ConfigError, match=r"max_metric_drop: no allocation keeps .* the most exact one loses 0\.[1-9]"):
        quantize(
            DIGITS.model_path,
            config,
            tmp_path / "q.onnx",
            samples=DIGITS.calib_path,
            evaluate=DIGITS.evaluate,
            progress=told.append,
        )
    assert "sensitivity" not in {step.stage for step in told}


def test_the_float_model_is_scored_once_for_the_search_and_the_report() -> None:
    scored: list[bool] = []

    def metric(session: Any) -> float:
        scored.append("ptq_lab.version" not in session.get_modelmeta().custom_metadata_map)
        return 1.0

    config = {"common_quant_param": MIXED, "ptq_lab.mixed_bit": {"max_metric_drop": 0.02, "bits": [4, 8]}}
    quantize(DIGITS.model_path, config, samples=DIGITS.calib_path, evaluate=metric)
    assert scored.count(True) == 1
    assert len(scored) > 2


def test_without_samples_the_search_says_what_it_measured_on_and_gives_the_same_bytes_twice(tmp_path: Path) -> None:
    config = {"common_quant_param": MIXED, "ptq_lab.mixed_bit": {"average_bits": 5}}
    results = [quantize(DIGITS.model_path, config, tmp_path / f"{index}.onnx") for index in range(2)]
    assert any("seeded random inputs" in note for note in results[0].report.summary.notes)
    assert results[0].model_path.read_bytes() == results[1].model_path.read_bytes()
