"""Range methods against their definitions, written down as plainly as possible."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from ptq_lab.numerics import (
    METHODS,
    NEEDS,
    QuantSpec,
    TensorStatistics,
    choose_params,
    choose_range,
    count_magnitudes,
    count_values,
    dequantize_array,
    kl_threshold,
    quantize_array,
)
from ptq_lab.numerics.kl import divergences
from ptq_lab.numerics.shrink import least_error_range, percentile_range

Floats = NDArray[Any]


def statistics_of(values: Floats, **more: Any) -> TensorStatistics:
    """Everything that can be known about one array."""
    values = values.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    known = {
        "histogram": count_values(values, min(low, 0.0), max(high, 0.0)),
        "absolute": count_magnitudes(values, max(abs(low), abs(high))),
        "round_low": low,
        "round_high": high,
    }
    return TensorStatistics(low=low, high=high, count=values.size, rounds=1, **(known | more))


def real_error(values: Floats, ends: tuple[float, float], power: float = 2.0) -> float:
    """Sum of |error| ** power of what quantization really does, zero point nudged as it is."""
    params = choose_params(*ends, QuantSpec(bits=8, signed=False))
    decoded = dequantize_array(quantize_array(values.astype(np.float32), params), params)
    return float((np.abs(values - decoded) ** power).sum())


# --- KL: the loop as the original runs it, one candidate, one group, one bin at a time


def direct_divergence(counts: NDArray[np.int64], candidate: int, groups: int) -> float:
    filled = counts + 1e-7
    p = filled[:candidate].copy()
    p[-1] += filled[candidate:].sum()
    q = np.zeros(candidate)
    width = candidate / groups
    for group in range(groups):
        start, end = group * width, (group + 1) * width
        shares = [
            (index, min(index + 1, end) - max(index, start))
            for index in range(math.floor(start), min(math.ceil(end), candidate))
        ]
        shares = [(index, share) for index, share in shares if share > 0]
        mass = sum(share * filled[index] for index, share in shares)
        filled_width = sum(share for index, share in shares if filled[index] != 0)
        for index, share in shares:
            q[index] += share * mass / filled_width if filled[index] != 0 else 0.0
    p, q = p / p.sum(), q / q.sum()
    return math.fsum(a * math.log(a / b) if b else 1.0 for a, b in zip(p.tolist(), q.tolist(), strict=True) if a)


def direct_threshold(counts: NDArray[np.int64], limit: float, groups: int) -> float:
    errors = [direct_divergence(counts, candidate, groups) for candidate in range(groups, len(counts))]
    return (groups + errors.index(min(errors)) + 0.5) * (limit / len(counts))


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.int64, 96, elements=st.one_of(st.just(0), st.integers(0, 20), st.integers(0, 10**9))))
def test_the_kl_divergence_of_every_candidate_is_that_of_the_direct_loop(counts: NDArray[np.int64]) -> None:
    wanted = np.array([direct_divergence(counts, candidate, 8) for candidate in range(8, 96)])

    np.testing.assert_allclose(divergences(counts, 8), wanted, rtol=1e-9, atol=1e-11)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 40, 3000]), st.sampled_from(["normal", "laplace", "gamma"]))
def test_the_kl_threshold_is_that_of_the_direct_loop(seed: int, size: int, family: str) -> None:
    random = np.random.default_rng(seed)
    draw = {"normal": random.standard_normal, "laplace": lambda n: random.laplace(size=n)}
    values = np.abs(draw.get(family, lambda n: random.gamma(0.3, size=n))(size)).astype(np.float32)
    counts = count_magnitudes(values, float(values.max()), bins=96)

    assert kl_threshold(counts, 7.0, bits=4) == direct_threshold(counts, 7.0, 8)


@pytest.mark.parametrize("shape", ["relu", "two_sided"])
def test_the_kl_threshold_at_full_size_is_that_of_the_direct_loop(rng: np.random.Generator, shape: str) -> None:
    values = rng.laplace(size=20_000).astype(np.float32)
    values = np.maximum(values, 0) if shape == "relu" else values
    limit = float(np.abs(values).max())
    counts = count_magnitudes(values, limit)
    best = kl_threshold(counts, limit)
    errors = divergences(counts, 128)
    candidates = [128, 500, 2047, *(128 + np.argsort(errors)[:20]).tolist()]  # all that could win, and some that cannot

    direct = [direct_divergence(counts, candidate, 128) for candidate in candidates]

    np.testing.assert_allclose([errors[candidate - 128] for candidate in candidates], direct, rtol=1e-10)
    assert best == (candidates[int(np.argmin(direct))] + 0.5) * limit / 2048
    assert 0.2 < best / limit < 0.9


def test_kl_takes_the_first_of_its_candidates_when_all_values_are_equally_large() -> None:
    counts = np.zeros(2048, np.int64)
    counts[-1] = 50

    assert kl_threshold(counts, 2.0) == 128.5 * 2.0 / 2048


def test_kl_of_nothing_but_zeros_is_the_whole_range() -> None:
    assert kl_threshold(count_magnitudes(np.zeros(10, np.float32), 0.0), 0.0) == 0.0


def test_kl_gives_a_range_from_zero_only_to_tensors_that_are_never_negative(rng: np.random.Generator) -> None:
    seen = statistics_of(np.maximum(rng.laplace(size=5000), 0))
    threshold = kl_threshold(seen.absolute, seen.limit)  # type: ignore[arg-type]

    assert choose_range(seen, "KL", never_negative=True) == (0.0, threshold)
    assert choose_range(seen, "KL", never_negative=False) == (-threshold, threshold)


# --- MSE, L2_4


@pytest.mark.parametrize(("method", "power"), [("MSE", 2.0), ("L2_4", 2.4)])
@pytest.mark.parametrize("kind", ["student", "lopsided", "lopsided_down", "relu", "tight"])
def test_least_error_ranges_come_close_to_the_best_that_trying_them_all_finds(
    rng: np.random.Generator, method: str, power: float, kind: str
) -> None:
    tails = rng.standard_t(3, size=40_000)
    values: Floats = {
        "student": tails,
        "lopsided": np.where(tails < 0, tails * 0.02, tails),
        "lopsided_down": np.where(tails > 0, tails * 0.02, tails),
        "relu": np.maximum(tails, 0),
        "tight": rng.uniform(-1, 2, 40_000),
    }[kind].astype(np.float32)
    low, high = float(values.min()), float(values.max())
    factors = np.linspace(0.02, 1.0, 50)
    trials = [(low * a, high * b) for a in (factors if low < 0 else [1.0]) for b in factors]
    best = min(real_error(values, ends, power) for ends in trials[:: max(1, len(trials) // 500)])

    chosen = choose_range(statistics_of(values), method, never_negative=kind == "relu")

    assert real_error(values, chosen, power) <= 1.1 * best
    assert real_error(values, chosen, power) <= 1.001 * real_error(values, (low, high), power)


def test_one_far_value_is_clipped_by_mse_later_by_l2_4_and_never_by_max_min(rng: np.random.Generator) -> None:
    seen = statistics_of(np.append(rng.uniform(0, 1, 300_000), 6.0))
    highs = {method: choose_range(seen, method, never_negative=True)[1] for method in ("MSE", "L2_4", "MAX_MIN")}

    assert highs["MSE"] < highs["L2_4"] < highs["MAX_MIN"] == 6.0


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_only_the_end_with_the_outlier_is_pulled_in(rng: np.random.Generator, side: float) -> None:
    seen = statistics_of(side * np.append(rng.uniform(-1, 0, 300_000), 4.0))
    low, high = choose_range(seen, "MSE", never_negative=False)
    near, far = (high, low) if side < 0 else (low, high)

    assert near == pytest.approx(-side, rel=1e-3)
    assert 2 < side * far < 3  # (4 - x)**2 + 300,000 * ((1 + x) / 255)**2 / 12 is least at 2.6


def test_a_uniform_tensor_keeps_its_range(rng: np.random.Generator) -> None:
    seen = statistics_of(rng.uniform(-1, 1, 100_000))

    assert choose_range(seen, "MSE", never_negative=False) == (seen.low, seen.high)


def test_nothing_but_zeros_has_an_empty_range_with_every_method() -> None:
    seen = statistics_of(np.zeros(100))

    assert {choose_range(seen, method, never_negative=False) for method in METHODS} == {(0.0, 0.0)}


# --- PERCENTILE


@given(
    hnp.arrays(np.float32, st.integers(1, 400), elements=st.floats(-100, 100, width=32)),
    st.sampled_from([0.5, 0.9, 0.99, 1.0]),
)
def test_a_percentile_range_leaves_out_no_more_than_it_may_on_either_side(values: Floats, fraction: float) -> None:
    histogram = count_values(values, min(float(values.min()), 0.0), max(float(values.max()), 0.0), bins=64)

    low, high = percentile_range(histogram, fraction)

    slack = 1e-5 * max(1.0, abs(low), abs(high))  # positions in bins are float32
    allowed = (1 - fraction) * values.size
    assert np.count_nonzero(values > high + slack) <= allowed
    assert np.count_nonzero(values < low - slack) <= allowed
    assert histogram.low <= low <= 0 <= high <= histogram.high


def test_percentile_cuts_one_value_in_a_hundred_thousand(rng: np.random.Generator) -> None:
    values = np.append(rng.uniform(0, 1, 400_000), [50.0, 60.0, 70.0])
    low, high = choose_range(statistics_of(values), "PERCENTILE", never_negative=True)

    assert low == 0.0
    assert 1.0 <= high < 1.0 + 70 / 4096 + 1e-6


# --- choosing


def test_removal_outlier_is_the_mean_over_rounds() -> None:
    seen = TensorStatistics(low=-9.0, high=9.0, count=2, rounds=2, round_low=-1.0, round_high=2.0)

    assert choose_range(seen, "REMOVAL_OUTLIER", never_negative=False) == (-1.0, 2.0)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_never_negative_starts_at_exactly_zero(rng: np.random.Generator, method: str) -> None:
    low, high = choose_range(statistics_of(rng.uniform(0.5, 6, 30_000)), method, never_negative=True)

    assert low == 0.0
    assert 0 < high <= 6


@pytest.mark.parametrize("method", METHODS)
def test_every_range_lies_within_what_was_seen_and_zero(rng: np.random.Generator, method: str) -> None:
    seen = statistics_of(rng.laplace(size=30_000))
    low, high = choose_range(seen, method, never_negative=False)

    assert -seen.limit <= low < 0 < high <= seen.limit


@pytest.mark.parametrize("method", [method for method, need in NEEDS.items() if need])
def test_a_method_without_its_statistics_says_how_to_collect_them(method: str) -> None:
    with pytest.raises(ValueError, match=rf"{method} needs {NEEDS[method]}.*methods=\['{method}'\]"):
        choose_range(TensorStatistics(low=0, high=1, count=1, rounds=1), method, never_negative=True)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"method": "MEAN"}, "there is no 'MEAN'; allowed: MAX_MIN, KL"),
        ({"bits": 9}, "bits: 9 is outside 2..8"),
        ({"never_negative": True}, "was seen to hold -1"),
    ],
)
def test_what_cannot_be_chosen_is_refused_with_the_reason(how: dict[str, Any], said: str) -> None:
    seen = TensorStatistics(low=-1, high=1, count=1, rounds=1)

    with pytest.raises(ValueError, match=said):
        choose_range(seen, **({"method": "MAX_MIN", "never_negative": False} | how))


def test_methods_and_their_needs_are_the_same_table() -> None:
    assert list(METHODS) == list(NEEDS)
    assert set(NEEDS.values()) - {""} <= set(TensorStatistics.__slots__)


def test_fewer_bits_clip_more(rng: np.random.Generator) -> None:
    histogram = statistics_of(rng.laplace(size=50_000)).histogram
    assert histogram is not None

    highs = [least_error_range(histogram, bits=bits)[1] for bits in (8, 6, 4)]

    assert highs[0] > highs[1] > highs[2]
