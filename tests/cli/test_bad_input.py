"""Bad input at the command line: one message on stderr, exit code 2, nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ptq_lab.demo import Demo

from .conftest import Run

GOOD = "[common_quant_param]\nquant_type=WEIGHT_QUANT\nbit_num=8\nmin_quant_weight_channel=0\n"


def linear(weight: np.ndarray, op_type: str = "MatMul", domain: str = "") -> onnx.ModelProto:
    node = helper.make_node(op_type, ["x", "w"], ["y"], name="linear", domain=domain)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, weight.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, weight.shape[1]])],
        [numpy_helper.from_array(weight.astype(np.float32), "w")],
    )
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def truncated(folder: Path, digits: Demo) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(digits.model_path.read_bytes()[:-1000])
    return path


def not_onnx(folder: Path, digits: Demo) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(b"PK\x03\x04 this is no model at all")
    return path


def empty_model(folder: Path, digits: Demo) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(b"")
    return path


def without_external_data(folder: Path, digits: Demo) -> Path:
    path = folder / "model.onnx"
    onnx.save(
        onnx.load(digits.model_path),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    (folder / "weights.bin").unlink()
    return path


def with_nan(folder: Path, digits: Demo) -> Path:
    path = folder / "model.onnx"
    weight = np.ones((4, 4))
    weight[1, 2] = np.nan
    onnx.save(linear(weight), path)
    return path


def with_infinity(folder: Path, digits: Demo) -> Path:
    path = folder / "model.onnx"
    weight = np.ones((4, 4))
    weight[0, 0] = -np.inf
    onnx.save(linear(weight), path)
    return path


def unknown_operator(folder: Path, digits: Demo) -> Path:
    path = folder / "model.onnx"
    onnx.save(linear(np.ones((4, 4)), "Frobnicate", "com.example"), path)
    return path


def folder_as_model(folder: Path, digits: Demo) -> Path:
    (folder / "model.onnx").mkdir()
    return folder / "model.onnx"


def missing_model(folder: Path, digits: Demo) -> Path:
    return folder / "nowhere.onnx"


MODELS: dict[str, tuple[Callable[[Path, Demo], Path], str]] = {
    "truncated": (truncated, "is not a complete ONNX file"),
    "not onnx": (not_onnx, "ONNX"),
    "empty": (empty_model, "model.onnx: is empty"),
    "external data missing": (without_external_data, "which does not exist"),
    "NaN": (with_nan, "1 NaN or infinite values of 16"),
    "infinity": (with_infinity, "skip_quant_node=linear"),
    "unknown operator": (unknown_operator, "onnxruntime"),
    "folder": (folder_as_model, "is a folder"),
    "missing": (missing_model, "no such file"),
}


@pytest.mark.parametrize("case", MODELS)
def test_a_bad_model_is_one_message(run: Run, digits: Demo, eight_bits: Path, tmp_path: Path, case: str) -> None:
    make, expected = MODELS[case]
    model = make(tmp_path, digits)
    before = sorted(tmp_path.rglob("*"))
    said = run("convert", f"--modelFile={model}", "--outputFile=small.onnx", f"--configFile={eight_bits}")
    messages = [line for line in said.err.splitlines() if not line.endswith("...")]
    assert said.code == 2
    assert len(messages) == 1
    assert expected in messages[0]
    assert sorted(tmp_path.rglob("*")) == before


CONFIGS: dict[str, tuple[bytes, str]] = {
    "unknown enum": (b"[common_quant_param]\nquant_type=WEIGHTS\n", "did you mean WEIGHT_QUANT?"),
    "too many bits": (GOOD.replace("=8", "=17").encode(), "17 is outside 0..16"),
    "encode off at 5 bits": (GOOD.replace("=8", "=5").encode() + b"enable_encode=false\n", "enable_encode"),
    "no equals sign": (GOOD.encode() + b"skip_quant_node conv\n", "line 5"),
    "no value": (GOOD.encode() + b"skip_quant_node=\n", "line 5"),
    "empty": (b"", "empty"),
    "wrong encoding": (GOOD.encode("utf-16"), "UTF-8"),
    "no calibration data": (b"[common_quant_param]\nquant_type=FULL_QUANT\n", "needs calibration data"),
    "nothing to do": (b"[common_quant_param]\nbit_num=8\n", "nothing to do"),
    "not implemented": (
        GOOD.encode() + b"[transform_quant_param]\nexport_precision_mode=FLOAT32\n",
        "not implemented yet",
    ),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_bad_configuration_is_one_message(run: Run, digits: Demo, tmp_path: Path, case: str) -> None:
    content, expected = CONFIGS[case]
    (tmp_path / "bad.cfg").write_bytes(content)
    said = run("convert", f"--modelFile={digits.model_path}", "--outputFile=small.onnx", "--configFile=bad.cfg")
    assert said.code == 2
    assert said.err.count("\n") == 1
    assert expected in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["bad.cfg"]


def test_a_folder_as_configuration_is_one_message(run: Run, digits: Demo, tmp_path: Path) -> None:
    said = run("convert", f"--modelFile={digits.model_path}", "--outputFile=small.onnx", f"--configFile={tmp_path}")
    assert said.code == 2
    assert said.err.count("\n") == 1
    assert "folder" in said.err


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("missing/small.onnx", "does not exist"),
        (".", "is a folder"),
        ("/proc/small.onnx", "cannot be written"),
        ("copy.onnx", "is the original model"),
    ],
)
def test_a_place_that_cannot_take_the_result_is_one_message(
    run: Run, digits: Demo, eight_bits: Path, tmp_path: Path, output: str, expected: str
) -> None:
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(digits.model_path.read_bytes())
    said = run("convert", f"--modelFile={copy}", f"--outputFile={output}", f"--configFile={eight_bits}")
    messages = [line for line in said.err.splitlines() if not line.endswith("...")]
    assert said.code == 2
    assert len(messages) == 1
    assert expected in messages[0]
    assert copy.read_bytes() == digits.model_path.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.onnx", "eight.cfg"]


def test_a_file_where_the_report_folder_should_be_is_found_before_any_work(
    run: Run, digits: Demo, eight_bits: Path, tmp_path: Path
) -> None:
    (tmp_path / "plain").write_text("in the way")
    said = run(
        "convert",
        f"--modelFile={digits.model_path}",
        "--outputFile=small.onnx",
        f"--configFile={eight_bits}",
        "--report=plain",
    )
    assert (said.code, said.err) == (2, "ptq-lab: plain: is a file, and --report wants a folder\n")
    assert not (tmp_path / "small.onnx").exists()


@pytest.mark.parametrize(
    ("written", "meant"),
    [("--modelfile", "--modelFile"), ("--OUTPUTFILE", "--outputFile"), ("--min-cosin", "--min-cosine")],
)
def test_an_unknown_flag_is_answered_with_the_nearest_visible_one_whatever_its_case(
    run: Run, written: str, meant: str
) -> None:
    said = run("convert", f"{written}=m.onnx")
    assert said.code == 2
    assert f"there is no flag {written}; did you mean {meant}?" in said.err
    assert "--device" not in said.err


def test_an_unknown_flag_that_resembles_none_gets_no_guess(run: Run) -> None:
    said = run("convert", "--zzz=1")
    assert said.code == 2
    assert said.err.endswith("there is no flag --zzz\n")


@pytest.mark.parametrize(
    ("gate", "expected"),
    [
        ("--min-cosine=5", "min-cosine: 5 is outside 0..1"),
        ("--min-cosine=-0.5", "min-cosine: -0.5 is outside 0..1"),
        ("--min-cosine=nan", "min-cosine: nan is outside 0..1"),
        ("--max-drop=-1", "max-drop: -1 is not a number of 0 or more"),
        ("--max-drop=inf", "max-drop: inf is not a number of 0 or more"),
    ],
)
def test_a_gate_that_makes_no_sense_is_refused_before_any_work(
    run: Run, digits: Demo, eight_bits: Path, tmp_path: Path, gate: str, expected: str
) -> None:
    said = run(
        "convert",
        f"--modelFile={digits.model_path}",
        "--outputFile=small.onnx",
        f"--configFile={eight_bits}",
        f"--eval={digits.eval_path}",
        gate,
    )
    assert (said.code, said.err) == (2, f"ptq-lab: {expected}\n")
    assert not (tmp_path / "small.onnx").exists()


def test_without_a_configuration_the_message_says_where_to_get_one(run: Run, digits: Demo, tmp_path: Path) -> None:
    said = run("convert", f"--modelFile={digits.model_path}", "--outputFile=small.onnx")
    assert said.code == 2
    assert said.err.count("\n") == 1
    assert "no configuration given" in said.err
    assert "ptq-lab template weight > c.cfg" in said.err
    assert "--configFile=c.cfg" in said.err
    assert not list(tmp_path.iterdir())
