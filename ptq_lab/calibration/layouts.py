"""Which axis of a 4-D input holds the channels, and whether raw data look right that way."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ptq_lab.graph.tensors import TensorSpec

Layout = Literal["NCHW", "NHWC"]

# axes[i] of the data in one layout is axis i of the data in the other.
TO_OTHER: dict[Layout, tuple[int, int, int, int]] = {"NHWC": (0, 3, 1, 2), "NCHW": (0, 2, 3, 1)}
OTHER: dict[Layout, Layout] = {"NHWC": "NCHW", "NCHW": "NHWC"}

CHANNELS_OF_PICTURES = (1, 3, 4)

CLEARLY_SMOOTHER = 0.8
"""Warn when the other layout is rougher by less than this factor.

Over four natural photographs the right reading measured at most 0.77 of the wrong one, usually 0.2 to 0.5."""


def layout_for(spec: TensorSpec, channels: int, preferred: Layout | None = None) -> Layout | None:
    """Return the layout in which a 4-D input takes ``channels`` channels, or None when it takes neither.

    A fixed axis that says the number outweighs a dynamic one; a draw goes to ``preferred``, then to NCHW,
    the custom of ONNX.

    Examples
    --------
    >>> spec = TensorSpec(name="x", dtype=np.dtype("float32"), shape=("n", 224, 224, 3))
    >>> layout_for(spec, 3), layout_for(spec, 1)
    ('NHWC', None)
    """
    first, last = (_match(spec.shape[a], spec.shape[b], channels) for a, b in ((1, 3), (3, 1)))
    if not first and not last:
        return None
    if first == last:
        return preferred or "NCHW"
    return "NCHW" if first > last else "NHWC"


def _match(size: int | str, opposite: int | str, channels: int) -> int:
    if isinstance(size, int):
        return 2 * (size == channels)
    return 0 if opposite in CHANNELS_OF_PICTURES else 1  # the fixed axis opposite holds the channels, then


def layout_of(shape: tuple[int, ...]) -> Layout:
    """Guess the layout of a 4-D shape: NHWC when only its last axis is as small as a picture's channels.

    Examples
    --------
    >>> layout_of((1, 224, 224, 3)), layout_of((1, 64, 56, 56))
    ('NHWC', 'NCHW')
    """
    first, last = shape[1] in CHANNELS_OF_PICTURES, shape[3] in CHANNELS_OF_PICTURES
    return "NHWC" if last and not first else "NCHW"


def moves_nothing(shape: tuple[int, ...], layout: Layout) -> bool:
    """Tell whether both layouts are the same bytes: one channel, or one pixel.

    Examples
    --------
    >>> moves_nothing((1, 1, 49, 10), "NCHW"), moves_nothing((1, 3, 32, 32), "NCHW")
    (True, False)
    """
    _, channels, rows, columns = shape if layout == "NCHW" else (shape[axis] for axis in TO_OTHER["NHWC"])
    return channels == 1 or rows * columns == 1


def roughness(pictures: NDArray[Any]) -> float:
    """Return the mean step between neighbours relative to the spread of a channel; pictures are well below 1.

    Parameters
    ----------
    pictures : ndarray, shape (batch, channels, height, width)

    Examples
    --------
    >>> ramp = np.arange(64.0).reshape(1, 1, 8, 8)
    >>> noise = np.random.default_rng(0).normal(size=(1, 1, 8, 8))
    >>> roughness(ramp) < roughness(noise)
    True
    """
    values = pictures.astype(np.float64)
    spread = float(np.abs(values - values.mean(axis=(2, 3), keepdims=True)).mean())
    steps = [float(np.abs(np.diff(values, axis=axis)).mean()) for axis in (2, 3) if values.shape[axis] > 1]
    return sum(steps) / len(steps) / spread if spread and steps else 0.0


def looks_better_otherwise(
    flat: Iterable[NDArray[Any]], shape: tuple[int, ...], layout: Layout, assumed: Layout
) -> bool:
    """Tell whether raw data make clearly smoother pictures in the layout that was not assumed.

    Parameters
    ----------
    flat : iterable of ndarray
        A few samples, any shape, in the order of their bytes.
    shape : tuple of int
        The model input's shape, in its own layout ``layout``.
    layout, assumed : {"NCHW", "NHWC"}
        Of the model input, and the one in which the data are being read.

    Examples
    --------
    >>> y, x = np.mgrid[:8, :8] / 8.0
    >>> picture = np.stack([x, y, x * y])[None]  # NCHW
    >>> looks_better_otherwise([picture], (1, 3, 8, 8), "NCHW", "NHWC")
    True
    """
    batch, channels, rows, columns = shape if layout == "NCHW" else (shape[axis] for axis in TO_OTHER["NHWC"])
    mean: dict[Layout, float] = {"NCHW": 0.0, "NHWC": 0.0}
    for values in flat:
        mean["NCHW"] += roughness(values.reshape(batch, channels, rows, columns))
        mean["NHWC"] += roughness(values.reshape(batch, rows, columns, channels).transpose(TO_OTHER["NHWC"]))
    return mean[OTHER[assumed]] < CLEARLY_SMOOTHER * mean[assumed]
