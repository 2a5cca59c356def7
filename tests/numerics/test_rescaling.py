"""Factors by which channels were rescaled are recovered through the rounding; what is no rescaling is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ptq_lab.numerics import relative_error
from ptq_lab.numerics.rescaling import find_rescaling

Floats = NDArray[np.float32]


def weight(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng([seed, *shape]).normal(0, 1, shape).astype(np.float32)


def rounded(values: Floats, bits: int) -> Floats:
    step = np.abs(values).max(axis=tuple(range(1, values.ndim)), keepdims=True) / (2 ** (bits - 1) - 1)
    return (np.rint(values / step) * step).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 99), st.sampled_from([4, 8]), st.booleans(), st.booleans(), st.sampled_from([1, 2, 4]))
def test_factors_are_recovered_from_rounded_weights(
    seed: int, bits: int, inputs: bool, outputs: bool, groups: int
) -> None:
    random = np.random.default_rng(seed)
    values = weight(16, 6, 3, 3, seed=seed)
    by_input = np.exp(random.uniform(-2, 2, (groups, 1, 6, 1, 1))) if inputs else np.ones((groups, 1, 6, 1, 1))
    by_output = np.exp(random.uniform(-2, 2, (16, 1, 1, 1))) if outputs else np.ones((16, 1, 1, 1))
    changed = (values.reshape(groups, -1, 6, 3, 3) * by_input).reshape(values.shape) * by_output
    got = rounded(changed.astype(np.float32), bits)
    found = find_rescaling(values, got, groups=groups)
    if not (inputs or outputs):
        assert found is None
        return
    assert found is not None
    assert relative_error(found(values), got) <= 1.25 * relative_error(changed, got)
    assert found.changes_inputs or not inputs
    assert found.changes_outputs or not outputs


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_coarse_rounding_is_no_rescaling(bits: int) -> None:
    values = weight(32, 24)
    assert find_rescaling(values, rounded(values, bits)) is None


def test_another_weight_is_no_rescaling() -> None:
    assert find_rescaling(weight(32, 24), weight(32, 24, seed=1)) is None
    assert find_rescaling(weight(32, 24), np.zeros((32, 24), np.float32)) is None


def test_emptied_channels_are_a_loss_and_no_rescaling() -> None:
    values = weight(32, 24)
    pruned = values.copy()
    pruned[:, :12] = 0
    assert find_rescaling(values, pruned) is None
    assert find_rescaling(values, -values) is None
