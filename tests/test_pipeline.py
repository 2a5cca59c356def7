"""`quantize` from end to end: the file, the numbers, the record, and that a failure leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from ptq_lab import demo
from ptq_lab.errors import SampleError
from ptq_lab.evaluation import Metric, open_metric
from ptq_lab.graph import load_model
from ptq_lab.pipeline import preview, quantize
from ptq_lab.progress import Step
from tests.conftest import Run, files, settings
from tests.models import (
    OPERATOR_MODELS,
    WIRINGS,
    Tiny,
    conv_relu,
    gather,
    image_classifier,
    model,
    node,
    random,
)

DEMOS = ("digits_cnn", "digits_transformer", "photo_denoiser")


def with_weight(bits: int, **weight: Any) -> dict[str, dict[str, Any]]:
    return settings(bits) | {"weight_quant_param": weight}


@pytest.mark.parametrize("bits", [1, 4, 5, 8, 11, 16])
@pytest.mark.parametrize("name", [name for name in {**OPERATOR_MODELS, **WIRINGS} if name != "nameless"])
def test_every_tiny_model_goes_from_end_to_end(name: str, bits: int, tmp_path: Path, run: Run) -> None:
    tiny = {**OPERATOR_MODELS, **WIRINGS}[name]()
    result = quantize(tiny.proto, settings(bits), tmp_path / "q.onnx")
    assert files(tmp_path) == ["q.onnx"]
    assert result.report.summary.layers_quantized == len(tiny.weights)
    assert result.report.summary.bytes_after == (tmp_path / "q.onnx").stat().st_size
    assert set(run(result.model_path, tiny.feeds)) == set(run(load_model(tiny.proto), tiny.feeds))


@pytest.mark.parametrize("name", DEMOS)
@pytest.mark.parametrize(("bits", "lowest"), [(4, 0.88), (8, 0.999), (11, 0.99999)])
def test_the_demos_keep_their_answers_and_shrink_to_their_width(
    name: str, bits: int, lowest: float, tmp_path: Path
) -> None:
    chosen = demo.load(name)
    result = quantize(
        chosen.model_path, settings(bits), tmp_path / "q", samples=chosen.calib_path, evaluate=chosen.evaluate
    )
    summary = result.report.summary
    assert result.model_path == tmp_path / "q.onnx"
    assert summary.cosine_mean >= summary.cosine_min >= lowest
    before = sum(row.bytes_before for row in result.report.layers if row.quantized)
    channels = sum(entry.channels for entry in result.plan.entries)
    rest = summary.bytes_before - before
    assert summary.bytes_after <= before * bits / 32 + rest + 8 * channels + 1500 * len(result.plan.entries) + 4000
    assert summary.metric_drop is not None
    limits = {4: 0.1, 8: 0.01, 11: 0.005} if chosen.metric == "top-1" else {4: 5.0, 8: 0.05, 11: 0.01}
    assert summary.metric_drop <= limits[bits]
    assert onnxruntime.InferenceSession(result.model_path).get_outputs()


def test_per_tensor_and_uncorrected_are_taken_from_the_configuration(model_file: Path, tmp_path: Path) -> None:
    per_tensor = quantize(model_file, with_weight(5, per_channel=False))
    assert per_tensor.plan["w"].channels == 1
    plain = quantize(model_file, with_weight(5, bias_correction=False)).plan["w"].weight
    assert plain is not None
    assert (plain.spread_correction == 1).all()
    assert not plain.mean_correction.any()
    corrected = quantize(model_file, settings(5)).plan["w"].weight
    assert corrected is not None
    assert corrected.mean_correction.any()


@pytest.mark.parametrize("bits", [8, 16])
def test_native_widths_need_no_encoding(bits: int, model_file: Path) -> None:
    result = quantize(model_file, settings(bits, enable_encode=False))
    assert result.plan["w"].storage == f"int{bits}"


def test_fp16_stores_what_stays_float_in_half_and_says_what_did_not_fit(tmp_path: Path) -> None:
    big = random(40, 40)
    big[0, 0] = 1e6
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("MatMul", ["h", "kept"], ["h2"], name="/head/MatMul"),
        node("MatMul", ["h2", "big"], ["y"], name="/top/MatMul"),
    ]
    weights = {"w": random(40, 40, scale=0.1), "kept": random(40, 40, scale=0.1), "big": big}
    proto = model(nodes, {"x": (2, 40)}, ["y"], weights)
    config = settings(8, skip_quant_node="/head/MatMul,/top/MatMul")
    plain = quantize(proto, config)
    halved = quantize(proto, config, fp16=True)
    saved = plain.report.summary.bytes_after - halved.report.summary.bytes_after
    assert 0.9 * 40 * 40 * 2 < saved <= 40 * 40 * 2
    note = next(note for note in halved.report.summary.notes if note.startswith("fp16"))
    assert "1 do not fit into 16 bits" in note
    assert halved.report.summary.cosine_min > 0.999


def test_both_kinds_of_metric_are_measured_before_and_after(tmp_path: Path) -> None:
    tiny, labels = image_classifier()
    np.savez(tmp_path / "eval.npz", x=tiny.feeds["x"], labels=labels)
    by_data = quantize(tiny.proto, settings(), evaluate=tmp_path / "eval.npz").report.summary
    assert (by_data.metric, by_data.metric_before) == ("top-1", 1.0)
    calls: list[Any] = []

    def mine(session: Any) -> float:
        calls.append(session)
        return float((session.run(None, tiny.feeds)[0].argmax(axis=1) == labels).mean())

    by_function = quantize(tiny.proto, settings(), evaluate=mine).report.summary
    assert len(calls) == 2
    assert by_function.metric == "mine"
    assert (by_function.metric_before, by_function.metric_after) == (by_data.metric_before, by_data.metric_after)


def test_a_metric_that_is_no_number_is_refused(model_file: Path) -> None:
    with pytest.raises(SampleError, match="a number"):
        quantize(model_file, settings(), evaluate=lambda session: "good")


def test_samples_are_read_from_an_archive_and_named_in_the_report(model_file: Path, tmp_path: Path) -> None:
    samples = np.stack([random(3, 6, 6, seed=seed) for seed in range(5)])
    np.savez(tmp_path / "calib.npz", x=samples)
    from_file = quantize(model_file, settings(), samples=tmp_path / "calib.npz")
    assert "calib.npz" in from_file.report.summary.compared_on
    from_list = quantize(model_file, settings(), samples=[{"x": sample[None]} for sample in samples])
    assert from_list.report.outputs == from_file.report.outputs
    assert (
        from_file.manifest["samples"]["sha256"]
        == quantize(model_file, settings(), samples=tmp_path / "calib.npz").manifest["samples"]["sha256"]
    )


def test_without_samples_seeded_random_inputs_are_used_and_said(model_file: Path) -> None:
    first, second = (quantize(model_file, settings()).report for _ in range(2))
    assert "random" in first.summary.compared_on
    assert first.outputs == second.outputs


def test_progress_tells_of_every_weight_and_every_sample(model_file: Path, tmp_path: Path) -> None:
    steps: list[Step] = []
    quantize(model_file, settings(), samples=[{"x": random(1, 3, 6, 6)}] * 3, progress=steps.append)
    assert [step for step in steps if step.stage == "quantize"] == [Step("quantize", 1, 1, "w")]
    assert [(step.done, step.total) for step in steps if step.stage == "compare"] == [(1, 3), (2, 3), (3, 3)]


def test_a_raised_opset_is_said_and_native_widths_leave_it(tmp_path: Path) -> None:
    old = conv_relu(11).proto
    summary = quantize(old, settings(5)).report.summary
    assert (summary.opset, summary.ir_version) == (18, 8)
    assert any("opset raised from 11 to 18" in note for note in summary.notes)
    summary = quantize(old, settings(8)).report.summary
    assert summary.opset == 11
    assert not any("opset" in note for note in summary.notes)


def test_what_stayed_float_and_warnings_are_in_the_summary(model_file: Path) -> None:
    summary = quantize(model_file, settings(8, skip_quant_node="/c/Conv,/d/Conv")).report.summary
    assert summary.layers_quantized == 0
    assert summary.left_float == ("nothing was quantized; skip_quant_node=/c/Conv: 1 weight (540 B) stayed float",)
    assert any("'/d/Conv' matches no node" in note for note in summary.notes)
    assert summary.cosine_min == 1.0


def test_a_note_on_files_that_are_samples_and_labelled_data_is_given_once(model_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(3):
        random(1, 6, 6, 3, seed=number).tofile(folder / f"{number}.bin")
    (folder / "labels.txt").write_text("".join(f"{number}.bin {number}\n" for number in range(3)))
    metric = open_metric(folder, load_model(model_file).inputs)
    assert len(metric.notes) == 1
    judged = Metric(name="constant", function=lambda session: 0.5, notes=metric.notes)
    notes = quantize(model_file, settings(), samples=folder, evaluate=judged).report.summary.notes
    assert len([note for note in notes if ".bin files are read as NHWC" in note]) == 1


def test_a_result_prints_as_one_line_with_what_it_cost(model_file: Path) -> None:
    said = repr(quantize(model_file, settings()))
    assert "\n" not in said
    assert len(said) < 200
    for part in ("QuantResult(conv.onnx: WEIGHT_QUANT, 8 bits", " -> ", "cosine 0.99"):
        assert part in said


def test_a_preview_decides_the_same_and_reads_no_weight(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = quantize(model_file, settings(5)).plan
    monkeypatch.setattr("ptq_lab.graph.model.float32", lambda tensor: pytest.fail("a weight was read"))
    assert preview(model_file, settings(5)) == wanted


def test_an_executor_that_finds_nothing_to_do_is_said(model_file: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as executor:
        result = quantize(model_file, settings(), executor=executor)
    assert any("executor was not used" in note for note in result.report.summary.notes)


def test_a_model_that_needs_sizes_takes_them_from_input_shape(tmp_path: Path) -> None:
    proto = model([node("MatMul", ["x", "w"], ["y"])], {"x": ("batch", "time", 20)}, ["y"], {"w": random(20, 30)})
    for shape in ("x:2,7,20", {"x": (2, 7, 20)}):
        assert quantize(proto, settings(), input_shape=shape).report.summary.cosine_min > 0.999


def test_infinities_that_both_models_give_do_not_count_as_a_difference() -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("Where", ["mask", "h", "low"], ["y"]),
    ]
    weights = {"w": random(20, 30), "low": np.array(-np.inf, np.float32), "mask": np.arange(30) % 2 == 0}
    proto = model(nodes, {"x": (3, 20)}, ["y"], weights, opset=13)
    for bits in (8, 5):  # the second has to raise the opset, and compares as well
        summary = quantize(proto, settings(bits)).report.summary
        assert summary.cosine_min > 0.99
        assert summary.sqnr_db > 20


def test_outputs_whose_size_depends_on_the_numbers_are_compared_without_a_crash() -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("NonZero", ["p"], ["where"]),
        node("Relu", ["h"], ["r"]),
        node("Cast", ["big"], ["p"], to=onnx.TensorProto.FLOAT),
        node("Greater", ["r", "edge"], ["big"]),
    ]
    ordered = [nodes[0], nodes[2], nodes[4], nodes[3], nodes[1]]
    weights = {"w": random(20, 300), "edge": np.array(0.4, np.float32)}
    proto = model(ordered, {"x": (30, 20)}, {"where": onnx.TensorProto.INT64}, weights)
    report = quantize(proto, settings(1)).report
    assert report.summary.cosine_min == 0.0
    json.loads(report.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_outputs_that_are_no_tensors_are_passed_over() -> None:
    outputs = onnx.helper.make_tensor_sequence_value_info("s", onnx.TensorProto.FLOAT, None)
    proto = model([node("MatMul", ["x", "w"], ["y"])], {"x": (2, 20)}, ["y"], {"w": random(20, 30)}, opset=13)
    proto.graph.node.append(node("SequenceConstruct", ["y", "y"], ["s"]))
    proto.graph.output.append(outputs)
    for bits in (8, 5):
        report = quantize(proto, settings(bits)).report
        assert [row.output for row in report.outputs] == ["y"]


def test_integer_inputs_and_lookups_work_without_samples() -> None:
    tiny: Tiny = gather()
    assert quantize(tiny.proto, settings(5)).report.summary.cosine_min > 0.98
