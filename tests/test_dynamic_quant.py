"""DYNAMIC_QUANT from end to end on the embedded transformer: switches, smoothing, measurements, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from ptq_lab import QuantPlan, demo, preview, quantize
from ptq_lab.dynamic_quant import STRATEGIES
from ptq_lab.errors import ConfigError, PlanError
from ptq_lab.graph import load_model, save_model
from ptq_lab.pipeline import PRODUCT_SAMPLES, QuantResult
from ptq_lab.report.performance import memory_of
from tests.conftest import Run, files
from tests.graph.products import at_run_time
from tests.models import conv_relu, model, node, random

WORDS = demo.load("digits_transformer")
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)


def settings(strategy: str = "ALWC", lab: dict[str, object] | None = None, **common: object) -> dict[str, Any]:
    own = {"performance": "off", "dynamic_strategy": strategy} | (lab or {})
    return {"common_quant_param": {"quant_type": "DYNAMIC_QUANT", **common}, "ptq_lab": own}


RESULTS: dict[str, QuantResult] = {}  # equal settings are run once for all tests


def dynamic(strategy: str = "ALWC", *, real: bool = False, again: bool = False, **options: Any) -> QuantResult:
    key = f"{strategy} {real} {options}"
    if again or key not in RESULTS:
        samples = WORDS.calib_path if real else None
        RESULTS[key] = quantize(WORDS.model_path, settings(strategy, **options), samples=samples)
    return RESULTS[key]


@every_strategy
def test_every_product_of_the_demo_runs_in_integers_and_the_answers_stay(strategy: str) -> None:
    result = quantize(WORDS.model_path, settings(strategy), samples=WORDS.calib_path, evaluate=WORDS.evaluate)
    summary = result.report.summary
    assert summary.products == (17 if strategy == "ALWC" else 13)
    assert (summary.layers_quantized, summary.quant_type, summary.runs_here) == (14, "DYNAMIC_QUANT", True)
    assert summary.cosine_mean > 0.998
    assert summary.metric_drop is not None
    assert abs(summary.metric_drop) < 0.01
    assert summary.compression_ratio > 2.9
    onnx.checker.check_model(onnx.load(result.model_path), full_check=True)


def test_the_documents_option_chooses_the_strategy_unless_ours_overrides_it() -> None:
    config = settings()
    config["dynamic_quant_param"] = {"quant_strategy": "ACWL"}
    overridden = preview(WORDS.model_path, config)
    del config["ptq_lab"]["dynamic_strategy"]
    chosen = preview(WORDS.model_path, config)
    assert overridden.dynamic is not None
    assert chosen.dynamic is not None
    assert (overridden.dynamic.strategy, chosen.dynamic.strategy) == ("ALWC", "ACWL")


def test_a_finer_division_of_weights_brings_the_outputs_closer() -> None:
    coarse, fine = (dynamic(name, real=True, lab={"effort": "fast"}).report.summary for name in ("ACWL", "ACWC"))
    assert fine.sqnr_db > coarse.sqnr_db


def test_fp16_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="DYNAMIC_QUANT does not go together with fp16") as told:
        quantize(WORDS.model_path, settings(), tmp_path / "q.onnx", fp16=True)
    assert "leave --fp16=on out" in str(told.value)
    assert not files(tmp_path)


@pytest.mark.parametrize("key", ["min_quant_weight_size", "min_quant_weight_channel"])
def test_limits_that_the_original_ignores_here_are_remarked_and_ignored(key: str) -> None:
    result = dynamic(**{key: 5_000})
    assert any(key in note and "quant_type is DYNAMIC_QUANT" in note for note in result.report.summary.notes)
    assert result.plan == dynamic().plan


def test_a_model_without_a_product_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"finds no MatMul or Gemm in this model.*Conv: .*slower"):
        quantize(conv_relu().proto, settings(), tmp_path / "q.onnx")
    with pytest.raises(ConfigError, match=r"skip_quant_node=type:MatMul"):
        quantize(WORDS.model_path, settings(skip_quant_node="type:MatMul,type:Gemm"), tmp_path / "q.onnx")
    assert not files(tmp_path)


def test_a_product_that_is_skipped_stays_float_and_the_others_do_not() -> None:
    name = "layer1/feed/up/MatMul"
    result = dynamic(skip_quant_node=name)
    assert [(row.node, row.setting) for row in result.plan.skips if row.setting] == [(name, f"skip_quant_node={name}")]
    assert result.report.summary.products == 16
    assert [n.name for n in result.model.graph if n.op_type == "MatMul"] == [name]


def test_smoothing_needs_real_samples_and_scales_per_channel_and_no_haste() -> None:
    def notes(**how: Any) -> list[str]:
        return [note for note in dynamic(**how).report.summary.notes if "smoothed" in note]

    assert not notes()
    assert not notes(real=True, lab={"effort": "fast"})
    assert notes(real=True, strategy="ACWL") == ["not smoothed: weights have one scale per tensor"]
    (said,) = notes(real=True)
    assert said.startswith("smoothed with alpha")
    smoothed, plain = (dynamic(real=True, **how).report.summary for how in ({}, {"lab": {"effort": "fast"}}))
    assert smoothed.sqnr_db > plain.sqnr_db + 3
    assert smoothed.compared_on.endswith("(used for calibration too)")
    assert not plain.compared_on.endswith("(used for calibration too)")


def test_a_smoothed_model_is_the_same_function_in_float(run: Run) -> None:
    result = dynamic(real=True)
    tokens = np.load(WORDS.calib_path)["tokens"][-1:]
    before, after = run(WORDS.model_path, {"tokens": tokens}), run(result.model, {"tokens": tokens})
    for name, value in before.items():
        assert np.abs(after[name] - value).max() <= 0.05 * np.abs(value).max()


@pytest.mark.parametrize("real", [False, True], ids=["random inputs", "smoothed on samples"])
def test_the_same_inputs_give_the_same_bytes(real: bool) -> None:
    first = dynamic("ACWC", real=real).model_path.read_bytes()
    assert dynamic("ACWC", real=real, again=True).model_path.read_bytes() == first


@every_strategy
def test_a_plan_survives_json_and_prints_its_products_and_refuses_edits(strategy: str) -> None:
    plan = dynamic(strategy, real=True, lab={"effort": "fast"}).plan
    assert QuantPlan.from_json(plan.to_json()) == plan
    assert f"integer product ({strategy})" in str(plan)
    assert plan.dynamic is not None
    assert all(layer.node in str(plan) for layer in plan.dynamic.layers)
    for edit in (lambda: plan.with_bits(4), lambda: plan.skipping("classifier/Gemm")):
        with pytest.raises(PlanError, match="integer arithmetic"):
            edit()


@every_strategy
def test_a_preview_is_the_plan_of_the_run_without_its_codes(strategy: str) -> None:
    plan = preview(WORDS.model_path, settings(strategy))
    assert plan == dynamic(strategy).plan
    assert all(entry.weight is None for entry in plan.entries)


@every_strategy
def test_the_signal_to_noise_ratio_of_an_activation_is_that_of_its_codes(strategy: str, run: Run) -> None:
    report = dynamic(strategy, real=True, lab={"effort": "fast"}).report
    wanted = {row.tensor: row for row in report.products}
    assert set(wanted) == set(sources(strategy))
    proto = onnx.load(WORDS.model_path)
    proto.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in wanted)
    signal, noise = dict.fromkeys(wanted, 0.0), dict.fromkeys(wanted, 0.0)
    low, high = dict.fromkeys(wanted, np.inf), dict.fromkeys(wanted, -np.inf)
    for tokens in np.load(WORDS.calib_path)["tokens"][:PRODUCT_SAMPLES]:
        seen = run(proto, {"tokens": tokens[None]})
        for name in wanted:
            values = seen[name]
            signal[name] += float(np.square(values.astype(float)).sum())
            noise[name] += float(np.square(at_run_time(values, strategy) - values).sum())
            low[name], high[name] = min(low[name], values.min()), max(high[name], values.max())
    for name, row in wanted.items():
        assert row.sqnr_db == pytest.approx(10 * np.log10(signal[name] / noise[name]), abs=0.02)
        assert (row.low, row.high) == pytest.approx((low[name], high[name]))
        assert row.granularity == ("per-tensor" if strategy == "ALWC" else "per-row")


def sources(strategy: str) -> list[str]:
    """Return the activations that the plan quantizes."""
    plan = dynamic(strategy, real=True, lab={"effort": "fast"}).plan
    assert plan.dynamic is not None
    return [source for layer in plan.dynamic.layers for source in layer.sources]


def test_activations_are_not_judged_on_random_inputs() -> None:
    rows = dynamic().report.products
    assert {(row.low, row.high, row.sqnr_db) for row in rows} == {(None, None, None)}
    readers = [reader for row in rows for reader in row.readers]
    assert "layer1/attention/query/MatMul" in readers
    assert len(readers) == len(sources("ALWC"))


def test_the_performance_table_has_the_float_model_first_and_ratios_that_fit(tmp_path: Path) -> None:
    result = quantize(WORDS.model_path, settings(lab={"performance": "auto"}), tmp_path / "q.onnx")
    first, second = result.report.performance
    assert (first.model, first.arithmetic, first.cosine) == ("float32", "float32", 1.0)
    assert (second.model, second.arithmetic) == ("DYNAMIC_QUANT ALWC", "int8 and float32")
    assert (first.bytes, second.bytes) == (WORDS.model_path.stat().st_size, (tmp_path / "q.onnx").stat().st_size)
    assert (first.compression_ratio, second.compression_ratio) == (1.0, first.bytes / second.bytes)
    assert (first.latency_change, first.memory_change) == (0.0, 0.0)
    assert first.memory is not None
    assert second.memory is not None
    assert second.memory_change == pytest.approx(second.memory / first.memory - 1)
    assert min(first.latency_ms, second.latency_ms) > 0
    summary = result.report.summary
    assert second.cosine == summary.cosine_mean
    assert summary.latency_ratio == pytest.approx(1 + second.latency_change)
    assert json.loads(result.report.to_json())["performance"][1]["bytes"] == second.bytes


def test_the_full_table_adds_half_precision_and_weights_alone() -> None:
    rows = dynamic(lab={"performance": "full"}).report.performance
    assert [row.model for row in rows] == ["float32", "DYNAMIC_QUANT ALWC", "FP16", "WEIGHT_QUANT, 8 bits"]
    assert [row.arithmetic for row in rows] == ["float32", "int8 and float32", "float32", "float32"]
    assert rows[2].compression_ratio == pytest.approx(2, rel=0.1)
    assert rows[3].compression_ratio > 2.5
    assert min(row.cosine for row in rows) > 0.99
    assert rows[2].cosine > rows[3].cosine > rows[1].cosine


def test_the_table_is_left_out_when_asked_and_for_other_kinds_unless_asked() -> None:
    assert not dynamic().report.performance
    assert dynamic().report.summary.latency_ratio is None
    weights: dict[str, dict[str, object]] = {"common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": 8}}
    assert not quantize(WORDS.model_path, weights).report.performance


def test_memory_is_measured_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where the package cannot be imported from
    weights = random(1500, 2000)
    large = load_model(model([node("MatMul", ["x", "w"], ["y"])], {"x": (1, 1500)}, ["y"], {"w": weights}))
    small = load_model(model([node("MatMul", ["x", "w"], ["y"])], {"x": (1, 1500)}, ["y"], {"w": weights[:, :5]}))
    broken = save_model(small, tmp_path / "broken.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    much, little, nothing = memory_of([large, small, broken], {"x": random(1, 1500)})
    assert nothing is None
    assert much is not None
    assert little is not None
    assert 0.7 * weights.nbytes < much.run - little.run < 6 * weights.nbytes
    assert 0.7 * weights.nbytes < much.loaded - little.loaded < 6 * weights.nbytes


@every_strategy
def test_an_old_model_is_raised_to_what_the_strategy_needs_and_that_is_said(strategy: str) -> None:
    proto = model([node("MatMul", ["x", "w"], ["y"])], {"x": ("n", 16)}, ["y"], {"w": random(16, 8)}, opset=9)
    result = quantize(proto, settings(strategy))
    assert result.model.opset == (11 if strategy == "ALWC" else 14)
    assert any(note.startswith("opset raised from 9") for note in result.report.summary.notes)
