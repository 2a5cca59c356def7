"""How finely a weight is divided: one grid for all of it, one per channel, or one per block."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq_lab.errors import PlanError
from ptq_lab.lesson.subject import QUICK, Subject, channels_first, open_subject
from ptq_lab.numerics import QuantizedWeight, QuantSpec, choose_params, quantize_weight, sqnr_db, weight_error
from ptq_lab.plan import TensorPlan
from ptq_lab.report.formats import format_percent, format_shape, text_table

BITS = (2, 3, 4, 5, 6, 7, 8)
LARGEST_BLOCK = 32
SHOWN = 64
"""Channels of a picture; more are thinned out evenly, but the widest stays."""

LOOKED_AT = 64
"""Weights among which the most telling one is looked for; a large model has more, and each has to be read."""

_GRID_BITS = 64  # a float32 scale and a float32 offset


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """One way to divide a weight, and its cost.

    Attributes
    ----------
    name : str
    grids : int
        How many scales there are.
    relative_error : float
        ``||w - decoded|| / ||w||``.
    sqnr_db : float
        Signal to quantization noise.
    bits_per_weight : float
        Codes, scales and offsets together.
    silenced : int
        Channels of which nothing is left: all their codes mean zero, though not all their values were.
    grid_of_channel : tuple of (float, float)
        Of the channels shown, lowest point and step of (their first) grid, in real units.
    """

    name: str
    grids: int
    relative_error: float
    sqnr_db: float
    bits_per_weight: float
    silenced: int
    grid_of_channel: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One weight at one width, divided in every way.

    Attributes
    ----------
    tensor, node : str
    shape : tuple of int
    bits : int
    channels : tuple of int
        Which channels the picture shows.
    spans : tuple of (float, float)
        Smallest and largest value of each of them, in real units.
    divisions : tuple of Division
        From coarse to fine.
    """

    tensor: str
    node: str
    shape: tuple[int, ...]
    bits: int
    channels: tuple[int, ...]
    spans: tuple[tuple[float, float], ...]
    divisions: tuple[Division, ...]

    @property
    def headline(self) -> str:
        """What is compared."""
        return f"{self.node}, {format_shape(self.shape)}, {self.bits} bits"

    def sentences(self) -> tuple[str, ...]:
        """Return the lesson in words."""
        coarse, fine = self.divisions[0], self.divisions[1]
        ratio = coarse.relative_error / fine.relative_error if fine.relative_error else 1.0
        count = fine.grids
        lost = f"On one grid for all, {coarse.silenced} of {count} channels become all zero." if coarse.silenced else ""
        return (
            f"One grid per channel makes the error {ratio:.1f} times smaller "
            f"({format_percent(coarse.relative_error)} to {format_percent(fine.relative_error)}).",
            *([lost] if lost else []),
            "Every grid stores a scale and an offset of 32 bits each; the bits per weight include them.",
        )

    def rows(self) -> list[tuple[str, ...]]:
        """Return a row of words per division, to go below `HEADERS`."""
        return [
            (
                each.name,
                str(each.grids),
                format_percent(each.relative_error),
                f"{each.sqnr_db:.1f}",
                f"{each.bits_per_weight:.2f}",
                str(each.silenced),
            )
            for each in self.divisions
        ]


HEADERS = ("one grid", "grids", "error", "SQNR dB", "bits per weight", "channels all zero")


class Granularity:
    """Compares divisions of the weights of one model; made by :func:`granularity`.

    Attributes
    ----------
    subject : Subject
    layer : str
        The weight to start with.
    bits : int
        The width to start with.
    """

    def __init__(self, subject: Subject, layer: str | None, bits: int) -> None:
        self.subject = subject
        self.bits = _checked(bits)
        self.layer = subject.weight(layer, _most_telling(subject)).tensor

    @property
    def layers(self) -> tuple[tuple[str, str], ...]:
        """Names of weights, and of the nodes that use them."""
        return tuple((entry.tensor, entry.node) for entry in self.subject.weights)

    def compare(self, layer: str | None = None, bits: int | None = None) -> Comparison:
        """Quantize a weight in every way, without corrections.

        Raises
        ------
        PlanError
            If there is no such weight, or the width is outside 2..8.
        """
        entry = self.subject.weight(layer or self.layer)
        width = self.bits if bits is None else _checked(bits)
        rows = channels_first(self.subject.model.weight(entry.tensor), entry.channel_axis)
        shown = _thinned(rows)
        spans = [(float(row.min()), float(row.max())) for row in rows[list(shown)]]
        return Comparison(
            tensor=entry.tensor,
            node=entry.node,
            shape=entry.shape,
            bits=width,
            channels=shown,
            spans=tuple(spans),
            divisions=_divisions(rows, width, shown),
        )

    def __str__(self) -> str:
        found = self.compare()
        return "\n".join((found.headline, text_table(HEADERS, found.rows(), right=HEADERS[1:]), *found.sentences()))


def granularity(source: Any = "digits_cnn", layer: str | None = None, *, bits: int = 4) -> Granularity:
    """Compare one grid per tensor, per channel and per block on a real weight.

    Parameters
    ----------
    source : name of a demo, path, Model, QuantResult or MixedBitExplorer
        In a float model BatchNormalization becomes part of the weights first, as when it computes in integers.
    layer : str, optional
        A weight or node; otherwise the one that gains most from a grid per channel, a depthwise one if there is any.
    bits : int
        2..8.

    Raises
    ------
    ModelError, PlanError
        If the model cannot be read, or has no such layer.

    Examples
    --------
    >>> found = granularity("digits_cnn", "block1/depthwise/Conv").compare()
    >>> [each.name for each in found.divisions]
    ['per tensor', 'per channel', 'per block of 3']
    >>> errors = [each.relative_error for each in found.divisions]
    >>> errors == sorted(errors, reverse=True)
    True
    """
    return Granularity(open_subject(source), layer, bits)


def block_size(per_channel: int) -> int:
    """Return the largest block, at most 32 values, into which a channel divides without a rest; 0 if there is none.

    Examples
    --------
    >>> block_size(9), block_size(64), block_size(7), block_size(1)
    (3, 32, 0, 0)
    """
    sizes = (size for size in range(min(LARGEST_BLOCK, per_channel // 2), 1, -1) if per_channel % size == 0)
    return next(sizes, 0)


def _checked(bits: int) -> int:
    if bits not in BITS:
        raise PlanError(f"granularity: {bits!r} bits are outside 2..8")
    return int(bits)


def _most_telling(subject: Subject) -> TensorPlan | None:
    """Return the weight to which a grid per channel brings most at 4 bits; of depthwise ones if there are any."""
    quick = [entry for entry in subject.weights if entry.bytes_before <= QUICK]
    depthwise = [entry for entry in quick if len(entry.shape) == 4 and entry.shape[1] == 1 < entry.shape[0]]
    best, most = None, 1.0
    for entry in (depthwise or quick)[:LOOKED_AT]:
        rows = channels_first(subject.model.weight(entry.tensor), entry.channel_axis)
        coarse, fine = (_division("", rows, parts, 4).relative_error for parts in (rows.reshape(1, -1), rows))
        if rows.shape[1] > 1 and coarse > most * fine > 0:
            best, most = entry, coarse / fine
    return best


def _thinned(rows: NDArray[np.float32]) -> tuple[int, ...]:
    """Return the channels that the picture shows."""
    even = np.linspace(0, len(rows) - 1, min(len(rows), SHOWN)).astype(int)
    widest = int(np.abs(rows).max(axis=1).argmax())
    return tuple(np.unique([*even, widest]).tolist())


def _divisions(rows: NDArray[np.float32], bits: int, shown: tuple[int, ...]) -> tuple[Division, ...]:
    whole = _division("per tensor", rows, rows.reshape(1, -1), bits)
    channels = _division("per channel", rows, rows, bits)
    size = block_size(rows.shape[1])
    blocks = [_division(f"per block of {size}", rows, rows.reshape(-1, size), bits)] if size else []
    return tuple(_shown(each, shown, len(rows)) for each in (whole, channels, *blocks))


def _division(name: str, rows: NDArray[np.float32], parts: NDArray[np.float32], bits: int) -> Division:
    weight = quantize_weight(parts, bits=bits, axis=0, correct=False)
    error = weight_error(parts, weight)
    return Division(
        name=name,
        grids=len(parts),
        relative_error=error,
        sqnr_db=min(200.0, sqnr_db(1.0, error**2)),  # exact weights are drawn, too
        bits_per_weight=bits + _GRID_BITS * len(parts) / rows.size,
        silenced=_silenced(rows, weight),
        grid_of_channel=tuple(_grids(parts, weight)),
    )


def _silenced(rows: NDArray[np.float32], weight: QuantizedWeight) -> int:
    is_zero = (weight.codes == weight.zero_point.reshape(-1, 1)).reshape(len(rows), -1).all(axis=1)
    return int((is_zero & (rows != 0).any(axis=1)).sum())


def _grids(parts: NDArray[np.float32], weight: QuantizedWeight) -> list[tuple[float, float]]:
    params = choose_params(parts.min(axis=1), parts.max(axis=1), QuantSpec(bits=weight.bits, axis=0))
    low = (params.spec.qmin - params.zero_point) * params.scale
    return list(zip(low.tolist(), params.scale.tolist(), strict=True))


def _shown(division: Division, shown: tuple[int, ...], channels: int) -> Division:
    """Keep the grids of the channels that the picture shows, the first of each."""
    per_channel = division.grids / channels
    kept = tuple(division.grid_of_channel[math.floor(channel * per_channel)] for channel in shown)
    return replace(division, grid_of_channel=kept)
