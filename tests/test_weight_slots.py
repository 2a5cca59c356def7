"""Weight slots: a model with weights handed in computes what the model computes with these weights in its file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from ptq_lab import demo
from ptq_lab.calibration import open_samples
from ptq_lab.graph import Rules, find_targets, load_model
from ptq_lab.runtime import WeightSlots
from ptq_lab.search.trials import Trials
from tests.conftest import Run
from tests.models import FLOAT, OPERATOR_MODELS, WIRINGS, Tiny, model, node, random
from tests.search.transformers import sentences, transformer


def sliced_table() -> Tiny:
    """A table of which a Slice takes the first rows, as position embeddings are read."""
    ends = {"start": np.array([0], np.int64), "stop": np.array([3], np.int64)}
    nodes = [node("Slice", ["table", "start", "stop"], ["rows"]), node("Add", ["x", "rows"], ["y"])]
    proto = model(nodes, {"x": (3, 5)}, ["y"], {"table": random(8, 5), **ends})
    return Tiny(proto=proto, feeds={"x": random(3, 5, seed=1)}, weights={"table": 0})


def product_of_weights() -> Tiny:
    """A product whose two sides are both weights, next to one whose bias is a weight as well."""
    nodes = [node("MatMul", ["a", "b"], ["h"]), node("Gemm", ["x", "h", "c"], ["y"])]
    weights = {"a": random(5, 3), "b": random(3, 6), "c": random(6)}
    proto = model(nodes, {"x": (2, 5)}, ["y"], weights)
    return Tiny(proto=proto, feeds={"x": random(2, 5, seed=1)}, weights={"a": 0, "b": 1, "c": 0})


def named_like_slots() -> Tiny:
    """Tensors with the names that a slot would take."""
    nodes = [node("MatMul", ["slot0", "slot1"], ["slot2"], name="slot3"), node("MatMul", ["slot2", "w"], ["slot4"])]
    proto = model(nodes, {"slot0": (2, 5)}, ["slot4"], {"slot1": random(5, 6), "w": random(6, 4)})
    return Tiny(proto=proto, feeds={"slot0": random(2, 5, seed=1)}, weights={"slot1": 1, "w": 1})


def product_is_output() -> Tiny:
    """Products that are outputs of the model, one of them used inside as well, and one weight in both."""
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("MatMul", ["h", "w"], ["y"])]
    proto = model(nodes, {"x": ("n", 5)}, {"h": FLOAT, "y": FLOAT}, {"w": random(5, 5)})
    return Tiny(proto=proto, feeds={"x": random(2, 5, seed=1)}, weights={"w": 1})


TINY: dict[str, Callable[[], Tiny]] = {
    **OPERATOR_MODELS,
    **WIRINGS,
    "Slice": sliced_table,
    "product of weights": product_of_weights,
    "named like slots": named_like_slots,
    "product is output": product_is_output,
}


def written(proto: onnx.ModelProto, changes: dict[str, NDArray[Any]]) -> onnx.ModelProto:
    """Return the model with other weights in its file."""
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    for initializer in changed.graph.initializer:
        if initializer.name in changes:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(initializer.data_type)
            array = changes[initializer.name].astype(dtype)
            initializer.CopyFrom(numpy_helper.from_array(array, initializer.name))
    for each in changed.graph.node:
        if each.op_type == "Constant" and each.output[0] in changes:
            held = each.attribute[0].t
            array = changes[each.output[0]].astype(onnx.helper.tensor_dtype_to_np_dtype(held.data_type))
            held.CopyFrom(numpy_helper.from_array(array))
    return changed


def require_alike(got: dict[str, Any], wanted: dict[str, Any], *, exact: bool) -> None:
    """Compare outputs: bit for bit, or to what packing a weight before or during a product changes."""
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        assert got[name].dtype == value.dtype
        if exact or not np.issubdtype(value.dtype, np.floating):
            np.testing.assert_array_equal(got[name], value)
        else:
            limit = 1e-2 if value.dtype == np.float16 else 3e-6
            np.testing.assert_allclose(got[name], value, rtol=limit, atol=limit * np.abs(value).max())


@pytest.mark.parametrize("name", TINY)
def test_every_wiring_gives_what_a_file_with_the_weights_gives(run: Run, name: str) -> None:
    tiny = TINY[name]()
    loaded = load_model(tiny.proto)
    slots = WeightSlots(loaded, list(tiny.weights))
    moved = {each: (loaded.weight(each) * 0.9 + 0.01).astype(np.float32) for each in tiny.weights}
    first = dict([next(iter(moved.items()))])
    for changes in ({}, first, moved, {}):
        [got] = slots.run(changes, [tiny.feeds])
        require_alike(got, run(load_model(written(tiny.proto, changes)), tiny.feeds), exact=False)


def test_a_convolutional_model_is_bit_identical_to_the_file(run: Run) -> None:
    card = demo.load("digits_cnn")
    require_identical(
        run, onnx.load(card.model_path), next(iter(open_samples(card.calib_path, load_model(card.model_path).inputs)))
    )


def require_identical(run: Run, proto: onnx.ModelProto, feeds: dict[str, Any]) -> None:
    loaded = load_model(proto)
    tensors = [target.tensor for target in find_targets(loaded, Rules(min_channels=0)).targets]
    changes = {name: (loaded.weight(name) * 0.97).astype(np.float32) for name in tensors}
    slots = WeightSlots(loaded, tensors)
    for given in ({tensors[0]: changes[tensors[0]]}, changes, {}):
        [got] = slots.run(given, [feeds])
        require_alike(got, run(written(proto, given), feeds), exact=True)


def test_weights_of_products_in_a_transformer_are_overruled_one_by_one_and_all_at_once(run: Run) -> None:
    card = demo.load("digits_transformer")
    proto, loaded = onnx.load(card.model_path), load_model(card.model_path)
    samples = list(open_samples(card.calib_path, loaded.inputs).take(2))
    tensors = [target.tensor for target in find_targets(loaded, Rules(min_channels=0)).targets]
    slots = WeightSlots(loaded, tensors)
    changes = {name: (loaded.weight(name) * 0.97).astype(np.float32) for name in tensors}
    for given in ({}, *({name: value} for name, value in changes.items()), changes):
        for feeds, got in zip(samples, slots.run(given, samples), strict=True):
            require_alike(got, run(written(proto, given), feeds), exact=False)


def test_samples_of_different_lengths_go_through_one_session(run: Run) -> None:
    proto = transformer("gemm")
    slots = WeightSlots(load_model(proto), ["q.transposed", "f1.transposed"])
    samples = list(sentences(proto, 4))
    changes = {"q.transposed": random(16, 16, seed=77)}
    for feeds, got in zip(samples, slots.run(changes, samples), strict=True):
        require_alike(got, run(written(proto, changes), feeds), exact=False)


def test_a_trial_counts_its_runs_and_no_change_is_no_error() -> None:
    card = demo.load("digits_transformer")
    loaded = load_model(card.model_path)
    tensor = find_targets(loaded, Rules(min_channels=0)).targets[0].tensor
    trials = Trials(loaded, [tensor], list(open_samples(card.calib_path, loaded.inputs).take(3)))
    assert trials.runs == 1
    assert trials.error({}) == pytest.approx(0.0, abs=1e-12)
    assert trials.errors({tensor: np.zeros_like(loaded.weight(tensor))}).shape == (3,)
    assert trials.runs == 3
