"""Channels rescaled between layers: the float function stays, and 8 bits lose less."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ptq_lab.calibration import collect_statistics, open_samples
from ptq_lab.graph import Model, load_model, place_integers
from ptq_lab.graph.kernels import count_kernels
from ptq_lab.graph.pairs import find_pairs, scale_pairs
from ptq_lab.int8 import Int8Settings, apply_int8, make_int8_plan, round_int8
from ptq_lab.numerics import TensorStatistics, choose_range
from ptq_lab.plan import QuantPlan
from ptq_lab.runtime import optimized_model
from ptq_lab.search.bias_correction import correct_biases
from ptq_lab.search.equalize import (
    DEPTHWISE_MARGIN,
    MOST_GROWTH,
    Equalized,
    equalize,
    equalize_clipped,
    equalize_into_depthwise,
    equalize_layers,
    scale_statistics,
)
from tests.conftest import Run
from tests.models import model, node, random

Form = Callable[[Model, Mapping[str, TensorStatistics]], Equalized]
Feeds = dict[str, NDArray[Any]]

FORMS: tuple[Form, ...] = (equalize_into_depthwise, equalize_layers, equalize_clipped)
LIMIT = 6.0
CHANNELS = 8


def pictures(count: int = 6, scale: float = 1.0) -> list[Feeds]:
    return [{"x": random(1, 3, 10, 10, seed=seed, scale=scale)} for seed in range(count)]


def chain(activation: str, *, opset: int = 18, uneven: float = 3.0) -> onnx.ModelProto:
    """Conv, depthwise Conv, pointwise Conv with groups, Conv; channels differ by powers of ten up to `uneven`.

    `activation` is ``"Relu"``, ``"Clip"``, or empty for none. Behind a Clip one half of the channels reaches its bound.
    """
    spread = np.logspace(-uneven / 2, uneven / 2, CHANNELS, dtype=np.float32)
    weights: dict[str, NDArray[Any]] = {
        "w0": random(CHANNELS, 3, 3, 3, seed=1) * spread.reshape(-1, 1, 1, 1),
        "b0": np.abs(random(CHANNELS, seed=2)) * spread,
        "w1": random(CHANNELS, 1, 3, 3, seed=3) / spread.reshape(-1, 1, 1, 1),
        "b1": np.abs(random(CHANNELS, seed=4)) * spread[::-1],
        "w2": 4 * random(6, CHANNELS // 2, 1, 1, seed=5) * spread[: CHANNELS // 2].reshape(1, -1, 1, 1),
        "w3": random(4, 6, 1, 1, seed=6),
        "b3": random(4, seed=7),
    }
    bounds = {}
    if activation == "Clip" and opset >= 11:
        weights |= {"zero": np.array(0.0, np.float32), "six": np.array(LIMIT, np.float32)}
    elif activation == "Clip":
        bounds = {"min": 0.0, "max": LIMIT}
    layers: list[tuple[str, Sequence[str], dict[str, Any]]] = [
        ("t0", ["x", "w0", "b0"], {"pads": [1, 1, 1, 1]}),
        ("t1", ["t0", "w1", "b1"], {"group": CHANNELS, "strides": [2, 2]}),
        ("t2", ["t1", "w2"], {"group": 2}),
        ("y", ["t2", "w3", "b3"], {}),
    ]
    nodes = []
    for output, inputs, how in layers:
        plain = output == "y" or not activation
        made = output if plain else f"{output}.made"
        nodes.append(node("Conv", inputs, [made], name=f"conv.{output}", **how))
        if not plain:
            bound = [name for name in ("zero", "six") if name in weights]
            nodes.append(node(activation, [made, *bound], [output], name=f"act.{output}", **bounds))
    return model(nodes, {"x": (1, 3, 10, 10)}, ["y"], weights, opset=opset)


def seen_by(loaded: Model, inputs: Sequence[Feeds]) -> dict[str, TensorStatistics]:
    samples = open_samples(list(inputs), loaded.inputs)
    return collect_statistics(loaded, [pair.tensor for pair in find_pairs(loaded)], samples, channels=True)


def peaks_of(statistics: TensorStatistics) -> NDArray[np.float32]:
    assert statistics.channel_low is not None
    assert statistics.channel_high is not None
    return np.maximum(np.abs(statistics.channel_low), np.abs(statistics.channel_high))


def equalized(proto: onnx.ModelProto, form: Form) -> tuple[Model, Equalized]:
    loaded = load_model(proto)
    return loaded, form(loaded, seen_by(loaded, pictures()))


def to_int8(prepared: Model, *, per_channel: bool) -> tuple[QuantPlan, Model]:
    samples = open_samples(pictures(), prepared.inputs)
    placement = place_integers(prepared, {})
    statistics = collect_statistics(prepared, placement.measured, samples)
    plan = round_int8(make_int8_plan(placement, statistics, Int8Settings(per_channel=per_channel)), prepared)
    return plan, apply_int8(prepared, plan)


def loss(run: Run, wanted: Model, prepared: Model, *, per_channel: bool) -> float:
    """Return noise over signal of the quantized model's output, in dB."""
    _, quantized = to_int8(prepared, per_channel=per_channel)
    pairs = [(run(wanted, feeds)["y"], run(quantized, feeds)["y"]) for feeds in pictures()]
    noise = sum(float(np.square(right - got).sum()) for right, got in pairs)
    return 10 * float(np.log10(noise / sum(float(np.square(right).sum()) for right, _ in pairs)))


