"""Two models take the same samples: inputs and outputs are found by name, then by place, and cast where they differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from ptq_lab.errors import ModelError
from ptq_lab.graph import load_model
from ptq_lab.graph.ports import Aligned, align_ports
from tests.conftest import Run
from tests.models import model, node, random

HALF, BYTES = int(TensorProto.FLOAT16), int(TensorProto.UINT8)


def align(first: onnx.ModelProto, second: onnx.ModelProto) -> Aligned:
    return align_ports(load_model(first), load_model(second))


def two_inputs(first: str = "a", second: str = "b", output: str = "y", *, swapped: bool = False) -> onnx.ModelProto:
    """``y = a - b``, of different shapes so that they cannot be mistaken."""
    inputs: dict[str, Any] = {first: (2, 3), second: (1, 3)}
    if swapped:
        inputs = dict(reversed(inputs.items()))
    return model([node("Sub", [first, second], [output], "minus")], inputs, [output])


def test_a_model_that_fits_is_given_back_as_it_is() -> None:
    first, second = load_model(two_inputs()), load_model(two_inputs())
    aligned = align_ports(first, second)
    assert aligned.model is second
    assert not aligned.notes


@pytest.mark.parametrize("names", [("left", "right"), ("b", "a"), ("y", "a"), ("b", "z")])
def test_other_names_are_matched_by_place_and_shape_even_where_they_cross(names: tuple[str, str], run: Run) -> None:
    feeds = {"a": random(2, 3), "b": random(1, 3, seed=1)}
    aligned = align(two_inputs(), two_inputs(*names, "a" if "a" not in names else "w"))
    got = run(aligned.model, feeds)
    assert list(got) == ["y"]
    assert np.array_equal(got["y"], feeds["a"] - feeds["b"])
    assert f"the input a of <ModelProto> is called {names[0]} in <ModelProto>" in aligned.notes


def test_the_order_of_inputs_does_not_matter(run: Run) -> None:
    feeds = {"a": random(2, 3), "b": random(1, 3, seed=1)}
    aligned = align(two_inputs(), two_inputs("x", "z", swapped=True))
    assert np.array_equal(run(aligned.model, feeds)["y"], feeds["a"] - feeds["b"])


def test_an_input_of_half_precision_is_cast_and_said(run: Run) -> None:
    whole = model([node("Relu", ["x"], ["y"])], {"x": (2, 3)}, ["y"])
    half = model([node("Relu", ["x"], ["y"])], {"x": (HALF, (2, 3))}, {"y": HALF})
    aligned = align(whole, half)
    x = random(2, 3)
    assert np.array_equal(run(aligned.model, {"x": x})["y"], np.maximum(x.astype(np.float16), 0))
    assert not aligned.narrowed
    assert aligned.notes == ("the input x is float32 in <ModelProto> and float16 in <ModelProto>: it is cast",)


def test_an_input_of_bytes_is_cast_and_marked_as_one_that_may_not_hold_the_samples(run: Run) -> None:
    whole = model([node("Relu", ["x"], ["y"])], {"x": (2, 3)}, ["y"])
    pixels = model(
        [node("Cast", ["x"], ["f"], to=1), node("Relu", ["f"], ["y"])], {"x": (BYTES, (2, 3))}, ["y"]
    )  # fmt: skip
    aligned = align(whole, pixels)
    x = np.array([[0, 1, 255], [7, 8, 9]], np.float32)
    assert np.array_equal(run(aligned.model, {"x": x})["y"], x)
    assert aligned.narrowed == {"x": np.dtype("uint8")}
    assert not align(pixels, whole).narrowed


def test_an_input_that_the_second_model_does_not_use_may_still_be_handed_in(run: Run) -> None:
    fewer = model([node("Neg", ["a"], ["y"])], {"a": (2, 3)}, ["y"])
    aligned = align(two_inputs(), fewer)
    feeds = {"a": random(2, 3), "b": random(1, 3)}
    assert np.array_equal(run(aligned.model, feeds)["y"], -feeds["a"])
    assert "<ModelProto> does not take the input b" in aligned.notes


def test_an_input_that_nobody_can_give_is_refused_with_what_both_take() -> None:
    fewer = model([node("Neg", ["a"], ["y"])], {"a": (2, 3)}, ["y"])
    with pytest.raises(ModelError) as fault:
        align(fewer, two_inputs())
    assert "needs the input b float32[1, 3], and <ModelProto> takes a float32[2, 3]" in str(fault.value)


def test_another_layout_of_the_same_input_is_refused() -> None:
    first = model([node("Relu", ["x"], ["y"])], {"x": ("n", 3, 8, 8)}, ["y"])
    second = model([node("Relu", ["x"], ["y"])], {"x": ("n", 8, 8, 3)}, ["y"])
    with pytest.raises(ModelError, match="have to have one shape"):
        align(first, second)


def test_sizes_that_only_the_second_model_fixes_are_those_of_the_samples() -> None:
    first = model([node("Relu", ["x"], ["y"])], {"x": ("n", "t", 8)}, ["y"])
    second = model([node("Relu", ["x"], ["y"])], {"x": ("n", 16, 8)}, ["y"])
    (spec,) = align(first, second).inputs
    assert spec.shape == ("n", 16, 8)


def test_outputs_without_a_partner_are_said_and_no_partner_at_all_is_refused() -> None:
    several = model(
        [node("Relu", ["x"], ["y"]), node("ReduceSum", ["x"], ["z"], keepdims=0)], {"x": (2, 3)}, ["y", "z"]
    )
    one = model([node("Relu", ["x"], ["y"])], {"x": (2, 3)}, ["y"])
    assert "only <ModelProto> has the output z; it is not compared" in align(several, one).notes
    other = model([node("ReduceSum", ["x"], ["z"], keepdims=0)], {"x": (2, 3)}, ["z"])
    with pytest.raises(ModelError, match="no output in common"):
        align(one, other)


def test_the_name_of_an_output_may_be_that_of_an_inner_tensor_of_the_second(run: Run) -> None:
    first = model([node("Relu", ["x"], ["y"])], {"x": (2, 3)}, ["y"])
    second = model([node("Neg", ["x"], ["y"]), node("Neg", ["y"], ["w"])], {"x": (2, 3)}, ["w"])
    x = random(2, 3)
    assert np.array_equal(run(align(first, second).model, {"x": x})["y"], x)
