"""Blocks of a channel with a scale each: what rounding them costs, and how they are cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq_lab.numerics import dequantize_weight, equal_blocks, quantize_blocks, quantize_symmetric, weight_error
from tests.models import random

SHAPES = ((6, 10), (7, 3, 3, 2), (5, 33))


@given(st.integers(1, 500), st.integers(1, 64))
def test_equal_blocks_are_as_few_as_allowed_and_differ_by_less_than_their_number(length: int, most: int) -> None:
    block = equal_blocks(length, most)
    blocks = -(-length // block)
    assert block <= most
    assert blocks == -(-length // most)
    assert 0 <= blocks * block - length < blocks


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
def test_an_error_is_half_a_step_or_at_most_one_where_the_side_with_fewer_codes_ends(
    shape: tuple[int, ...], bits: int, last: bool
) -> None:
    values = random(*shape)
    axis = len(shape) - 1 if last else 0
    found = quantize_blocks(values, bits=bits, axis=axis, block=4)
    rows = np.moveaxis(values, axis, 0).reshape(shape[axis], -1)
    decoded = np.moveaxis(dequantize_weight(found), axis, 0).reshape(rows.shape)
    codes = np.moveaxis(found.codes, axis, 0).reshape(rows.shape)
    scale = np.repeat(found.scale, 4, axis=1)[:, : rows.shape[1]]
    np.testing.assert_array_equal(decoded, codes * scale)
    half = 2 ** (bits - 1)
    limit = (np.where(codes == half - 1, 1.0, 0.5) + half * 1e-3) * np.abs(scale)  # scales have 11 digits
    assert (np.abs(decoded - rows) <= limit).all()
    assert codes.min() >= -half
    assert weight_error(values, found) == pytest.approx(np.linalg.norm(decoded - rows) / np.linalg.norm(rows), rel=1e-5)


def test_the_value_that_reaches_furthest_is_the_lowest_code_whichever_its_sign() -> None:
    values = np.array([[0.1, -3.0, 0.2, 0.3, 5.0, -4.9]], np.float32)
    found = quantize_blocks(values, bits=4, axis=0, block=3)
    assert np.sign(found.scale).tolist() == [[1.0, -1.0]]
    assert dequantize_weight(found)[0, [1, 4]].tolist() == [-3.0, 5.0]


def test_zero_is_exact_and_a_block_of_zeros_has_a_scale() -> None:
    values = np.zeros((2, 8), np.float32)
    values[0, 5] = 1.0
    found = quantize_blocks(values, bits=4, axis=0, block=4)
    assert np.array_equal(dequantize_weight(found), values)
    assert (found.scale != 0.0).all()


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_searched_ranges_cost_less_than_full_ones_and_blocks_less_than_channels(bits: int) -> None:
    values = random(40, 256) * np.exp(random(40, 256, seed=7)).astype(np.float32)
    plain = quantize_blocks(values, bits=bits, axis=0, block=32)
    searched = quantize_blocks(values, bits=bits, axis=0, block=32, search=True)
    whole = quantize_symmetric(values, bits=bits, axis=0)
    assert weight_error(values, searched) < weight_error(values, plain) < weight_error(values, whole)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    values = random(3, 8)
    values[1, 2] = bad
    with pytest.raises(ValueError, match="NaN or infinity"):
        quantize_blocks(values, bits=4, axis=0, block=4)
