"""Codes chosen together: each step lowers what it says it lowers, whatever the weight and what it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ptq_lab.numerics.blocked import fit_blocks
from ptq_lab.numerics.outcome import Outcome
from ptq_lab.numerics.rounding import Steps, descend, fit_range, hand_on, loss, nearest, refit, settle
from ptq_lab.numerics.solve import inverse_factor, solve_rows
from ptq_lab.numerics.targets import Moments, choose_aim

shapes = st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(1, 5))
widths = st.integers(1, 8)
seeds = st.integers(0, 2**16)


def layer(shape: tuple[int, int, int], seed: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return a weight, and the covariance of inputs that go together, some much larger than others."""
    groups, inputs, rows = shape
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((groups, inputs, inputs)) * rng.exponential(1.0, (groups, inputs, 1))
    covariance = mixing @ np.swapaxes(mixing, 1, 2) + 0.01 * np.eye(inputs)
    return rng.standard_normal((groups, inputs, rows)).astype(np.float32), covariance


@given(shape=shapes, bits=widths, seed=seeds, free=st.booleans())
@settings(max_examples=60, deadline=None)
def test_sweeps_and_refits_never_raise_the_loss_and_codes_stay_within_their_width(
    shape: tuple[int, int, int], bits: int, seed: int, free: bool
) -> None:
    weight, covariance = layer(shape, seed)
    start = hand_on(weight, covariance, fit_range(weight, bits, free=free))
    before = loss(weight, covariance, start)
    for found in (refit(weight, covariance, start), descend(weight, covariance, start)):
        assert (loss(weight, covariance, found) <= before * (1 + 1e-3) + 1e-4).all()
        assert found.codes.min() >= 0
        assert found.codes.max() <= 2**bits - 1
        assert np.array_equal(found.codes, np.rint(found.codes))
        assert free or np.array_equal(found.offset, -(2.0 ** (bits - 1)) * found.scale)


def test_what_hands_errors_on_and_what_descends_from_there_are_better_than_nearest_steps() -> None:
    weight, covariance = layer((2, 90, 40), 3)
    start = fit_range(weight, 3)
    handed = hand_on(weight, covariance, start)
    swept = descend(weight, covariance, handed)
    losses = [float(loss(weight, covariance, steps).sum()) for steps in (start, handed, swept)]
    assert losses[1] < 0.8 * losses[0]
    assert losses[2] < 0.9 * losses[1]


def test_after_the_last_sweep_no_other_code_of_any_single_weight_is_better() -> None:
    weight, covariance = layer((1, 12, 3), 5)
    found = descend(weight, covariance, fit_range(weight, 2), sweeps=100, refits=False)
    best = loss(weight, covariance, found)[0, 0]
    for index in range(12):
        for code in range(4):
            codes = found.codes.copy()
            codes[0, index] = code
            other = loss(weight, covariance, Steps(codes, found.scale, found.offset, 2))[0, 0]
            assert (other >= best - 1e-4 * np.abs(best)).all()


@given(shape=shapes, bits=widths, seed=seeds)
@settings(max_examples=40, deadline=None)
def test_a_settled_weight_is_no_further_from_the_original_than_the_full_range_makes_it(
    shape: tuple[int, int, int], bits: int, seed: int
) -> None:
    weight, _ = layer(shape, seed)
    low, high = weight.min(axis=1, keepdims=True), weight.max(axis=1, keepdims=True)
    full = nearest(weight, np.maximum((high - low) / (2**bits - 1), 1e-12), low, bits)
    errors = [np.square(steps.values - weight).sum(axis=1) for steps in (settle(weight, bits), full)]
    assert (errors[0] <= errors[1] * 1.05 + 1e-9).all()


@pytest.mark.parametrize("bits", [1, 4])
def test_a_channel_of_one_constant_is_exact(bits: int) -> None:
    weight = np.full((1, 9, 2), 0.0, np.float32)
    weight[..., 1] = -3.25
    for steps in (
        fit_range(weight, bits),
        settle(weight, bits),
        hand_on(weight, np.eye(9)[None], fit_range(weight, bits)),
    ):
        assert np.array_equal(steps.values, weight)


