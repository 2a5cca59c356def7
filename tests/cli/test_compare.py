"""`ptq-lab compare` and `ptq-lab report`: reports as text, JSON and page, and one line for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ptq_lab.demo import Demo
from tests.foreign import dynamic

from .conftest import Run


@pytest.fixture
def quantized(digits: Demo, tmp_path: Path) -> Path:
    """The classifier, quantized by onnxruntime."""
    (tmp_path / "models").mkdir()
    return dynamic(digits.model_path, tmp_path / "models" / "q.onnx")


def test_a_comparison_is_printed(run: Run, digits: Demo, quantized: Path) -> None:
    said = run("compare", digits.model_path, quantized, "--samples", digits.calib_path)
    assert said.code == 0
    assert said.out.startswith(f"{digits.model_path.name} against q.onnx: activations quantized at run time, 8 bits")
    assert "16 of 16 weight tensors quantized" in said.out
    assert "compared on    150 samples of calib.npz" in said.out


def test_json_and_page_say_the_same(run: Run, digits: Demo, quantized: Path, tmp_path: Path) -> None:
    options = ("--samples", digits.calib_path, "--eval", digits.eval_path)
    said = run("compare", digits.model_path, quantized, *options, "--json", "--report", "r.html")
    data = json.loads(said.out)
    assert data["summary"]["metric_before"] > 0.97
    assert len(data["layers"]) == len(data["errors"]) == len(data["pairs"]) == 16
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "activations quantized at run time" in page


def test_a_report_is_made_anew_from_a_debug_folder_and_from_a_saved_run(
    run: Run, digits: Demo, eight_bits: Path, tmp_path: Path
) -> None:
    base = ["convert", "--fmk=ONNX", f"--modelFile={digits.model_path}", "--outputFile=o", f"--configFile={eight_bits}"]
    assert run(*base, "--set", "common_quant_param.debug_info_save_path=debug", "--report", "saved").code == 0
    page = tmp_path / "debug" / "report.html"
    before = page.read_bytes()
    page.unlink()
    said = run("report", "debug")
    assert (said.code, said.out) == (0, f"written to {Path('debug') / 'report.html'}\n")
    assert page.read_bytes() == before
    assert run("report", "saved").code == 0
    assert (tmp_path / "saved" / "report.html").exists()


def test_what_is_wrong_is_one_line_and_nothing_is_written(
    run: Run, digits: Demo, quantized: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(quantized.read_bytes()[:-400])
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "report.json").write_text("{}", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    model = digits.model_path
    cases: list[tuple[tuple[object, ...], str]] = [
        (("compare", model, "none.onnx"), "none.onnx: no such file"),
        (("compare", model, "cut.onnx"), "cut.onnx: is not a complete ONNX file"),
        (("compare", model, quantized, "--samples", "nowhere"), "nowhere"),
        (("compare", model, quantized, "--report", "empty"), "empty: --report wants the name of a file"),
        (("compare", model, quantized, "--report", "no/r.html"), "--report wants the name of a file"),
        (("compare", model, quantized, "--configFile", "no.cfg"), "no.cfg"),
        (("compare", model), "Missing argument 'B'"),
        (("report", "nowhere"), "nowhere: no such folder"),
        (("report", "empty"), "empty: has no report.json"),
        (("report", "bad"), "is no report of this version"),
    ]
    for arguments, expected in cases:
        said = run(*arguments)
        assert said.code == 2, arguments
        assert expected in said.err
        assert "Traceback" not in said.err
        assert not said.out
    assert sorted(tmp_path.rglob("*")) == before
