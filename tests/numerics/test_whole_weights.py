"""Whole weights: error bounds, corrections and layouts, for every width."""

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from ptq_lab.numerics import QuantizedWeight, QuantSpec, choose_params, dequantize_weight, quantize_weight

WIDTHS = range(1, 17)
SHAPES = [(7,), (4, 9), (5, 3, 3, 3), (6, 1, 3, 3), (3, 200), (200, 3), (2, 20, 5), (1, 8), (8, 1)]

every_width = pytest.mark.parametrize("bits", WIDTHS)
finite = st.floats(-1e4, 1e4, width=32, allow_subnormal=False)
few = settings(max_examples=25, deadline=None)  # times sixteen widths
weights = hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=4, max_side=6), elements=finite)


def axes_of(shape: tuple[int, ...]) -> list[int | None]:
    return [None, *range(len(shape))]


def by_channel(values: NDArray[Any], axis: int | None) -> NDArray[Any]:
    """Return (channels, elements of a channel)."""
    return values.reshape(1, -1) if axis is None else np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)


def step_of(weight: QuantizedWeight) -> NDArray[np.float64]:
    return weight.step.reshape(-1, 1)


@every_width
@few
@given(values=weights, data=st.data())
def test_uncorrected_error_stays_within_half_a_step(bits: int, values: NDArray[np.float32], data: Any) -> None:
    axis = data.draw(st.sampled_from(axes_of(values.shape)))
    quantized = quantize_weight(values, bits=bits, axis=axis, correct=False)
    error = np.abs(by_channel(dequantize_weight(quantized).astype(np.float64) - values, axis))
    slack = 1e-6 * np.abs(by_channel(values, axis)).max(axis=1, keepdims=True) * max(1, 2.0 ** (8 - bits))
    limit = step_of(quantized) * (0.5 + 2.0 ** (bits - 22)) + slack
    assert (error <= limit).all()


@every_width
@few
@given(values=weights, data=st.data())
def test_zero_stays_exactly_zero_on_the_uncorrected_grid(bits: int, values: NDArray[np.float32], data: Any) -> None:
    axis = data.draw(st.sampled_from(axes_of(values.shape)))
    values[np.random.default_rng(0).random(values.shape) < 0.5] = 0.0
    back = dequantize_weight(quantize_weight(values, bits=bits, axis=axis, correct=False))
    assert (back[values == 0.0] == 0.0).all()


@every_width
@few
@given(values=weights, correct=st.booleans())
def test_codes_stay_in_their_width_and_never_fall_when_values_rise(
    bits: int, values: NDArray[np.float32], correct: bool
) -> None:
    quantized = quantize_weight(values, bits=bits, axis=None, correct=correct)
    spec = QuantSpec(bits=bits)
    assert quantized.codes.dtype == spec.dtype
    assert quantized.codes.min() >= spec.qmin
    assert quantized.codes.max() <= spec.qmax
    order = np.argsort(values, axis=None, kind="stable")
    assert (np.diff(quantized.codes.ravel()[order].astype(int)) >= 0).all()
    assert (np.diff(dequantize_weight(quantized).ravel()[order]) >= 0).all()


