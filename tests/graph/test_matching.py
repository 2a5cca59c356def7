"""Layers find their partner by name, and without names by what lies around them; what has none is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptq_lab import demo
from ptq_lab.graph import load_model
from ptq_lab.graph.found_layers import FoundModel
from ptq_lab.graph.matching import Matching, match_layers
from ptq_lab.graph.tool_names import plain_name
from tests.foreign import TOOLS, anonymous
from tests.graph.quantized import quantized
from tests.models import model, node, random


def match(first: Any, second: Any) -> Matching:
    return match_layers(*(FoundModel.read(load_model(source)) for source in (first, second)))


def names(matching: Matching) -> list[tuple[str, str]]:
    return [(pair.first.name, pair.second.name) for pair in matching.pairs]


def attention(order: tuple[str, ...] = ("q", "k", "v")) -> onnx.ModelProto:
    """Three products of one shape that read the same tensor, told apart by what becomes of them alone."""
    nodes = [
        *(node("MatMul", ["x", f"w{name}"], [name]) for name in order),
        node("Transpose", ["k"], ["kt"], perm=[1, 0]),
        node("MatMul", ["q", "kt"], ["scores"]),
        node("Softmax", ["scores"], ["p"]),
        node("MatMul", ["p", "v"], ["mixed"]),
        node("MatMul", ["mixed", "wo"], ["y"]),
    ]
    weights = {f"w{name}": random(8, 8, seed=seed) for seed, name in enumerate("qkvo")}
    return model(nodes, {"x": (4, 8)}, ["y"], weights)


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("name", ["digits_cnn", "digits_transformer", "photo_denoiser"])
def test_every_layer_of_a_demo_is_found_in_what_tools_make_of_it_with_and_without_names(
    tool: str, name: str, tmp_path: Path
) -> None:
    source = demo.load(name)
    inputs = load_model(source.model_path).inputs
    with np.load(source.calib_path) as archive:
        samples = [{spec.name: archive[spec.name][i : i + 1] for spec in inputs} for i in range(2)]
    path = TOOLS[tool](source.model_path, tmp_path / "q.onnx", samples)
    named = match(source.model_path, path)
    assert named.complete, (named.only_first, named.only_second)
    without = match(source.model_path, anonymous(path))
    assert without.complete, (without.only_first, without.only_second)
    places = [FoundModel.read(load_model(each)) for each in (path, anonymous(path))]
    orders = [{layer.name: place for place, layer in enumerate(found.layers)} for found in places]
    truth = {first: orders[0][second] for first, second in names(named)}
    assert {first: orders[1][second] for first, second in names(without)} == truth


def test_equal_products_are_told_apart_by_what_becomes_of_them_not_by_their_order() -> None:
    found = match(attention(), anonymous(attention(("v", "q", "k"))))
    assert found.complete
    weights = {
        layer.operands[1].tensor: place
        for place, layer in enumerate(FoundModel.read(load_model(anonymous(attention(("v", "q", "k"))))).layers)
        if layer.operands
    }
    partner = {pair.first.operands[1].tensor: pair.second for pair in found.pairs if pair.first.operands}
    order = [weights[partner[f"w{name}"].operands[1].tensor] for name in "vqk"]
    assert order == sorted(order)
    assert {pair.how for pair in found.pairs} == {"output name", "what lies around it"}  # "y" keeps its name


def test_a_name_that_only_says_operator_and_place_tells_nothing() -> None:
    shifted = attention()
    shifted.graph.node.insert(0, node("Identity", ["x"], ["same"], ""))
    for each in shifted.graph.node[1:4]:
        each.input[0] = "same"
    first, second = attention(), shifted
    for proto in (first, second):
        for each in proto.graph.node:
            each.name = ""
    found = match(first, second)
    assert found.complete
    assert all(pair.first.result.name == pair.second.result.name for pair in found.pairs)


def test_equal_layers_of_a_chain_are_paired_along_the_chain() -> None:
    chain = [node("MatMul", [f"h{i}", f"w{i}"], [f"h{i + 1}"]) for i in range(6)]
    weights = {f"w{i}": random(8, 8, seed=i) for i in range(6)}
    proto = model(chain, {"h0": (2, 8)}, ["h6"], weights)
    found = match(proto, anonymous(proto))
    assert [pair.first.operands[1].values(_never) is not None for pair in found.pairs] == [True] * 6
    for pair in found.pairs:
        assert np.array_equal(pair.first.operands[1].values(_never), pair.second.operands[1].values(_never))


def test_layers_that_only_one_model_has_are_listed_and_never_paired_with_another_kind_or_shape() -> None:
    def built(extra: bool) -> onnx.ModelProto:
        nodes = [node("MatMul", ["x", "a"], ["h"], "first"), node("MatMul", ["h", "b"], ["g"], "second")]
        last = "g"
        if extra:
            nodes.append(node("MatMul", ["g", "c"], ["z"], "third"))
            last = "z"
        return model(nodes, {"x": (2, 5)}, [last], {"a": random(5, 6), "b": random(6, 7), "c": random(7, 3)})

    found = match(built(True), built(False))
    assert names(found) == [("first", "first"), ("second", "second")]
    assert [layer.name for layer in found.only_first] == ["third"]
    assert not found.only_second
    assert not found.complete
    assert str(found) == "2 of 3 layers (2 by node name)"


def test_a_name_is_not_trusted_where_the_weight_has_another_shape() -> None:
    one = model([node("MatMul", ["x", "w"], ["y"], "same")], {"x": (2, 5)}, ["y"], {"w": random(5, 6)})
    other = model([node("MatMul", ["x", "w"], ["y"], "same")], {"x": (2, 5)}, ["y"], {"w": random(5, 9)})
    found = match(one, other)
    assert not found.pairs
    assert len(found.only_first) == len(found.only_second) == 1


def test_a_gemm_is_the_matmul_that_a_tool_makes_of_it() -> None:
    gemm = model(
        [node("Gemm", ["x", "w", "b"], ["y"], "fc", transB=1)],
        {"x": (2, 5)},
        ["y"],
        {"w": random(6, 5), "b": random(6)},
    )
    plain = model(
        [node("MatMul", ["x", "v"], ["h"], "other"), node("Add", ["h", "b"], ["y"])],
        {"x": (2, 5)},
        ["y"],
        {"v": random(5, 6), "b": random(6)},
    )
    found = match(gemm, plain)
    assert names(found) == [("fc", "other")]


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(5)), st.integers(2, 16))
def test_matching_is_the_same_from_either_side(order: list[int], bits: int) -> None:
    branches = [node("MatMul", ["x", f"w{i}"], [f"h{i}"]) for i in order]
    merge = node("Concat", [f"h{i}" for i in range(5)], ["y"], axis=1)
    weights = {f"w{i}": random(6, 5, seed=i) for i in range(5)}
    proto = model([*branches, merge], {"x": (2, 6)}, ["y"], weights)
    original, packed, _ = quantized(proto, bits)
    there, back = match(original, packed), match(packed, original)
    assert there.complete
    assert sorted((first, second) for second, first in names(back)) == sorted(names(there))


@given(st.text("abc/._0123456789", min_size=1, max_size=12))
def test_taking_additions_off_twice_is_taking_them_off_once(name: str) -> None:
    for suffix in ("", "_quantized", "_DequantizeLinear_Output", "_quant", ".codes4"):
        assert plain_name(plain_name(name + suffix)) == plain_name(name + suffix)
        assert plain_name(name + suffix) == plain_name(name)


def _never(model: Any) -> Any:
    raise AssertionError("stored as it is")
