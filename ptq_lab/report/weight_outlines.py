"""How the values of every weight are spread, before and after quantization, and what its channels reach.

Small enough to draw for every layer: a few dozen bins, and at most 64 channels from the narrowest to the widest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq_lab.numerics import QuantizedWeight, dequantize_weight
from ptq_lab.plan import QuantPlan, TensorPlan

BINS = 48
COUNTED = 65_536
"""Values that are counted of one weight at most, evenly spread over it."""
_LONG = 64  # values that are looked at together in a weight that is much larger than that
CHANNELS = 64
"""Channels that are kept of one weight at most, evenly spread from the narrowest to the widest."""

Float32 = NDArray[np.float32]
Span = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightOutline:
    """One weight as histograms and ranges of channels.

    Attributes
    ----------
    node, tensor : str
    bits : int
    low, high : float
        Where the first bin starts and the last one ends: the smallest and the largest value, before or after.
    before, after : tuple of int
        Counts in equal bins of the float values, and of what the codes stand for.
    values, counted : int
        How many values the weight has, and how many of them were counted.
    grid : (float, float)
        The lowest and the highest value that any code stands for.
    channels : tuple of (float, float)
        Smallest and largest float value of a channel, from the narrowest channel to the widest.
    grids : tuple of (float, float)
        What the codes of the same channels reach.
    channel_count : int
        How many channels there are; more than in `channels` if some were left out.
    """

    node: str
    tensor: str
    bits: int
    low: float
    high: float
    before: tuple[int, ...]
    after: tuple[int, ...]
    values: int
    counted: int
    grid: Span
    channels: tuple[Span, ...]
    grids: tuple[Span, ...]
    channel_count: int

    @property
    def spread(self) -> float:
        """How many times further the widest channel reaches than the median one."""
        reaches = [max(-low, high) for low, high in self.channels]
        median = reaches[len(reaches) // 2] if reaches else 0.0
        return reaches[-1] / median if median > 0.0 else 1.0


@dataclass(frozen=True, slots=True)
class WeightLook:
    """What was seen of a weight while it was rounded: its relative error, and its outline."""

    error: float
    outline: WeightOutline | None


def outline_weights(
    plan: QuantPlan, read: Callable[[str], Float32], seen: Mapping[str, WeightLook] | None = None
) -> tuple[WeightOutline, ...]:
    """Outline every weight of a plan that has codes and values.

    Parameters
    ----------
    plan : QuantPlan
        With codes.
    read : callable
        Tensor name to its float32 values; asked for one weight at a time.
    seen : mapping of str to WeightLook, optional
        Weights that need not be read again, by name.
    """
    known = seen or {}
    outlines = (
        known[entry.tensor].outline
        if entry.tensor in known
        else outline_weight(entry, entry.weight, read(entry.tensor))
        for entry in plan.entries
        if entry.weight is not None
    )
    return tuple(outline for outline in outlines if outline is not None)


def outline_weight(
    entry: TensorPlan, weight: QuantizedWeight, values: Float32, *, reaches: tuple[Float32, Float32] | None = None
) -> WeightOutline | None:
    """Count the values of a weight before and after, and find the reach of its channels; ``None`` if it is empty.

    Smallest and largest value of every channel are looked for, unless given as `reaches`.

    Examples
    --------
    >>> from ptq_lab.numerics import quantize_weight
    >>> values = np.linspace(-1, 1, 12, dtype=np.float32).reshape(2, 6)
    >>> entry = TensorPlan(tensor="w", nodes=("fc",), op_type="MatMul", shape=(2, 6), bits=2, axis=None,
    ...                    channel_axis=0, bytes_before=48)
    >>> seen = outline_weight(entry, quantize_weight(values, bits=2, axis=None), values)
    >>> sum(seen.before), sum(seen.after), sum(count > 0 for count in seen.after)
    (12, 12, 4)
    >>> [(round(low, 2), round(high, 2)) for low, high in seen.channels]
    [(-1.0, -0.09), (0.09, 1.0)]
    """
    if values.size == 0:
        return None
    some = _some(values.size)
    before, after = values.reshape(-1)[some], _decoded(weight, some)
    lows, highs = _reaches(values, entry.channel_axis) if reaches is None else map(np.atleast_1d, reaches)
    low, high = float(min(lows.min(), after.min())), float(max(highs.max(), after.max()))
    span = (low, high) if high > low else (low - 0.5, high + 0.5)
    grid_lows, grid_highs = _grids(entry, weight, len(lows))
    order = np.argsort(np.maximum(-lows, highs), kind="stable")
    shown = order[np.unique(np.linspace(0, len(order) - 1, min(CHANNELS, len(order))).round().astype(int))]
    return WeightOutline(
        node=entry.node,
        tensor=entry.tensor,
        bits=entry.bits,
        low=_short(span[0]),
        high=_short(span[1]),
        before=_counts(before, span),
        after=_counts(after, span),
        values=values.size,
        counted=before.size,
        grid=(_short(grid_lows.min()), _short(grid_highs.max())),
        channels=_spans(lows[shown], highs[shown]),
        grids=_spans(grid_lows[shown], grid_highs[shown]),
        channel_count=len(lows),
    )


def _some(size: int) -> slice | NDArray[np.int64]:
    """Return every so many-th value; of a large weight every so many-th run, so that not all of it has to be read.

    The distance shares no factor with the size, so that no channel is preferred.
    """
    runs = size // _LONG >= COUNTED
    distance = max(1, -(-size // COUNTED)) * (_LONG if runs else 1)
    while math.gcd(distance, size) != 1:
        distance += 1
    if not runs:
        return slice(None, None, distance)
    starts = np.arange(0, size - _LONG, distance)
    return (starts[:, None] + np.arange(_LONG)).reshape(-1)


def _decoded(weight: QuantizedWeight, some: slice | NDArray[np.int64]) -> Float32:
    """Return what some of the codes stand for."""
    if weight.block:
        return dequantize_weight(weight).reshape(-1)[some]
    codes = weight.codes.reshape(-1)[some].astype(np.float32)
    if weight.axis is None or weight.scale.ndim == 0:
        return codes * weight.scale + weight.offset
    shape = weight.codes.shape
    inner = math.prod(shape[weight.axis + 1 :])
    places = np.arange(0, weight.codes.size, some.step) if isinstance(some, slice) else some
    channel = places // inner % shape[weight.axis]
    values: Float32 = codes * weight.scale[channel] + weight.offset[channel]
    return values


def _counts(values: Float32, span: Span) -> tuple[int, ...]:
    return tuple(map(int, np.histogram(values, BINS, span)[0]))


def _reaches(values: Float32, axis: int) -> tuple[Float32, Float32]:
    """Return smallest and largest value of every channel."""
    others = tuple(index for index in range(values.ndim) if index != axis % max(1, values.ndim))
    return np.atleast_1d(values.min(axis=others)), np.atleast_1d(values.max(axis=others))


def _grids(entry: TensorPlan, weight: QuantizedWeight, channels: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return what the lowest and the highest code of every channel stand for."""
    half = 1 << (entry.bits - 1)
    lowest, highest = (1 - half if entry.symmetric else -half), half - 1
    if weight.axis is None and entry.axis is not None:  # one chosen step: the codes that occur are all there are
        lowest, highest = int(weight.codes.min()), int(weight.codes.max())
    ends = [weight.scale * np.float32(code) + weight.offset for code in (lowest, highest)]
    if weight.block:
        both = np.stack(ends)
        ends = [both.min(axis=(0, 2)), both.max(axis=(0, 2))]
    low, high = (np.broadcast_to(end, channels) if end.ndim == 0 or len(end) != channels else end for end in ends)
    return np.minimum(low, high), np.maximum(low, high)


def _spans(lows: NDArray[Any], highs: NDArray[Any]) -> tuple[Span, ...]:
    return tuple((_short(low), _short(high)) for low, high in zip(lows, highs, strict=True))


def _short(value: float) -> float:
    """Return a number with as many digits as a picture shows."""
    return float(f"{value:.5g}")
