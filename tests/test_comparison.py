"""Two models compared: every number against one worked out by hand from what onnxruntime gives."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import ptq_lab
from ptq_lab import demo
from ptq_lab.errors import InferenceError, ModelError, SampleError
from ptq_lab.report.tables import Report
from ptq_lab.report.text import render_text
from tests.conftest import Run
from tests.foreign import Feeds, anonymous, dynamic, half, peek, static, stored
from tests.models import branches, model, node, random

COUNT = 6


@pytest.fixture(scope="module")
def digits() -> demo.Demo:
    """The classifier demo."""
    return demo.load("digits_cnn")


@pytest.fixture(scope="module")
def images(digits: demo.Demo) -> list[Feeds]:
    with np.load(digits.calib_path) as archive:
        return [{"image": archive["image"][i : i + 1]} for i in range(COUNT)]


@pytest.fixture(scope="module")
def files(digits: demo.Demo, images: list[Feeds], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The classifier as onnxruntime's quantizers write it."""
    folder, source = tmp_path_factory.mktemp("foreign"), digits.model_path
    return {
        "QDQ": static(source, folder / "qdq.onnx", images),
        "QOperator": static(source, folder / "qop.onnx", images, "QOperator"),
        "dynamic": dynamic(source, folder / "dyn.onnx"),
        "float16": half(source, folder / "half.onnx"),
    }


def cosine(x: Any, y: Any) -> float:
    a, b = np.asarray(x, np.float64).ravel(), np.asarray(y, np.float64).ravel()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def decibel(signal: float, noise: float) -> float:
    return 10 * float(np.log10(signal / noise))


@pytest.mark.parametrize("way", ["QDQ", "QOperator", "dynamic", "float16"])
def test_sizes_and_agreement_are_those_of_the_files_and_their_outputs(
    way: str, digits: demo.Demo, files: dict[str, Path], images: list[Feeds], run: Run
) -> None:
    summary = ptq_lab.compare(digits.model_path, files[way], samples=images).summary
    assert summary.bytes_before == digits.model_path.stat().st_size
    assert summary.bytes_after == files[way].stat().st_size
    wanted = [run(digits.model_path, feeds)["logits"] for feeds in images]
    kind = np.float16 if way == "float16" else np.float32
    got = [run(files[way], {"image": feeds["image"].astype(kind)})["logits"].astype(np.float32) for feeds in images]
    likeness = [cosine(x, y) for x, y in zip(wanted, got, strict=True)]
    assert summary.cosine_mean == pytest.approx(np.mean(likeness), abs=1e-7)
    assert summary.cosine_min == pytest.approx(min(likeness), abs=1e-7)
    noise = sum(float(((x - y) ** 2).sum()) for x, y in zip(wanted, got, strict=True))
    assert summary.sqnr_db == pytest.approx(decibel(sum(float((x**2).sum()) for x in wanted), noise), abs=1e-3)


@pytest.mark.parametrize("way", ["QDQ", "QOperator"])
def test_the_error_of_every_weight_is_that_of_its_codes(way: str, digits: demo.Demo, files: dict[str, Path]) -> None:
    floats, codes = stored(digits.model_path), stored(files[way])
    report = ptq_lab.compare(digits.model_path, files[way])
    assert len(report.layers) == 16
    for row in report.layers:
        weight, scale = floats[row.tensor].astype(np.float64), codes[f"{row.tensor}_scale"].astype(np.float64)
        real = codes[f"{row.tensor}_quantized"] * scale.reshape([-1] + [1] * (weight.ndim - 1))
        wanted = np.linalg.norm(weight - real) / np.linalg.norm(weight)
        assert row.relative_error == pytest.approx(wanted, rel=1e-5)
        assert row.sqnr_db == pytest.approx(-20 * np.log10(wanted), abs=1e-4)
        assert row.shape == weight.shape
        assert row.bytes_before == 4 * weight.size
        assert row.bytes_after == weight.size + 5 * scale.size
        assert (row.bits, row.granularity) == (8, f"per-channel ({scale.size})")


