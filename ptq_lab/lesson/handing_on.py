"""GPTQ on two weights: the first is rounded, and the second makes up for its error before it is rounded itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ptq_lab.errors import PlanError
from ptq_lab.numerics.rounding import Steps, hand_on, loss, nearest

BITS = 2
TOP = 2**BITS - 1
"""The last point of either grid; the first is 0, and steps are 1 apart."""

MOST = 0.99  # of a correlation; with 1 the two inputs are one, and only the sum of the weights counts
Pair = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class HandingOn:
    """Two weights of one output, and how their inputs vary together.

    Attributes
    ----------
    first, second : float
        The weights in steps, 0..3.
    correlation : float
        Of their inputs, which have the same power; -0.99..0.99.

    Examples
    --------
    >>> pair = HandingOn(first=1.4, second=1.4, correlation=0.9)
    >>> pair.nearest, round(pair.moved, 2), pair.handed_on
    ((1, 1), 1.76, (1, 2))
    >>> round(pair.error(pair.nearest), 3), round(pair.error(pair.handed_on), 3)
    (0.608, 0.088)
    """

    first: float
    second: float
    correlation: float

    def __post_init__(self) -> None:
        for name in ("first", "second"):
            if not 0.0 <= getattr(self, name) <= TOP:
                raise PlanError(f"handing on: the {name} weight {getattr(self, name):g} is outside 0..{TOP}")
        if not -MOST <= self.correlation <= MOST:
            raise PlanError(f"handing on: the correlation {self.correlation:g} is outside -{MOST}..{MOST}")

    @property
    def nearest(self) -> Pair:
        """Both weights rounded for themselves."""
        return _pair(self._rounded)

    @property
    def moved(self) -> float:
        """Where the second weight goes once the first is rounded: there the error of the output is least."""
        return self.second + self.correlation * (self.first - self.nearest[0])

    @property
    def handed_on(self) -> Pair:
        """The first weight rounded, and the second behind its move; as `numerics.rounding.hand_on` does it."""
        return _pair(hand_on(self._weights, self._covariance, self._rounded))

    @property
    def best(self) -> Pair:
        """The pair of least error, found by trying all of them."""
        codes = range(TOP + 1)
        return min(product(codes, codes), key=self.error)

    def error(self, pair: Pair) -> float:
        """Return the mean squared error of the output with the weights at a pair of grid points."""
        codes = np.array(pair, np.float32).reshape(1, 2, 1)
        grid = self._rounded
        return float(loss(self._weights, self._covariance, Steps(codes, grid.scale, grid.offset, BITS)).sum())

    def radii(self, pair: Pair) -> tuple[float, float]:
        """Return the half axes of the ellipse of equal error through a pair: along both weights, and against them."""
        error = self.error(pair)
        return math.sqrt(error / (1 + self.correlation)), math.sqrt(error / (1 - self.correlation))

    def sentences(self) -> tuple[str, ...]:
        """Return what happens, step by step."""
        one, two = self.nearest, self.handed_on
        off = one[0] - self.first
        pairs = [("each to its nearest step", one), ("the error handed on", two), ("the best of all pairs", self.best)]
        return (
            f"The weights are {self.first:.2f} and {self.second:.2f}, their inputs have a correlation of "
            f"{self.correlation:.2f}.",
            f"1. The first weight is rounded to {one[0]}: it is off by {off:+.2f}.",
            f"2. The second moves from {self.second:.2f} to {self.moved:.2f} to make up for it.",
            f"3. There it is rounded to {two[1]}" + (", as it would have been anyway." if two == one else "."),
            "Mean squared error of the output: "
            + ", ".join(f"{name} {pair} {self.error(pair):.3f}" for name, pair in pairs)
            + ".",
        )

    def __str__(self) -> str:
        return "\n".join(self.sentences())

    @property
    def _weights(self) -> NDArray[np.float32]:
        return np.array([self.first, self.second], np.float32).reshape(1, 2, 1)

    @property
    def _covariance(self) -> NDArray[np.float64]:
        return np.array([[[1.0, self.correlation], [self.correlation, 1.0]]])

    @property
    def _rounded(self) -> Steps:
        one = np.ones((1, 1, 1), np.float32)
        return nearest(self._weights, one, 0 * one, BITS)


def handing_on(first: float = 1.4, second: float = 1.4, *, correlation: float = 0.9) -> HandingOn:
    """Round two weights one after the other, as GPTQ does; in a notebook, move them about.

    Parameters
    ----------
    first, second : float
        In steps of a grid from 0 to 3.
    correlation : float
        Of the two inputs, -0.99..0.99; with 0 an error cannot be made up for.

    Raises
    ------
    PlanError
        If a number is out of range.

    Notes
    -----
    Source: Frantar et al. 2022, *GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers*.
    If two weights are off by d1 and d2, the squared error of their output is ``d1**2 + 2 c d1 d2 + d2**2`` on average;
    the d2 that is best for a given d1 is ``-c d1``.

    Examples
    --------
    >>> print(handing_on(correlation=0.0))
    The weights are 1.40 and 1.40, their inputs have a correlation of 0.00.
    1. The first weight is rounded to 1: it is off by -0.40.
    2. The second moves from 1.40 to 1.40 to make up for it.
    3. There it is rounded to 1, as it would have been anyway.
    Mean squared error of the output: each to its nearest step (1, 1) 0.320, the error handed on (1, 1) 0.320, ...
    """
    return HandingOn(first=float(first), second=float(second), correlation=float(correlation))


def _pair(steps: Steps) -> Pair:
    first, second = (int(code) for code in steps.codes.ravel())
    return first, second
