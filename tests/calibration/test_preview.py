"""The picture of a sample: which inputs are pictures, what it shows, and what is said about its values."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ptq_lab.calibration import open_samples
from ptq_lab.calibration.preview import SIDE, preview_sample
from ptq_lab.graph.tensors import TensorSpec


def preview(array: NDArray[Any]) -> Any:
    spec = TensorSpec(name="x", dtype=array.dtype, shape=array.shape)
    return preview_sample(open_samples([{"x": array}], [spec]))


def drawn(found: Any) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(found.png)))


def ramp(*shape: int, low: float = 0.0, high: float = 1.0) -> NDArray[np.float32]:
    return np.linspace(low, high, int(np.prod(shape)), dtype=np.float32).reshape(shape)


@pytest.mark.parametrize("shape", [(1, 3, 8, 16), (1, 8, 16, 3), (2, 1, 8, 16)], ids=str)
def test_pictures_of_either_layout_are_drawn_with_their_proportions(shape: tuple[int, ...]) -> None:
    picture = drawn(preview(ramp(*shape)))
    assert picture.shape[:2] == (SIDE // 2, SIDE)
    assert (picture.min(), picture.max()) == (0, 255)


def test_channels_are_shown_in_the_order_in_which_they_are_fed() -> None:
    array = np.zeros((1, 3, 8, 8), np.float32)
    array[0, 2, :4] = 1.0
    picture = drawn(preview(array))
    assert picture[0, 0].tolist() == [0, 0, 255]
    assert picture[-1, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("shape", [(1, 10), (1, 3, 2, 2), (1, 16, 8, 8), (3, 8, 8)], ids=str)
def test_what_is_no_picture_is_not_drawn(shape: tuple[int, ...]) -> None:
    assert preview(ramp(*shape)) is None


def test_numbers_of_words_are_no_picture() -> None:
    assert preview(np.ones((1, 3, 8, 8), np.int64)) is None


def test_range_and_mean_are_those_of_the_values() -> None:
    found = preview(ramp(1, 3, 8, 8, low=-2.0, high=1.0))
    assert (found.input, found.shape, found.low, found.high) == ("x", (1, 3, 8, 8), -2.0, 1.0)
    assert found.mean == pytest.approx(-0.5)
    assert found.warnings == ()


def test_values_that_nobody_normalised_are_warned_about() -> None:
    (warning,) = preview(ramp(1, 3, 8, 8, high=255.0)).warnings
    assert "0 to 255" in warning
    assert "normalises" in warning
    assert preview(ramp(1, 3, 8, 8, low=-120.0, high=130.0)).warnings == ()
    assert preview(np.full((1, 3, 8, 8), 200, np.uint8)).warnings == ()  # bytes are meant to be like this


def test_a_constant_picture_is_drawn_and_warned_about() -> None:
    found = preview(np.full((1, 3, 8, 8), 0.5, np.float32))
    assert drawn(found).max() == 0
    assert found.warnings == ("x: every value of the first sample is 0.5",)


def test_the_same_sample_gives_the_same_bytes_and_a_large_one_stays_small() -> None:
    noise = np.random.default_rng(0).random((1, 3, 300, 400)).astype(np.float32)
    assert preview(noise).png == preview(noise).png
    assert len(preview(noise).png) < 60_000
