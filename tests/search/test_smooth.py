"""Smoothing: the same float function, smoother inputs of integer layers, a better quantized model."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ptq_lab.calibration import Samples, collect_statistics, open_samples
from ptq_lab.errors import InferenceError
from ptq_lab.graph import Model, Placement, load_model, place_integers
from ptq_lab.graph.scaling import divide_features
from ptq_lab.int8 import Int8Settings, apply_int8, make_int8_plan, round_int8
from ptq_lab.numerics.similarity import cosine
from ptq_lab.search import smooth as smoothing
from ptq_lab.search.smooth import FeatureExtent, measure_features, smooth, smooth_for_output, smoothable_layers
from tests.conftest import Run
from tests.models import model, node, random
from tests.search.transformers import LINEAR, OUTLIER, WIDTH, sentences, transformer

STYLES = pytest.mark.parametrize("style", list(LINEAR))


def place(model: Model) -> Placement:
    return place_integers(model, {})


def smoothed(proto: onnx.ModelProto, alpha: float = 0.65) -> tuple[Model, Model]:
    before = load_model(proto)
    placement = place(before)
    return before, smooth(before, placement, measure_features(before, placement, sentences(proto)), alpha)


def quantize(model: Model, samples: Samples, settings: Int8Settings | None = None) -> Model:
    settings = settings or Int8Settings()
    placement = place(model)
    statistics = collect_statistics(model, placement.measured, samples)
    return apply_int8(model, round_int8(make_int8_plan(placement, statistics, settings), model))


def likeness(run: Run, wanted: Any, got: Any, samples: Samples) -> float:
    pairs = [(run(wanted, feeds)["y"], run(got, feeds)["y"]) for feeds in samples]
    return float(np.mean([cosine(here, there) for here, there in pairs]))


def operators(model: Model) -> list[str]:
    return [node.op_type for node in model.graph]


@STYLES
def test_every_constant_weight_becomes_integer_and_nothing_else_does(style: str) -> None:
    placement = place(load_model(transformer(style)))
    wanted = {"qkv", "o", "f1", "f2"} if style == "fused qkv" else {"q", "k", "v", "o", "f1", "f2"}
    assert {layer.node for layer in placement.layers} == wanted
    read = {node for each in placement.places for node, _ in each.readers}
    assert read == wanted


@STYLES
def test_onnxruntime_runs_every_such_layer_in_integers(style: str, tmp_path: Any) -> None:
    proto = transformer(style)
    quantized = quantize(load_model(proto), sentences(proto))
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(quantized.serialize(), options, providers=["CPUExecutionProvider"])
    kernels = [each.op_type for each in onnx.load(tmp_path / "optimized.onnx").graph.node]
    layers = len(place(load_model(proto)).layers)
    assert sum(kernels.count(name) for name in ("MatMulIntegerToFloat", "QGemm")) == layers


@STYLES
def test_mask_scores_and_softmax_never_carry_codes(style: str) -> None:
    tensors = {each.tensor for each in place(load_model(transformer(style))).places}
    assert not tensors & {"bias", "bias3", "bias4", "scores", "scaled", "masked", "weights", "mixed", "v2", "r0", "r1"}


@STYLES
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_a_smoothed_model_computes_the_same(style: str, alpha: float, run: Run) -> None:
    proto = transformer(style)
    _, after = smoothed(proto, alpha)
    for feeds in sentences(proto, 4):
        wanted = run(proto, feeds)["y"]
        np.testing.assert_allclose(run(after, feeds)["y"], wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())


def test_smoothing_changes_neither_its_model_nor_its_result_from_run_to_run() -> None:
    proto = transformer()
    before, after = smoothed(proto)
    assert before.serialize() == load_model(proto).serialize()
    assert smoothed(proto)[1].serialize() == after.serialize()


def test_only_integer_layers_read_what_was_divided() -> None:
    before, after = smoothed(transformer())
    layers = {layer.node for layer in place(before).layers}
    added = [node for node in after.graph if node.name not in {node.name for node in before.graph}]
    assert [node.op_type for node in added] == ["Mul"] * 3  # both normalizations feed a residual; GELU fuses as it is
    assert {use.node.name for node in added for use in node.outputs[0].uses()} == layers - {"o"}


@pytest.mark.parametrize("style", ["bias behind", "bias in front"])
def test_the_attention_output_is_divided_in_the_columns_of_the_value_projection(style: str) -> None:
    before, after = smoothed(transformer(style))
    gain = after.weight("v.bias") / before.weight("v.bias")
    np.testing.assert_allclose(after.weight("o") * gain[:, None], before.weight("o"), rtol=1e-5)
    assert gain.std() > 0.05


def test_where_values_come_out_of_a_split_the_attention_output_gets_a_mul() -> None:
    before, after = smoothed(transformer("fused qkv"))
    assert operators(after).count("Mul") == operators(before).count("Mul") + 4


def test_a_normalization_that_feeds_layers_only_takes_the_divisor_itself(run: Run) -> None:
    nodes = [
        node("LayerNormalization", ["x", "gamma", "beta"], ["n"]),
        node("MatMul", ["n", "w0"], ["a"]),
        node("MatMul", ["n", "w1"], ["b"]),
        node("Add", ["a", "b"], ["y"]),
    ]
    weights = {"gamma": random(6, seed=1), "beta": random(6, seed=2), "w0": random(6, 5), "w1": random(6, 5, seed=3)}
    after = divided(run, model(nodes, {"x": (2, 6)}, ["y"], weights), "n", (2, 6))
    assert operators(after) == ["LayerNormalization", "MatMul", "MatMul", "Add"]


def test_a_relu_hands_the_divisor_on_to_the_layer_in_front(run: Run) -> None:
    nodes = [
        node("MatMul", ["x", "w0"], ["a"]),
        node("Add", ["c", "a"], ["b"]),
        node("Relu", ["b"], ["h"]),
        node("MatMul", ["h", "w1"], ["y"]),
    ]
    weights = {"w0": random(4, 6), "c": random(6, seed=1), "w1": random(6, 5, seed=2)}
    after = divided(run, model(nodes, {"x": (3, 4)}, ["y"], weights), "h", (3, 4))
    assert operators(after) == ["MatMul", "Add", "Relu", "MatMul"]


def test_a_gemm_takes_the_divisor_in_weight_and_bias(run: Run) -> None:
    nodes = [
        node("Gemm", ["x", "w0", "c"], ["h"], transB=1),
        node("Gemm", ["h", "w1"], ["y"], transB=1),
    ]
    weights = {"w0": random(6, 4), "c": random(6, seed=1), "w1": random(5, 6, seed=2)}
    after = divided(run, model(nodes, {"x": (3, 4)}, ["y"], weights), "h", (3, 4))
    assert operators(after) == ["Gemm", "Gemm"]


def test_a_column_that_is_broadcast_is_not_mistaken_for_features(run: Run) -> None:
    nodes = [node("MatMul", ["x", "w0"], ["a"]), node("Add", ["a", "c"], ["h"]), node("MatMul", ["h", "w1"], ["y"])]
    weights = {"w0": random(4, 1), "c": random(6, seed=1), "w1": random(6, 5, seed=2)}
    after = divided(run, model(nodes, {"x": (3, 4)}, ["y"], weights), "h", (3, 4))
    assert operators(after) == ["MatMul", "Add", "Mul", "MatMul"]


def test_a_tensor_that_is_also_an_output_keeps_its_values(run: Run) -> None:
    nodes = [node("MatMul", ["x", "w0"], ["h"]), node("MatMul", ["h", "w1"], ["y"])]
    weights = {"w0": random(4, 6), "w1": random(6, 5, seed=2)}
    after = divided(run, model(nodes, {"x": (3, 4)}, ["y", "h"], weights), "h", (3, 4))
    assert operators(after).count("Mul") == 1


def divided(run: Run, proto: onnx.ModelProto, tensor: str, shape: tuple[int, int]) -> Model:
    """Divide one tensor, make sure that nothing changed but the way there, and return the result."""
    before = load_model(proto)
    after = divide_features(before, {tensor: np.array([0.5, 1, 2, 3, 0.1, 7])}, place(before).layers)
    feeds = {"x": random(*shape, seed=9)}
    wanted, got = run(proto, feeds), run(after, feeds)
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-5, atol=1e-5)
    return after


def test_layers_with_a_common_weight_each_get_their_own(run: Run) -> None:
    nodes = [node("Exp", ["x"], ["e"]), node("MatMul", ["e", "w"], ["h"]), node("MatMul", ["h", "w"], ["y"])]
    proto = model(nodes, {"x": (2, 6)}, ["y"], {"w": random(6, 6, scale=0.3)})
    divided(run, proto, "h", (2, 6))


def divisor_of(activation: list[float], alpha: float, seed: int) -> NDArray[np.float64]:
    high = np.array(activation)
    weight = np.random.default_rng(seed).uniform(0.01, 2, high.size)
    return smoothing.smoothing_divisors({"x": FeatureExtent(-high / 2, high)}, {"x": weight}, alpha)["x"]


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=9), st.floats(0, 1), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_divisors_are_one_on_geometric_average(activation: list[float], alpha: float, seed: int) -> None:
    divisor = divisor_of(activation, alpha, seed)
    if divisor.min() > 1e-3 and divisor.max() < 1e3:  # none was limited
        assert np.exp(np.log(divisor).mean()) == pytest.approx(1.0, rel=1e-9)


@given(st.lists(st.floats(0, 1e30), min_size=1, max_size=9), st.floats(0, 1), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_divisors_are_finite_and_positive_whatever_was_measured(
    activation: list[float], alpha: float, seed: int
) -> None:
    divisor = divisor_of(activation, alpha, seed)
    assert np.isfinite(divisor).all()
    assert (divisor > 0).all()


def test_a_feature_that_was_always_zero_is_not_divided() -> None:
    assert divisor_of([4.0, 0.0, 2.0], 0.6, 1)[1] == 1.0


def test_at_alpha_one_all_features_of_the_tensor_become_equally_large() -> None:
    high = np.array([1.0, 10.0, 4.0])
    divisor = smoothing.smoothing_divisors({"x": FeatureExtent(-high, high)}, {"x": np.ones(3)}, 1.0)["x"]
    np.testing.assert_allclose(high / divisor, (high / divisor)[0], rtol=1e-12)


def test_features_are_measured_along_the_last_axis_over_all_samples(run: Run) -> None:
    proto = transformer()
    extents = measure_features(load_model(proto), place(load_model(proto)), sentences(proto, 6))
    watched = onnx.ModelProto.FromString(proto.SerializeToString())
    watched.graph.output.append(onnx.helper.make_tensor_value_info("n0", 1, None))
    rows = np.concatenate([run(watched, feeds)["n0"].reshape(-1, WIDTH) for feeds in sentences(proto, 6)])
    np.testing.assert_allclose(extents["n0"].low, rows.min(axis=0), rtol=1e-5)
    np.testing.assert_allclose(extents["n0"].largest, np.abs(rows).max(axis=0), rtol=1e-5)
    assert extents["n0"].largest.argmax() == OUTLIER


def test_a_sample_for_which_a_tensor_is_not_finite_is_named() -> None:
    proto = model(
        [node("Exp", ["x"], ["e"]), node("MatMul", ["e", "w"], ["y"])], {"x": (1, 3)}, ["y"], {"w": random(3, 2)}
    )
    before = load_model(proto)
    samples = open_samples([{"x": [[0.0, 1.0, 2.0]]}, {"x": [[0.0, 1.0, 1000.0]]}], before.inputs)
    with pytest.raises(InferenceError, match=r"sample 1: the tensor e holds NaN or infinity"):
        measure_features(before, place(before), samples)


@STYLES
def test_the_chosen_strength_brings_the_quantized_output_closer(style: str, run: Run) -> None:
    proto = transformer(style)
    samples = sentences(proto, 40)
    chosen = smooth_for_output(load_model(proto), place, samples, Int8Settings())
    assert chosen.alpha in smoothing.ALPHAS
    assert f"alpha {chosen.alpha:g}" in chosen.note
    unseen = sentences(proto, 56).part(40, 56)
    plain = likeness(run, proto, quantize(load_model(proto), samples), unseen)
    better = likeness(run, proto, quantize(chosen.model, samples), unseen)
    assert 1 - better < 0.7 * (1 - plain)


def test_a_strength_that_is_asked_for_is_taken() -> None:
    proto = transformer()
    chosen = smooth_for_output(load_model(proto), place, sentences(proto, 2), Int8Settings(), alpha=0.3)
    assert chosen.alpha == 0.3
    assert operators(chosen.model).count("Mul") > operators(load_model(proto)).count("Mul")


@pytest.mark.parametrize(
    ("settings", "alpha", "count", "reason"),
    [
        (Int8Settings(per_channel=False), None, 8, "one scale per tensor"),
        (Int8Settings(), 0.0, 8, "alpha is 0"),
        (Int8Settings(), None, 3, "at least 4 samples"),
    ],
)
def test_a_model_is_left_alone_with_a_reason(
    settings: Int8Settings, alpha: float | None, count: int, reason: str
) -> None:
    proto = transformer()
    before = load_model(proto)
    chosen = smooth_for_output(before, place, sentences(proto, count), settings, alpha=alpha)
    assert chosen.model is before
    assert chosen.alpha is None
    assert reason in chosen.note


def test_layers_that_read_what_an_integer_kernel_made_are_not_smoothed() -> None:
    nodes = [
        node("Conv", ["x", "w0"], ["c"]),
        node("GlobalAveragePool", ["c"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "w1"], ["y"], transB=1),
    ]
    weights = {"w0": random(6, 3, 1, 1), "w1": random(4, 6, seed=1)}
    before = load_model(model(nodes, {"x": (1, 3, 4, 4)}, ["y"], weights))
    assert smoothable_layers(place(before)) == ()