def require_same(run: Run, before: Model, after: Model, inputs: Sequence[Feeds]) -> None:
    for feeds in inputs:
        right, got = run(before, feeds)["y"], run(after, feeds)["y"]
        np.testing.assert_allclose(got, right, rtol=0, atol=1e-5 * np.abs(right).max())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("activation", "opset"), [("", 18), ("Relu", 18), ("Clip", 18), ("Clip", 9)])
def test_every_form_changes_channels_and_leaves_the_float_function_as_it_was(
    run: Run, form: Form, activation: str, opset: int
) -> None:
    before, after = equalized(chain(activation, opset=opset), form)
    assert after.factors
    assert any(not np.array_equal(before.weight(name), after.model.weight(name)) for name in ("w0", "w1"))
    require_same(run, before, after.model, pictures())


@pytest.mark.parametrize("form", FORMS)
def test_the_model_that_was_given_is_not_changed_and_the_result_is_always_the_same(form: Form) -> None:
    loaded = load_model(chain("Clip"))
    bytes_before = loaded.serialize()
    seen = seen_by(loaded, pictures())
    assert form(loaded, seen).model.serialize() == form(loaded, seen).model.serialize()
    assert loaded.serialize() == bytes_before


@pytest.mark.parametrize("activation", ["", "Relu", "Clip"])
def test_channels_in_front_of_a_depthwise_layer_fill_the_range_and_never_leave_it(activation: str) -> None:
    before, after = equalized(chain(activation), equalize_into_depthwise)
    assert set(after.factors) == {"t0"}
    old, new = seen_by(before, pictures())["t0"], seen_by(after.model, pictures())["t0"]
    assert new.limit == pytest.approx(old.limit, rel=1e-5)
    wanted = np.minimum(old.limit / DEPTHWISE_MARGIN, peaks_of(old) * MOST_GROWTH)
    assert (peaks_of(new) >= wanted * 0.999).all()
    grown = after.factors["t0"] > 1.0
    assert grown.any()
    assert (peaks_of(new)[grown] <= old.limit / DEPTHWISE_MARGIN * 1.001).all()  # room for what was not seen
    assert (after.factors["t0"] >= 1.0).all()


def test_growing_into_depthwise_layers_helps_weights_with_a_scale_per_channel(run: Run) -> None:
    before, after = equalized(chain("Relu"), equalize_into_depthwise)
    plain = loss(run, before, before, per_channel=True)
    assert loss(run, before, after.model, per_channel=True) < plain - 3


def test_balancing_keeps_channels_that_reach_a_clip_and_lets_no_other_get_there() -> None:
    before, after = equalized(chain("Clip"), equalize_layers)
    assert set(after.factors) >= {"t0", "t1"}
    peaks = {tensor: peaks_of(seen) for tensor, seen in seen_by(before, pictures()).items()}
    assert any((high >= LIMIT).any() and (high < LIMIT).any() for high in peaks.values())  # or it shows nothing
    for tensor, factor in after.factors.items():
        reaches = peaks[tensor] >= LIMIT
        assert (factor[reaches] == 1.0).all()
        assert (peaks[tensor][~reaches] * factor[~reaches] < LIMIT).all()


