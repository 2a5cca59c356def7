"""Debug reports: the document's files, true numbers, any names, any earlier content of the folder."""

import csv
import json
import math
import re
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

import ptq_lab
from ptq_lab import demo
from ptq_lab.calibration import open_samples
from ptq_lab.config import load_config
from ptq_lab.debug import place_debug
from ptq_lab.errors import OutputError
from ptq_lab.graph import load_model
from ptq_lab.progress import Step
from ptq_lab.route import Quantized
from tests.conftest import Run, files
from tests.models import Feeds, model, node, random

Row = dict[str, str]

TENSOR = ["NodeName", "NodeType", "TensorName"]
FLAGS = ["InOutFlag", "DataTypeFlag", "TensorTypeFlag"]
NUMBERS = ["Min", "Q1", "Median", "Q3", "MAX", "Mean", "Var", "Sparsity", "Clip", "CosineSimilarity"]
STATISTICS = [*TENSOR, *FLAGS, *NUMBERS]
PARAMETERS = [*TENSOR, "ElementsNum", "Dims", "Scale", "ZeroPoint", "Bits", "CorrectionVar", "CorrectionMean"]
KEPT = ["manifest.json", "output_summary.csv", "quant_param.csv", "report.html", "report.json"]
WEIRD = 'a,"b"\n<script>alert(1)</script>\r\n;=x'
WAYS: dict[str, dict[str, Any]] = {
    "weights": {"quant_type": "WEIGHT_QUANT", "bit_num": 6, "min_quant_weight_channel": 0},
    "mixed": {"quant_type": "WEIGHT_QUANT", "bit_num": 0, "min_quant_weight_channel": 0},
    "full": {"quant_type": "FULL_QUANT"},
    "dynamic": {"quant_type": "DYNAMIC_QUANT"},
}


def network(name: str = "conv") -> onnx.ModelProto:
    """A Conv large enough that quartiles are counted, a ReLU, a pooling and a Gemm."""
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], name, pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"], "relu"),
        node("GlobalAveragePool", ["r"], ["p"], "pool"),
        node("Flatten", ["p"], ["f"], "flat"),
        node("Gemm", ["f", "v", "g"], ["y"], "gemm", transB=1),
    ]
    weights = {"w": random(20, 3, 3, 3), "b": random(20), "v": random(10, 20), "g": random(10)}
    return model(nodes, {"x": (1, 3, 32, 32)}, ["y"], weights)


def samples(count: int) -> list[Feeds]:
    return [{"x": random(1, 3, 32, 32, seed=seed + 1)} for seed in range(count)]


def quantize(proto: Any, folder: Path, way: str = "full", data: Any = None, **lab: Any) -> ptq_lab.QuantResult:
    config = {"common_quant_param": {**WAYS[way], "debug_info_save_path": str(folder)}, "ptq_lab": lab}
    return ptq_lab.quantize(proto, config, folder.parent / "q.onnx", samples=data)


