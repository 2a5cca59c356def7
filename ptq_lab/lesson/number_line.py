"""One number on one grid: scale, zero point, rounding and clipping."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptq_lab.errors import PlanError
from ptq_lab.numerics import QuantParams, QuantSpec, choose_params, dequantize_array, quantize_array

REACH = 3.0
"""The line shows this far to either side of zero, in real units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberLine:
    """One real number, and the grid it is put on.

    Attributes
    ----------
    value : float
        The number, -3..3.
    low, high : float
        The range that the codes have to cover; ``-3 <= low <= 0 <= high <= 3``.
    bits : int
        Width of a code, 1..8.
    symmetric : bool
        Mirror the range, so that zero is code 0 and both sides have the same codes.

    Examples
    --------
    >>> line = NumberLine(value=1.0, low=-1.0, high=2.0, bits=3, symmetric=False)
    >>> line.code, round(line.decoded, 3), round(line.error, 3), line.is_clipped
    (0, 0.857, -0.143, False)
    """

    value: float
    low: float
    high: float
    bits: int
    symmetric: bool

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise PlanError(f"number line: {self.bits} bits are outside 1..8")
        if not -REACH <= self.low <= 0.0 <= self.high <= REACH or self.low == self.high:
            raise PlanError(
                f"number line: the range {self.low:g}..{self.high:g} must hold zero, and lie within -3..3; "
                "number_line(low=-1, high=2)"
            )
        if not -REACH <= self.value <= REACH:
            raise PlanError(f"number line: the value {self.value:g} is outside -3..3")

    @property
    def params(self) -> QuantParams:
        """Scale and zero point."""
        narrow = self.symmetric and self.bits > 1  # of two levels one is zero, and the other has no mirror
        return choose_params(self.low, self.high, QuantSpec(bits=self.bits, symmetric=self.symmetric, narrow=narrow))

    @property
    def code(self) -> int:
        """The whole number that stands for the value."""
        return int(quantize_array(np.array([self.value], np.float32), self.params)[0])

    @property
    def points(self) -> tuple[float, ...]:
        """The real values of all codes, from the lowest up."""
        params = self.params
        codes = np.arange(params.spec.qmin, params.spec.qmax + 1, dtype=params.spec.dtype)
        return tuple(dequantize_array(codes, params).tolist())

    @property
    def decoded(self) -> float:
        """The real number that the code stands for."""
        return float(dequantize_array(quantize_array(np.array([self.value], np.float32), self.params), self.params)[0])

    @property
    def error(self) -> float:
        """What comes back, less what went in."""
        return self.decoded - self.value

    @property
    def is_clipped(self) -> bool:
        """Whether the value lies more than half a step outside of the grid."""
        return abs(self.error) > float(self.params.scale) / 2 * (1 + 1e-6)

    def __str__(self) -> str:
        return "\n".join(self.sentences())

    def sentences(self) -> tuple[str, ...]:
        """Return what happens to the value, step by step."""
        params, spec = self.params, self.params.spec
        scale, zero_point = float(params.scale), int(params.zero_point)
        exact = self.value / scale
        kind = "clipping: the value is outside the grid" if self.is_clipped else "rounding: at most half a step"
        return (
            f"{self.bits} bits, {'symmetric' if self.symmetric else 'asymmetric'}: codes {spec.qmin} to {spec.qmax}, "
            f"scale {scale:.4g} per step, zero point {zero_point}",
            f"{self.value:.4g} / {scale:.4g} = {exact:.3f} steps; rounded, plus {zero_point}, "
            f"within {spec.qmin}..{spec.qmax}: code {self.code}",
            f"({self.code} - {zero_point}) x {scale:.4g} = {self.decoded:.4g}",
            f"error {self.error:+.4g} ({kind})",
        )


def number_line(
    value: float = 0.7, *, low: float = -1.0, high: float = 2.0, bits: int = 3, symmetric: bool = False
) -> NumberLine:
    """Put a number on a grid; in a notebook, drag it about.

    Parameters
    ----------
    value, low, high : float
        In real units, -3..3; the range must hold zero.
    bits : int
        1..8.
    symmetric : bool

    Raises
    ------
    PlanError
        If a number is out of range.

    Examples
    --------
    >>> print(number_line(2.5, bits=2))
    2 bits, asymmetric: codes -2 to 1, scale 1 per step, zero point -1
    2.5 / 1 = 2.500 steps; rounded, plus -1, within -2..1: code 1
    (1 - -1) x 1 = 2
    error -0.5 (rounding: at most half a step)
    """
    return NumberLine(value=float(value), low=float(low), high=float(high), bits=bits, symmetric=bool(symmetric))
