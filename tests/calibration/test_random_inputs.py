"""Seeded random inputs: the original's stream, the same on every run."""

from __future__ import annotations

import numpy as np
import pytest

from ptq_lab.calibration import random_samples
from ptq_lab.errors import SampleError
from ptq_lab.graph.tensors import TensorSpec


def spec(*shape: int | str, dtype: str = "float32", name: str = "x") -> TensorSpec:
    return TensorSpec(name=name, dtype=np.dtype(dtype), shape=shape)


def test_floats_follow_the_stream_of_the_original() -> None:
    first = next(iter(random_samples([spec("n", 5)])))["x"]

    np.testing.assert_allclose(first[0], [0.83325, 0.22193, 0.91521, 0.85151, 0.21429], atol=5e-6)


def test_the_stream_goes_on_from_sample_to_sample_and_starts_anew_in_every_pass() -> None:
    samples = random_samples([spec("n", 5)], count=3)
    longer = next(iter(random_samples([spec("n", 15)])))["x"]

    for _ in range(2):
        np.testing.assert_array_equal(np.concatenate([s["x"] for s in samples], axis=1), longer)
    np.testing.assert_array_equal(next(iter(samples.part(1, 2)))["x"], longer[:, 5:10])


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [("int64", 0, 1), ("int32", 0, 1), ("bool", 0, 1), ("int8", -127, 127), ("uint8", 0, 254)],
)
def test_integers_fill_their_range_and_do_not_leave_it(dtype: str, low: int, high: int) -> None:
    values = next(iter(random_samples([spec("n", 20_000, dtype=dtype)], count=1)))["x"]

    assert values.dtype == np.dtype(dtype)
    assert (int(values.min()), int(values.max())) == (low, high)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floats_stay_inside_their_half_open_range(dtype: str) -> None:
    values = next(iter(random_samples([spec("n", 20_000, dtype=dtype)], count=1)))["x"]

    assert values.dtype == np.dtype(dtype)
    assert 0.1 <= values.min() < 0.101
    assert 0.999 < values.max() < 1


def test_dynamic_axes_get_the_documented_sizes_and_a_name_means_one_size() -> None:
    inputs = [
        spec("batch", 3, "height", "?", name="image"),
        spec("batch", "length", name="ids"),
        spec("?", "length", 4, "length", name="mask"),
        spec(2, "batch", name="late"),
    ]

    sample = next(iter(random_samples(inputs)))

    assert {name: array.shape for name, array in sample.items()} == {
        "image": (1, 3, 32, 32),
        "ids": (1, 8),
        "mask": (1, 8, 4, 8),
        "late": (2, 1),
    }


def test_the_input_shape_decides_also_for_other_inputs_with_the_same_axis() -> None:
    inputs = [spec("batch", "length", name="ids"), spec("batch", "length", name="mask")]

    sample = next(iter(random_samples(inputs, input_shape={"ids": [1, 5]})))

    assert sample["mask"].shape == (1, 5)
    with pytest.raises(SampleError, match="contradicts the model"):
        random_samples(inputs, input_shape={"ids": [5]})


def test_the_origin_and_the_fingerprint_tell_random_inputs_apart() -> None:
    samples = random_samples([spec("n", 2)])

    assert samples.origin == "8 seeded random inputs"
    assert samples.fingerprint() == random_samples([spec("n", 2)]).fingerprint()
    assert samples.fingerprint() != random_samples([spec("n", 3)]).fingerprint()