@pytest.mark.parametrize(
    ("form", "activation", "gain"),
    [(equalize_layers, "Relu", 3), (equalize_layers, "Clip", 1), (equalize_clipped, "Clip", 3)],
)
def test_balancing_helps_weights_with_one_scale_per_layer(run: Run, form: Form, activation: str, gain: float) -> None:
    before, after = equalized(chain(activation), form)
    plain = loss(run, before, before, per_channel=False)
    assert loss(run, before, after.model, per_channel=False) < plain - gain


def test_bounds_per_channel_lose_less_than_one_clip_allows(run: Run) -> None:
    before, kept = equalized(chain("Clip"), equalize_layers)
    _, moved = equalized(chain("Clip"), equalize_clipped)
    assert any(ceiling.size > 1 for ceiling in moved.ceilings.values())
    clipped = loss(run, before, kept.model, per_channel=False)
    assert loss(run, before, moved.model, per_channel=False) < clipped - 1


def test_bounds_per_channel_hold_for_inputs_that_calibration_never_saw(run: Run) -> None:
    before, after = equalized(chain("Clip"), equalize_clipped)
    assert all(ceiling.size > 1 for ceiling in after.ceilings.values())
    require_same(run, before, after.model, pictures(scale=4.0))


def test_bounds_per_channel_become_a_min_of_codes_and_all_layers_stay_integer(run: Run) -> None:
    _, after = equalized(chain("Clip"), equalize_clipped)
    plan, quantized = to_int8(after.model, per_channel=False)
    report = count_kernels(optimized_model(quantized), plan)
    assert [layer.kernel for layer in report.layers] == ["QLinearConv"] * 4
    limiting = [made for made in quantized.graph if made.op_type == "Min"]
    expected = sum(ceiling.size > 1 for ceiling in after.ceilings.values())
    assert len(limiting) == expected > 0
    for made in limiting:
        source, bounds = made.inputs
        assert source is not None
        assert source.producer() is not None
        assert source.producer().op_type == "QuantizeLinear"  # type: ignore[union-attr]
        assert bounds is not None
        assert bounds.const_value is not None
        assert bounds.const_value.numpy().dtype == np.uint8


def test_a_min_of_codes_gives_the_codes_of_the_limited_values(run: Run) -> None:
    _, after = equalized(chain("Clip"), equalize_clipped)
    plan, quantized = to_int8(after.model, per_channel=False)
    for tensor in (name for name, ceiling in after.ceilings.items() if ceiling.size > 1):
        grid = next(activation for activation in plan.activations if activation.tensor == tensor)
        codes = onnx.load_from_string(quantized.serialize())
        codes.graph.output.append(onnx.helper.make_tensor_value_info(f"{tensor}.codes", onnx.TensorProto.UINT8, None))
        bound = np.rint(after.ceilings[tensor].astype(np.float32) / np.float32(grid.scale)) + grid.zero_point
        for feeds in pictures(scale=3.0):
            got = run(codes, feeds, optimize="off")[f"{tensor}.codes"]
            assert (got <= np.clip(bound, 0, 255).reshape(1, -1, 1, 1)).all()
            assert (got.max(axis=(0, 2, 3)) == np.clip(bound, 0, 255)).any()  # the bound is reached, not just far away


def test_biases_are_corrected_across_a_min_of_codes(run: Run) -> None:
    _, after = equalized(chain("Clip"), equalize_clipped)
    plan, plain = to_int8(after.model, per_channel=False)
    corrected = apply_int8(after.model, correct_biases(plan, after.model, pictures()))

    def offset(quantized: Model) -> float:
        errors = [run(quantized, feeds)["y"] - run(after.model, feeds)["y"] for feeds in pictures()]
        return float(np.abs(np.mean(errors, axis=(0, 1, 3, 4))).max())

    assert offset(corrected) < 0.3 * offset(plain)


