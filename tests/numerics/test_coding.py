"""Coding: every layout gives back every code, comes near the entropy, and refuses what is not its own."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ptq_lab.numerics.code_layout import Layout, code_range, decode_codes, lay_out, parts_of
from ptq_lab.numerics.coding import decode_array, encode_array, encode_codes, entropy_bytes
from ptq_lab.numerics.fields import WIDTHS, expand, pack_fields, packed_size, squeeze, unpack_fields

seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=40, deadline=None)


def round_trip(codes: NDArray[Any], bits: int) -> int:
    """Code and decode; return how many bytes it took."""
    coded = encode_codes(codes)
    again = decode_codes(coded.layout, coded.data, codes.size, bits=bits)
    assert np.array_equal(again, codes.reshape(-1))
    assert Layout.from_dict(coded.layout.to_dict()) == coded.layout
    return len(coded.data)


def with_layout(codes: NDArray[Any], layout: Layout) -> tuple[Layout, bytes]:
    """Code in a given layout."""
    sections = [squeeze(part) for part in lay_out(layout, codes)]
    return replace(layout, sections=tuple(map(len, sections))), b"".join(sections)


@pytest.mark.parametrize("planar", [False, True], ids=["adjacent", "planar"])
@pytest.mark.parametrize("width", WIDTHS)
@few
@given(seed=seeds, count=st.integers(0, 70))
def test_fields_give_back_every_number_in_the_fewest_bytes(width: int, planar: bool, seed: int, count: int) -> None:
    values = np.random.default_rng(seed).integers(0, 1 << width, count).astype(np.uint8)
    packed = pack_fields(values, width, planar=planar)
    assert packed.size == packed_size(count, width)
    assert np.array_equal(unpack_fields(packed, width, count, planar=planar), values)


@few
@given(seed=seeds, count=st.integers(0, 3000), levels=st.integers(1, 256))
def test_a_section_gives_back_its_bytes_and_is_never_longer(seed: int, count: int, levels: int) -> None:
    data = np.random.default_rng(seed).integers(0, levels, count).astype(np.uint8)
    section = squeeze(data)
    assert len(section) <= count
    assert np.array_equal(expand(section, count), data)


def test_a_section_of_another_size_is_refused_before_it_is_inflated_any_further() -> None:
    bomb = zlib.compress(bytes(1 << 24), 9, -15)
    for size in (100, len(bomb) - 1, len(bomb) + 1, (1 << 24) - 1, (1 << 24) + 1, 1 << 40):
        with pytest.raises(ValueError, match=r"bytes|stream"):
            expand(bomb, size)
    with pytest.raises(ValueError, match="no deflate stream"):
        expand(b"\xff" * 10, 20)
    with pytest.raises(ValueError, match="does not inflate"):
        expand(bomb + b"\0", 1 << 24)


@pytest.mark.parametrize("bits", range(1, 17))
@settings(max_examples=15, deadline=None)
@given(seed=seeds, count=st.integers(0, 500), spread=st.floats(0.01, 2.0))
def test_codes_of_every_width_come_back(bits: int, seed: int, count: int, spread: float) -> None:
    low, high = code_range(bits)
    numbers = np.random.default_rng(seed).normal(0, spread * high + 0.1, count)
    codes = np.clip(np.rint(numbers), low, high).astype(np.int8 if bits <= 8 else np.int16)
    round_trip(codes, bits)


@few
@given(st.lists(st.integers(-(1 << 31), (1 << 31) - 1), max_size=60))
def test_codes_of_any_span_come_back(values: list[int]) -> None:
    round_trip(np.array(values, np.int32), 32)


@few
@given(seed=seeds, count=st.integers(1, 4000), step=st.integers(1, 40), share=st.floats(0.0, 0.9))
def test_sparse_spaced_and_outlying_codes_come_back(seed: int, count: int, step: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    codes = np.rint(rng.laplace(0, 3, count)).astype(np.int16) * step
    codes[rng.random(count) < share] = -step
    codes[rng.random(count) < 0.002] = 30_000
    round_trip(codes, 16)


@pytest.mark.parametrize("codes", [[], [5], [7] * 9, [-128, 127], [0] * 300 + [1]], ids=str)
def test_tensors_of_nearly_nothing_come_back(codes: list[int]) -> None:
    round_trip(np.array(codes, np.int8).reshape(1, -1), 8)


STEPS: dict[str, dict[str, Any]] = {
    "fields": {},
    "mask": {"rest": 0},
    "distances": {"rest": 0, "spaced": True},
    "levels": {"levels": -1},
    "outliers": {"outliers": -1},
    "mask and outliers": {"rest": 0, "outliers": -1},
    "mask and levels": {"rest": 0, "levels": -1},
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("planar", [False, True], ids=["adjacent", "planar"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("shift", [0, 1, 3, 5, 8, 11])
def test_every_layout_gives_back_every_code(step: str, width: int, shift: int, planar: bool) -> None:
    rng = np.random.default_rng([width, shift])
    reach, more = 1 << (width + shift), dict(STEPS[step])
    codes = rng.integers(0, min(reach, 1 << 14), 1003).astype(np.int16) - 7
    codes[rng.random(1003) < 0.5] = 0 if "rest" in more else -7
    if "levels" in more:
        codes = np.sign(codes) * 5  # three levels; two behind a mask
        more["levels"] = np.unique(codes[codes != 0] if "rest" in more else codes).size
        if more["levels"] > 1 << (width + shift):
            more["levels"], codes = min(2, more["levels"]), np.abs(codes)
            more["levels"] = np.unique(codes[codes != 0] if "rest" in more else codes).size
    if "outliers" in more:
        codes[::100] = np.where(np.arange(11) % 2, 20_000, -20_000)
        inner = codes[codes != 0] if "rest" in more else codes
        more["outliers"] = int(np.count_nonzero((inner < -7) | (inner.astype(int) >= reach - 7)))
    kept = int(np.count_nonzero(codes)) if "rest" in more else 0
    low = 0 if "levels" in more else -7
    layout, data = with_layout(codes, Layout(low=low, width=width, shift=shift, planar=planar, kept=kept, **more))
    assert np.array_equal(decode_codes(layout, data, codes.size, bits=16), codes)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
def test_bell_shaped_codes_take_hardly_more_than_their_entropy(bits: int) -> None:
    rng = np.random.default_rng(bits)
    low, high = code_range(bits)
    codes = np.clip(np.rint(rng.normal(0, high / 3.2 + 0.3, 400_000)), low, high).astype(np.int8)
    assert round_trip(codes, bits) <= 1.016 * entropy_bytes(codes)


@pytest.mark.parametrize("spread", [0.2, 1.0, 8.0, 60.0])
def test_heavy_tails_of_a_single_step_take_hardly_more_than_their_entropy(spread: float) -> None:
    codes = np.rint(np.random.default_rng(3).standard_t(3, 300_000) * spread).astype(np.int32)
    assert np.abs(codes).max() > 30 * spread
    assert round_trip(codes, 32) <= 1.03 * entropy_bytes(codes)


@pytest.mark.parametrize("share", [0.7, 0.9, 0.97, 0.999])
def test_sparse_codes_take_little_more_than_their_entropy(share: float) -> None:
    rng = np.random.default_rng(4)
    codes = np.where(rng.random(500_000) < share, 0, np.rint(rng.normal(0, 30, 500_000))).astype(np.int8)
    assert round_trip(codes, 8) <= 1.05 * entropy_bytes(codes) + 100


def test_few_distinct_codes_far_apart_take_no_more_than_their_number_in_bits() -> None:
    codes = np.random.default_rng(5).choice(np.array([-30_000, -7, 900, 31_000], np.int16), 80_000)
    assert round_trip(codes, 16) <= 80_000 * 2 / 8 + 64


def test_equal_codes_give_equal_bytes_whatever_type_holds_them() -> None:
    codes = np.rint(np.random.default_rng(6).normal(0, 9, 50_000))
    assert encode_codes(codes.astype(np.int8)) == encode_codes(codes.astype(np.int32))


@few
@given(seed=seeds, count=st.integers(0, 400), kind=st.sampled_from(["<f4", "<f2", "<f8", "i1", "<u2"]))
def test_numbers_come_back_bit_for_bit_whatever_they_are(seed: int, count: int, kind: str) -> None:
    dtype = np.dtype(kind)
    raw = np.random.default_rng(seed).integers(0, 256, count * dtype.itemsize).astype(np.uint8)
    array = raw.view(dtype)  # NaNs with payloads and negative zeros among them
    again = decode_array(encode_array(array), dtype, count)
    assert again.tobytes() == array.tobytes()


CODES = np.random.default_rng(7).integers(0, 16, 999).astype(np.int16)
WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "more sections than belong to it": ({}, {"sections": (1, 2)}, "sections"),
    "longer sections than there are bytes": ({}, {"sections": (501,)}, "bytes in all"),
    "a mask that is not there": ({"rest": 3, "kept": 950}, {}, "sections"),
    "codes beyond their width": ({}, {"low": 20_000}, "do not fit into 8 bits"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_layout_that_does_not_fit_its_bytes_is_refused(what: str) -> None:
    first, then, message = WRONG[what]
    layout, data = with_layout(CODES, Layout(width=4))
    with pytest.raises(ValueError, match=message):
        decode_codes(replace(layout, **first, **then), data, CODES.size, bits=8)


def test_levels_masks_and_outliers_that_lie_are_refused() -> None:
    layout, data = with_layout(CODES, Layout(width=4, rest=3, kept=int(np.count_nonzero(CODES != 3))))
    with pytest.raises(ValueError, match="keeps"):
        decode_codes(replace(layout, kept=layout.kept + 1), data, CODES.size, bits=8)
    high = pack_fields(np.array([0, 3], np.uint8), 4).tobytes()
    table = b"\x01\x02" + bytes(6)
    with pytest.raises(ValueError, match="level 3 of 2"):
        decode_codes(Layout(width=4, levels=2, sections=(1, 2, 2, 2, 2)), high + table, 2, bits=8)
    outlier = b"\x09" + bytes(7)
    with pytest.raises(ValueError, match="place 9 of 2"):
        decode_codes(Layout(width=4, outliers=1, sections=(1, *[1] * 8)), high + outlier, 2, bits=8)


@pytest.mark.parametrize(
    "record",
    [
        {"width": 3, "sections": []},
        {"shift": -1, "sections": []},
        {"shift": 30, "width": 4, "sections": []},
        {"low": 1 << 40, "sections": []},
        {"low": 1.5, "sections": []},
        {"planar": 1, "sections": []},
        {"kept": True, "sections": []},
        {"sections": ["1"]},
        {"sections": [-1]},
        {"colour": "red", "sections": []},
        {},
    ],
    ids=str,
)
def test_a_record_that_is_no_layout_is_refused(record: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Layout.from_dict(record)


def test_the_parts_below_a_field_have_as_many_bits_as_the_shift() -> None:
    for shift in range(33):
        assert sum(parts_of(shift)) == shift
        assert set(parts_of(shift)) <= set(WIDTHS)
