"""`preprocess_order=resize_first` and `antialias=true`: what torchvision's users expect."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ptq_lab.calibration.preprocess import Preprocessing, preprocess_image

NORMALISED = {
    "image_to_format": "RGB",
    "normalize_mean": (123.675, 116.28, 103.53),
    "normalize_std": (58.395, 57.12, 57.375),
    "resize_width": 20,
    "resize_height": 24,
    "resize_method": "LINEAR",
    "center_crop_width": 16,
    "center_crop_height": 16,
}


def picture(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (64, 48, 3), dtype=np.uint8)


def test_a_linear_resize_commutes_with_the_normalisation() -> None:
    rgb = picture(np.random.default_rng(0))
    original = preprocess_image(rgb, Preprocessing(**NORMALISED))
    first = preprocess_image(rgb, Preprocessing(**NORMALISED, resize_first=True))
    np.testing.assert_allclose(first, original, atol=1e-5)


def test_antialiasing_equals_pillow_up_to_its_rounding() -> None:
    rgb = picture(np.random.default_rng(1))
    options = {key: value for key, value in NORMALISED.items() if not key.startswith("normalize")}
    for method, pillow in (("LINEAR", Image.Resampling.BILINEAR), ("CUBIC", Image.Resampling.BICUBIC)):
        ours = preprocess_image(rgb, Preprocessing(**{**options, "resize_method": method}, antialias=True))
        theirs = np.asarray(Image.fromarray(rgb).resize((20, 24), pillow), np.float32)[4:20, 2:18]
        assert np.abs(np.clip(ours, 0, 255) - theirs).max() <= 1.01  # Pillow rounds to 8 bits after each axis


def test_antialiasing_changes_a_shrinking_resize_and_nothing_else() -> None:
    rgb = picture(np.random.default_rng(2))
    plain = preprocess_image(rgb, Preprocessing(**NORMALISED))
    filtered = preprocess_image(rgb, Preprocessing(**NORMALISED, antialias=True))
    assert plain.shape == filtered.shape
    assert filtered.std() < 0.5 * plain.std()
