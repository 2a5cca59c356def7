"""Sequential bias correction: means come back, layer after layer, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ptq_lab.calibration import Samples, collect_statistics, open_samples
from ptq_lab.graph import Model, load_model, place_integers
from ptq_lab.graph.added_bias import added_bias, set_added_bias
from ptq_lab.graph.qdq import codes_name
from ptq_lab.graph.segment import cut_segment
from ptq_lab.graph.stages import plan_stages
from ptq_lab.int8 import Int8Settings, apply_int8, make_int8_plan, round_int8
from ptq_lab.numerics.windows import Window, output_means, window_sums
from ptq_lab.plan import ActivationPlan, QuantPlan
from ptq_lab.progress import Step
from ptq_lab.search.bias_correction import correct_biases
from ptq_lab.search.local_correction import correct_biases_locally
from tests.conftest import Run
from tests.models import model, node, random
from tests.search.transformers import LINEAR, sentences, transformer

Graph = tuple[onnx.ModelProto, Samples]


def convolutions() -> Graph:
    """Strided, padded, dilated and depthwise layers, auto_pad, a residual, pooling and a Gemm."""
    nodes = [
        node("Conv", ["x", "w0", "b0"], ["c0"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", ["c0"], ["r0"]),
        node("Conv", ["r0", "w1"], ["c1"], group=8, dilations=[2, 1], pads=[2, 1, 2, 1]),
        node("Clip", ["c1", "zero", "six"], ["r1"]),
        node("Conv", ["r1", "w2", "b2"], ["c2"], auto_pad="SAME_UPPER"),
        node("Add", ["c2", "r0"], ["s"]),
        node("Relu", ["s"], ["r2"]),
        node("Conv", ["r2", "w3"], ["c3"], strides=[2, 2], auto_pad="SAME_LOWER"),
        node("Relu", ["c3"], ["r3"]),
        node("GlobalAveragePool", ["r3"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "w4", "b4"], ["y"], transB=1),
    ]
    weights: dict[str, NDArray[Any]] = {
        "w0": random(8, 3, 3, 3, scale=0.4),
        "b0": random(8, seed=1),
        "w1": random(8, 1, 3, 3, seed=2),
        "w2": random(8, 8, 3, 2, seed=3, scale=0.2),
        "b2": random(8, seed=4),
        "w3": random(6, 8, 3, 3, seed=5, scale=0.2),
        "w4": random(5, 6, seed=6),
        "b4": random(5, seed=7),
        "zero": np.array(0, np.float32),
        "six": np.array(6, np.float32),
    }
    proto = model(nodes, {"x": (1, 3, 11, 10)}, ["y"], weights)
    pictures = [{"x": random(1, 3, 11, 10, seed=20 + index)} for index in range(12)]
    return proto, open_samples(pictures, load_model(proto).inputs)


def sentence_graph(style: str) -> Graph:
    proto = transformer(style)
    return proto, sentences(proto, 12)


GRAPHS: dict[str, Callable[[], Graph]] = {
    "convolutions": convolutions,
    **{style: partial(sentence_graph, style) for style in LINEAR},
}
EVERY = pytest.mark.parametrize("name", list(GRAPHS))


def planned(proto: onnx.ModelProto, samples: Samples, *, per_channel: bool = True) -> tuple[Model, QuantPlan]:
    """Return the float model and its plan, with weights rounded coarsely enough to shift means."""
    before = load_model(proto)
    placement = place_integers(before, {})
    statistics = collect_statistics(before, placement.measured, samples)
    plan = make_int8_plan(placement, statistics, Int8Settings(per_channel=per_channel))
    return before, round_int8(plan, before)


def outputs_of(before: Model, plan: QuantPlan) -> list[str]:
    """Return for each layer the tensor behind its bias, in front of its activation."""
    assert plan.placement is not None
    nodes = {each.name: each for each in before.graph}
    names = []
    for layer in plan.placement.layers:
        value = nodes[layer.node].outputs[0]
        behind = [use.node for use in value.uses() if use.node.op_type == "Add"]
        names.append((behind[0] if layer.op_type == "MatMul" else nodes[layer.node]).outputs[0].name or "")
    return names


def means(run: Run, source: Model, names: Sequence[str], samples: Samples, axes: Sequence[int]) -> list[NDArray[Any]]:
    """Average tensors over samples and positions, per output channel; without any graph optimization."""
    proto = onnx.ModelProto.FromString(source.serialize())
    given = {output.name for output in proto.graph.output}
    proto.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in names if name not in given)
    runs = [run(proto, feeds, optimize="off") for feeds in samples]
    return [
        np.concatenate([np.moveaxis(each[name], axis, 0).reshape(each[name].shape[axis], -1) for each in runs], axis=1)
        .astype(np.float64)
        .mean(axis=1)
        for name, axis in zip(names, axes, strict=True)
    ]


def mean_errors(run: Run, before: Model, plan: QuantPlan, samples: Samples) -> list[float]:
    """Return by how much the mean of each layer's output is off, relative to the largest mean of the layer.

    Half a step of an int32 bias is no error: it cannot be told more exactly.
    """
    assert plan.placement is not None
    names = outputs_of(before, plan)
    axes = [1 if layer.op_type == "Conv" else -1 for layer in plan.placement.layers]
    wanted = means(run, before, names, samples, axes)
    quantized = apply_int8(before, plan)
    got = means(run, quantized, [_inner(quantized, name) for name in names], samples, axes)
    return [
        float(np.maximum(np.abs(a - b) - half_step, 0.0).max() / np.abs(a).max())
        for a, b, half_step in zip(wanted, got, _half_steps(plan), strict=True)
    ]


def _half_steps(plan: QuantPlan) -> list[NDArray[Any]]:
    assert plan.placement is not None
    scales = {activation.tensor: activation.scale for activation in plan.activations}
    steps = []
    for layer, entry in zip(plan.placement.layers, plan.entries, strict=True):
        assert entry.weight is not None
        exact = layer.op_type == "MatMul"  # its bias stays float
        steps.append(entry.weight.scale * (0.0 if exact else 0.5 * scales[layer.source]))
    return steps


def _inner(quantized: Model, name: str) -> str:
    """Return what a tensor is called in front of its quantization, when it is an output of the model."""
    names = {value.name for each in quantized.graph for value in each.outputs}
    return f"{name}.float" if f"{name}.float" in names else name


@EVERY
def test_the_mean_of_every_layers_output_comes_back(name: str, run: Run) -> None:
    proto, samples = GRAPHS[name]()
    before, plan = planned(proto, samples)
    corrected = correct_biases(plan, before, list(samples))
    after = mean_errors(run, before, corrected, samples)
    assert max(after) < 2e-3
    assert max(after[:2]) < 3e-4  # no rounding in front of these has been decided differently by another kernel
    assert max(mean_errors(run, before, plan, samples)) > 4 * max(after)


@EVERY
def test_a_correction_changes_biases_and_nothing_else(name: str) -> None:
    proto, samples = GRAPHS[name]()
    before, plan = planned(proto, samples)
    first, unquantized = apply_int8(before, plan).serialize(), before.serialize()
    corrected = correct_biases(plan, before, list(samples))
    assert apply_int8(before, plan).serialize() == first
    assert before.serialize() == unquantized
    assert corrected == plan  # biases are not compared
    assert [entry.weight for entry in corrected.entries] == [entry.weight for entry in plan.entries]


@EVERY
def test_corrections_are_the_same_in_every_run(name: str) -> None:
    proto, samples = GRAPHS[name]()
    before, plan = planned(proto, samples)
    once, twice = (correct_biases(plan, before, list(samples)).biases for _ in range(2))
    assert list(once) == list(twice)
    assert all(np.array_equal(once[layer], twice[layer]) for layer in once)


@EVERY
def test_every_layer_is_reported_once(name: str) -> None:
    proto, samples = GRAPHS[name]()
    before, plan = planned(proto, samples)
    steps: list[Step] = []
    correct_biases(plan, before, list(samples), progress=steps.append)
    assert plan.placement is not None
    assert sorted(step.detail for step in steps) == sorted(layer.node for layer in plan.placement.layers)
    assert (steps[-1].done, steps[-1].total) == (len(steps), len(steps))


def test_one_scale_per_tensor_is_corrected_too(run: Run) -> None:
    proto, samples = convolutions()
    before, plan = planned(proto, samples, per_channel=False)
    after = mean_errors(run, before, correct_biases(plan, before, list(samples)), samples)
    assert max(after) < 2e-3


def test_a_matmul_without_an_added_constant_is_left_as_it_is() -> None:
    nodes = [node("Exp", ["x"], ["e"]), node("MatMul", ["e", "w"], ["h"], name="bare"), node("Add", ["h", "x"], ["y"])]
    proto = model(nodes, {"x": (2, 6)}, ["y"], {"w": random(6, 6)})
    samples = open_samples([{"x": random(2, 6, seed=index)} for index in range(4)], load_model(proto).inputs)
    before, plan = planned(proto, samples)
    corrected = correct_biases(plan, before, list(samples))
    assert dict(corrected.biases) == {}
    assert apply_int8(before, corrected).serialize() == apply_int8(before, plan).serialize()


def test_a_bias_that_two_layers_share_is_corrected_for_each_by_itself(run: Run) -> None:
    nodes = [
        node("Exp", ["x"], ["e"]),
        node("MatMul", ["e", "w0"], ["p0"], name="first"),
        node("Add", ["p0", "b"], ["h0"]),
        node("MatMul", ["e", "w1"], ["p1"], name="second"),
        node("Add", ["b", "p1"], ["h1"]),
        node("Concat", ["h0", "h1"], ["y"], axis=0),
    ]
    weights = {"w0": random(6, 5), "w1": random(6, 5, seed=1), "b": random(5, seed=2)}
    proto = model(nodes, {"x": (2, 6)}, ["y"], weights)
    samples = open_samples([{"x": random(2, 6, seed=index)} for index in range(6)], load_model(proto).inputs)
    before, plan = planned(proto, samples)
    corrected = correct_biases(plan, before, list(samples))
    assert not np.array_equal(corrected.biases["first"], corrected.biases["second"])
    assert max(mean_errors(run, before, corrected, samples)) < 1e-4


@pytest.mark.parametrize(
    ("constant", "readers"),
    [(random(6), 2), (np.array(1.5, np.float32), 1), (random(2, 6), 1), (random(2, 1), 1)],
    ids=["the product has another reader", "one number", "one per row and feature", "one per row"],
)
def test_only_one_constant_per_feature_counts_as_the_bias_of_a_matmul(constant: NDArray[Any], readers: int) -> None:
    nodes = [node("MatMul", ["x", "w"], ["h"], name="layer"), node("Add", ["h", "c"], ["y"])]
    nodes += [node("Relu", ["h"], ["z"])] if readers == 2 else []
    proto = model(nodes, {"x": (2, 4)}, ["y", "z"][:readers], {"w": random(4, 6), "c": constant})
    assert added_bias(next(iter(load_model(proto).graph))) is None


def test_the_bias_of_a_matmul_can_be_read_back() -> None:
    nodes = [node("MatMul", ["x", "w"], ["h"], name="layer"), node("Add", ["c", "h"], ["y"])]
    proto = model(nodes, {"x": (2, 4)}, ["y"], {"w": random(4, 6), "c": random(1, 6)})
    graph = load_model(proto).clone().graph
    wanted = random(6, seed=8)
    set_added_bias(graph, next(iter(graph)), wanted)
    found = added_bias(next(iter(graph)))
    assert found is not None
    assert np.array_equal(found, wanted)


@EVERY
def test_pieces_one_after_the_other_give_what_the_whole_model_gives(name: str, run: Run) -> None:
    proto, samples = GRAPHS[name]()
    before, plan = planned(proto, samples)
    quantized = apply_int8(before, plan)
    assert plan.placement is not None
    targets = [codes_name(each) for each in dict.fromkeys(layer.source for layer in plan.placement.layers)]
    feeds = next(iter(samples))
    known = dict(feeds)
    for stage in plan_stages(quantized, targets):
        segment = cut_segment(quantized, stage.reads, stage.makes)
        reads = [value.name or "" for value in segment.graph.inputs]
        known.update(run(segment, {read: known[read] for read in reads}, optimize="off"))
    whole = run(cut_segment(quantized, [], targets), feeds, optimize="off")
    for target in targets:
        np.testing.assert_array_equal(known[target], whole[target], err_msg=target)


@EVERY
def test_no_node_but_a_dequantization_runs_in_two_pieces(name: str) -> None:
    proto, samples = GRAPHS[name]()
    before, plan = planned(proto, samples)
    quantized = apply_int8(before, plan)
    assert plan.placement is not None
    targets = [codes_name(each) for each in dict.fromkeys(layer.source for layer in plan.placement.layers)]
    stages = plan_stages(quantized, targets)
    seen: set[str] = set()
    for stage in stages:
        pieces = {each.name or "" for each in cut_segment(quantized, stage.reads, stage.makes).graph}
        again = {each.name for each in quantized.graph if each.op_type == "DequantizeLinear"}
        assert not (pieces - again) & seen
        seen |= pieces
    dropped = [name for stage in stages for name in stage.drops]
    assert len(dropped) == len(set(dropped))
    assert set(dropped) == {name for stage in stages for name in stage.makes}


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
def test_means_from_windows_equal_those_of_the_convolution(
    run: Run,
    channels: tuple[int, int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    pads: tuple[int, int, int, int],
    size: tuple[int, int],
) -> None:
    into, out, groups = channels
    weight, values = random(out, into // groups, *kernel), random(2, into, *size, seed=1)
    window = Window(
        kernel=kernel, strides=strides, dilations=dilations, pads_begin=pads[:2], pads_end=pads[2:], groups=groups
    )
    more: dict[str, Any] = {"strides": strides, "dilations": dilations, "pads": pads, "group": groups}
    proto = model([node("Conv", ["x", "w"], ["y"], **more)], {"x": values.shape}, ["y"], {"w": weight})
    direct = run(proto, {"x": values})["y"]
    sums, count = window_sums(values, window)
    assert count == direct[:, 0].size
    np.testing.assert_allclose(
        output_means(weight, sums / count, groups), direct.mean(axis=(0, 2, 3), dtype=np.float64), atol=2e-5
    )


def independent_shift(run: Run, before: Model, plan: QuantPlan, samples: Samples, node_name: str) -> NDArray[Any]:
    """Compute what local correction should add to one convolution's bias, from a model that holds only that layer."""
    assert plan.placement is not None
    layer = next(each for each in plan.placement.layers if each.node == node_name)
    entry = next(each for each in plan.entries if each.node == node_name)
    assert entry.weight is not None
    grids = {each.tensor: each for each in plan.activations}
    source = next(each for each in before.graph if each.name == node_name)
    attributes: dict[str, Any] = {
        name: value.value if isinstance(value.value, (int, str)) else list(value.value)
        for name, value in source.attributes.items()
    }
    after = {"c0": "Relu", "c1": "Clip", "c2": "", "c3": "Relu"}[source.outputs[0].name or ""]
    codes = entry.weight.codes.astype(np.float32)
    scale = entry.weight.scale.reshape(-1, 1, 1, 1)
    bias = plan.biases.get(node_name, np.zeros(layer.shape[0], np.float32))
    weights = {"w": codes * scale, "b": bias, "zero": np.array(0, np.float32), "six": np.array(6, np.float32)}
    nodes = [node("Conv", ["x", "w", "b"], ["y" if not after else "c"], **attributes)]
    if after:
        nodes.append(node(after, ["c", *(["zero", "six"] if after == "Clip" else [])], ["y"]))
    used = {name: weights[name] for each in nodes for name in each.input if name in weights}
    wanted_names = [layer.source, layer.output]
    proto = onnx.ModelProto.FromString(before.serialize())
    inner = [name for name in wanted_names if name != "x"]
    proto.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in inner if name != "y")
    shifts = []
    for feeds in samples:
        seen = {**feeds, **run(proto, feeds, optimize="off")}
        rounded = fake_quantized(seen[layer.source], grids[layer.source])
        alone = run(model(nodes, {"x": rounded.shape}, ["y"], used), {"x": rounded}, optimize="off")["y"]
        made = fake_quantized(alone, grids[layer.output]) if layer.output in grids else alone
        axes = tuple(axis for axis in range(made.ndim) if axis != 1)
        shifts.append(seen[layer.output].mean(axis=axes) - made.mean(axis=axes))
    return np.asarray(np.mean(shifts, axis=0))


