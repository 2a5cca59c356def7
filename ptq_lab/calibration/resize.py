"""Change an image's size as OpenCV does on float data: pixel centres, no antialiasing, replicated border.

A resize is the same small weighted sum along each axis, so a method is only a rule that answers two
questions for every output pixel: which source pixels (``indices``) and how much of each (``weights``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Taps = tuple[NDArray[np.intp], NDArray[np.float32]]

CUBIC_SHARPNESS = -0.75
"""The free parameter ``a`` of the cubic kernel; OpenCV's choice (Pillow and others take -0.5)."""


def resize(image: Floats, width: int, height: int, method: str) -> NDArray[np.float32]:
    """Return ``image`` at exactly ``width`` x ``height`` pixels; the aspect ratio is not kept.

    Parameters
    ----------
    image : ndarray, shape (rows, columns, channels)
        Float values in any unit; they may leave the range of the input by cubic overshoot.
    width, height : int
        The new numbers of columns and rows, in pixels.
    method : {"NEAREST", "LINEAR", "CUBIC"}
        NEAREST takes source pixel ``floor(x * old / new)``; the others work between pixel centres,
        ``(x + 0.5) * old / new - 0.5``.

    Returns
    -------
    ndarray of float32, shape (height, width, channels)

    Raises
    ------
    KeyError
        The method is none of the three.

    Notes
    -----
    Source: the resize step of MindSpore Lite's ``[data_preprocess_param]``, which calls ``cv::resize``.
    Shrinking by a large factor skips pixels (there is no low-pass filter), in the original as here.

    Examples
    --------
    >>> row = np.array([[[0.0], [10.0]]])  # 1 x 2 pixels
    >>> resize(row, 4, 1, "LINEAR")[0, :, 0].tolist()
    [0.0, 2.5, 7.5, 10.0]
    >>> resize(row, 4, 1, "NEAREST")[0, :, 0].tolist()
    [0.0, 0.0, 10.0, 10.0]
    """
    taps = METHODS[method]
    rows = _along_rows(image.astype(np.float32), taps(image.shape[0], height))
    return _along_rows(rows.swapaxes(0, 1), taps(image.shape[1], width)).swapaxes(0, 1)


def _along_rows(image: NDArray[np.float32], taps: Taps) -> NDArray[np.float32]:
    indices, weights = taps  # (new rows, taps) each
    result = np.zeros((indices.shape[0], *image.shape[1:]), np.float32)
    for tap in range(indices.shape[1]):
        result += image[indices[:, tap]] * weights[:, tap, None, None]
    return result


def _nearest(old: int, new: int) -> Taps:
    # Twice a reciprocal, because OpenCV rounds like this: at some ratios the floor depends on it.
    indices = np.floor(np.arange(new) * (1 / (new / old))).astype(np.intp)
    return _inside(indices, (0,), old), np.ones((new, 1), np.float32)


def _linear(old: int, new: int) -> Taps:
    start, offset = _centres(old, new)
    return _inside(start, (0, 1), old), np.stack([1 - offset, offset], axis=1).astype(np.float32)


def _cubic(old: int, new: int) -> Taps:
    start, offset = _centres(old, new)
    distances = [offset + 1, offset, 1 - offset, 2 - offset]
    weights = np.stack([_cubic_kernel(distance) for distance in distances], axis=1)
    return _inside(start, (-1, 0, 1, 2), old), weights.astype(np.float32)


def _cubic_kernel(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' piecewise cubic (1981) at a distance of 0..2 pixels."""
    a = CUBIC_SHARPNESS
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, far)


def _centres(old: int, new: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Where each new pixel's centre falls in the source: whole pixels, and the rest in [0, 1)."""
    position = (np.arange(new) + 0.5) * (old / new) - 0.5
    start = np.floor(position)
    return start.astype(np.intp), position - start


def _inside(start: NDArray[np.intp], steps: tuple[int, ...], old: int) -> NDArray[np.intp]:
    # The border pixel repeats outwards.
    return np.clip(start[:, None] + np.array(steps, np.intp), 0, old - 1).astype(np.intp)


METHODS: dict[str, Callable[[int, int], Taps]] = {"NEAREST": _nearest, "LINEAR": _linear, "CUBIC": _cubic}
