"""The handwritten digits of scikit-learn: one split for both classifiers, and the two ways to feed them.

1797 pictures of 8x8 pixels with levels 0..16. A fixed shuffle gives 1300 for training and 497 for evaluation;
the calibration samples are the first 150 of the training part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional

TRAIN_SAMPLES = 1300
CALIBRATION_SAMPLES = 150
LEVELS = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """Levels, int64 of shape (samples, 8, 8), and classes, int64 of shape (samples,)."""

    levels: NDArray[np.int64]
    labels: NDArray[np.int64]

    def part(self, which: slice) -> Digits:
        """Select samples."""
        return Digits(levels=self.levels[which], labels=self.labels[which])


def load_split(seed: int = 20) -> tuple[Digits, Digits]:
    """Return the training part and the evaluation part."""
    source = load_digits()
    order = np.random.default_rng(seed).permutation(len(source.target))
    everything = Digits(levels=source.images.astype(np.int64)[order], labels=source.target.astype(np.int64)[order])
    return everything.part(slice(0, TRAIN_SAMPLES)), everything.part(slice(TRAIN_SAMPLES, None))


def as_images(levels: NDArray[np.int64]) -> NDArray[np.float32]:
    """Double the picture bilinearly and scale it to 0..1: float32 of shape (samples, 1, 16, 16).

    Every value is a multiple of 1/256, so float32 holds it exactly.
    """
    picture = levels.astype(np.float32) / 16
    for axis in (1, 2):
        picture = _double(picture, axis)
    return picture[:, None]


def _double(picture: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    last = picture.shape[axis] - 1
    before = picture.take(np.maximum(np.arange(last + 1) - 1, 0), axis)
    after = picture.take(np.minimum(np.arange(last + 1) + 1, last), axis)
    pairs = np.stack([0.75 * picture + 0.25 * before, 0.75 * picture + 0.25 * after], axis + 1)
    shape = [*picture.shape]
    shape[axis] *= 2
    return pairs.reshape(shape).astype(np.float32)


def as_tokens(levels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Read two neighbouring pixels of a row as one of 289 words: int64 of shape (samples, 32)."""
    pairs = levels.reshape(len(levels), 32, 2)
    return np.ascontiguousarray(pairs[:, :, 0] * LEVELS + pairs[:, :, 1])


def jitter(pictures: Tensor, generator: torch.Generator, *, degrees: float, zoom: float, shift: float) -> Tensor:
    """Turn, zoom and shift each picture of shape (samples, 1, H, W) at random; ``shift`` in pixels."""
    count, _, _, width = pictures.shape
    turn, stretch_x, stretch_y, move_x, move_y = torch.rand(5, count, generator=generator) * 2 - 1
    angle = turn * degrees * torch.pi / 180
    step = shift * 2 / width
    first = torch.stack([angle.cos() * (1 + zoom * stretch_x), -angle.sin(), move_x * step], dim=1)
    second = torch.stack([angle.sin(), angle.cos() * (1 + zoom * stretch_y), move_y * step], dim=1)
    grid = functional.affine_grid(torch.stack([first, second], dim=1), list(pictures.shape), align_corners=False)
    return functional.grid_sample(pictures, grid, align_corners=False)
