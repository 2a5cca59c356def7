"""Means of what a convolution sees: enough to know the mean of its output without computing it.

A convolution is linear, so the mean of output channel o over all positions is ``sum(W[o, c, k] * M[c, k]) + b[o]``,
where ``M[c, k]`` is the mean of the zero-padded input over the positions that kernel element k visits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How a convolution moves over its input.

    Attributes
    ----------
    kernel, strides, dilations, pads_begin, pads_end : tuple of int
        One number per spatial axis.
    groups : int
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads_begin: tuple[int, ...]
    pads_end: tuple[int, ...]
    groups: int = 1


def window_sums(values: NDArray[np.float32], window: Window) -> tuple[NDArray[np.float64], int]:
    """Sum the input over the positions of each kernel element.

    Parameters
    ----------
    values : ndarray of float32, shape (N, C, spatial...)
        Real values; outside lies zero.
    window : Window

    Returns
    -------
    sums : ndarray of float64, shape (C, kernel...)
    count : int
        Positions of the output, over the batch.

    Examples
    --------
    >>> ones = np.ones((1, 1, 3), np.float32)
    >>> window = Window(kernel=(3,), strides=(1,), dilations=(1,), pads_begin=(1,), pads_end=(1,))
    >>> window_sums(ones, window)[0].tolist()
    [[2.0, 3.0, 2.0]]
    """
    count = values.shape[0]
    sums = np.moveaxis(values, 1, 0)  # (C, N, spatial...)
    sums = sums.reshape(sums.shape[0], -1, *values.shape[2:])
    for axis, size in enumerate(values.shape[2:]):
        steps = output_size(size, axis, window)
        count *= steps
        sums = _along(sums, size, axis, steps, window)
    return sums.sum(axis=1, dtype=np.float64), count


def window_rows(values: NDArray[np.float32], window: Window, most: int, *, shift: int = 0) -> NDArray[np.float32]:
    """Return what a kernel sees, at positions spread evenly over the input.

    Parameters
    ----------
    values : ndarray of float32, shape (N, C, spatial...)
        Real values; outside lies zero.
    window : Window
    most : int
        About how many positions are taken of each of the N.
    shift : int
        Moves the positions, so that one input after the other is seen in other places.

    Returns
    -------
    ndarray of float32, shape (groups, N * positions, C / groups * kernel)

    Examples
    --------
    >>> window = Window(kernel=(2,), strides=(2,), dilations=(1,), pads_begin=(0,), pads_end=(0,))
    >>> window_rows(np.arange(4, dtype=np.float32).reshape(1, 1, 4), window, 9).tolist()
    [[[0.0, 1.0], [2.0, 3.0]]]
    """
    count, channels, *sizes = values.shape
    steps = [output_size(size, axis, window) for axis, size in enumerate(sizes)]
    total = int(np.prod(steps))
    stride = max(1, total // most)
    taken = np.unravel_index(np.arange((stride // 2 + shift) % stride, total, stride), steps)
    padded = np.pad(values, [(0, 0), (0, 0), *zip(window.pads_begin, window.pads_end, strict=True)])
    reach = [dilation * (size - 1) + 1 for size, dilation in zip(window.kernel, window.dilations, strict=True)]
    seen = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(2, values.ndim)))
    starts = [place * stride for place, stride in zip(taken, window.strides, strict=True)]
    positions: Any = (slice(None), slice(None), *starts)
    inside: Any = (..., *(slice(None, None, dilation) for dilation in window.dilations))
    rows = seen[positions][inside]
    rows = rows.reshape(count, window.groups, channels // window.groups, len(taken[0]), -1)
    return np.ascontiguousarray(rows.transpose(1, 0, 3, 2, 4)).reshape(window.groups, count * len(taken[0]), -1)


def output_size(size: int, axis: int, window: Window) -> int:
    """Return how many positions a window has along one spatial axis of the given size."""
    reach = window.dilations[axis] * (window.kernel[axis] - 1) + 1
    padded = size + window.pads_begin[axis] + window.pads_end[axis]
    return (padded - reach) // window.strides[axis] + 1


def _along(sums: NDArray[np.float32], size: int, axis: int, steps: int, window: Window) -> NDArray[np.float32]:
    """Replace the first remaining spatial axis (axis 2) by sums per kernel element, put last."""
    stride, begin = window.strides[axis], window.pads_begin[axis]
    parts = []
    for element in range(window.kernel[axis]):
        first = element * window.dilations[axis] - begin
        skipped = (stride - 1 - first) // stride if first < 0 else 0  # positions in the padding in front
        last = min(steps, -(-(size - first) // stride))
        visited = slice(first + skipped * stride, first + (last - 1) * stride + 1, stride)
        # einsum adds short rows several times faster than sum does, and like it always in the same order
        seen = np.einsum("abi...->ab...", sums[:, :, visited]) if last > skipped else np.zeros_like(sums[:, :, 0])
        parts.append(seen)
    return np.stack(parts, axis=-1)


def output_means(weight: NDArray[np.float32], means: NDArray[np.float64], groups: int) -> NDArray[np.float64]:
    """Return the mean of each output channel without its bias.

    Parameters
    ----------
    weight : ndarray, shape (out, in / groups, kernel...)
    means : ndarray, shape (in, kernel...)

    Examples
    --------
    >>> output_means(np.ones((2, 1, 1), np.float32), np.array([[3.0], [4.0]]), groups=2).tolist()
    [3.0, 4.0]
    """
    per_group = weight.reshape(groups, weight.shape[0] // groups, -1).astype(np.float64)
    grouped = means.reshape(groups, -1)
    return np.asarray(np.einsum("gok,gk->go", per_group, grouped).reshape(-1))


def same_pads(size: Sequence[int], window: Window, *, upper: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the pads that ``auto_pad = SAME_UPPER`` or ``SAME_LOWER`` stand for."""
    begins, ends = [], []
    for axis, length in enumerate(size):
        stride, reach = window.strides[axis], window.dilations[axis] * (window.kernel[axis] - 1) + 1
        total = max(0, (-(-length // stride) - 1) * stride + reach - length)
        small, large = total // 2, total - total // 2
        begins.append(small if upper else large)
        ends.append(large if upper else small)
    return tuple(begins), tuple(ends)
