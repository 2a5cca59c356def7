"""Models whose weights go from file to file: flat memory, the same result, and what is said and left behind."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import ptq_lab
from ptq_lab import streaming
from ptq_lab.errors import ConfigError, ModelError, OutputError
from ptq_lab.numerics import quantize_weight, round_weight, weight_error

SIDE = 1024
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

# Quantizes, and prints the growth of anonymous memory over that of a run of a tiny model, and resident file pages.
WATCHED = """
import json, sys, threading, time
import ptq_lab

def status():
    lines = (line.split() for line in open("/proc/self/status") if line.startswith("Rss"))
    return {name.rstrip(":"): int(value) * 1024 for name, value, _ in lines}

def run(model, output):
    settings = {"quant_type": "WEIGHT_QUANT", "bit_num": int(sys.argv[3]), "workspace": sys.argv[4]}
    ptq_lab.quantize(model, {"common_quant_param": settings}, output)

run(sys.argv[1], sys.argv[4] + "/tiny_quantized.onnx")
before, highest, done = status(), {}, threading.Event()

def watch():
    while not done.wait(0.002):
        for name, value in status().items():
            highest[name] = max(highest.get(name, 0), value)

thread = threading.Thread(target=watch)
thread.start()
run(sys.argv[2], sys.argv[4] + "/large_quantized.onnx")
done.set()
thread.join()
print(json.dumps({name: highest[name] - before[name] for name in highest}))
"""


def chain(folder: Path, layers: int, *, name: str = "model", opset: int = 21, tied: bool = False) -> Path:
    """Write a chain of square matrix products with external data; `tied`: all weights are the same bytes."""
    rng, tensors, place = np.random.default_rng(1), [], 0
    with (folder / f"{name}.data").open("wb") as stream:
        for index in range(layers):
            if not (tied and index):
                place = stream.tell()
                stream.write((rng.standard_normal((SIDE, SIDE), np.float32) / np.float32(SIDE**0.5)).tobytes())
            tensor = TensorProto(name=f"w{index}", data_type=TensorProto.FLOAT, dims=(SIDE, SIDE))
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", f"{name}.data"), ("offset", place), ("length", 4 * SIDE * SIDE)):
                tensor.external_data.add(key=key, value=str(value))
            tensors.append(tensor)
    nodes = [helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"], f"product{i}") for i in range(layers)]
    ends = [helper.make_tensor_value_info(value, TensorProto.FLOAT, [1, SIDE]) for value in ("x0", f"x{layers}")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], tensors)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    (folder / f"{name}.onnx").write_bytes(proto.SerializeToString())
    return folder / f"{name}.onnx"


def settings(bits: int, workspace: Path | None) -> dict[str, dict[str, object]]:
    common: dict[str, object] = {"quant_type": "WEIGHT_QUANT", "bit_num": bits}
    return {"common_quant_param": common | ({"workspace": str(workspace)} if workspace is not None else {})}


def outputs(path: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"x0": np.linspace(-1, 1, SIDE, dtype=np.float32)[None]})[0]


@LINUX
@pytest.mark.parametrize("bits", [8, 4, 3])
def test_memory_stays_at_a_few_tensors_however_large_the_model_is(bits: int, tmp_path: Path) -> None:
    tiny, large = chain(tmp_path, 1, name="tiny"), chain(tmp_path, 48, name="large")
    tensor = 4 * SIDE * SIDE
    command = [sys.executable, "-c", WATCHED, str(tiny), str(large), str(bits), str(tmp_path)]
    grown = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert large.with_suffix(".data").stat().st_size == 48 * tensor
    assert grown["RssAnon"] < 4 * tensor
    assert grown["RssFile"] + grown["RssShmem"] < 16 * tensor  # of 48, and the codes are 12 more


@pytest.mark.parametrize("bits", [1, 3, 4, 8, 11, 16])
def test_a_streamed_model_decodes_to_the_same_numbers_as_one_held_in_memory(bits: int, tmp_path: Path) -> None:
    model = chain(tmp_path, 3)
    held = ptq_lab.quantize(model, settings(bits, None), tmp_path / "held.onnx")
    streamed = ptq_lab.quantize(model, settings(bits, tmp_path), tmp_path / "streamed.onnx")
    assert held.plan == streamed.plan
    assert [path.name for path in streamed.files] == ["streamed.onnx", "streamed.onnx.data"]
    np.testing.assert_array_equal(outputs(tmp_path / "held.onnx"), outputs(tmp_path / "streamed.onnx"))


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    model, found = chain(tmp_path, 2), []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        result = ptq_lab.quantize(model, settings(4, tmp_path), tmp_path / name / "q.onnx")
        found.append([path.read_bytes() for path in result.files])
    assert found[0] == found[1]


def test_weights_that_are_the_same_bytes_are_stored_once(tmp_path: Path) -> None:
    model = chain(tmp_path, 4, tied=True)
    result = ptq_lab.quantize(model, settings(8, tmp_path), tmp_path / "q.onnx")
    assert [entry.nodes for entry in result.plan.entries] == [tuple(f"product{index}" for index in range(4))]
    assert result.files[1].stat().st_size < 1.1 * SIDE * SIDE
    assert np.abs(outputs(model) - outputs(tmp_path / "q.onnx")).max() < 0.05


def test_the_report_says_that_nothing_was_compared_and_shows_no_number_for_it(tmp_path: Path) -> None:
    result = ptq_lab.quantize(chain(tmp_path, 1), settings(8, tmp_path), tmp_path / "q.onnx")
    assert math.isnan(result.report.summary.cosine_min)
    assert result.report.summary.compared_on.startswith("nothing: workspace asks for little memory")
    assert "cosine" not in repr(result)
    assert not result.report.outputs
    assert result.save(tmp_path / "saved").joinpath("q.onnx.data").is_file()


def test_samples_are_still_compared_on_if_there_is_memory_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, samples = chain(tmp_path, 1), [{"x0": np.ones((1, SIDE), np.float32)}]
    seen = ptq_lab.quantize(model, settings(8, tmp_path), tmp_path / "q.onnx", samples=samples).report.summary
    assert seen.cosine_min > 0.99
    assert any("rounded to the nearest step" in note for note in seen.notes)
    monkeypatch.setattr(streaming, "_free_memory", lambda: 1 << 20)
    unseen = ptq_lab.quantize(model, settings(8, tmp_path), tmp_path / "r.onnx", samples=samples).report.summary
    assert unseen.compared_on.startswith("nothing: running both models takes about")


def test_a_model_of_one_gibibyte_is_streamed_without_being_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "LARGE", 4 * SIDE * SIDE)
    result = ptq_lab.quantize(chain(tmp_path, 1), settings(8, None), tmp_path / "q.onnx")
    assert len(result.files) == 2


@pytest.mark.parametrize("bits", [8, 4])
def test_missing_external_data_are_named_and_nothing_is_written(bits: int, tmp_path: Path) -> None:
    model = chain(tmp_path, 1)
    model.with_suffix(".data").unlink()
    with pytest.raises(ModelError, match=r"w0 lies in .*model\.data, which does not exist"):
        ptq_lab.quantize(model, settings(bits, tmp_path), tmp_path / "q.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_workspace_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"\[common_quant_param\] workspace: .*nowhere is no folder; make it first"):
        ptq_lab.quantize(chain(tmp_path, 1), settings(8, tmp_path / "nowhere"), tmp_path / "q.onnx")


# A limit on the size of files fails like a full disk: in the middle of a write.
FULL = """
import resource, signal, sys
import ptq_lab
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]),) * 2)
common = {"quant_type": "WEIGHT_QUANT", "bit_num": 8, "workspace": sys.argv[3], "skip_quant_node": "product0"}
try:
    ptq_lab.quantize(sys.argv[1], {"common_quant_param": common}, sys.argv[2])