def test_the_error_along_depth_is_that_of_the_tensors_of_both_files(
    digits: demo.Demo, files: dict[str, Path], images: list[Feeds]
) -> None:
    report = ptq_lab.compare(digits.model_path, files["QDQ"], samples=images)
    source, target = onnx.load(digits.model_path), onnx.load(files["QDQ"])
    made = {each.name: each.output[0] for each in target.graph.node}
    float_made = {each.name: each.output[0] for each in source.graph.node}
    assert [row.tensor for row in report.errors] == [float_made[row.node] for row in report.errors]
    pairs = {row.node: (float_made[row.node], made[row.node]) for row in report.errors}
    signal, noise = dict.fromkeys(pairs, 0.0), dict.fromkeys(pairs, 0.0)
    likeness: dict[str, list[float]] = {name: [] for name in pairs}
    for feeds in images:
        wanted = peek(source, [first for first, _ in pairs.values()], feeds)
        got = peek(target, [second for _, second in pairs.values()], feeds)
        for name, (first, second) in pairs.items():
            signal[name] += float((wanted[first] ** 2).sum())
            noise[name] += float(((wanted[first] - got[second]) ** 2).sum())
            likeness[name].append(cosine(wanted[first], got[second]))
    assert len(pairs) == 16
    for row in report.errors:
        assert row.accumulated_cosine == pytest.approx(np.mean(likeness[row.node]), abs=2e-4)
        assert row.accumulated_sqnr_db == pytest.approx(decibel(signal[row.node], noise[row.node]), abs=0.5)


@pytest.mark.parametrize("way", ["QDQ", "QOperator", "dynamic", "float16"])
def test_a_layer_alone_is_hardly_off_although_tools_move_biases_and_activations(
    way: str, digits: demo.Demo, files: dict[str, Path], images: list[Feeds]
) -> None:
    errors = ptq_lab.compare(digits.model_path, files[way], samples=images).errors
    assert len(errors) == 16
    for row in errors:
        assert row.isolated_cosine is not None, row.node
        assert row.isolated_cosine > (0.99 if way == "dynamic" else 0.998), row.node
        assert row.accumulated_cosine is not None
    first = errors[0]
    assert first.isolated_sqnr_db == pytest.approx(first.accumulated_sqnr_db, abs=1e-3)  # nothing is before it


def test_the_last_layer_says_what_the_output_says(
    digits: demo.Demo, files: dict[str, Path], images: list[Feeds]
) -> None:
    report = ptq_lab.compare(digits.model_path, files["QOperator"], samples=images)
    assert report.errors[-1].accumulated_cosine == pytest.approx(report.summary.cosine_mean, abs=1e-5)


def test_a_file_without_any_names_gives_the_same_numbers(
    digits: demo.Demo, files: dict[str, Path], images: list[Feeds]
) -> None:
    named = ptq_lab.compare(digits.model_path, files["QDQ"], samples=images)
    without = ptq_lab.compare(digits.model_path, anonymous(files["QDQ"]), samples=images)
    for one, other in zip(named.layers, without.layers, strict=True):
        assert (one.relative_error, one.bits, one.granularity) == (other.relative_error, other.bits, other.granularity)
    assert [row.accumulated_cosine for row in named.errors] == [row.accumulated_cosine for row in without.errors]
    assert all(row.how for row in without.pairs)


@pytest.mark.parametrize(
    "settings",
    [
        {"quant_type": "WEIGHT_QUANT", "bit_num": 5, "min_quant_weight_channel": 0},
        {"quant_type": "FULL_QUANT"},
        {"quant_type": "DYNAMIC_QUANT"},
    ],
    ids=lambda settings: str(settings["quant_type"]),
)
@pytest.mark.parametrize("name", ["digits_cnn", "digits_transformer"])
def test_the_rows_of_a_run_come_out_of_its_file_alone(name: str, settings: dict[str, Any]) -> None:
    source = demo.load(name)
    result = ptq_lab.quantize(source.model_path, {"common_quant_param": settings}, samples=source.calib_path)
    report = ptq_lab.compare(source.model_path, result.model_path, samples=source.calib_path)
    read = {row.tensor: row for row in report.layers}
    rows = [row for row in result.report.layers if row.quantized]
    assert rows
    for row in rows:
        found = read[row.tensor]
        assert (found.bits, found.shape, found.granularity) == (row.bits, row.shape, row.granularity)
        assert found.bytes_before == row.bytes_before
        rescaled = "rescaled" in found.reason  # the factors are recovered, and follow the rounding a little
        assert found.relative_error == pytest.approx(row.relative_error, rel=0.2 if rescaled else 1e-4)
    assert report.summary.cosine_min <= 1
    assert all(row.how for row in report.pairs)


