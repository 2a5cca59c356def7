"""Profiles of dynamic shapes, from the configuration's grammar to the arguments of Ascend's compiler."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq_lab.config.ascend import input_shapes, profile_groups
from ptq_lab.devices import Profiles, atc_arguments, expand_profiles
from ptq_lab.errors import ConfigError


def test_the_example_of_the_document_gives_six_batches() -> None:
    shapes = input_shapes("input_1:[-1,32,32,4]")
    profiles = expand_profiles(shapes, profile_groups("[1~4],[8],[16]"))
    assert profiles == Profiles(batches=(1, 2, 3, 4, 8, 16))
    assert atc_arguments("q.onnx", shapes, profiles) == (
        "--framework=5",
        "--model=q.onnx",
        "--output=q",
        "--input_shape=input_1:-1,32,32,4",
        "--dynamic_batch_size=1,2,3,4,8,16",
    )


def test_image_ranges_give_every_pair_of_sizes() -> None:
    shapes = input_shapes("a:[1,-1,-1,3];b:[4]")
    profiles = expand_profiles(shapes, profile_groups("[8~9,4~5],[16,16];[1],[1]"))
    assert profiles.images == ((8, 4), (8, 5), (9, 4), (9, 5), (16, 16))
    arguments = atc_arguments("m.onnx", shapes, profiles)
    assert arguments[3:] == ("--input_shape=a:1,-1,-1,3;b:4", "--dynamic_image_size=8,4;8,5;9,4;9,5;16,16")


def test_fixed_shapes_have_no_profiles() -> None:
    shapes = input_shapes("x:[1,3,8,8]")
    assert expand_profiles(shapes, profile_groups("[1]")) == Profiles()
    assert atc_arguments("m.onnx", shapes, Profiles())[3:] == ("--input_shape=x:1,3,8,8",)


def test_other_options_of_the_section_are_passed_on_under_the_names_of_the_compiler() -> None:
    options = {"input_format": "NCHW", "op_select_impl_mode": "high_performance", "device_id": "0", "output_type": None}
    arguments = atc_arguments("m.onnx", [("x", (1, 4))], Profiles(), options)
    assert arguments[4:] == ("--input_format=NCHW", "--op_select_implmode=high_performance")


@pytest.mark.parametrize("dims", ["[4]", "[1~101]"])
def test_a_number_of_profiles_that_the_compiler_does_not_take_is_refused(dims: str) -> None:
    with pytest.raises(ConfigError, match="2 to 100"):
        expand_profiles([("x", (-1, 1, 1, 1))], profile_groups(dims))


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 5)), min_size=2, max_size=8, unique=True))
def test_batches_are_those_of_the_ranges_each_once(ranges: list[tuple[int, int]]) -> None:
    text = ",".join(f"[{low}~{low + more}]" for low, more in ranges)
    wanted = {size for low, more in ranges for size in range(low, low + more + 1)}
    if len(wanted) < 2:
        return
    batches = expand_profiles([("x", (-1, 2, 2, 2))], profile_groups(text)).batches
    assert set(batches) == wanted
    assert len(batches) == len(wanted)
