"""Arrays that a model takes or makes as pictures."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ptq_lab.calibration.preview import picture_of

SIDE = 256
"""Pixels that are shown each way, from the middle; scaling would hide what is to be seen."""


def as_pixels(array: NDArray[Any], ends: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    """Return the first picture of a batch, its middle where it is large.

    Parameters
    ----------
    array : ndarray, shape (n, channels, height, width) or (n, height, width, channels)
    ends : (float, float), optional
        The values of black and white; otherwise 0 and 1 if all values lie there, or the smallest and the largest.

    Returns
    -------
    ndarray of uint8, shape (height, width, channels)

    Raises
    ------
    ValueError
        If it is no picture.

    Examples
    --------
    >>> as_pixels(np.full((1, 1, 4, 300), 0.5)).shape
    (4, 256, 1)
    """
    image = picture_of(array)
    if image is None:
        raise ValueError(f"an array of shape {array.shape} is no picture")
    top, left = (max(0, (size - SIDE) // 2) for size in image.shape[:2])
    shown = image[top : top + SIDE, left : left + SIDE].astype(np.float64)
    low, high = ends or _ends(shown)
    return np.asarray(np.clip(np.rint((shown - low) * (255.0 / ((high - low) or 1.0))), 0, 255), np.uint8)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return pixels as a PNG file.

    Examples
    --------
    >>> encode_png(np.zeros((4, 4, 3), np.uint8))[1:4]
    b'PNG'
    """
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def _ends(image: NDArray[np.float64]) -> tuple[float, float]:
    low, high = float(image.min()), float(image.max())
    return (0.0, 1.0) if low >= 0.0 and high <= 1.0 else (low, high)
