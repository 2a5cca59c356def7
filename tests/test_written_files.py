"""What a run writes: the model, whole or not at all, and the record of where it came from."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from ptq_lab import demo
from ptq_lab.errors import InferenceError, OutputError, SampleError
from ptq_lab.graph import load_model
from ptq_lab.pipeline import quantize
from ptq_lab.progress import Step
from ptq_lab.runtime import open_session
from tests.conftest import Run, files, settings
from tests.models import (
    conv_relu,
    matmul,
    model,
    node,
    random,
)


@pytest.mark.parametrize("bits", [5, 8])
def test_the_same_inputs_give_the_same_bytes_whatever_the_threads(
    bits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = demo.load("digits_cnn")
    first = quantize(chosen.model_path, settings(bits), tmp_path / "a.onnx", samples=chosen.calib_path)
    one = functools.partial(open_session, threads=1)
    monkeypatch.setattr("ptq_lab.report.compare.open_session", one)
    second = quantize(chosen.model_path, settings(bits), tmp_path / "a2.onnx", samples=chosen.calib_path)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "a2.onnx").read_bytes()
    names = {"quantized": {"name": ""}}
    assert first.manifest | names == second.manifest | names


def test_the_model_may_be_a_proto_and_the_output_may_be_left_out(run: Run) -> None:
    tiny = matmul()
    before = tiny.proto.SerializeToString(deterministic=True)
    result = quantize(tiny.proto, settings())
    assert tiny.proto.SerializeToString(deterministic=True) == before
    path = result.model_path
    assert path.is_file()
    assert path.name == "model_quantized.onnx"
    assert run(path, tiny.feeds)["y"].shape == (2, 6, 3)
    folder = path.parent
    del result
    import gc

    gc.collect()
    assert not folder.exists()


def test_the_input_file_is_not_touched(model_file: Path, tmp_path: Path) -> None:
    before = model_file.read_bytes()
    quantize(model_file, settings(5), tmp_path / "q.onnx")
    assert model_file.read_bytes() == before
    assert files(model_file.parent) == ["conv.onnx"]


def test_save_writes_the_model_the_record_the_report_and_the_config(model_file: Path, tmp_path: Path) -> None:
    result = quantize(model_file, settings(5))
    folder = result.save(tmp_path / "deep" / "result")
    named = ["config.cfg", "conv_quantized.onnx", "layers.csv", "manifest.json", "report.html", "report.json"]
    assert files(folder) == named
    assert (folder / "conv_quantized.onnx").read_bytes() == result.model_path.read_bytes()
    assert json.loads((folder / "manifest.json").read_text()) == json.loads(json.dumps(result.manifest))
    again = quantize(model_file, folder / "config.cfg", tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == result.model_path.read_bytes()
    assert again.manifest["config"] == result.manifest["config"]
    assert result.save(folder) == folder


def test_save_into_a_file_is_refused(model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("x")
    with pytest.raises(OutputError, match="taken: cannot be written"):
        quantize(model_file, settings()).save(tmp_path / "taken")


def test_save_of_a_model_that_is_gone_is_refused(model_file: Path, tmp_path: Path) -> None:
    result = quantize(model_file, settings(), tmp_path / "q.onnx")
    (tmp_path / "q.onnx").unlink()
    with pytest.raises(OutputError, match="cannot be written"):
        result.save(tmp_path / "result")


def failing(session: Any) -> float:
    raise RuntimeError("the metric failed")


@pytest.mark.parametrize("before", [None, b"an earlier result"])
def test_a_run_that_fails_leaves_the_earlier_file_and_no_litter(
    before: bytes | None, model_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "q.onnx"
    if before is not None:
        target.write_bytes(before)
    with pytest.raises(SampleError, match="the metric failed"):
        quantize(model_file, settings(), target, evaluate=failing)
    assert files(tmp_path / "out") == ([] if before is None else ["q.onnx"])
    assert before is None or target.read_bytes() == before


def test_an_interrupted_comparison_leaves_no_litter_either(model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()

    def interrupt(step: Step) -> None:
        if step.stage == "compare":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize(model_file, settings(), tmp_path / "out" / "q.onnx", progress=interrupt)
    assert files(tmp_path / "out") == []


def test_a_run_that_succeeds_replaces_the_earlier_file(model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "q.onnx"
    target.write_bytes(b"an earlier result")
    result = quantize(model_file, settings(), target)
    assert files(tmp_path / "out") == ["q.onnx"]
    assert load_model(target).digest() == result.manifest["quantized"]["sha256"] == result.model.digest()


def test_metadata_and_manifest_tell_everything_but_times_and_paths(model_file: Path, tmp_path: Path) -> None:
    result = quantize(model_file, settings(5), tmp_path / "q.onnx")
    facts = {entry.key: entry.value for entry in onnx.load(tmp_path / "q.onnx").metadata_props}
    wanted = {"version", "source_sha256", "config", "config_sha256", "plan"}
    assert {key.removeprefix("ptq_lab.") for key in facts} == wanted
    assert facts["ptq_lab.source_sha256"] == load_model(model_file).digest()
    assert json.loads(facts["ptq_lab.plan"]) == {"w": [5, 5]}
    assert "bit_num" in facts["ptq_lab.config"]
    record = result.manifest
    assert record["model"] == {"name": "conv.onnx", "sha256": load_model(model_file).digest(), "opset": 18}
    assert record["quantized"]["name"] == "q.onnx"
    assert set(record["versions"]) == {"ptq_lab", "numpy", "onnx", "onnx-ir", "onnxruntime"}
    assert record["samples"]["origin"]
    assert re.fullmatch("[0-9a-f]{64}", record["samples"]["sha256"])
    text = json.dumps(record) + json.dumps(facts)
    assert str(tmp_path) not in text
    assert "seconds" not in text
    assert not re.search(r"20\d\d-\d\d-\d\d|\d\d:\d\d:\d\d", text)


def test_the_metadata_of_the_original_stays_and_the_original_gets_none(tmp_path: Path) -> None:
    proto = conv_relu().proto
    onnx.helper.set_model_props(proto, {"author": "somebody"})
    original = load_model(proto)
    quantize(original, settings(), tmp_path / "q.onnx")
    assert dict(original.ir_model.metadata_props) == {"author": "somebody"}
    facts = {entry.key: entry.value for entry in onnx.load(tmp_path / "q.onnx").metadata_props}
    assert facts["author"] == "somebody"


def test_external_data_go_in_and_one_file_comes_out(tmp_path: Path, run: Run) -> None:
    tiny = conv_relu()
    (tmp_path / "in").mkdir()
    source = tmp_path / "in" / "m.onnx"
    onnx.save(tiny.proto, source, save_as_external_data=True, location="m.bin", size_threshold=0)
    (tmp_path / "out").mkdir()
    result = quantize(source, settings(), tmp_path / "out" / "q.onnx")
    assert files(tmp_path / "out") == ["q.onnx"]
    assert result.report.summary.bytes_before == sum(file.stat().st_size for file in source.parent.iterdir())
    assert result.report.summary.bytes_after == (tmp_path / "out" / "q.onnx").stat().st_size
    beside = quantize(source, settings(), tmp_path / "in" / "q.onnx")
    assert beside.report.summary.bytes_after == result.report.summary.bytes_after
    assert files(tmp_path / "in") == ["m.bin", "m.onnx", "q.onnx"]
    assert np.array_equal(run(beside.model_path, tiny.feeds)["y"], run(result.model_path, tiny.feeds)["y"])


def test_a_result_past_the_limit_of_one_file_moves_as_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    import ptq_lab.graph.model as room

    proto = model([node("MatMul", ["x", "w"], ["y"])], {"x": (2, 70)}, ["y"], {"w": random(70, 60)})
    monkeypatch.setattr(room, "_SINGLE_FILE_LIMIT", 50)
    (tmp_path / "out").mkdir()
    result = quantize(proto, settings(5), tmp_path / "out" / "q.onnx")
    assert files(tmp_path / "out") == ["q.onnx", "q.onnx.data"]
    assert result.report.summary.bytes_after == sum(file.stat().st_size for file in (tmp_path / "out").iterdir())
    saved = result.save(tmp_path / "saved")
    assert {"q.onnx", "q.onnx.data"} <= set(files(saved))
    feeds = {"x": random(2, 70, seed=1)}
    assert np.array_equal(run(saved / "q.onnx", feeds)["y"], run(tmp_path / "out" / "q.onnx", feeds)["y"])
    assert load_model(saved / "q.onnx").digest() == result.manifest["quantized"]["sha256"]


def test_a_comparison_that_fails_in_onnxruntime_leaves_nothing(tmp_path: Path) -> None:
    nodes = [node("Reshape", ["x", "shape"], ["h"]), node("MatMul", ["h", "w"], ["y"])]
    weights = {"w": random(20, 30), "shape": np.array([7, 20])}
    proto = model(nodes, {"x": ("n", 20)}, ["y"], weights)
    with pytest.raises(InferenceError, match=r"running the model on x float32\[1, 20\] failed") as caught:
        quantize(proto, settings(), tmp_path / "q.onnx")
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == []
