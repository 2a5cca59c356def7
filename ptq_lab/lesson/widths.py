"""What a bit buys: signal to quantization noise of a real weight at every width, beside the line of 6 dB per bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq_lab.lesson.subject import QUICK, Subject, channels_first, open_subject
from ptq_lab.numerics import quantize_weight, sqnr_db, weight_error
from ptq_lab.report.formats import format_percent, format_shape, text_table

BITS = tuple(range(1, 13))
STRAIGHT = 6
"""Bits from which rounding errors are spread evenly over a step, and the measured line is straight."""

_MOST = 200.0  # dB; stands for an exact weight, which a picture cannot show


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One division of a weight at every width of `BITS`.

    Attributes
    ----------
    name : str
    measured : tuple of float
        SQNR in dB, from codes and back.
    expected : tuple of float
        SQNR in dB if every error were spread evenly over a step: the noise of a step is ``step**2 / 12``.
    """

    name: str
    measured: tuple[float, ...]
    expected: tuple[float, ...]

    @property
    def db_per_bit(self) -> float:
        """Slope of the measured line from 6 bits on."""
        start = BITS.index(STRAIGHT)
        return float(np.polyfit(BITS[start:], self.measured[start:], 1)[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Widths:
    """The curves of one weight.

    Attributes
    ----------
    tensor, node : str
    shape : tuple of int
    curves : tuple of Curve
        One grid for the tensor, one per channel.
    """

    tensor: str
    node: str
    shape: tuple[int, ...]
    curves: tuple[Curve, ...]

    @property
    def headline(self) -> str:
        """What was measured."""
        return f"{self.node}, {format_shape(self.shape)}"

    def sentences(self) -> tuple[str, ...]:
        """Return the slopes in words."""
        return tuple(
            f"{curve.name}: {curve.db_per_bit:.2f} dB per bit measured from {STRAIGHT} bits on; theory says 6.02"
            for curve in self.curves
        )

    def rows(self) -> list[tuple[str, ...]]:
        """Return a row of words per width, to go below `HEADERS`."""
        first, second = self.curves
        return [
            (
                str(bits),
                f"{first.measured[at]:.1f}",
                f"{first.expected[at]:.1f}",
                f"{second.measured[at]:.1f}",
                f"{second.expected[at]:.1f}",
                format_percent(10 ** (-second.measured[at] / 20)),
            )
            for at, bits in enumerate(BITS)
        ]


HEADERS = ("bits", "per tensor dB", "theory, tensor", "per channel dB", "theory, channel", "error per channel")


class WidthCurves:
    """Measures the weights of one model at every width; made by :func:`widths`.

    Attributes
    ----------
    subject : Subject
    layer : str
        The weight to start with.
    """

    def __init__(self, subject: Subject, layer: str | None) -> None:
        self.subject = subject
        quick = [entry for entry in subject.weights if entry.bytes_before <= QUICK]
        largest = max(quick, key=lambda entry: entry.bytes_before, default=None)
        self.layer = subject.weight(layer, largest).tensor

    @property
    def layers(self) -> tuple[tuple[str, str], ...]:
        """Names of weights, and of the nodes that use them."""
        return tuple((entry.tensor, entry.node) for entry in self.subject.weights)

    def measure(self, layer: str | None = None) -> Widths:
        """Quantize a weight at every width, without corrections.

        Raises
        ------
        PlanError
            If there is no such weight.
        """
        entry = self.subject.weight(layer or self.layer)
        rows = channels_first(self.subject.model.weight(entry.tensor), entry.channel_axis)
        curves = (_curve("per tensor", rows.reshape(1, -1)), _curve("per channel", rows))
        return Widths(tensor=entry.tensor, node=entry.node, shape=entry.shape, curves=curves)

    def __str__(self) -> str:
        found = self.measure()
        return "\n".join((found.headline, text_table(HEADERS, found.rows(), right=HEADERS), *found.sentences()))


def widths(source: Any = "digits_cnn", layer: str | None = None) -> WidthCurves:
    """Measure what every bit buys on a real weight.

    Parameters
    ----------
    source : name of a demo, path, Model, QuantResult or MixedBitExplorer
        In a float model BatchNormalization becomes part of the weights first, as when it computes in integers.
    layer : str, optional
        A weight or node; otherwise the largest weight up to 16 MB.

    Raises
    ------
    ModelError, PlanError
        If the model cannot be read, or has no such layer.

    Notes
    -----
    W. R. Bennett, "Spectra of quantized signals" (1948): the error of a fine uniform grid is spread evenly over a step,
    so its power is ``step**2 / 12``, and halving the step gains ``20 log10(2)`` = 6.02 dB.

    Examples
    --------
    >>> found = widths("photo_denoiser").measure()
    >>> all(5.9 < curve.db_per_bit < 6.2 for curve in found.curves)
    True
    """
    return WidthCurves(open_subject(source), layer)


def _curve(name: str, parts: NDArray[np.float32]) -> Curve:
    """Measure a matrix whose rows have a grid of their own."""
    power = float(np.square(parts, dtype=np.float64).sum())
    low = np.minimum(parts.min(axis=1), 0.0).astype(np.float64)
    span = np.maximum(parts.max(axis=1), 0.0) - low
    measured, expected = [], []
    for bits in BITS:
        error = weight_error(parts, quantize_weight(parts, bits=bits, axis=0, correct=False))
        measured.append(min(_MOST, sqnr_db(1.0, error**2)))
        noise = float(parts.shape[1] * np.square(span / ((1 << bits) - 1)).sum() / 12.0)
        expected.append(min(_MOST, sqnr_db(power, noise)))
    return Curve(name=name, measured=tuple(measured), expected=tuple(expected))
