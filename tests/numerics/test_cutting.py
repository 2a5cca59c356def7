"""Clipping against rounding: sums read from a histogram, held against values that were really quantized."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptq_lab.numerics import count_values
from ptq_lab.numerics.cutting import cut_errors
from ptq_lab.numerics.shrink import least_error_range


@given(seed=st.integers(0, 999), bits=st.integers(2, 8), share=st.floats(0.05, 1.0))
@settings(max_examples=60, deadline=None)
def test_both_errors_together_are_what_quantizing_the_values_themselves_costs(
    seed: int, bits: int, share: float
) -> None:
    values = np.random.default_rng(seed).laplace(size=4000).astype(np.float32)
    seen = count_values(values, float(values.min()), float(values.max()), bins=1 << 16)
    low, high = float(values.min()) * share, float(values.max()) * share
    clipping, rounding = cut_errors(seen, low, high, bits=bits)

    scale = (high - low) / ((1 << bits) - 1)
    lowest = np.rint(low / scale)
    nearest = np.rint(values.astype(np.float64) / scale)
    codes = np.clip(nearest, lowest, lowest + (1 << bits) - 1)
    squared = (values - codes * scale) ** 2
    assert clipping[0] == pytest.approx(squared[codes != nearest].sum(), rel=0.02, abs=1e-3)
    assert rounding[0] == pytest.approx(squared[codes == nearest].sum(), rel=0.02, abs=1e-3)


@given(seed=st.integers(0, 999), bits=st.integers(2, 8))
@settings(max_examples=30, deadline=None)
def test_no_threshold_beats_the_range_that_the_search_for_the_least_error_finds(seed: int, bits: int) -> None:
    values = np.abs(np.random.default_rng(seed).laplace(size=2000)).astype(np.float32)
    seen = count_values(values, 0.0, float(values.max()))
    thresholds = np.linspace(0.1, 1.0, 91) * float(values.max())
    low, high = least_error_range(seen, bits=bits)
    found = sum(cut_errors(seen, low, high, bits=bits))[0]
    tried = sum(cut_errors(seen, np.zeros(91), thresholds, bits=bits))
    assert found == pytest.approx(tried.min(), rel=1e-9)


@given(seed=st.integers(0, 999))
@settings(max_examples=20, deadline=None)
def test_a_wider_range_never_clips_more(seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=1000).astype(np.float32)
    seen = count_values(values, float(values.min()), float(values.max()))
    shares = np.linspace(0.05, 1.0, 40)
    clipping, _ = cut_errors(seen, seen.low * shares, seen.high * shares, bits=8)
    assert (np.diff(clipping) <= 1e-9).all()


@pytest.mark.parametrize("ends", [(0.1, 1.0), (-1.0, -0.1), (0.0, 0.0)])
def test_a_range_without_zero_or_without_length_is_refused(ends: tuple[float, float]) -> None:
    seen = count_values(np.array([-1, 1], np.float32), -1.0, 1.0)
    with pytest.raises(ValueError, match="zero"):
        cut_errors(seen, *ends, bits=8)
