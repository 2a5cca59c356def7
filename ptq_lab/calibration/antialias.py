"""Resizing with a low-pass filter, as Pillow does it: what torchvision's users expect."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_FILTERS = {
    "NEAREST": Image.Resampling.NEAREST,
    "LINEAR": Image.Resampling.BILINEAR,
    "CUBIC": Image.Resampling.BICUBIC,
}


def resize_antialiased(image: NDArray[np.float32], width: int, height: int, method: str) -> NDArray[np.float32]:
    """Return an image at exactly ``width`` x ``height`` pixels; every source pixel counts when it shrinks.

    Parameters
    ----------
    image : ndarray of float32, shape (rows, columns, channels)
    width, height : int
    method : {"NEAREST", "LINEAR", "CUBIC"}

    Notes
    -----
    Pillow's filters on float values: unlike torchvision on 8-bit pictures, nothing is rounded in between.

    Examples
    --------
    >>> stripes = np.tile(np.array([0.0, 8.0], np.float32), 4).reshape(1, 8, 1)
    >>> resize_antialiased(stripes, 1, 1, "LINEAR").round().tolist()
    [[[4.0]]]
    """
    planes = [
        np.asarray(Image.fromarray(plane, mode="F").resize((width, height), _FILTERS[method]), np.float32)
        for plane in np.ascontiguousarray(np.moveaxis(image, -1, 0))
    ]
    return np.stack(planes, axis=-1)
