"""`ptq-lab convert`: the original's command works unchanged; gates, JSON, notes and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from ptq_lab.demo import Demo

from .conftest import Run


def arguments(digits: Demo, config: Path, output: str = "small") -> list[str]:
    return [
        "convert",
        "--fmk=ONNX",
        f"--modelFile={digits.model_path}",
        f"--outputFile={output}",
        f"--configFile={config}",
    ]


def test_the_originals_command_writes_a_model_and_prints_the_report(
    run: Run, digits: Demo, eight_bits: Path, tmp_path: Path
) -> None:
    said = run(*arguments(digits, eight_bits))
    assert said.code == 0
    assert "WEIGHT_QUANT, 8 bits" in said.out
    assert "written to" in said.out
    onnx.checker.check_model(onnx.load(tmp_path / "small.onnx"))


def test_samples_and_metric_are_reported(run: Run, digits: Demo, eight_bits: Path) -> None:
    said = run(*arguments(digits, eight_bits), "--samples", digits.calib_path, "--eval", digits.eval_path, "--json")
    summary = json.loads(said.out)["summary"]
    assert summary["compared_on"] == "150 samples of calib.npz"
    assert summary["metric"] == "top-1"
    assert summary["metric_before"] > 0.97


def test_set_changes_single_options_with_and_without_a_file(run: Run, digits: Demo, eight_bits: Path) -> None:
    said = run(*arguments(digits, eight_bits), "--set", "common_quant_param.bit_num=5", "--json")
    assert json.loads(said.out)["summary"]["bits"] == 5
    alone = run(*arguments(digits, eight_bits)[:-1], "--set", "common_quant_param.quant_type=WEIGHT_QUANT", "--json")
    assert json.loads(alone.out)["summary"]["bits"] == 8


def test_set_pins_a_layer_whose_name_has_dots_and_equals_signs(run: Run, digits: Demo, eight_bits: Path) -> None:
    pins = ("--set", "ptq_lab.layer_bits.re:^classifier(?=/).*=3", "--set", "ptq_lab.layer_bits.no.such=2")
    said = run(*arguments(digits, eight_bits), *pins, "--json")
    record = json.loads(said.out)
    assert {row["bits"] for row in record["layers"] if row["node"].startswith("classifier")} == {3}
    assert any("no.such: matches no node" in note for note in record["summary"]["notes"])


def test_a_failed_gate_exits_3_and_the_model_is_written(
    run: Run, digits: Demo, eight_bits: Path, tmp_path: Path
) -> None:
    said = run(*arguments(digits, eight_bits), "--set", "common_quant_param.bit_num=2", "--min-cosine", "0.99")
    assert said.code == 3
    assert "gate failed: lowest output cosine" in said.err
    assert (tmp_path / "small.onnx").exists()


def test_a_drop_of_the_metric_beyond_the_gate_exits_3(run: Run, digits: Demo, eight_bits: Path) -> None:
    two_bits = ("--set", "common_quant_param.bit_num=2")
    watched = (*arguments(digits, eight_bits), "--eval", digits.eval_path, "--max-drop", "0.05")
    assert run(*watched).code == 0
    assert run(*watched, *two_bits).code == 3


def test_a_drop_gate_without_a_metric_is_refused(run: Run, digits: Demo, eight_bits: Path) -> None:
    said = run(*arguments(digits, eight_bits), "--max-drop", "0.05")
    assert said.code == 2
    assert said.err == "ptq-lab: max-drop: needs a metric to watch; add --eval\n"


def test_flags_without_meaning_for_onnx_are_accepted_with_a_note(run: Run, digits: Demo, eight_bits: Path) -> None:
    said = run(*arguments(digits, eight_bits), "--saveType=MINDIR", "--encryption=false", "--optimize=general")
    assert said.code == 0
    assert "note: --saveType has no meaning for an ONNX model" in said.err
    assert "optimize=general has no meaning" in said.out


def test_another_framework_is_refused(run: Run, digits: Demo, eight_bits: Path) -> None:
    said = run("convert", "--fmk=TFLITE", *arguments(digits, eight_bits)[2:])
    assert said.code == 2
    assert said.err == "ptq-lab: fmk: 'TFLITE' is not supported, only ONNX; export the model to ONNX first\n"


def test_fp16_stores_what_stays_float_in_16_bits_and_says_what_it_cost(
    run: Run, digits: Demo, eight_bits: Path, tmp_path: Path
) -> None:
    run(*arguments(digits, eight_bits, "wide"))
    said = run(*arguments(digits, eight_bits, "half"), "--fp16=on")
    assert said.code == 0
    assert "fp16:" in said.out
    assert "relative error at most" in " ".join(said.out.split())
    assert (tmp_path / "half.onnx").stat().st_size < (tmp_path / "wide.onnx").stat().st_size


def test_a_report_folder_gets_manifest_and_tables(run: Run, digits: Demo, eight_bits: Path, tmp_path: Path) -> None:
    run(*arguments(digits, eight_bits), "--report", "result")
    names = {path.name for path in (tmp_path / "result").iterdir()}
    assert names == {"small.onnx", "manifest.json", "report.json", "report.html", "layers.csv", "config.cfg"}
    text = (tmp_path / "result" / "manifest.json").read_text()
    assert str(tmp_path) not in text
    assert json.loads(text)["config"]["text"].startswith("[common_quant_param]")


def test_input_shape_and_layout_reach_the_samples(run: Run, digits: Demo, eight_bits: Path) -> None:
    said = run(*arguments(digits, eight_bits), "--inputShape=image:1,1,16,17")
    assert said.code == 2
    assert "image" in said.err
    wrong = run(*arguments(digits, eight_bits), "--inputShape=image")
    assert wrong.err.startswith("ptq-lab: inputShape: 'image' is not a name with sizes above 0")


@pytest.mark.parametrize("missing", ["--modelFile", "--outputFile"])
def test_a_missing_flag_is_a_usage_error(run: Run, digits: Demo, eight_bits: Path, missing: str) -> None:
    kept = [argument for argument in arguments(digits, eight_bits) if not argument.startswith(missing)]
    said = run(*kept)
    assert said.code == 2
    assert missing.lower() in said.err.lower()


def test_a_fault_of_ours_is_exit_1_in_one_line(
    run: Run, digits: Demo, eight_bits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("boom")

    monkeypatch.setattr("ptq_lab.cli.convert.quantize", broken)
    said = run(*arguments(digits, eight_bits))
    assert said.code == 1
    assert said.err.count("\n") == 1
    assert "ZeroDivisionError: boom" in said.err


def test_ctrl_c_leaves_nothing_behind(
    run: Run, digits: Demo, eight_bits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ptq_lab.report.compare.run_session", interrupt)
    said = run(*arguments(digits, eight_bits))
    assert said.code == 130
    assert said.err.endswith("ptq-lab: interrupted; nothing was written\n")
    assert [path.name for path in tmp_path.iterdir()] == ["eight.cfg"]


def test_the_log_shows_with_glog_v(
    run: Run, digits: Demo, eight_bits: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setenv("GLOG_v", "1")
    run(*arguments(digits, eight_bits))
    assert any(record.name == "ptq_lab.clock" for record in caplog.records)


def test_weights_of_the_written_model_are_close(run: Run, digits: Demo, eight_bits: Path, tmp_path: Path) -> None:
    import onnxruntime

    run(*arguments(digits, eight_bits))
    feeds = {"image": np.load(digits.calib_path)["image"][:8]}
    wanted = onnxruntime.InferenceSession(digits.model_path).run(None, feeds)[0]
    got = onnxruntime.InferenceSession(tmp_path / "small.onnx").run(None, feeds)[0]
    assert np.abs(got - wanted).max() < 0.1 * np.abs(wanted).max()


def test_a_transformer_is_quantized_dynamically_with_its_costs_measured(run: Run, tmp_path: Path) -> None:
    from ptq_lab import demo

    words = demo.load("digits_transformer")
    chosen = ["--set", "common_quant_param.quant_type=DYNAMIC_QUANT", "--set", "ptq_lab.performance=full"]
    said = run("convert", f"--modelFile={words.model_path}", "--outputFile=q.onnx", *chosen, "--json")
    assert said.code == 0
    report = json.loads(said.out)
    assert report["summary"]["products"] == 17
    assert [row["memory"] is not None for row in report["performance"]] == [True] * 4
    onnx.checker.check_model(onnx.load(tmp_path / "q.onnx"))


def test_an_old_habit_of_half_precision_is_refused_for_dynamic_quantization(run: Run, tmp_path: Path) -> None:
    from ptq_lab import demo

    model = demo.load("digits_transformer").model_path
    kind = ["--set", "common_quant_param.quant_type=DYNAMIC_QUANT"]
    said = run("convert", f"--modelFile={model}", "--outputFile=q.onnx", *kind, "--fp16=on")
    assert said.code == 2
    assert "does not go together with fp16" in said.err
    assert not (tmp_path / "q.onnx").exists()


def test_explaining_prints_the_diagnosis_and_json_holds_it(run: Run, digits: Demo, tmp_path: Path) -> None:
    (tmp_path / "two.cfg").write_text("[common_quant_param]\nquant_type=WEIGHT_QUANT\nbit_num=2\n")
    said = run(*arguments(digits, tmp_path / "two.cfg"), "--explain")
    assert said.code == 0
    assert "1. too few bits" in said.out
    assert "try [ptq_lab.layer_bits]" in said.out
    data = json.loads(run(*arguments(digits, tmp_path / "two.cfg"), "--explain", "--json").out)
    assert data["explanation"]["causes"][0]["kind"] == "too few bits"


def test_an_entropy_coded_output_gets_the_suffix_of_containers(run: Run, digits: Demo, tmp_path: Path) -> None:
    config = tmp_path / "c.cfg"
    config.write_text("[common_quant_param]\nquant_type=WEIGHT_QUANT\nbit_num=4\n[ptq_lab]\nencode=entropy\n")
    flags = (f"--modelFile={digits.model_path}", "--outputFile=out", f"--configFile={config}")
    said = run("convert", "--fmk=ONNX", *flags)
    assert said.code == 0, said.err
    assert (tmp_path / "out.ptqz").is_file()
    assert "out.ptqz" in said.out