def test_batch_normalisation_that_only_one_model_has_folded_is_folded_for_the_other(images: list[Feeds]) -> None:
    weights = {"w": random(6, 3, 3, 3), "b": random(6)}
    norm = {"gamma": random(6) + 2, "beta": random(6), "mean": random(6, seed=2), "var": np.abs(random(6)) + 1}
    whole = model(
        [node("Conv", ["x", "w", "b"], ["c"], "conv"), node("BatchNormalization", ["c", *norm], ["y"])],
        {"x": (1, 3, 6, 6)},
        ["y"],
        weights | norm,
    )
    gain = (norm["gamma"] / np.sqrt(norm["var"].astype(np.float64) + 1e-5)).astype(np.float64)
    folded = {
        "w": (weights["w"] * gain.reshape(-1, 1, 1, 1)).astype(np.float32),
        "b": ((weights["b"] - norm["mean"]) * gain + norm["beta"]).astype(np.float32),
    }
    short = model([node("Conv", ["x", "w", "b"], ["y"], "conv")], {"x": (1, 3, 6, 6)}, ["y"], folded)
    for first, second in ((whole, short), (short, whole)):
        report = ptq_lab.compare(first, second)
        (row,), (error,) = report.layers, report.errors
        assert row.relative_error is not None
        assert row.relative_error < 1e-6
        assert error.tensor == "y"
        assert error.accumulated_sqnr_db is not None
        assert error.accumulated_sqnr_db > 100


@pytest.mark.parametrize("kind", ["DYNAMIC_QUANT", "FULL_QUANT"])
def test_smoothed_weights_are_measured_in_their_own_units_and_said(kind: str) -> None:
    source = demo.load("digits_transformer")
    run = ptq_lab.quantize(source.model_path, {"common_quant_param": {"quant_type": kind}}, samples=source.calib_path)
    report = ptq_lab.compare(source.model_path, run.model_path, samples=source.calib_path)
    rescaled = [row for row in report.layers if "rescaled" in row.reason]
    assert rescaled
    assert max(row.relative_error or 0 for row in rescaled) < 0.05
    assert any("were rescaled before they were quantized" in note for note in report.summary.notes)
    alone = [row.isolated_cosine for row in report.errors if row.isolated_cosine is not None]
    assert min(alone) > 0.99
    assert min(row.accumulated_cosine or 0 for row in report.errors) > 0.9


def test_the_same_file_twice_is_equal_and_said(digits: demo.Demo) -> None:
    report = ptq_lab.compare(digits.model_path, digits.model_path)
    assert report.summary.cosine_min == 1
    assert report.summary.sqnr_db == np.inf
    assert {row.relative_error for row in report.layers} == {0.0}
    assert f"{digits.model_path.name} and {digits.model_path.name} are the same, byte for byte" in report.summary.notes
    assert "equal to the original" in render_text(report)


def test_the_metric_is_measured_of_both(digits: demo.Demo, files: dict[str, Path]) -> None:
    summary = ptq_lab.compare(digits.model_path, files["float16"], evaluate=digits.eval_path).summary
    assert summary.metric == "top-1"
    assert summary.metric_before is not None
    assert summary.metric_before > 0.97
    assert summary.metric_after == pytest.approx(summary.metric_before, abs=0.01)


def test_several_outputs_of_several_types_are_compared_each(run: Run) -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["scores"]),
        node("ArgMax", ["scores"], ["best"], axis=1),
        node("Greater", ["scores", "zero"], ["positive"]),
    ]
    outputs = {"scores": TensorProto.FLOAT, "best": TensorProto.INT64, "positive": TensorProto.BOOL}
    weights = {"w": random(5, 4), "zero": np.zeros((), np.float32)}
    first = model(nodes, {"x": (3, 5)}, outputs, weights)
    second = model(nodes, {"x": (3, 5)}, outputs, weights | {"w": -weights["w"]})
    feeds = {"x": random(3, 5, seed=4)}
    report = ptq_lab.compare(first, second, samples=[feeds])
    assert [row.output for row in report.outputs] == ["scores", "best", "positive"]
    for row in report.outputs:
        wanted, got = run(first, feeds)[row.output], run(second, feeds)[row.output]
        difference = np.abs(wanted.astype(float) - got.astype(float)).max()
        assert row.max_abs_error == pytest.approx(difference)
    assert report.outputs[0].cosine_min == pytest.approx(-1)


def test_a_model_with_layers_in_a_subgraph_is_compared_as_far_as_it_is_open() -> None:
    tiny = branches()
    report = ptq_lab.compare(tiny.proto, tiny.proto, samples=[tiny.feeds])
    assert report.summary.cosine_min == 1
    assert [row.node for row in report.pairs] == ["/h/MatMul"]


