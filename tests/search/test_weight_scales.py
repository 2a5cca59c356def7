"""Searched weight scales: the variance that rounding brings to outputs falls, and nothing else changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ptq_lab.calibration import open_samples
from ptq_lab.graph import Model, load_model
from ptq_lab.int8 import apply_int8
from ptq_lab.numerics import dequantize_weight
from ptq_lab.numerics.windows import Window, window_rows
from ptq_lab.plan import QuantPlan
from ptq_lab.search.judging import output_error, outputs_of
from ptq_lab.search.weight_scales import LARGEST, measure_covariances, search_weight_scales
from tests.conftest import Run
from tests.models import model, node, random
from tests.search.test_bias_correction import EVERY, GRAPHS, convolutions, planned

sizes = st.integers(1, 3)


@given(
    channels=st.sampled_from([(1, 2, 1), (4, 4, 4), (4, 6, 2), (3, 5, 1)]),
    kernel=st.tuples(sizes, sizes),
    strides=st.tuples(sizes, sizes),
    dilations=st.tuples(sizes, sizes),
    pads=st.tuples(*(st.integers(0, 3) for _ in range(4))),
    size=st.tuples(st.integers(7, 9), st.integers(7, 9)),
)
@settings(max_examples=40, deadline=None)
def test_a_weight_times_the_rows_of_a_window_is_the_convolution(
    run: Run,
    channels: tuple[int, int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    pads: tuple[int, int, int, int],
    size: tuple[int, int],
) -> None:
    inputs, outputs, groups = channels
    weight, values = random(outputs, inputs // groups, *kernel), random(2, inputs, *size, seed=1)
    attributes: dict[str, Any] = {"strides": strides, "dilations": dilations, "pads": pads, "group": groups}
    wanted = run(
        model([node("Conv", ["x", "w"], ["y"], **attributes)], {"x": values.shape}, ["y"], {"w": weight}),
        {"x": values},
    )["y"]
    window = Window(
        kernel=kernel, strides=strides, dilations=dilations, pads_begin=pads[:2], pads_end=pads[2:], groups=groups
    )
    rows = window_rows(values, window, most=10**6)
    got = np.einsum("gnk,gok->gon", rows, weight.reshape(groups, outputs // groups, -1))
    by_channel = np.moveaxis(wanted, 1, 0).reshape(groups, outputs // groups, -1)
    np.testing.assert_allclose(got, by_channel, atol=1e-4)


def test_fewer_positions_are_spread_over_the_input() -> None:
    window = Window(kernel=(1,), strides=(1,), dilations=(1,), pads_begin=(0,), pads_end=(0,))
    places = window_rows(np.arange(100, dtype=np.float32).reshape(1, 1, 100), window, most=10)[0, :, 0]
    assert places.tolist() == list(range(5, 100, 10))


def output_variances(run: Run, before: Model, plan: QuantPlan, samples: Sequence[Any]) -> dict[str, NDArray[Any]]:
    """Return by layer what its rounded weights do to its outputs in float, per output channel, from whole tensors."""
    assert plan.placement is not None
    nodes = {each.name: each for each in before.graph}
    proto = onnx.ModelProto.FromString(before.serialize())
    given = {output.name for output in proto.graph.output} | {spec.name for spec in before.inputs}
    sources = dict.fromkeys(layer.source for layer in plan.placement.layers)
    proto.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, 1, None) for name in sources if name not in given
    )
    seen = [{**feeds, **run(proto, feeds, optimize="off")} for feeds in samples]
    found = {}
    for layer, entry in zip(plan.placement.layers, plan.entries, strict=True):
        assert entry.weight is not None
        wrong = dequantize_weight(entry.weight) - before.weight(layer.weight)
        attributes: dict[str, Any] = {
            name: value.value if isinstance(value.value, (int, str)) else list(value.value)
            for name, value in nodes[layer.node].attributes.items()
            if name not in ("alpha", "beta")
        }
        outputs = []
        for each in seen:
            nodes_alone = [node(layer.op_type, ["x", "w"], ["y"], **attributes)]
            values = each[layer.source]
            made = run(model(nodes_alone, {"x": values.shape}, ["y"], {"w": wrong}), {"x": values}, optimize="off")["y"]
            axis = 1 if layer.op_type == "Conv" else made.ndim - 1
            outputs.append(np.moveaxis(made, axis, 0).reshape(made.shape[axis], -1))
        found[layer.node] = np.concatenate(outputs, axis=1).var(axis=1)
    return found


@EVERY
@pytest.mark.parametrize("per_channel", [True, False])
def test_no_layer_gets_a_larger_output_variance_and_most_get_a_smaller_one(
    name: str, per_channel: bool, run: Run
) -> None:
    proto, samples = GRAPHS[name]()
    before, plan = planned(proto, samples, per_channel=per_channel)
    assert plan.placement is not None
    searched = search_weight_scales(plan, before, measure_covariances(before, plan.placement, list(samples)))
    was, now = (output_variances(run, before, each, list(samples)) for each in (plan, searched))
    for node_name, variances in now.items():
        assert variances.sum() <= was[node_name].sum() * 1.001
    most = 0.8 if per_channel else 1.0  # one scale for all has little to choose from
    assert sum(each.sum() for each in now.values()) < most * sum(each.sum() for each in was.values())


def test_the_search_brings_the_output_closer(run: Run) -> None:
    proto, samples = convolutions()
    before, plan = planned(proto, samples)
    assert plan.placement is not None
    searched = search_weight_scales(plan, before, measure_covariances(before, plan.placement, list(samples)))
    wanted = outputs_of(before, list(samples))
    errors = [output_error(wanted, outputs_of(apply_int8(before, each), list(samples))) for each in (plan, searched)]
    assert errors[1] < errors[0]


def test_codes_scales_and_biases_still_fit_together() -> None:
    proto, samples = convolutions()
    before, plan = planned(proto, samples)
    assert plan.placement is not None
    searched = search_weight_scales(plan, before, measure_covariances(before, plan.placement, list(samples)))
    assert (searched.activations, searched.biases) == (plan.activations, plan.biases)
    for old, new, layer in zip(plan.entries, searched.entries, plan.placement.layers, strict=True):
        assert old.weight is not None
        assert new.weight is not None
        assert new.weight.scale.shape == old.weight.scale.shape
        assert np.abs(new.weight.codes.astype(int)).max() <= 127
        step = np.expand_dims(new.weight.scale, [a for a in range(len(layer.shape)) if a != layer.axis])
        inside = np.abs(before.weight(layer.weight)) < 126 * step
        wrong = np.abs(dequantize_weight(new.weight) - before.weight(layer.weight)) / step
        assert wrong[inside].max() < 0.501


def test_a_layer_of_very_many_inputs_keeps_its_scales() -> None:
    proto = model([node("MatMul", ["x", "w"], ["y"])], {"x": (1, LARGEST + 1)}, ["y"], {"w": random(LARGEST + 1, 2)})
    samples = open_samples([{"x": random(1, LARGEST + 1)}], load_model(proto).inputs)
    before, plan = planned(proto, samples)
    assert plan.placement is not None
    covariances = measure_covariances(before, plan.placement, list(samples))
    assert covariances == {}
    assert search_weight_scales(plan, before, covariances) == plan


def test_layers_that_read_the_same_rows_share_one_covariance() -> None:
    nodes = [node("MatMul", ["x", "a"], ["y"], name="one"), node("MatMul", ["x", "b"], ["z"], name="two")]
    proto = model(nodes, {"x": (3, 4)}, ["y", "z"], {"a": random(4, 2), "b": random(4, 5)})
    rows = [random(3, 4, seed=seed) for seed in range(5)]
    samples = open_samples([{"x": each} for each in rows], load_model(proto).inputs)
    before, plan = planned(proto, samples)
    assert plan.placement is not None
    found = measure_covariances(before, plan.placement, list(samples))
    wanted = np.cov(np.concatenate(rows).T, bias=True)
    assert found["one"] is found["two"]
    np.testing.assert_allclose(found["one"][0], wanted, atol=1e-5)
