"""Cosine, relative error and SQNR against their definitions, and the rules for what has none."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from ptq_lab.numerics import cosine, relative_error, sqnr_db

arrays = hnp.arrays(np.float32, st.integers(1, 30), elements=st.floats(-1e3, 1e3, width=32))


@given(arrays, st.floats(0.01, 100))
def test_cosine_is_1_for_what_points_the_same_way_and_minus_1_for_the_opposite(
    values: NDArray[np.float32], factor: float
) -> None:
    if np.abs(values).max() < 1e-3:
        return
    wide = values.astype(np.float64)
    assert cosine(wide, wide * factor) == pytest.approx(1.0, abs=1e-12)
    assert cosine(wide, -wide) == pytest.approx(-1.0, abs=1e-12)


@pytest.mark.parametrize(
    ("a", "b", "wanted"),
    [([0, 0], [0, 0], 1.0), ([0, 0], [1, 2], 0.0), ([np.nan, 1], [1, 1], 0.0), ([np.inf, 1], [np.inf, 1], 0.0)],
)
def test_cosine_keeps_the_originals_rules_for_zero_nan_and_infinity(
    a: list[float], b: list[float], wanted: float
) -> None:
    assert cosine(np.array(a, np.float32), np.array(b, np.float32)) == wanted


def test_relative_error_is_the_norm_of_the_difference_over_the_norm_also_across_blocks(
    rng: np.random.Generator,
) -> None:
    original = rng.normal(size=(3, 70_000)).astype(np.float32)
    changed = original + rng.normal(0, 0.01, original.shape).astype(np.float32)
    wide = original.astype(np.float64)
    wanted = np.linalg.norm(wide - changed) / np.linalg.norm(wide)
    assert relative_error(original, changed) == pytest.approx(wanted, rel=1e-9)
    assert relative_error(original, original) == 0.0


def test_sqnr_is_infinite_without_noise_and_minus_infinite_without_signal() -> None:
    assert sqnr_db(1.0, 0.0) == math.inf
    assert sqnr_db(0.0, 1.0) == -math.inf
    assert sqnr_db(1000.0, 1.0) == pytest.approx(30.0)
