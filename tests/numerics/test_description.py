"""What is said about a tensor's values is what sorting and float64 say."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ptq_lab.numerics.description import code_values, describe, describe_codes, product_sum, quartiles

SIZE = 50_001  # more than are sorted
RNG = np.random.default_rng(7)
NORMAL = RNG.normal(0.1, 2.0, SIZE).astype(np.float32)
CASES: dict[str, NDArray[np.float32]] = {
    "normal": NORMAL,
    "rectified": np.maximum(NORMAL, 0),
    "clipped": np.clip(NORMAL, -1, 1),
    "negative": -np.abs(NORMAL) - 1,
    "far from zero": NORMAL / np.float32(1000) + np.float32(1000),
    "mostly zeros": np.where(RNG.random(SIZE) < 0.1, NORMAL, np.float32(0)),
    "one value": np.full(SIZE, -2.5, np.float32),
    "zeros of both signs": np.where(RNG.random(SIZE) < 0.5, 0.0, -0.0).astype(np.float32),
    "huge": NORMAL * np.float32(1e30),
    "tiny": NORMAL * np.float32(1e-40),
    "few": NORMAL[:7],
    "one": NORMAL[:1],
}


@pytest.mark.parametrize("name", CASES)
def test_a_description_is_what_sorting_and_float64_say(name: str) -> None:
    values = CASES[name]
    found, exact, ordered = describe(values), values.astype(np.float64), np.sort(values)
    ranks = (0, values.size // 4, values.size // 2, 3 * values.size // 4, values.size - 1)
    assert (found.low, found.q1, found.median, found.q3, found.high) == tuple(ordered[list(ranks)].tolist())
    assert found.mean == pytest.approx(exact.mean(), rel=1e-6)
    assert found.variance == pytest.approx(exact.var(), rel=1e-6, abs=1e-300)
    assert found.sparsity == np.mean(exact == 0)
    assert found.power == pytest.approx((exact**2).sum(), rel=1e-6)


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=True), min_size=1, max_size=40), st.integers(1, 999)
)
def test_quartiles_are_elements_of_the_sorted_values(few: list[float], repeats: int) -> None:
    values = np.tile(np.array(few, np.float32), repeats)
    ordered = np.sort(values)
    wanted = [ordered[rank] for rank in (values.size // 4, values.size // 2, 3 * values.size // 4)]
    assert list(quartiles(values)) == wanted


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_codes_are_described_like_the_values_they_stand_for(dtype: Any) -> None:
    codes = RNG.integers(0, 200, SIZE).astype(np.uint8).view(dtype)
    values = code_values(codes.dtype, 0.037, 5).take(codes.view(np.uint8))
    assert values[0] == np.float32(0.037) * np.float32(int(codes[0]) - 5)
    by_codes, by_values = describe_codes(codes, 0.037, 5), describe(values)
    for name in ("size", "low", "q1", "median", "q3", "high", "sparsity"):
        assert getattr(by_codes, name) == getattr(by_values, name)
    assert by_codes.mean == pytest.approx(by_values.mean, rel=1e-9)
    assert by_codes.variance == pytest.approx(by_values.variance, rel=1e-6)


def test_nothing_is_said_about_no_values_and_no_quartiles_about_values_that_are_not_numbers() -> None:
    for empty in (describe(np.zeros((0, 3), np.float32)), describe_codes(np.zeros(0, np.uint8), 1.0, 0)):
        assert empty.size == 0
        assert math.isnan(empty.low)
        assert math.isnan(empty.sparsity)
    broken = describe(np.array([1.0, np.nan, 2.0], np.float32))
    assert all(math.isnan(number) for number in (broken.low, broken.median, broken.high, broken.mean, broken.variance))


def test_infinities_are_extremes_without_a_variance() -> None:
    found = describe(np.array([-np.inf, 0.0, 1.0, 2.0], np.float32))
    assert (found.low, found.q1, found.high) == (-math.inf, 0.0, 2.0)
    assert math.isnan(found.variance)


def test_products_of_huge_numbers_are_added_up_in_float64() -> None:
    huge = np.full(3000, 1e30, np.float32)
    assert product_sum(huge, huge) == pytest.approx(3000 * float(huge[0]) ** 2)


def test_a_sampled_description_takes_its_quartiles_alone_from_a_part() -> None:
    exact, sampled = describe(NORMAL), describe(NORMAL, every=16)
    assert (sampled.q1, sampled.median, sampled.q3) == quartiles(NORMAL[::16])
    assert (sampled.low, sampled.mean, sampled.variance) == (exact.low, exact.mean, exact.variance)