def test_models_without_layers_are_compared_by_their_outputs() -> None:
    plain = model([node("Relu", ["x"], ["y"])], {"x": (2, 3)}, ["y"])
    report = ptq_lab.compare(plain, plain)
    assert not report.layers
    assert not report.errors
    assert render_text(report)


def test_bytes_as_input_take_whole_numbers_and_refuse_fractions() -> None:
    weights = {"w": random(3, 4)}
    first = model([node("MatMul", ["x", "w"], ["y"])], {"x": (2, 3)}, ["y"], weights)
    nodes = [node("Cast", ["x"], ["f"], to=1), node("MatMul", ["f", "w"], ["y"])]
    second = model(nodes, {"x": (int(TensorProto.UINT8), (2, 3))}, ["y"], weights)
    whole = np.array([[0, 1, 255], [7, 8, 9]], np.float32)
    report = ptq_lab.compare(first, second, samples=[{"x": whole}])
    assert report.summary.sqnr_db == np.inf
    with pytest.raises(SampleError, match="takes uint8: whole numbers from 0 to 255"):
        ptq_lab.compare(first, second, samples=[{"x": whole / 2}])
    with pytest.raises(SampleError, match="reach from -1 to 254"):
        ptq_lab.compare(first, second, samples=[{"x": whole - 1}])


def test_samples_are_read_as_the_configuration_in_the_file_says(tmp_path: Path) -> None:
    source = demo.load("photo_denoiser")
    spec = ptq_lab.load_model(source.model_path).inputs[0]
    settings = {
        "common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": 8, "min_quant_weight_channel": 0},
        "data_preprocess_param": {"normalize_mean": "[1.0]", "normalize_std": "[2.0]"},
    }
    result = ptq_lab.quantize(source.model_path, settings)
    report = ptq_lab.compare(source.model_path, result.model_path)
    assert spec.name
    assert any("the configuration says that ptq_lab stored" in note for note in report.summary.notes)


def broken(folder: Path, source: Path) -> Path:
    path = folder / "cut.onnx"
    path.write_bytes(source.read_bytes()[:-500])
    return path


def absent(folder: Path, source: Path) -> Path:
    return folder / "none.onnx"


def another(folder: Path, source: Path) -> Path:
    path = folder / "other.onnx"
    onnx.save(model([node("Relu", ["z"], ["logits"])], {"z": (1, 7)}, ["logits"]), path)
    return path


@pytest.mark.parametrize(
    ("make", "said"), [(broken, "cut short"), (absent, "no such file"), (another, "needs the input z")]
)
def test_a_model_that_cannot_be_compared_is_refused_on_either_side(
    make: Callable[[Path, Path], Path], said: str, digits: demo.Demo, tmp_path: Path
) -> None:
    bad = make(tmp_path, digits.model_path)
    with pytest.raises(ModelError, match=said):
        ptq_lab.compare(digits.model_path, bad)
    with pytest.raises(ModelError):
        ptq_lab.compare(bad, digits.model_path)


def test_a_model_that_onnxruntime_does_not_run_is_named(digits: demo.Demo, tmp_path: Path) -> None:
    proto = onnx.load(digits.model_path)
    proto.graph.node[0].domain = "nobody.knows"
    proto.opset_import.append(onnx.helper.make_opsetid("nobody.knows", 1))
    onnx.save(proto, tmp_path / "strange.onnx")
    with pytest.raises(InferenceError, match=r"strange\.onnx"):
        ptq_lab.compare(digits.model_path, tmp_path / "strange.onnx")


def test_nothing_is_changed_in_the_files_or_beside_them(
    digits: demo.Demo, files: dict[str, Path], tmp_path: Path
) -> None:
    paths = [Path(shutil.copy(path, tmp_path)) for path in (digits.model_path, files["float16"])]
    before = [path.read_bytes() for path in paths]
    ptq_lab.compare(*paths)
    assert [path.read_bytes() for path in paths] == before
    assert len(list(tmp_path.iterdir())) == 2


def test_the_text_names_what_is_stored_how_the_error_grows_and_which_layer_is_which(
    digits: demo.Demo, files: dict[str, Path], images: list[Feeds]
) -> None:
    report: Report = ptq_lab.compare(digits.model_path, files["QOperator"], samples=images)
    text = render_text(report)
    assert "QOperator, 8 bits" in text
    assert "int8 QLinearConv, symmetric" in text
    assert "with all before" in text
    assert "node name without additions" in text
    assert "matched 16 of 16 layers" in text
