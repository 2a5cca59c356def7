"""Weights that stay codes at run time: computed as said, as small as said, and what cannot be done is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import ptq_lab
from ptq_lab import on_the_fly
from ptq_lab.config import load_config
from ptq_lab.entries import PRODUCT
from ptq_lab.errors import ConfigError
from ptq_lab.graph import Model, apply_plan, find_targets, load_model, required_onnxruntime, required_opset
from ptq_lab.numerics import dequantize_weight
from ptq_lab.on_the_fly import about_run_time, divide_weights
from ptq_lab.plan import QuantPlan, make_plan, round_weights
from ptq_lab.report.stored import dump_report, load_report
from ptq_lab.report.text import render_text
from ptq_lab.route import Quantized
from tests.conftest import Run
from tests.graph.quantized import EVERYTHING, float_twin
from tests.models import OPERATOR_MODELS, WIRINGS, gemm, image_classifier, matmul, model, node, random

MODELS = {**OPERATOR_MODELS, **WIRINGS}
COMMON = {"quant_type": "WEIGHT_QUANT", "min_quant_weight_channel": 0}
STAY = {"dequant_strategy": "ON_THE_FLY"}


def divided(original: Model, bits: int, **own: Any) -> QuantPlan:
    """Return the plan of a model whose weights stay codes, with its codes."""
    config = load_config(
        {"common_quant_param": COMMON | {"bit_num": bits}, "weight_quant_param": STAY, "ptq_lab.weights": own}
    )
    plan = make_plan(find_targets(original, EVERYTHING), bits=bits)
    return round_weights(divide_weights(plan, original, config), original.weight)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_those_of_float32_arithmetic_on_the_decoded_weights(name: str, bits: int, run: Run) -> None:
    tiny = MODELS[name]()
    original = load_model(tiny.proto)
    plan = divided(original, bits)
    got, wanted = run(apply_plan(original, plan), tiny.feeds), run(float_twin(original, plan), tiny.feeds)
    assert got.keys() == wanted.keys()
    for output, value in wanted.items():
        assert got[output].dtype == value.dtype
        limit = (4e-3 if "float16" in name else 1e-5) * max(1.0, float(np.abs(value).max(initial=0.0)))
        np.testing.assert_allclose(got[output], value, atol=limit, rtol=0)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("name", MODELS)
def test_names_stay_the_model_is_valid_and_its_bytes_are_those_the_plan_announces(name: str, bits: int) -> None:
    tiny = MODELS[name]()
    original = load_model(tiny.proto)
    before = original.serialize()
    plan = divided(original, bits)
    result = apply_plan(original, plan)
    assert original.serialize() == before
    proto = onnx.load_from_string(result.serialize())
    onnx.checker.check_model(proto, full_check=True)
    assert result.opset == max(original.opset, required_opset(plan))
    old = onnx.load_from_string(before)
    assert {n.name for n in old.graph.node if n.output[0] not in tiny.weights} <= {n.name for n in proto.graph.node}
    stored = {key: value.const_value for key, value in result.graph.initializers.items()}
    for entry in plan.entries:
        others = [each.tensor for each in plan.entries if each.tensor.startswith(f"{entry.tensor}.")]
        mine = [key for key in stored if key.startswith(f"{entry.tensor}.")]
        mine = [key for key in mine if not any(key.startswith(f"{other}.") for other in others)]
        assert sum(tensor.nbytes for key in mine if (tensor := stored[key]) is not None) == entry.bytes_after


WAYS = {
    "Conv": {"w": "DequantizeLinear"},
    "ConvTranspose": dict.fromkeys(("plain", "groups", "deep"), "DequantizeLinear"),
    "Gemm": {"b": "MatMulNBits", "bt": "", "a": "", "at": ""},
    "MatMul": {"b": "MatMulNBits", "batched": "", "a": ""},
    "LSTM": {"w": "DequantizeLinear", "r": "DequantizeLinear"},
    "Gather": {"table": ""},
    "float16 constant nodes": {"w1": "", "w2": ""},
    "branches": {"w": ""},
}


@pytest.mark.parametrize("name", WAYS)
def test_each_weight_has_the_operator_that_can_take_it(name: str) -> None:
    original = load_model(MODELS[name]().proto)
    plan = divided(original, 8)
    assert {entry.tensor: entry.decoder for entry in plan.entries} == WAYS[name]
    written = {n.op_type for n in apply_plan(original, plan).graph}
    assert {each for each in WAYS[name].values() if each} == written & {"MatMulNBits", "DequantizeLinear"}


def test_what_becomes_float_all_the_same_is_said_with_its_reason() -> None:
    original = load_model(gemm().proto)
    (said,) = about_run_time(divided(original, 8), original)
    assert said == (
        "ON_THE_FLY: 1 weight stays codes that MatMulNBits multiplies in float32; 1 weight becomes float at load: "
        "its Gemm transposes or scales as well; 2 weights become float at load: it is the left operand of Gemm"
    )


def test_a_weight_of_another_width_is_stored_the_ordinary_way_and_that_is_said() -> None:
    original = load_model(matmul().proto)
    plan = divided(original, 8).with_bits({"b": 5})
    plan = round_weights(plan, original.weight)
    assert (plan["b"].decoder, plan["b"].stored_as) == ("", "uint8 lanes 4+1")
    assert "1 weight becomes float at load: no operator takes 5 bits" in about_run_time(plan, original)[0]


@pytest.mark.parametrize(("bits", "release"), [(4, "1.20"), (8, "1.23"), (2, "1.24")])
def test_the_onnxruntime_that_is_needed_is_the_first_that_has_the_product(bits: int, release: str) -> None:
    proto = model([node("MatMul", ["x", "w"], ["y"])], {"x": (2, 40)}, ["y"], {"w": random(40, 20)})
    assert required_onnxruntime(divided(load_model(proto), bits), 18) == release


def test_an_onnxruntime_without_the_product_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_the_fly, "version", lambda name: "1.22.1")
    original = load_model(matmul().proto)
    with pytest.raises(ConfigError, match=r"ON_THE_FLY with 8 bits needs onnxruntime 1\.23, and 1\.22\.1 is installed"):
        divided(original, 8)
    assert divided(original, 4)["b"].decoder == PRODUCT


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_int8_arithmetic_rounds_the_inputs_and_nothing_else(bits: int, run: Run) -> None:
    proto = model([node("MatMul", ["x", "w"], ["y"])], {"x": (3, 96)}, ["y"], {"w": random(96, 40)})
    original, x = load_model(proto), random(3, 96, seed=1)
    exact, rounded = divided(original, bits), divided(original, bits, run_time_arithmetic="int8")
    wanted, got = (run(apply_plan(original, plan), {"x": x})["y"] for plan in (exact, rounded))
    weight = np.abs(_decoded(exact))
    reach = np.abs(x).reshape(3, 3, 32).max(axis=2).repeat(32, axis=1)
    limit = (reach / 254) @ weight  # half a step of each input
    assert (np.abs(got - wanted) <= limit * 1.01).all()
    assert np.abs(got - wanted).max() > 1e-4


def _decoded(plan: QuantPlan) -> np.ndarray[Any, Any]:
    (entry,) = plan.entries
    assert entry.weight is not None
    return dequantize_weight(entry.weight)


@pytest.mark.parametrize("bits", [4, 8])
def test_the_same_codes_in_the_ordinary_form_give_the_same_numbers(bits: int, run: Run) -> None:
    proto = model([node("MatMul", ["x", "w"], ["y"])], {"x": (3, 75)}, ["y"], {"w": random(75, 40)})
    original = load_model(proto)
    plan = divided(original, bits)
    done = Quantized(plan=plan, model=apply_plan(original, plan), prepared=original)
    folded = on_the_fly.folded_model(done)
    assert folded is not None
    assert "MatMulNBits" not in {n.op_type for n in folded.graph}
    feeds = {"x": random(3, 75, seed=1)}
    np.testing.assert_allclose(run(folded, feeds)["y"], run(done.model, feeds)["y"], rtol=1e-5, atol=1e-5)
    ordinary = replace(plan, entries=tuple(replace(entry, on_the_fly="") for entry in plan.entries))
    assert on_the_fly.folded_model(replace(done, plan=ordinary)) is None


def test_a_run_says_what_is_computed_and_measures_memory_beside_float32_and_the_folded_form(tmp_path: Path) -> None:
    tiny, _ = image_classifier()
    options: Any = {"common_quant_param": COMMON | {"bit_num": 8}, "weight_quant_param": STAY}
    report = ptq_lab.quantize(tiny.proto, options, tmp_path / "q.onnx").report
    names = [row.model for row in report.performance]
    assert names == ["float32", "WEIGHT_QUANT ON_THE_FLY", "same weights, float at load"]
    assert [row.storage for row in report.layers] == ["MatMulNBits, symmetric"]
    assert "1 weight stays codes that MatMulNBits multiplies in float32" in " ".join(report.summary.notes)
    measured = [row.memory_loaded for row in report.performance]
    text = render_text(report)
    if all(number is not None for number in measured):
        assert "Right after loading, before the first run, float32 holds" in " ".join(text.split())
    assert load_report(dump_report(report)) == report
    again = ptq_lab.compare(tiny.proto, tmp_path / "q.onnx")
    assert [(row.bits, row.storage) for row in again.layers] == [(8, "MatMulNBits, symmetric")]


@pytest.mark.models
@pytest.mark.parametrize(("bits", "bar"), [(8, 0.4), (4, 0.4)])
def test_a_trained_transformer_holds_four_tenths_of_float32_after_loading(
    models_folder: Path, bits: int, bar: float, tmp_path: Path
) -> None:
    path = models_folder / "minilm_l6" / "model.onnx"
    if not path.is_file():
        pytest.skip(f"{path} does not exist")
    options: Any = {"common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": bits}, "weight_quant_param": STAY}
    report = ptq_lab.quantize(path, options, tmp_path / "q.onnx").report
    float32, ours, _ = report.performance
    if float32.memory_loaded is None or ours.memory_loaded is None:
        pytest.skip("this system does not tell how much memory a process holds")
    assert ours.memory_loaded <= bar * float32.memory_loaded
    assert ours.memory is not None
    assert float32.memory is not None
    assert ours.memory <= 0.55 * float32.memory


@pytest.mark.parametrize("stay", [{}, STAY], ids=["folded", "on the fly"])
@pytest.mark.parametrize(("bits", "storage"), [(8, "int8"), (4, "int4"), (3, "uint8 lanes 2+1")])
def test_blocks_are_recognized_in_the_file(bits: int, storage: str, stay: dict[str, str], tmp_path: Path) -> None:
    if stay and bits == 3:
        pytest.skip("no operator takes 3 bits")
    proto = model([node("Conv", ["x", "w"], ["y"])], {"x": (1, 64, 3, 3)}, ["y"], {"w": random(20, 64, 1, 1)})
    own: Any = {"block_size": 32}
    options: Any = {
        "common_quant_param": COMMON | {"bit_num": bits},
        "weight_quant_param": stay,
        "ptq_lab.weights": own,
    }
    result = ptq_lab.quantize(proto, options, tmp_path / "q.onnx")
    (mine,) = result.report.layers
    (seen,) = ptq_lab.compare(proto, tmp_path / "q.onnx").layers
    assert (mine.granularity, seen.granularity, seen.bits) == ("blocks of 32 (40)", "blocks of 32 (40)", bits)
    assert seen.storage.startswith(storage)
    assert seen.relative_error == pytest.approx(mine.relative_error, rel=1e-4)


@pytest.mark.parametrize("stay", [{}, STAY], ids=["folded", "on the fly"])
def test_a_file_with_blocks_goes_into_a_container_and_comes_out_with_the_same_numbers(
    stay: dict[str, str], tmp_path: Path, run: Run
) -> None:
    proto = model(
        [node("MatMul", ["x", "w"], ["h"]), node("Gemm", ["h", "v"], ["y"])],
        {"x": (2, 70)},
        ["y"],
        {"w": random(70, 40), "v": random(40, 20)},
    )
    options: Any = {
        "common_quant_param": COMMON | {"bit_num": 4},
        "weight_quant_param": stay,
        "ptq_lab.weights": {"block_size": 32},
    }
    ptq_lab.quantize(proto, options, tmp_path / "q.onnx")
    ptq_lab.unpack(ptq_lab.pack(tmp_path / "q.onnx", tmp_path / "q.ptqz"), tmp_path / "again.onnx")
    feeds = {"x": random(2, 70, seed=1)}
    first, second = (run(load_model(tmp_path / name), feeds)["y"] for name in ("q.onnx", "again.onnx"))
    assert np.array_equal(first, second)


def test_batch_normalization_is_folded_because_onnxruntime_could_not(tmp_path: Path, run: Run) -> None:
    tiny = MODELS["Conv-depthwise"]()
    options: Any = {"common_quant_param": COMMON | {"bit_num": 8}, "weight_quant_param": STAY}
    result = ptq_lab.quantize(tiny.proto, options, tmp_path / "q.onnx")
    assert [n.op_type for n in result.model.graph if n.op_type in ("Conv", "BatchNormalization")] == ["Conv", "Conv"]
    wanted, got = run(load_model(tiny.proto), tiny.feeds)["y"], run(result.model, tiny.feeds)["y"]
    assert np.linalg.norm(got - wanted) < 0.02 * np.linalg.norm(wanted)