def test_one_common_bound_stays_a_clip_that_kernels_absorb() -> None:
    before = load_model(chain("Clip"))
    seen = {  # nothing reaches the bound of 6
        tensor: TensorStatistics(
            low=0.0,
            high=1.0,
            count=1,
            rounds=1,
            channel_low=np.zeros(channels, np.float32),
            channel_high=np.ones(channels, np.float32),
        )
        for tensor, channels in (("t0", CHANNELS), ("t1", CHANNELS), ("t2", 6))
    }
    after = equalize_clipped(before, seen)
    assert after.ceilings
    assert all(ceiling.size == 1 for ceiling in after.ceilings.values())
    assert [made.op_type for made in after.model.graph] == [made.op_type for made in before.graph]


def test_per_channel_weights_are_equalised_into_depthwise_layers_only() -> None:
    loaded = load_model(chain("Relu"))
    chosen = equalize(loaded, seen_by(loaded, pictures()), per_channel=True)
    assert set(chosen.factors) == {"t0"}
    assert chosen.note == "small channels in front of depthwise layers were enlarged: 7 channels of 1 tensors"


def test_clips_are_replaced_only_where_a_min_of_codes_is_allowed() -> None:
    loaded = load_model(chain("Clip", uneven=5.0))
    seen = seen_by(loaded, pictures())
    assert equalize(loaded, seen, per_channel=False).ceilings
    assert "bound per channel" in equalize(loaded, seen, per_channel=False).note
    without = equalize(loaded, seen, per_channel=False, ceilings=False)
    assert without.factors
    assert not without.ceilings


def test_a_model_with_even_channels_is_left_alone() -> None:
    even = np.ones((4, 4, 1, 1), np.float32)
    nodes = [node("Conv", ["x", "v"], ["h"]), node("Relu", ["h"], ["r"]), node("Conv", ["r", "w"], ["y"])]
    loaded = load_model(model(nodes, {"x": (1, 4, 5, 5)}, ["y"], {"v": even, "w": even * 0.5}))
    inputs = [{"x": random(1, 4, 5, 5, seed=seed)} for seed in range(3)]
    result = equalize(loaded, seen_by(loaded, inputs), per_channel=False)
    assert result.model is loaded
    assert (result.note, dict(result.factors)) == ("", {})


def test_channels_without_weights_or_values_are_left_alone(run: Run) -> None:
    proto = chain("Clip")
    for array in proto.graph.initializer:
        if array.name in ("w0", "b0"):
            numbers = onnx.numpy_helper.to_array(array).copy()
            numbers[3] = 0.0  # a channel that is always zero
            array.CopyFrom(onnx.numpy_helper.from_array(numbers, array.name))
    for form in FORMS:
        before, after = equalized(proto, form)
        assert after.factors["t0"][3] == 1.0
        assert all(np.isfinite(factor).all() and (factor > 0).all() for factor in after.factors.values())
        require_same(run, before, after.model, pictures())


def test_a_channel_never_seen_alive_does_not_come_closer_to_its_clip() -> None:
    loaded = load_model(chain("Clip"))
    seen = seen_by(loaded, pictures())
    alive = peaks_of(seen["t1"]).copy()
    free = equalize_layers(loaded, seen).factors["t1"]
    channel = int(np.argmax(free))
    assert free[channel] > 1.0
    alive[channel] = 0.0
    seen["t1"] = replace(seen["t1"], channel_low=np.zeros_like(alive), channel_high=alive)
    assert equalize_layers(loaded, seen).factors["t1"][channel] <= 1.0


def test_tensors_without_statistics_are_left_alone() -> None:
    loaded = load_model(chain("Relu"))
    seen = seen_by(loaded, pictures())
    del seen["t0"]
    assert "t0" not in equalize_layers(loaded, seen).factors
    assert equalize(loaded, {}, per_channel=False).model is loaded