def fake_quantized(values: NDArray[Any], grid: ActivationPlan) -> NDArray[np.float32]:
    codes = np.clip(np.rint(values / np.float32(grid.scale)) + grid.zero_point, 0, 255)
    return np.asarray((codes - grid.zero_point) * np.float32(grid.scale), np.float32)


def test_local_correction_adds_the_mean_that_a_convolution_alone_loses_behind_its_activation(run: Run) -> None:
    proto, samples = convolutions()
    before, plan = planned(proto, samples)
    corrected = correct_biases_locally(plan, before, list(samples))
    assert plan.placement is not None
    steps = dict(zip([layer.node for layer in plan.placement.layers], _half_steps(plan), strict=True))
    for layer in plan.placement.layers:
        was = plan.biases.get(layer.node, np.zeros(layer.shape[layer.axis], np.float32))
        if layer.op_type != "Conv":
            np.testing.assert_array_equal(corrected.biases[layer.node], was)
            continue
        shift = independent_shift(run, before, plan, samples, layer.node)
        assert np.abs(shift).max() > 0
        output = next((each.scale for each in plan.activations if each.tensor == layer.output), 0.0)
        tolerance = np.max(steps[layer.node]) + 0.05 * output  # the bias has codes; a code at a tie may fall elsewhere
        np.testing.assert_allclose(corrected.biases[layer.node] - was, shift, atol=tolerance)


def test_local_correction_looks_at_each_convolution_as_if_the_others_were_exact() -> None:
    proto, samples = convolutions()
    before, plan = planned(proto, samples)
    assert plan.placement is not None
    first, *others = [layer.node for layer in plan.placement.layers if layer.op_type == "Conv"]
    spoiled = replace(plan, biases={**plan.biases, first: plan.biases[first] + 0.3})
    both = [correct_biases_locally(each, before, list(samples)).biases for each in (plan, spoiled)]
    for name in others:
        np.testing.assert_array_equal(both[0][name], both[1][name])


def test_local_correction_leaves_a_model_without_convolutions_alone() -> None:
    proto, samples = sentence_graph(next(iter(LINEAR)))
    before, plan = planned(proto, samples)
    assert correct_biases_locally(plan, before, list(samples)) == plan
