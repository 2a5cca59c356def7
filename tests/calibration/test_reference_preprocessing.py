"""Preprocessing equals a reference written pixel by pixel from the original's description, on real photographs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ptq_lab import demo
from ptq_lab.calibration import open_samples
from ptq_lab.calibration.preprocess import Preprocessing
from ptq_lab.graph.tensors import TensorSpec

MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def photographs() -> list[np.ndarray]:
    """Return three patches of the embedded photographs, 8-bit RGB."""
    patches = np.load(demo.load("photo_denoiser").eval_path)["target"][:3]
    return [np.rint(patch * 255).astype(np.uint8).transpose(1, 2, 0) for patch in patches]


def taps(position: float, method: str) -> list[tuple[int, float]]:
    """Return source index and weight of every pixel that one output position reads along one axis."""
    first = math.floor(position)
    beyond = position - first
    if method == "LINEAR":
        return [(first, 1 - beyond), (first + 1, beyond)]
    sharpness = -0.75
    weights = []
    for offset in (-1, 0, 1, 2):
        x = abs(beyond - offset)
        if x <= 1:
            weight = (sharpness + 2) * x**3 - (sharpness + 3) * x**2 + 1
        else:
            weight = sharpness * x**3 - 5 * sharpness * x**2 + 8 * sharpness * x - 4 * sharpness
        weights.append((first + offset, weight))
    return weights


def along(new: int, old: int, method: str) -> list[list[tuple[int, float]]]:
    if method == "NEAREST":
        return [[(min(math.floor(x * (1 / (new / old))), old - 1), 1.0)] for x in range(new)]
    rows = [taps((x + 0.5) * old / new - 0.5, method) for x in range(new)]
    return [[(min(max(index, 0), old - 1), weight) for index, weight in row] for row in rows]


def reference(rgb: np.ndarray, order: str, method: str, size: tuple[int, int], crop: tuple[int, int]) -> np.ndarray:
    """Colour, normalise, resize, crop: in this order, in double precision, one pixel at a time."""
    image = rgb.astype(np.float64)
    if order == "BGR":
        image = image[..., ::-1]
    image = (image - np.array(MEAN)) / np.array(DEVIATION)
    width, height = size
    rows, columns = along(height, image.shape[0], method), along(width, image.shape[1], method)
    resized = np.zeros((height, width, 3))
    for y, row in enumerate(rows):
        for x, column in enumerate(columns):
            for source_y, weight_y in row:
                for source_x, weight_x in column:
                    resized[y, x] += weight_y * weight_x * image[source_y, source_x]
    top, left = (height - crop[1]) // 2, (width - crop[0]) // 2
    return resized[top : top + crop[1], left : left + crop[0]]


@pytest.mark.parametrize("method", ["LINEAR", "CUBIC", "NEAREST"])
@pytest.mark.parametrize(("size", "crop"), [((40, 33), (31, 32)), ((90, 71), (64, 64))], ids=["smaller", "larger"])
def test_images_come_out_as_the_reference_says(
    tmp_path: Path, method: str, size: tuple[int, int], crop: tuple[int, int]
) -> None:
    order = "RGB" if method != "CUBIC" else "BGR"
    for index, rgb in enumerate(photographs()):
        Image.fromarray(rgb).save(tmp_path / f"{index}.png")
    options = Preprocessing(
        image_to_format=order,
        normalize_mean=MEAN,
        normalize_std=DEVIATION,
        resize_width=size[0],
        resize_height=size[1],
        resize_method=method,
        center_crop_width=crop[0],
        center_crop_height=crop[1],
    )
    spec = TensorSpec(name="image", dtype=np.dtype("float32"), shape=(1, 3, crop[1], crop[0]))
    samples = open_samples(tmp_path, [spec], preprocess=options)
    for sample, rgb in zip(samples, photographs(), strict=True):
        wanted = reference(rgb, order, method, size, crop).transpose(2, 0, 1)
        np.testing.assert_allclose(sample["image"][0], wanted, atol=1e-4)