except ptq_lab.PtqLabError as error:
    print(type(error).__name__, error)
"""


@LINUX
@pytest.mark.parametrize(("limit", "told"), [(SIDE * SIDE, "needed for codes"), (3 * SIDE * SIDE, "cannot be written")])
def test_a_disk_that_is_full_is_said_and_leaves_nothing(limit: int, told: str, tmp_path: Path) -> None:
    model, room, out = chain(tmp_path, 2), tmp_path / "room", tmp_path / "out"
    room.mkdir()
    out.mkdir()
    (out / "q.onnx").write_text("the result of an earlier run")
    # The scratch file holds the codes of one weight; the result holds the other one in float besides.
    command = [sys.executable, "-c", FULL, str(model), str(out / "q.onnx"), str(room), str(limit)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said.startswith("OutputError")
    assert told in said
    assert [path.name for path in out.iterdir()] == ["q.onnx"]
    assert (out / "q.onnx").read_text() == "the result of an earlier run"
    assert not list(room.iterdir())


def test_what_is_left_float_is_copied_from_the_original_file(tmp_path: Path) -> None:
    model = chain(tmp_path, 2)
    config = settings(8, tmp_path)
    config["common_quant_param"]["skip_quant_node"] = "product0"
    ptq_lab.quantize(model, config, tmp_path / "q.onnx")
    wanted, got = (onnx.load(path).graph.initializer for path in (model, tmp_path / "q.onnx"))
    kept = {tensor.name: numpy_helper.to_array(tensor) for tensor in got}
    np.testing.assert_array_equal(kept["w0"], numpy_helper.to_array(wanted[0]))


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("common_quant_param", "bit_num", 0),
        ("ptq_lab", "encode", "entropy"),
        ("common_quant_param", "debug_info_save_path", "debug"),
    ],
)
def test_a_setting_that_holds_more_than_there_is_memory_for_is_refused_before_any_work(
    section: str, key: str, value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, config = chain(tmp_path, 1), settings(8, tmp_path)
    config.setdefault(section, {})[key] = str(tmp_path / "debug") if value == "debug" else value
    monkeypatch.setattr(streaming, "_free_memory", lambda: 1 << 20)
    with pytest.raises(ConfigError, match=rf"{key}.*about 0\.0 GB, and 0\.0 GB of memory are free"):
        ptq_lab.quantize(model, config, tmp_path / ("q.ptqz" if value == "entropy" else "q.onnx"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.data", "model.onnx"]


def test_what_stays_float_is_stored_in_16_bits_from_file_to_file(tmp_path: Path) -> None:
    model, config = chain(tmp_path, 2), settings(8, tmp_path)
    config["common_quant_param"]["skip_quant_node"] = "product0"
    ptq_lab.quantize(model, config, tmp_path / "q.onnx", fp16=True)
    wanted = numpy_helper.to_array(onnx.load(model).graph.initializer[0])
    kept = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(tmp_path / "q.onnx").graph.initializer}
    np.testing.assert_array_equal(kept["w0.half"], wanted.astype(np.float16))
    assert np.abs(outputs(model) - outputs(tmp_path / "q.onnx")).max() < 0.05


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
@pytest.mark.parametrize("correct", [True, False])
@pytest.mark.parametrize("axis", [0, 1, None])
def test_the_error_that_passes_add_up_is_the_error_of_the_weight(axis: int | None, correct: bool, bits: int) -> None:
    values = np.random.default_rng(0).standard_normal((300, 500), np.float32) + np.float32(0.3)
    codes = np.empty(values.shape, np.int8 if bits <= 8 else np.int16)
    found = round_weight(values, bits=bits, axis=axis, correct=correct, into=codes)
    np.testing.assert_array_equal(codes, quantize_weight(values, bits=bits, axis=axis, correct=correct).codes)
    assert found.error == pytest.approx(weight_error(values, found.weight), rel=0.02 if bits == 16 else 1e-3)