def test_a_weight_that_two_layers_share_is_scaled_for_each_by_itself(run: Run) -> None:
    nodes = [node("Conv", ["x", "w"], ["h"]), node("Relu", ["h"], ["r"]), node("Conv", ["r", "w"], ["y"])]
    loaded = load_model(model(nodes, {"x": (1, 4, 5, 5)}, ["y"], {"w": random(4, 4, 1, 1, seed=1)}))
    scaled = scale_pairs(loaded, {"r": np.array([0.1, 1.0, 10.0, 3.0])})
    first, second = (made.inputs[1].name for made in scaled.graph if made.op_type == "Conv" and made.inputs[1])
    assert not np.array_equal(scaled.weight(first or ""), scaled.weight(second or ""))
    require_same(run, loaded, scaled, [{"x": random(1, 4, 5, 5, seed=seed)} for seed in range(3)])


@pytest.mark.parametrize(
    ("nodes", "outputs", "why"),
    [
        ([node("Conv", ["r", "w"], ["y"]), node("Neg", ["r"], ["z"])], ["y", "z"], "another reader"),
        ([node("Conv", ["r", "w"], ["y"])], ["y", "r"], "an output of the model"),
        ([node("Sigmoid", ["r"], ["s"]), node("Conv", ["s", "w"], ["y"])], ["y"], "something else in between"),
        ([node("Neg", ["w"], ["n"]), node("Conv", ["r", "n"], ["y"])], ["y"], "a weight made at run time"),
        ([node("Conv", ["x", "r"], ["y"])], ["y"], "read as a weight"),
    ],
)
def test_there_is_no_pair_where_somebody_would_notice(nodes: list[Any], outputs: list[str], why: str) -> None:
    first = [node("Conv", ["x", "v"], ["h"]), node("Relu", ["h"], ["r"])]
    weights = {"v": random(4, 4, 1, 1), "w": random(4, 4, 1, 1, seed=1)}
    assert not find_pairs(load_model(model([*first, *nodes], {"x": (4, 4, 1, 1)}, outputs, weights))), why


def test_there_is_no_pair_around_a_clip_whose_bound_is_computed() -> None:
    nodes = [
        node("Conv", ["x", "v"], ["h"]),
        node("ReduceMax", ["x"], ["top"], keepdims=0),
        node("Clip", ["h", "zero", "top"], ["r"]),
        node("Conv", ["r", "w"], ["y"]),
    ]
    weights = {"v": random(4, 4, 1, 1), "w": random(4, 4, 1, 1, seed=1), "zero": np.array(0.0, np.float32)}
    assert not find_pairs(load_model(model(nodes, {"x": (1, 4, 5, 5)}, ["y"], weights)))


@settings(max_examples=20, deadline=None)
@given(
    factors=st.lists(st.floats(0.01, 100.0), min_size=6, max_size=6),
    groups=st.sampled_from([1, 2, 3, 6]),
)
def test_any_positive_factors_leave_what_stands_around_a_relu_as_it_was(factors: list[float], groups: int) -> None:
    from tests.conftest import _run

    nodes = [
        node("Conv", ["x", "v", "b"], ["h"]),
        node("Relu", ["h"], ["r"]),
        node("Conv", ["r", "w"], ["y"], group=groups),
    ]
    weights = {"v": random(6, 2, 1), "b": random(6, seed=1), "w": random(6, 6 // groups, 3, seed=2)}
    loaded = load_model(model(nodes, {"x": (1, 2, 9)}, ["y"], weights))
    scaled = scale_pairs(loaded, {"r": np.array(factors)})
    feeds = {"x": random(1, 2, 9, seed=3)}
    right = _run(loaded, feeds)["y"]
    np.testing.assert_allclose(_run(scaled, feeds)["y"], right, rtol=0, atol=1e-5 * np.abs(right).max() + 1e-7)


@pytest.mark.parametrize("form", FORMS)
def test_scaled_statistics_are_those_of_the_scaled_model(form: Form) -> None:
    loaded = load_model(chain("Clip"))
    seen = seen_by(loaded, pictures())
    after = form(loaded, seen)
    measured = collect_statistics(after.model, list(seen), open_samples(pictures(), loaded.inputs), channels=True)
    for tensor, expected in scale_statistics(seen, after.factors).items():
        assert expected.high == pytest.approx(measured[tensor].high, rel=1e-5)
        np.testing.assert_allclose(peaks_of(expected), peaks_of(measured[tensor]), rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="MSE needs histogram"):
        choose_range(scale_statistics(seen, after.factors)["t0"], "MSE", never_negative=True)
