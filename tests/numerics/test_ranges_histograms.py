"""Counting in chunks against counting one value at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from ptq_lab.numerics import Histogram, count_magnitudes, count_values

Values = NDArray[np.float32]
values = hnp.arrays(
    np.float32,
    st.integers(0, 60),
    elements=st.one_of(st.sampled_from([0.0, -0.0, 1e-16, 2.5e-16, 1.0, -1.0]), st.floats(-50, 50, width=32)),
)


def counted_one_by_one(numbers: Values, limit: float, bins: int) -> list[int]:
    interval, counts = np.float32(limit / bins), [0] * bins
    for number in np.abs(numbers):
        if number > 2.2e-16:
            counts[min(int(number / interval), bins - 1)] += 1
    return counts


@given(values)
def test_magnitudes_are_counted_as_the_original_counts_them(numbers: Values) -> None:
    limit = float(np.abs(numbers).max(initial=0.0))

    assert count_magnitudes(numbers, limit, bins=16).tolist() == counted_one_by_one(numbers, limit, 16)


def test_many_values_are_counted_across_chunks(rng: np.random.Generator) -> None:
    numbers = np.maximum(rng.standard_normal((3, 7, 99, 50)), -0.5).astype(np.float32)
    limit = float(np.abs(numbers).max())

    assert count_magnitudes(numbers, limit).tolist() == counted_one_by_one(numbers.reshape(-1), limit, 2048)


@pytest.mark.parametrize("limit", [1e-16, 3e-16, 4e-13, 1e-12])
def test_magnitudes_near_the_bound_of_zero_are_told_apart_whatever_the_scale(limit: float) -> None:
    numbers = (np.array([0, 0.3, 0.6, 0.9, 1]) * limit).astype(np.float32)

    counts = count_magnitudes(numbers, float(numbers.max()))

    assert counts.sum() == np.count_nonzero(numbers > 2.2e-16)
    assert counts.min() >= 0


@settings(max_examples=200)
@given(values)
def test_signed_counts_find_every_value_in_its_bin_and_leave_zeros_aside(numbers: Values) -> None:
    low, high = min(numbers.min(initial=0.0), 0.0), max(numbers.max(initial=0.0), 0.0)
    seen = count_values(numbers, float(low), float(high), bins=32)

    assert seen.total == numbers.size
    assert seen.zeros == np.count_nonzero(numbers == 0) or high - low < 1e-34
    assert seen.counts.min() >= 0
    if high - low < 1e-34:
        return
    edges = np.cumsum(seen.counts)[:-1]
    slack = 1e-5 * seen.width  # float32 may put a value that lies on an edge on either side of it
    for index, below in enumerate(edges, start=1):
        edge = seen.low + index * seen.width
        others = numbers[numbers != 0]
        assert np.count_nonzero(others < edge - slack) <= below <= np.count_nonzero(others <= edge + slack)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("high", [0.0, 1e-45, 1e-40, 1e-36])
def test_a_range_too_narrow_for_float32_holds_only_zeros(high: float) -> None:
    seen = count_values(np.array([0, high], np.float32), 0.0, high)

    assert (seen.zeros, seen.counts.sum()) == (2, 0)


def test_values_outside_the_range_count_in_the_outermost_bins() -> None:
    numbers = np.array([-9, -1, 0.5, 2, 9], np.float32)

    assert count_values(numbers, -1.0, 2.0, bins=3).counts.tolist() == [2, 1, 2]
    assert count_magnitudes(numbers, 2.0, bins=2).tolist() == [1, 4]


@given(values, values)
def test_merging_counts_is_counting_both(some: Values, more: Values) -> None:
    parts = [count_values(part, -50.0, 50.0, bins=16) for part in (some, more)]
    whole = count_values(np.concatenate([some, more]), -50.0, 50.0, bins=16)

    merged = parts[0].merge(parts[1])

    assert (merged.counts.tolist(), merged.zeros) == (whole.counts.tolist(), whole.zeros)


@pytest.mark.parametrize("other", [{"low": -2.0}, {"high": 2.0}, {"counts": np.zeros(5, np.int64)}])
def test_histograms_with_other_bins_do_not_merge(other: dict[str, Any]) -> None:
    facts: dict[str, Any] = {"low": -1.0, "high": 1.0, "counts": np.zeros(4, np.int64), "zeros": 0}

    with pytest.raises(ValueError, match="do not add up"):
        Histogram(**facts).merge(Histogram(**(facts | other)))


def test_the_middle_of_a_bin_is_between_its_edges() -> None:
    histogram = Histogram(low=-1.0, high=3.0, counts=np.zeros(4, np.int64), zeros=0)

    assert histogram.centers.tolist() == [-0.5, 0.5, 1.5, 2.5]