@given(size=st.integers(1, 100), seed=seeds)
@settings(max_examples=30, deadline=None)
def test_the_factor_of_the_inverse_solves_what_numpy_solves(size: int, seed: int) -> None:
    _, covariance = layer((2, size, 1), seed)
    covariance += 0.1 * np.eye(size)
    upper = inverse_factor(covariance)
    assert np.array_equal(upper, np.triu(upper))
    rows = np.random.default_rng(seed).standard_normal((2, 3, size))
    wanted = np.swapaxes(np.linalg.solve(covariance, np.swapaxes(rows, 1, 2)), 1, 2)
    assert np.allclose(solve_rows(rows, upper), wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


def test_a_matrix_that_is_not_positive_definite_is_refused() -> None:
    with pytest.raises(ValueError, match="positive definite"):
        inverse_factor(np.array([[1.0, 2.0], [2.0, 1.0]]))


def test_the_blend_is_zero_where_what_is_missing_has_nothing_to_do_with_the_inputs() -> None:
    rng = np.random.default_rng(1)
    inputs = rng.standard_normal((1, 120, 40)).astype(np.float32)
    missing = rng.standard_normal((1, 120, 3)).astype(np.float32)
    parts = [slice(start, start + 30) for start in range(0, 120, 30)]
    folds = [Moments.of(inputs[:, part], missing[:, part]) for part in parts]

    def judge(fold: int, move: NDArray[np.float32], blends: Sequence[float]) -> list[float]:
        rows = parts[fold]
        return [float(np.square(missing[:, rows] - blend * inputs[:, rows] @ move).mean()) for blend in blends]

    assert choose_aim(folds, judge, centred=True).blend == 0.0


def test_moments_of_parts_add_up_to_those_of_the_whole() -> None:
    rng = np.random.default_rng(2)
    inputs, missing = rng.standard_normal((2, 30, 4)), rng.standard_normal((2, 30, 3))
    weights = rng.uniform(0.5, 2.0, (30, 1)).astype(np.float32)
    single = (inputs.astype(np.float32), missing.astype(np.float32))
    whole = Moments.of(*single, weights)
    first, second = (Moments.of(single[0][:, p], single[1][:, p], weights[p]) for p in (slice(12), slice(12, 30)))
    added = first + second
    for centred in (True, False):
        assert np.allclose(
            added.covariance(centred=centred, ridge=0.1), whole.covariance(centred=centred, ridge=0.1), atol=1e-5
        )
        assert np.allclose(added.crossing(centred=centred), whole.crossing(centred=centred), atol=1e-5)


def test_inputs_that_are_always_zero_leave_a_covariance_that_can_be_inverted() -> None:
    found = Moments.of(np.zeros((1, 5, 3), np.float32), np.zeros((1, 5, 2), np.float32))
    assert np.array_equal(found.covariance(centred=True, ridge=0.01), np.eye(3)[None])


@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_a_gain_and_a_shift_that_were_put_in_are_found_behind_an_activation_and_a_shortcut(seed: int) -> None:
    rng = np.random.default_rng(seed)
    wanted, shortcut = rng.standard_normal((2, 400, 3)).astype(np.float32)
    gain, shift = rng.uniform(0.8, 1.2, 3), rng.uniform(-0.2, 0.2, 3)
    given_ = ((wanted - shift) / gain).astype(np.float32)
    outcome = Outcome(wanted=wanted, wanted_shortcut=shortcut, shortcut=shortcut, low=0.0, high=6.0)
    found = outcome.fit(given_)
    assert np.allclose(found[0], gain, atol=0.02)
    assert np.allclose(found[1], shift, atol=0.02)
    assert outcome.errors(given_ * found[0].astype(np.float32) + found[1].astype(np.float32)).max() < 1e-4


@given(shape=shapes, bits=st.integers(2, 8), seed=seeds)
@settings(max_examples=40, deadline=None)
def test_scales_that_are_written_out_for_every_input_round_as_one_for_all_does(
    shape: tuple[int, int, int], bits: int, seed: int
) -> None:
    weight, covariance = layer(shape, seed)
    grid = fit_range(weight, bits, free=False)
    spread = replace(grid, scale=grid.scale.repeat(shape[1], axis=1), offset=grid.offset.repeat(shape[1], axis=1))
    for one, many in (
        (hand_on(weight, covariance, grid), hand_on(weight, covariance, spread)),
        (descend(weight, covariance, grid, refits=False), descend(weight, covariance, spread, refits=False)),
    ):
        assert np.array_equal(one.codes, many.codes)
        assert np.array_equal(one.values, many.values)


@pytest.mark.parametrize("size", [96, 75])
def test_in_blocks_handing_on_and_sweeps_help_as_well(size: int) -> None:
    weight, covariance = layer((2, size, 30), 9)
    start = fit_blocks(weight, 3, 32)
    assert start.scale.shape == weight.shape
    assert len(np.unique(start.scale[0, :, 0])) == 3
    handed = hand_on(weight, covariance, start)
    swept = descend(weight, covariance, handed, refits=False)
    losses = [float(loss(weight, covariance, steps).sum()) for steps in (start, handed, swept)]
    assert losses[2] < losses[1] < 0.95 * losses[0]
    assert np.array_equal(swept.scale, start.scale)
