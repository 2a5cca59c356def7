"""Packing: k bits per code for every width, in both layouts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ptq_lab.numerics import pack_bits, pack_lanes, split_width, unpack_bits, unpack_lanes
from ptq_lab.numerics.packing import pack_nibbles, padded_length

WIDTHS = range(1, 17)
seeds = st.integers(0, 2**32 - 1)


def some_codes(bits: int, seed: int, *shape: int) -> NDArray[np.int16]:
    half = 1 << (bits - 1)
    codes = np.random.default_rng(seed).integers(-half, half, shape).astype(np.int16)
    if codes.size > 1:
        codes.flat[0], codes.flat[-1] = -half, half - 1
    return codes


@pytest.mark.parametrize("bits", WIDTHS)
@settings(max_examples=30, deadline=None)
@given(seed=seeds, rows=st.integers(1, 4), count=st.integers(1, 70))
def test_lanes_give_back_every_code_in_exactly_its_bits(bits: int, seed: int, rows: int, count: int) -> None:
    codes = some_codes(bits, seed, rows, count)
    parts = pack_lanes(codes, bits)
    assert np.array_equal(unpack_lanes(parts, bits, count), codes)
    assert sum(part.size for part in parts) == rows * padded_length(count) * bits // 8


@pytest.mark.parametrize("bits", WIDTHS)
@settings(max_examples=30, deadline=None)
@given(seed=seeds, count=st.integers(1, 70))
def test_the_bit_stream_gives_back_every_code_in_the_fewest_units(bits: int, seed: int, count: int) -> None:
    codes = some_codes(bits, seed, count)
    packed = pack_bits(codes, bits)
    assert np.array_equal(unpack_bits(packed, bits, count), codes)
    unit = 1 if bits <= 8 else 2
    assert packed.size == -(-count * bits // (8 * unit)) * unit


@pytest.mark.parametrize("bits", [3, 5, 11])
def test_lanes_survive_more_codes_than_one_block(bits: int) -> None:
    codes = some_codes(bits, 1, 3, 8 * 65536 + 8 * 100 + 5)
    assert np.array_equal(unpack_lanes(pack_lanes(codes, bits), bits, codes.shape[1]), codes)
    tall = some_codes(bits, 2, 70_000, 9)
    assert np.array_equal(unpack_lanes(pack_lanes(tall, bits), bits, 9), tall)


@pytest.mark.parametrize("bits", range(1, 9))
def test_lanes_are_the_same_whatever_integer_type_holds_the_codes(bits: int) -> None:
    codes = some_codes(bits, 7, 2, 21)
    for dtype in (np.int8, np.int32, np.int64):
        for mine, other in zip(pack_lanes(codes, bits), pack_lanes(codes.astype(dtype), bits), strict=True):
            assert np.array_equal(mine, other)


@pytest.mark.parametrize(
    ("bits", "codes", "stream"),
    [(3, [-4, -1, 0, 3, 2], "186f"), (9, [-256, 255, 0, -1], "00fe03fc0700")],
)
def test_the_bit_stream_equals_the_originals_golden_bytes(bits: int, codes: list[int], stream: str) -> None:
    # The original prints 16-bit words, fe00 fc03 0007; in a file their low byte comes first.
    assert bytes(pack_bits(np.array(codes), bits)).hex() == stream


@given(st.lists(st.integers(-8, 7), min_size=1, max_size=20))
def test_nibbles_hold_the_first_code_in_the_low_half(codes: list[int]) -> None:
    packed = pack_nibbles(np.array(codes, np.int8))
    fields = [nibble for byte in packed.tolist() for nibble in (byte & 15, byte >> 4)]
    assert fields[: len(codes)] == [code & 15 for code in codes]
    assert packed.size == (len(codes) + 1) // 2


@pytest.mark.parametrize("bits", WIDTHS)
def test_a_width_splits_into_byte_fields_that_add_up_to_it(bits: int) -> None:
    parts = split_width(bits)
    assert sum(parts) == bits
    assert set(parts) <= {8, 4, 2, 1}
    assert list(parts) == sorted(parts, reverse=True)


@pytest.mark.parametrize("bits", [0, 17])
def test_a_width_outside_1_to_16_cannot_be_split(bits: int) -> None:
    with pytest.raises(ValueError, match=r"outside 1\.\.16"):
        split_width(bits)