def read(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def dump(proto: onnx.ModelProto, tensors: Iterable[str], feeds: Feeds, run: Run) -> dict[str, NDArray[Any]]:
    """Run a model as it is written, with inner tensors as outputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.output[:]
    copy.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in tensors)
    return run(copy, feeds, optimize="basic")


def decoded(proto: onnx.ModelProto, tensor: str) -> str:
    """Return what stands for a float tensor in a quantized model: what its codes are decoded to, or itself."""
    for each in proto.graph.node:
        if each.op_type == "DequantizeLinear" and each.input[0] == f"{tensor}.codes":
            return str(each.output[0])
    return tensor


def expected(origin: NDArray[Any], values: NDArray[Any]) -> dict[str, float]:
    """Work the numbers of a row out, in float64."""
    x, y = origin.astype(np.float64).ravel(), values.astype(np.float64).ravel()
    ordered = np.sort(y)
    ranks = (0, y.size // 4, y.size // 2, 3 * y.size // 4, y.size - 1)
    clip = np.mean((x < y.min()) | (x > y.max()))
    cosine = x @ y / math.sqrt((x @ x) * (y @ y))
    numbers = [*ordered[list(ranks)], y.mean(), y.var(), np.mean(y == 0), clip, cosine]
    return dict(zip(NUMBERS, map(float, numbers), strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_quantizing_writes_the_documents_files_with_its_columns(way: str, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "debug"
    folder.parent.mkdir()
    quantize(network(), folder, way, samples(3))
    rounds = 1 if way in ("weights", "mixed") else 3
    reports = [f"report_{number}.csv" for number in range(rounds)]
    assert files(folder) == sorted([*KEPT, *reports])
    for report in reports:
        assert list(read(folder / report)[0]) == STATISTICS
    assert list(read(folder / "quant_param.csv")[0]) == PARAMETERS
    summary = read(folder / "output_summary.csv")
    assert [(row["Round"], row["TensorName"]) for row in summary] == [(str(number), "y") for number in range(rounds)]
    assert all(0.9 < float(row["CosineSimilarity"]) <= 1 for row in summary)


@pytest.mark.parametrize("way", ["weights", "full"])
def test_the_numbers_are_those_of_the_tensors_that_onnxruntime_gives(way: str, tmp_path: Path, run: Run) -> None:
    proto, feeds = network(), samples(4)
    result = quantize(proto, tmp_path / "debug", way, feeds)
    quantized = onnx.load(result.model_path)
    weights = {each.name: onnx.numpy_helper.to_array(each) for each in proto.graph.initializer}
    moving = ["c", "r", "p", "f", "y"]
    stored = {name for each in quantized.graph.node for name in each.output}
    for number in range(len(feeds) if way == "full" else 1):
        before = {**weights, **feeds[number], **dump(proto, moving, feeds[number], run)}
        names = {name: decoded(quantized, name) for name in before}
        after = dump(quantized, [name for name in names.values() if name in stored], feeds[number], run)
        rows = read(tmp_path / "debug" / f"report_{number}.csv")
        assert {row["TensorName"] for row in rows} == {"x", "w", "b", "v", "g", *moving}
        for row in rows:
            origin = before[row["TensorName"]]
            values = origin if row["DataTypeFlag"] == "Origin" else after.get(names[row["TensorName"]], origin)
            wanted = expected(origin, values)
            for column, value in wanted.items():
                scale = float(np.abs(values).max()) if column == "Mean" else 0.0
                assert float(row[column]) == pytest.approx(value, rel=1e-6, abs=1e-7 * scale), (row, column)
            if row["DataTypeFlag"] == "Origin":
                assert (row["Clip"], row["CosineSimilarity"]) == ("0", "1")


def test_rows_follow_the_nodes_inputs_before_outputs_and_origin_before_dequant(tmp_path: Path) -> None:
    quantize(network(), tmp_path / "debug", "full", samples(1))
    rows = read(tmp_path / "debug" / "report_0.csv")
    found = [(row["NodeName"], row["TensorName"], row["InOutFlag"], row["TensorTypeFlag"]) for row in rows[::2]]
    assert found == [
        ("conv", "x", "Input", "Activation"),
        ("conv", "w", "Input", "Weight"),
        ("conv", "b", "Input", "Weight"),
        ("conv", "c", "Output", "Activation"),
        ("relu", "c", "Input", "Activation"),
        ("relu", "r", "Output", "Activation"),
        ("pool", "r", "Input", "Activation"),
        ("pool", "p", "Output", "Activation"),
        ("flat", "p", "Input", "Activation"),
        ("flat", "f", "Output", "Activation"),
        ("gemm", "f", "Input", "Activation"),
        ("gemm", "v", "Input", "Weight"),
        ("gemm", "g", "Input", "Weight"),
        ("gemm", "y", "Output", "Activation"),
    ]
    assert [row["DataTypeFlag"] for row in rows] == ["Origin", "Dequant"] * len(found)


def test_the_parameters_of_every_channel_decode_the_weight(tmp_path: Path) -> None:
    result = quantize(network(), tmp_path / "debug", "weights", samples(1))
    entry = result.plan["w"]
    rows = [row for row in read(tmp_path / "debug" / "quant_param.csv") if row["TensorName"] == "w"]
    assert len(rows) == 20
    assert {(row["ElementsNum"], row["Dims"], row["Bits"]) for row in rows} == {("540", "20 3 3 3", "6")}
    assert entry.weight is not None
    for channel, row in enumerate(rows):
        number = {name: float(row[name]) for name in ("Scale", "ZeroPoint", "CorrectionVar", "CorrectionMean")}
        steps = entry.weight.codes[channel].astype(np.float64) - number["ZeroPoint"]
        values = steps * number["Scale"] * number["CorrectionVar"] + number["CorrectionMean"]
        meant = entry.weight.codes[channel] * entry.weight.scale[channel] + entry.weight.offset[channel]
        np.testing.assert_allclose(values, meant, rtol=1e-5, atol=1e-6)


def test_activations_and_biases_have_parameters_where_they_are_quantized(tmp_path: Path) -> None:
    result = quantize(network(), tmp_path / "debug", "full", samples(2))
    rows = read(tmp_path / "debug" / "quant_param.csv")
    source = next(row for row in rows if row["TensorName"] == "x")
    grid = next(each for each in result.plan.activations if each.tensor == "x")
    assert float(source["Scale"]) == pytest.approx(grid.scale, rel=1e-8)
    assert (source["Dims"], source["Bits"], source["ZeroPoint"]) == ("1 3 32 32", "8", str(grid.zero_point))
    assert {row["Bits"] for row in rows if row["TensorName"] == "b"} == {"32"}


@pytest.mark.parametrize("way", WAYS)
def test_any_name_survives(way: str, tmp_path: Path) -> None:
    quantize(network(WEIRD), tmp_path / "debug", way, samples(1))
    assert read(tmp_path / "debug" / "report_0.csv")[0]["NodeName"] == WEIRD
    if way != "dynamic":
        assert WEIRD in {row["NodeName"] for row in read(tmp_path / "debug" / "quant_param.csv")}
    assert "<script>alert(1)" not in (tmp_path / "debug" / "report.html").read_text(encoding="utf-8")


def test_the_originals_bytes_are_those_of_its_code(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], ["y"], "fc")]
    proto = model(nodes, {"x": (1, 4)}, ["y"], {"w": np.array([[1], [0], [-1], [0.5]], np.float32)})
    data = [{"x": np.array([[0, 1, 2, 3]], np.float32)}]
    quantize(proto, tmp_path / "debug", "weights", data, mindspore_csv=True)
    folder = tmp_path / "debug"
    assert files(folder) == sorted([*KEPT, "round_0.csv"])
    lines = (folder / "round_0.csv").read_text(encoding="utf-8").split("\n")
    assert lines[0] == "," + ",".join(STATISTICS).replace("MAX", "Max") + ","
    assert lines[1] == "0,fc,MatMul,x,Input,Origin,Activation,0,1,2,3,3,1.5,1.11803,0.25,0,1,"
    assert lines[3] == "2,fc,MatMul,w,Input,Origin,Weight,-1,0,0.5,1,1,0.125,0.73951,0.25,0,1,"
    assert re.fullmatch(r"3,fc,MatMul,w,Input,Dequant,Weight,(-?[\d.e-]+,){10}", lines[4])
    assert lines[-1] == ""
    summary = (folder / "output_summary.csv").read_text(encoding="utf-8")
    assert re.fullmatch(r"Round,TensorName,CosineSimilarity,\n0,y,[\d.]{1,8},\n", summary)
    parameters = (folder / "quant_param.csv").read_text(encoding="utf-8").split("\n")
    assert parameters[0] == ",".join(PARAMETERS) + ","
    assert re.fullmatch(r"fc,MatMul,w,4,4 1 ,[\d.e-]+,-?\d+,6,[\d.e-]+,-?[\d.e-]+,", parameters[1])


def test_tensors_that_are_not_float_have_no_rows(tmp_path: Path) -> None:
    proto = network()
    nodes = [
        *proto.graph.node,
        node("ArgMax", ["y"], ["label"], "label", axis=1),
        node("Greater", ["y", "g"], ["above"], "above"),
        node("Shape", ["y"], ["sizes"], "sizes"),
    ]
    weights = {each.name: onnx.numpy_helper.to_array(each) for each in proto.graph.initializer}
    kinds = {"y": TensorProto.FLOAT, "label": TensorProto.INT64, "above": TensorProto.BOOL, "sizes": TensorProto.INT64}
    quantize(model(nodes, {"x": (1, 3, 32, 32)}, kinds, weights), tmp_path / "debug", "full", samples(2))
    rows = read(tmp_path / "debug" / "report_1.csv")
    assert not {"label", "above", "sizes"} & {row["TensorName"] for row in rows}
    assert ("label", "y", "Input") in {(row["NodeName"], row["TensorName"], row["InOutFlag"]) for row in rows}
    assert {row["TensorName"] for row in read(tmp_path / "debug" / "output_summary.csv")} == {"y"}


def test_shapes_may_differ_between_samples_and_between_the_models_and_may_be_empty(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["m"], "fc"),
        node("Relu", ["m"], ["y"], "relu"),
        node("NonZero", ["y"], ["where"], "where"),
        node("Cast", ["where"], ["z"], "cast", to=TensorProto.FLOAT),
    ]
    proto = model(nodes, {"x": (1, "n", 20)}, ["y", "z"], {"w": random(20, 4)})
    data = [{"x": random(1, size, 20, seed=size)} for size in (1, 9, 3)] + [{"x": np.zeros((1, 2, 20), np.float32)}]
    quantize(proto, tmp_path / "debug", "full", data)
    last = [row for row in read(tmp_path / "debug" / "report_3.csv") if row["TensorName"] == "z"]
    assert {row["Min"] for row in last} == {""}
    assert {row["CosineSimilarity"] for row in last[1:]} <= {"", "1"}
    assert len(read(tmp_path / "debug" / "output_summary.csv")) == 8


def test_nodes_that_quantization_folded_away_keep_the_tensors_that_still_exist(tmp_path: Path) -> None:
    card = demo.load("digits_cnn")
    quantize(card.model_path, tmp_path / "debug", "full", [dict(each) for each in _few(card.calib_path, 4)])
    rows = read(tmp_path / "debug" / "report_0.csv")
    norms = [row for row in rows if row["NodeType"] == "BatchNormalization"]
    assert {(row["InOutFlag"], row["TensorTypeFlag"]) for row in norms} == {("Output", "Activation")}
    dequant = [row for row in rows if row["InOutFlag"] == "Output" and row["DataTypeFlag"] == "Dequant"]
    assert {"Conv", "Gemm"} <= {row["NodeType"] for row in dequant}
    assert min(float(row["CosineSimilarity"]) for row in dequant) > 0.99


def test_without_samples_the_input_is_made_up_and_the_report_says_so(tmp_path: Path) -> None:
    result = quantize(network(), tmp_path / "debug", "weights")
    assert any("seeded random input" in note for note in result.report.summary.notes)
    record = json.loads((tmp_path / "debug" / "manifest.json").read_text(encoding="utf-8"))
    assert record["debug"]["rounds"] == 1
    assert "random" in record["debug"]["samples"]
    assert record["plan"]["entries"][0]["tensor"] == "w"


def test_sampled_quartiles_are_said_and_leave_out_what_stands_inside_a_kernel(tmp_path: Path) -> None:
    quantize(network(), tmp_path / "debug", "full", samples(1), debug_quantiles="sampled")
    rows = read(tmp_path / "debug" / "report_0.csv")
    assert "c" not in {row["TensorName"] for row in rows}
    exact = np.sort(samples(1)[0]["x"].ravel()[::16])
    assert float(rows[0]["Median"]) == pytest.approx(float(exact[exact.size // 2]), rel=1e-6)
    record = json.loads((tmp_path / "debug" / "manifest.json").read_text(encoding="utf-8"))["debug"]
    assert "16th" in record["quartiles"]
    assert "fused" in record["arithmetic"]


def test_an_existing_folder_keeps_what_is_not_ours_and_loses_our_old_rounds(tmp_path: Path) -> None:
    folder = tmp_path / "debug"
    quantize(network(), folder, "full", samples(3))
    (folder / "report_99.csv").write_text("somebody else's", encoding="utf-8")
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    first = (folder / "report_0.csv").read_bytes()
    quantize(network(), folder, "full", samples(1))
    kept = {*KEPT, "report_0.csv"}
    assert set(files(folder)) == kept | {"notes.txt", "report_99.csv"}
    assert (folder / "report_0.csv").read_bytes() != first
    assert (folder / "notes.txt").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"debug": {"files": ["../secret.csv", 3, "notes.txt"]}}'])
def test_a_manifest_of_others_removes_nothing(text: str, tmp_path: Path) -> None:
    folder = tmp_path / "debug"
    folder.mkdir()
    for file in (folder / "notes.txt", tmp_path / "secret.csv"):
        file.write_text("mine", encoding="utf-8")
    (folder / "manifest.json").write_text(text, encoding="utf-8")
    quantize(network(), folder, "weights", samples(1))
    assert "notes.txt" in files(folder)
    assert (tmp_path / "secret.csv").exists()


def test_equal_runs_give_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        quantize(network(), tmp_path / name / "debug", "full", samples(2))
    for file in ("report_1.csv", "quant_param.csv", "output_summary.csv"):
        assert (tmp_path / "a" / "debug" / file).read_bytes() == (tmp_path / "b" / "debug" / file).read_bytes()


@pytest.mark.parametrize("below", ["", "deep/debug"])
def test_a_path_that_is_a_file_or_lies_below_one_is_refused_before_any_work(below: str, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine", encoding="utf-8")
    started: list[Step] = []
    config = {"common_quant_param": {**WAYS["full"], "debug_info_save_path": str(tmp_path / "taken" / below)}}
    with pytest.raises(OutputError, match=r"debug_info_save_path.*is a file, not a folder"):
        ptq_lab.quantize(network(), config, tmp_path / "q.onnx", samples=samples(1), progress=started.append)
    assert not started
    assert files(tmp_path) == ["taken"]


def test_the_path_is_relative_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = {"common_quant_param": {**WAYS["weights"], "debug_info_save_path": "a/b"}}
    ptq_lab.quantize(network(), config, samples=samples(1))
    assert "report_0.csv" in files(tmp_path / "a" / "b")


def test_memory_does_not_grow_with_the_samples(tmp_path: Path) -> None:
    def peak(count: int) -> int:

        config = load_config({"common_quant_param": {**WAYS["full"], "debug_info_save_path": str(tmp_path / "d")}})
        folder, original = place_debug(config), load_model(network())
        assert folder is not None
        done = Quantized(plan=result.plan, model=result.model, prepared=result.run.prepared)
        data = open_samples({"x": _images(tmp_path / str(count), count)}, original.inputs)
        tracemalloc.start()
        folder.write_tables(original, result.model, done, data)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    result = quantize(network(), tmp_path / "debug", "full", samples(4))
    assert peak(40) < 1.1 * peak(4)


def _images(folder: Path, count: int) -> Path:
    folder.mkdir()
    for index, each in enumerate(samples(count)):
        each["x"].tofile(folder / f"{index:03}.bin")
    return folder


def _few(path: Path, count: int) -> list[Feeds]:

    data = open_samples(path, load_model(demo.load("digits_cnn").model_path).inputs)
    return list(data.take(count))


def test_a_run_that_fails_late_leaves_no_file_and_harms_none_of_an_earlier_run(tmp_path: Path) -> None:
    folder = tmp_path / "debug"
    config = {
        "common_quant_param": {"quant_type": "FULL_QUANT", "debug_info_save_path": str(folder)},
    }
    digits = demo.load("digits_cnn")

    def stop(step: Step) -> None:
        if step.stage == "debug" and step.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ptq_lab.quantize(digits.model_path, config, samples=digits.calib_path, progress=stop)
    assert [path.name for path in folder.rglob("*.csv")] == []
    folder.joinpath("report_0.csv").write_text("mine")
    with pytest.raises(KeyboardInterrupt):
        ptq_lab.quantize(digits.model_path, config, samples=digits.calib_path, progress=stop)
    assert folder.joinpath("report_0.csv").read_text() == "mine"