@every_width
@pytest.mark.parametrize("shape", [(6, 300), (300, 6), (5, 4, 3, 3), (64, 3, 70)], ids=str)
def test_correction_gives_every_channel_back_its_mean_and_spread(
    bits: int, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    values = (rng.standard_t(4, shape) * 0.1 + 0.02).astype(np.float32)
    for axis in axes_of(shape):
        quantized = quantize_weight(values, bits=bits, axis=axis)
        before = by_channel(values.astype(np.float64), axis)
        after = by_channel(dequantize_weight(quantized).astype(np.float64), axis)
        largest = np.abs(before).max()
        assert np.abs(after.mean(axis=1) - before.mean(axis=1)).max() <= 2e-6 * largest
        if bits > 1:
            left_alone = quantized.spread_correction.ravel() == 1.0  # the original's rule for a factor above 10
            error = np.abs(after.std(axis=1) - before.std(axis=1))
            assert (error <= 2e-5 * before.std(axis=1))[~left_alone].all()
            assert bits == 2 or not left_alone.any()


@given(values=weights, data=st.data())
def test_one_bit_levels_are_the_means_below_and_above_the_mean(values: NDArray[np.float32], data: Any) -> None:
    axis = data.draw(st.sampled_from(axes_of(values.shape)))
    quantized = quantize_weight(values, bits=1, axis=axis)
    codes, back = by_channel(quantized.codes, axis), by_channel(dequantize_weight(quantized), axis)
    for channel, code, level in zip(by_channel(values, axis), codes, back, strict=True):
        exact = channel.astype(np.float64)
        slack = 4e-7 * np.abs(exact).max() * (10 + exact.size)  # each level may be a difference of float32 sums
        near = np.abs(exact - exact.mean()) <= slack  # rounding decides on which side these fall
        assert (code[~near] == np.where(exact > exact.mean(), 0, -1)[~near]).all()
        for side in (-1, 0):
            if (code == side).any():
                assert np.abs(level[code == side] - exact[code == side].mean()).max() <= slack


def test_one_bit_levels_are_the_best_pair_for_their_split(rng: np.random.Generator) -> None:
    values = rng.normal(0.3, 1.0, (4, 50)).astype(np.float32)
    quantized = quantize_weight(values, bits=1, axis=0)
    best = np.square(dequantize_weight(quantized) - values).sum()
    for factor, shift in ((1.05, 0), (0.95, 0), (1, 0.02), (1, -0.02)):
        other = (quantized.codes * quantized.scale[:, None] * factor) + quantized.offset[:, None] + shift
        assert np.square(other - values).sum() > best


@pytest.mark.parametrize("bits", [1, 2, 3, 5, 8, 12, 16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_per_channel_equals_per_tensor_on_each_slice(
    bits: int, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    values = rng.normal(0.1, 1.0, shape).astype(np.float32)
    for axis in range(len(shape)):
        whole = quantize_weight(values, bits=bits, axis=axis)
        for channel in range(shape[axis]):
            part = quantize_weight(np.take(values, channel, axis=axis), bits=bits, axis=None)
            assert np.array_equal(np.take(whole.codes, channel, axis=axis), part.codes)
            assert whole.scale[channel] == pytest.approx(float(part.scale), rel=1e-5)
            assert whole.offset[channel] == pytest.approx(float(part.offset), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("bits", [1, 2, 5, 8, 12, 16])
@pytest.mark.parametrize("shape", [*SHAPES, (3, 5000), (5000, 3), (40, 4, 65), (150_000, 1)], ids=str)
@pytest.mark.parametrize("correct", [False, True], ids=["plain", "corrected"])
def test_rows_and_columns_agree_wherever_the_channel_axis_lies(
    bits: int, shape: tuple[int, ...], correct: bool, rng: np.random.Generator
) -> None:
    values = rng.normal(0.1, 1.0, shape).astype(np.float32)
    for axis in range(len(shape)):
        here = quantize_weight(values, bits=bits, axis=axis, correct=correct)
        moved = quantize_weight(np.moveaxis(values, axis, 0), bits=bits, axis=0, correct=correct)
        last = quantize_weight(np.moveaxis(values, axis, -1), bits=bits, axis=-1, correct=correct)
        for other, at in ((moved, 0), (last, -1)):
            assert np.array_equal(here.codes, np.moveaxis(other.codes, at, axis))
            np.testing.assert_allclose(here.scale, other.scale, rtol=2e-5)
            np.testing.assert_allclose(here.offset, other.offset, rtol=2e-5, atol=2e-5)


@every_width
def test_the_grid_is_the_one_choose_params_gives(bits: int, rng: np.random.Generator) -> None:
    values = rng.normal(0.1, 1.0, (6, 40)).astype(np.float32)
    quantized = quantize_weight(values, bits=bits, axis=0, correct=False)
    params = choose_params(values.min(axis=1), values.max(axis=1), QuantSpec(bits=bits, axis=0))
    np.testing.assert_array_equal(quantized.step, params.scale)
    np.testing.assert_array_equal(quantized.zero_point, params.zero_point)
    np.testing.assert_array_equal(quantized.scale, params.scale.astype(np.float32))


@every_width
@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 0.1, -3.7e-4, 123.456])
@pytest.mark.parametrize("correct", [False, True], ids=["plain", "corrected"])
def test_a_constant_channel_comes_back_as_that_constant(bits: int, value: float, correct: bool) -> None:
    values = np.full((3, 70), value, np.float32)
    back = dequantize_weight(quantize_weight(values, bits=bits, axis=0, correct=correct))
    np.testing.assert_allclose(back, values, rtol=3e-6)


@every_width
@few
@given(value=finite)
@example(value=0.0)
def test_a_channel_of_one_element_comes_back(bits: int, value: float) -> None:
    assume(value == 0 or abs(value) > 1e-6)
    values = np.array([[value], [-value]], np.float32)
    back = dequantize_weight(quantize_weight(values, bits=bits, axis=0))
    np.testing.assert_allclose(back, values, rtol=3e-6)


@every_width
def test_a_weight_of_zeros_comes_back_as_zeros(bits: int) -> None:
    for correct in (False, True):
        quantized = quantize_weight(np.zeros((3, 20), np.float32), bits=bits, axis=0, correct=correct)
        assert not dequantize_weight(quantized).any()
        assert np.isfinite(quantized.scale).all()


@every_width
def test_a_single_outlier_costs_the_rest_half_a_step_and_nothing_breaks(bits: int) -> None:
    values = np.full(1000, 0.01, np.float32)
    values[500] = 100.0
    for correct in (False, True):
        quantized = quantize_weight(values, bits=bits, axis=None, correct=correct)
        back = dequantize_weight(quantized)
        assert np.isfinite(back).all()
        assert np.abs(back - values).max() <= float(quantized.step) * 0.75


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("axis", [None, 0, 1])
@every_width
def test_weights_that_are_not_finite_are_refused(bits: int, bad: float, axis: int | None) -> None:
    values = np.zeros((5, 90), np.float32)
    values[3, 77] = bad
    with warnings.catch_warnings(action="error"), pytest.raises(ValueError, match="not finite"):
        quantize_weight(values, bits=bits, axis=axis)


@pytest.mark.parametrize("axis", [2, -3])
def test_an_axis_that_does_not_exist_is_refused(axis: int) -> None:
    with pytest.raises(ValueError, match="out of bounds"):
        quantize_weight(np.ones((2, 3), np.float32), bits=8, axis=axis)


def test_the_input_is_not_changed_and_may_be_read_only_or_strided(rng: np.random.Generator) -> None:
    values = rng.normal(size=(12, 10)).astype(np.float32)[::2, ::-1]
    values.flags.writeable = False
    copy = values.copy()
    strided = quantize_weight(values, bits=5, axis=1)
    assert np.array_equal(values, copy)
    assert np.array_equal(strided.codes, quantize_weight(copy, bits=5, axis=1).codes)


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("distance", [3, 10, 100, 1000, 3000])
@pytest.mark.parametrize(("shape", "axis"), [((64, 9), 0), ((9, 64), 1), ((4, 5000), 0), ((5000, 4), 1)], ids=str)
def test_correction_never_makes_a_channel_far_from_zero_worse(
    bits: int, distance: float, shape: tuple[int, ...], axis: int, rng: np.random.Generator
) -> None:
    values = (distance + rng.normal(size=shape)).astype(np.float32)
    plain, corrected = (
        np.linalg.norm(dequantize_weight(quantize_weight(values, bits=bits, axis=axis, correct=correct)) - values)
        for correct in (False, True)
    )
    assert corrected <= 1.001 * plain


@every_width
@pytest.mark.parametrize("size", [1e19, 1e30])
def test_huge_weights_come_back_without_a_warning(bits: int, size: float, rng: np.random.Generator) -> None:
    values = (rng.uniform(-1, 1, (3, 80)) * size).astype(np.float32)
    for axis in (None, 0, 1):
        for correct in (False, True):
            with warnings.catch_warnings(action="error"):
                quantized = quantize_weight(values, bits=bits, axis=axis, correct=correct)
                back = dequantize_weight(quantized)
            assert np.abs(by_channel(back / size - values / size, axis)).max() <= quantized.step.max() / size


def test_more_bits_never_cost_more_error(rng: np.random.Generator) -> None:
    values = rng.normal(size=(8, 500)).astype(np.float32)
    errors = [
        float(np.linalg.norm(dequantize_weight(quantize_weight(values, bits=bits, axis=0)) - values)) for bits in WIDTHS
    ]
    assert errors == sorted(errors, reverse=True)
