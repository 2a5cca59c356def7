"""Resizing, against golden values made with opencv-python-headless 4.14 and 5.0 (both give the same)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq_lab.calibration.resize import METHODS, resize

IMAGE = np.array([[0, 10, 20, 40], [30, 5, 60, 80], [100, 90, 70, -50]], np.float32)[..., None]

GOLDEN: dict[
    tuple[str, int, int], list[list[float]]
] = {  # (method, width, height): cv2.resize(IMAGE, (width, height), interpolation=cv2.INTER_<method>)
    ("NEAREST", 7, 5): [
        [0, 0, 10, 10, 20, 20, 40],
        [0, 0, 10, 10, 20, 20, 40],
        [30, 30, 5, 5, 60, 60, 80],
        [30, 30, 5, 5, 60, 60, 80],
        [100, 100, 90, 90, 70, 70, -50],
    ],
    ("NEAREST", 3, 2): [[0, 10, 20], [30, 5, 60]],
    ("LINEAR", 7, 5): [
        [0, 3.5714, 9.2857, 15, 21.4286, 32.8571, 40],
        [12, 10.5714, 8.2857, 22, 37.4286, 48.8571, 56],
        [30, 21.0714, 6.7857, 32.5, 61.4286, 72.8571, 80],
        [72, 66.2857, 57.1429, 61, 61.4286, 24.8571, 2],
        [100, 96.4286, 90.7143, 80, 61.4286, -7.1429, -50],
    ],
    ("LINEAR", 3, 2): [[7.7083, 19.375, 46.6667], [80.2083, 68.125, -3.3333]],
    ("CUBIC", 7, 5): [
        [-4.2055, 1.3230, 9.4532, 12.6975, 17.5667, 29.6944, 38.1443],
        [7.0624, 2.9913, 0.6888, 15.1131, 38.0389, 56.6513, 67.8644],
        [32.4804, 18.0990, 3.8898, 28.2812, 63.6849, 76.5675, 81.9843],
        [76.8196, 67.9919, 57.1394, 67.2681, 65.8121, 26.4589, -3.1966],
        [107.5693, 105.4760, 99.9062, 96.2675, 62.0687, -18.6839, -75.7194],
    ],
    ("CUBIC", 3, 2): [[4.1610, 15.1032, 50.4525], [83.1206, 76.7584, -6.4954]],
}


@pytest.mark.parametrize("case", GOLDEN, ids=str)
def test_every_method_gives_the_values_of_opencv_up_and_down(case: tuple[str, int, int]) -> None:
    method, width, height = case

    result = resize(IMAGE, width, height, method)

    np.testing.assert_allclose(result[..., 0], GOLDEN[case], atol=2e-4)


def test_nearest_rounds_as_opencv_where_the_exact_ratio_is_whole() -> None:
    # 6 -> 34 pixels: x = 17 lies at exactly 3.0, and OpenCV's double reciprocal falls just short of it.
    row = np.arange(6, dtype=np.float32).reshape(1, 6, 1)

    assert resize(row, 34, 1, "NEAREST")[0, 17, 0] == 2.0


sizes = st.integers(1, 12)


@given(method=st.sampled_from(sorted(METHODS)), old=st.tuples(sizes, sizes), new=st.tuples(sizes, sizes))
def test_a_flat_image_stays_flat_whatever_the_sizes(method: str, old: tuple[int, int], new: tuple[int, int]) -> None:
    image = np.full((*old, 3), 37.5, np.float32)

    result = resize(image, new[1], new[0], method)

    assert result.shape == (*new, 3)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, 37.5, rtol=1e-5)


@given(method=st.sampled_from(sorted(METHODS)), size=st.tuples(sizes, sizes), seed=st.integers(0, 99))
def test_a_resize_to_the_same_size_changes_nothing(method: str, size: tuple[int, int], seed: int) -> None:
    image = np.random.default_rng(seed).normal(size=(*size, 2)).astype(np.float32)

    np.testing.assert_allclose(resize(image, size[1], size[0], method), image, atol=1e-6)


@given(method=st.sampled_from(["LINEAR", "CUBIC"]), seed=st.integers(0, 99))
def test_normalising_before_or_after_the_resize_is_the_same(method: str, seed: int) -> None:
    image = np.random.default_rng(seed).uniform(0, 255, size=(5, 6, 3)).astype(np.float32)

    before = resize((image - 127.5) / 50, 9, 4, method)
    after = (resize(image, 9, 4, method) - 127.5) / 50

    np.testing.assert_allclose(before, after, atol=1e-4)
