"""FULL_QUANT from end to end on the embedded demos: integer kernels, switches, devices, refusals."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest

from ptq_lab import QuantPlan, demo, preview, quantize
from ptq_lab.errors import ConfigError, PlanError, SampleError
from ptq_lab.result import QuantResult

DIGITS = demo.load("digits_cnn")
PHOTOS = demo.load("photo_denoiser")
WORDS = demo.load("digits_transformer")


def settings(lab: dict[str, object] | None = None, skip: str = "", **full: object) -> dict[str, dict[str, object]]:
    common: dict[str, object] = {"quant_type": "FULL_QUANT", **({"skip_quant_node": skip} if skip else {})}
    return {"common_quant_param": common, "full_quant_param": full, "ptq_lab": lab or {}}


RESULTS: dict[str, QuantResult] = {}  # equal settings are run once for all tests


def full(chosen: demo.Demo = DIGITS, *, again: bool = False, **options: object) -> QuantResult:
    config = settings(**options)  # type: ignore[arg-type]
    key = f"{chosen.name} {config}"
    if again or key not in RESULTS:
        evaluate = chosen.evaluate if not options else None
        RESULTS[key] = quantize(chosen.model_path, config, samples=chosen.calib_path, evaluate=evaluate)
    return RESULTS[key]


@pytest.mark.parametrize(
    ("chosen", "cosine", "drop"), [(DIGITS, 0.998, 0.005), (WORDS, 0.995, 0.01), (PHOTOS, 0.999, 0.3)]
)
def test_every_layer_of_a_demo_runs_as_int8_and_the_metric_survives(
    chosen: demo.Demo, cosine: float, drop: float
) -> None:
    summary, tables = full(chosen).report.summary, sum(entry.by_row for entry in full(chosen).plan.entries)
    assert summary.integer_layers == summary.integer_total == summary.layers_quantized - tables > 0
    assert summary.cosine_mean > cosine
    assert summary.metric_drop is not None
    assert summary.metric_drop < drop


def test_the_file_is_about_a_quarter_and_holds_int8_weights(tmp_path: Path) -> None:
    result = full()
    (tmp_path / "q.onnx").write_bytes(result.model_path.read_bytes())
    assert result.report.summary.compression_ratio > 2.5
    proto = onnx.load(tmp_path / "q.onnx")
    onnx.checker.check_model(proto)
    codes = [tensor for tensor in proto.graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    assert len([tensor for tensor in codes if len(tensor.dims) > 1]) == len(result.plan.entries)


def test_bias_correction_brings_the_outputs_closer() -> None:
    with_it = full(bias_correction=True).report.summary
    without = full(bias_correction=False).report.summary
    assert with_it.sqnr_db > without.sqnr_db


def test_local_correction_helps_less_than_the_sequential_one_and_more_than_none() -> None:
    signals = [
        full(**options).report.summary.sqnr_db
        for options in (
            {"bias_correction": False},
            {"lab": {"bias_correction_mode": "LOCAL"}},
            {"lab": {"bias_correction_mode": "SEQUENTIAL"}},
        )
    ]
    assert signals == sorted(signals)
    assert len(set(signals)) == 3


def test_each_range_method_gives_ranges_of_its_own() -> None:
    ranges = {}
    for method in ("MAX_MIN", "KL", "REMOVAL_OUTLIER"):
        ranges[method] = {row.tensor: row.high for row in full(activation_quant_method=method).report.activations}
    assert ranges["KL"] != ranges["MAX_MIN"] != ranges["REMOVAL_OUTLIER"]
    own = full(lab={"activation_quant_method": "MSE"})
    assert {row.method for row in own.report.activations} == {"MSE"}


def test_one_scale_per_tensor_when_per_channel_is_off() -> None:
    result = full(per_channel=False)
    assert {entry.granularity for entry in result.plan.entries} == {"per-tensor"}


def test_a_skipped_layer_stays_float_and_the_others_do_not() -> None:
    result = full(skip="block3/pointwise/Conv")
    assert [row.node for row in result.report.layers if not row.quantized] == ["block3/pointwise/Conv"]
    summary = result.report.summary
    assert summary.integer_layers == summary.integer_total == summary.layers - 1
    assert summary.cosine_mean > 0.998


def test_an_executor_changes_nothing_but_who_does_the_work() -> None:
    alone = full()
    with ThreadPoolExecutor(2) as executor:
        shared = quantize(DIGITS.model_path, settings(), samples=DIGITS.calib_path, executor=executor)
    assert shared.plan == alone.plan
    assert shared.model_path.read_bytes() == alone.model_path.read_bytes()


@pytest.mark.parametrize("device", ["CPU", "KIRIN", "NVGPU", "DSP"])
def test_every_device_gets_a_model_that_is_close_to_the_original(device: str) -> None:
    summary = full(target_device=device).report.summary
    assert summary.cosine_mean > 0.99
    assert not [note for note in summary.notes if "rule" in note]
    assert (summary.device, bool(summary.toolchain)) == (device, True)
    assert summary.runs_here == (summary.latency_ratio is not None) == (device == "CPU")


def test_ascend_wants_its_flag_and_its_shapes_and_then_works() -> None:
    with pytest.raises(ConfigError, match="ascend_oriented"):
        full(target_device="ASCEND")
    result = quantize(
        DIGITS.model_path,
        settings(target_device="ASCEND"),
        samples=DIGITS.calib_path,
        optimize="ascend_oriented",
        input_shape="image:1,1,16,16",
    )
    assert result.report.summary.cosine_mean > 0.99
    assert "--input_shape=image:1,1,16,16" in result.manifest["device"]["atc"]


def test_the_profiles_of_a_dynamic_shape_reach_the_manifest() -> None:
    config = settings(target_device="ASCEND")
    config["ascend_context"] = {"input_shape": "image:[-1,1,16,16]", "dynamic_dims": "[1~4],[8]"}
    result = quantize(
        DIGITS.model_path,
        config,
        samples=DIGITS.calib_path,
        optimize="ascend_oriented",
        input_shape="image:1,1,16,16",
    )
    assert list(result.manifest["device"]["profiles"]["batches"]) == [1, 2, 3, 4, 8]
    assert "--dynamic_batch_size=1,2,3,4,8" in result.manifest["device"]["atc"]


def test_calibration_data_are_required() -> None:
    with pytest.raises(SampleError, match="needs calibration data"):
        quantize(DIGITS.model_path, settings())


def test_few_samples_are_remarked() -> None:
    few = [{"image": image[None]} for image in np.load(DIGITS.calib_path)["image"][:8]]
    result = quantize(DIGITS.model_path, settings(), samples=few)
    assert any("calibrated on 8 samples" in note and "other data" in note for note in result.report.summary.notes)


def test_agreement_on_calibration_data_is_called_that() -> None:
    assert full().report.summary.compared_on == "16 samples of calib.npz (used for calibration too)"


def test_a_preview_names_every_layer_without_calibrating() -> None:
    plan = preview(DIGITS.model_path, settings(skip="stem/Conv"))
    assert len(plan.entries) == 15
    assert [skip.node for skip in plan.skips] == ["stem/Conv"]


def test_the_same_inputs_give_the_same_bytes() -> None:
    first = full().model_path.read_bytes()
    assert full(again=True).model_path.read_bytes() == first


def test_a_plan_prints_its_grids_and_survives_json_and_refuses_edits_that_would_break_it() -> None:
    plan = full().plan
    assert "(input)" in str(plan)
    assert "MAX_MIN" in str(plan)
    again = QuantPlan.from_json(plan.to_json())
    assert (again.entries, again.activations) == (plan.entries, plan.activations)
    for edit in (lambda: plan.with_bits(4), lambda: plan.skipping("stem/Conv")):
        with pytest.raises(PlanError, match="integer arithmetic"):
            edit()


def test_fast_leaves_the_corrections_out_unless_they_are_asked_for() -> None:
    plain = full(lab={"equalize": "false"}, bias_correction="false", smooth_alpha=0)
    assert full(lab={"effort": "fast"}).plan == plain.plan
    asked = full(lab={"effort": "fast"}, bias_correction=True)
    assert asked.model_path.read_bytes() != plain.model_path.read_bytes()


def test_best_tries_ranges_and_weight_scales_and_keeps_what_brings_the_outputs_closest() -> None:
    best, balanced = full(lab={"effort": "best"}), full()
    (note,) = [note for note in best.report.summary.notes if note.startswith("chosen by 1 - cosine")]
    for tried in (
        "MAX_MIN 0.",
        "MAX_MIN with searched weight scales 0.",
        "MSE 0.",
        "MSE with searched weight scales 0.",
    ):
        assert tried in note
    assert best.report.summary.cosine_mean >= balanced.report.summary.cosine_mean - 1e-4


@pytest.mark.parametrize(("method", "counted"), [("MAX_MIN", 8), ("MSE", 150)])
def test_every_activation_of_a_report_has_the_histogram_of_what_was_counted(method: str, counted: int) -> None:
    rows = full(lab={} if method == "MAX_MIN" else {"activation_quant_method": method}).report.activations
    assert {(row.histogram_samples, len(row.histogram)) for row in rows} == {(counted, 64)}
    assert all(sum(row.histogram) for row in rows)
    images = np.load(DIGITS.calib_path)["image"].astype(np.float32)
    ink = images[:counted][images[:counted] != 0]
    [shown] = [row for row in rows if not row.node]
    assert (shown.observed_low, shown.observed_high) == (images.min(), images.max())
    assert sum(shown.histogram) == ink.size
    assert shown.histogram[-1] == pytest.approx(np.mean(ink >= images.max() * 63 / 64) * ink.size, rel=0.05)


def test_best_with_a_range_method_of_its_own_tries_scales_only() -> None:
    result = full(lab={"effort": "best"}, activation_quant_method="KL")
    assert {row.method for row in result.report.activations if row.node} == {"KL"}
    (note,) = [note for note in result.report.summary.notes if note.startswith("chosen by 1 - cosine")]
    assert "MSE" not in note


def test_best_does_not_choose_by_one_sample() -> None:
    few = [{"image": image[None]} for image in np.load(DIGITS.calib_path)["image"][:7]]
    result = quantize(DIGITS.model_path, settings(lab={"effort": "best"}), samples=few)
    assert not any(note.startswith("chosen by") for note in result.report.summary.notes)


def test_best_gives_the_same_bytes_twice() -> None:
    first = full(lab={"effort": "best"}).model_path.read_bytes()
    assert full(lab={"effort": "best"}, again=True).model_path.read_bytes() == first


def test_a_setting_that_leaves_no_layer_is_named_in_the_refusal() -> None:
    with pytest.raises(ConfigError, match="skip_quant_node: leaves none of the 16 layers"):
        quantize(DIGITS.model_path, settings(skip="*"), samples=DIGITS.calib_path)
