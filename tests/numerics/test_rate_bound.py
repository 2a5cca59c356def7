"""Shannon's lower bound: known for known densities, below every code that is made, and indifferent to units."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptq_lab.numerics import find_step, quantize_step, quantize_weight, weight_error
from ptq_lab.numerics.entropy import code_entropy
from ptq_lab.numerics.rate import differential_entropy, rate_bound

DENSITIES = {  # drawn values, and the entropy of their density in bits
    "normal": (lambda rng, n: rng.normal(size=n), 0.5 * math.log2(2 * math.pi * math.e)),
    "laplace": (lambda rng, n: rng.laplace(size=n), math.log2(2 * math.e)),
    "uniform": (lambda rng, n: rng.uniform(size=n), 0.0),
}
SPACE_FILLING = 0.5 * math.log2(2 * math.pi * math.e / 12)


@pytest.mark.parametrize("name", DENSITIES)
def test_the_entropy_of_a_known_density_is_found(name: str) -> None:
    draw, true = DENSITIES[name]
    values = draw(np.random.default_rng(1), 65_536).astype(np.float32)
    assert abs(true - differential_entropy(values)) < 0.02


@pytest.mark.parametrize("name", DENSITIES)
@pytest.mark.parametrize("error", [0.003, 0.03])
def test_fine_steps_stay_a_quarter_of_a_bit_above_the_bound(name: str, error: float) -> None:
    values = DENSITIES[name][0](np.random.default_rng(2), 60_000).astype(np.float32)
    values -= values.mean()
    weight = quantize_step(values, find_step(values, error).step)
    bound = rate_bound(values, weight, weight_error(values, weight))
    assert bound is not None
    slack = 0.05 if name == "uniform" else 0.03  # the outermost codes of a uniform density are half empty
    assert abs(code_entropy(weight.codes) - bound - SPACE_FILLING) < slack


def test_normal_weights_have_the_textbook_rate() -> None:
    values = np.random.default_rng(3).normal(0.0, 0.02, 60_000).astype(np.float32)
    weight = quantize_step(values, 0.02)
    error = weight_error(values, weight)
    bound = rate_bound(values, weight, error)
    assert bound is not None
    assert abs(bound - math.log2(1 / error)) < 0.02  # half the logarithm of variance over mean squared error


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    bits=st.integers(1, 8),
    spread=st.floats(0.0, 3.0),
    axis=st.sampled_from([None, 0, 1]),
    heavy=st.booleans(),
)
def test_no_codes_have_less_entropy_than_the_bound_at_their_error(
    seed: int, bits: int, spread: float, axis: int | None, heavy: bool
) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.laplace if heavy else rng.normal)(size=(24, 400))
    values = (values * np.exp(rng.normal(0.0, spread, (24, 1)))).astype(np.float32)
    weight = quantize_weight(values, bits=bits, axis=axis)
    bound = rate_bound(values, weight, weight_error(values, weight))
    assert bound is not None
    assert bound <= code_entropy(weight.codes) + 0.02


def test_other_units_change_nothing() -> None:
    values = np.random.default_rng(4).normal(size=(30, 300)).astype(np.float32)
    bounds = []
    for unit in (1.0, 1024.0):
        weight = quantize_weight(values * np.float32(unit), bits=4, axis=0)
        bounds.append(rate_bound(values * np.float32(unit), weight, weight_error(values * np.float32(unit), weight)))
    assert bounds[0] == pytest.approx(bounds[1], abs=1e-4)


def test_weights_without_loss_or_without_a_density_have_no_bound_or_none_to_speak_of() -> None:
    whole = np.arange(-8, 8, dtype=np.float32).repeat(4000)
    exact = quantize_step(whole, 1.0)
    assert rate_bound(whole, exact, 0.0) is None
    assert rate_bound(whole, exact, 0.1) == 0.0  # sixteen values, and no density
