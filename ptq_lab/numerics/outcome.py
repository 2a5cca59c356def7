"""What comes out of a layer, sampled: how far it is from the float layer, and the bias that brings it nearest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

_STEPS = 4  # of Gauss and Newton; after four nothing moves
_GAINS = (0.5, 2.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """What a layer should give at some positions, behind the shortcut that is added and the activation.

    Attributes
    ----------
    wanted : ndarray of float32, shape (N, rows)
        Of the float layer, with its bias.
    wanted_shortcut, shortcut : ndarray of float32, shape (N, rows), or None
        What is added to it in the float model, and what will be in the quantized one.
    low, high : float
        Where the activation cuts off.
    weights : ndarray of float32, shape (N, 1), or None
        What a squared error counts at each position.
    """

    wanted: Array
    wanted_shortcut: Array | None = None
    shortcut: Array | None = None
    low: float = -np.inf
    high: float = np.inf
    weights: Array | None = None

    def part(self, chosen: NDArray[np.bool_]) -> Outcome:
        """Return some of the positions."""
        pick = [None if each is None else each[chosen] for each in (self.wanted_shortcut, self.shortcut, self.weights)]
        return Outcome(
            wanted=self.wanted[chosen],
            wanted_shortcut=pick[0],
            shortcut=pick[1],
            low=self.low,
            high=self.high,
            weights=pick[2],
        )

    @property
    def target(self) -> Array:
        """What comes out behind the activation in the float model."""
        return self._behind(self.wanted, self.wanted_shortcut)

    def errors(self, given: Array) -> NDArray[np.float64]:
        """Return the mean squared error of each row, shape (rows,), if the layer gives this.

        Examples
        --------
        >>> outcome = Outcome(wanted=np.array([[-1.0], [2.0]], np.float32), low=0.0)
        >>> outcome.errors(np.array([[-9.0], [3.0]], np.float32)).tolist()
        [0.5]
        """
        error = self._behind(given, self.shortcut) - self.target
        np.square(error, out=error)
        error = error if self.weights is None else error * self.weights
        return np.asarray(error.mean(axis=0, dtype=np.float64))

    def shift(self, given: Array) -> NDArray[np.float64]:
        """Return what has to be added to each row so that its mean is the float layer's, shape (rows,)."""
        difference = self.wanted - given
        if self.wanted_shortcut is not None and self.shortcut is not None:
            difference += self.wanted_shortcut - self.shortcut
        if self.weights is None:
            return np.asarray(difference.mean(axis=0, dtype=np.float64))
        return np.asarray(
            (difference * self.weights).sum(axis=0, dtype=np.float64) / self.weights.sum(dtype=np.float64)
        )

    def fit(self, given: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the gain and the shift of each row that bring it nearest behind the activation, shape (rows,).

        Notes
        -----
        Gauss and Newton's method over the positions where the activation lets something through. The caller judges
        whether it helps, on other positions.

        Examples
        --------
        >>> given = np.linspace(-1, 1, 9, dtype=np.float32)[:, None]
        >>> gain, shift = Outcome(wanted=given * 1.5 - 0.25, low=0.0).fit(given)
        >>> float(gain[0].round(3)), float(shift[0].round(3))
        (1.5, -0.25)
        """
        target = self.target
        gain, shift = np.ones(given.shape[1]), self.shift(given)
        base = 0.0 if self.shortcut is None else self.shortcut
        weights = 1.0 if self.weights is None else self.weights
        for _ in range(_STEPS):
            raw = given * gain.astype(np.float32) + shift.astype(np.float32) + base
            active = ((raw > self.low) & (raw < self.high)) * np.float32(1.0) * weights
            missing = (target - np.clip(raw, self.low, self.high)) * active
            count, first = active.sum(axis=0, dtype=np.float64), (active * given).sum(axis=0, dtype=np.float64)
            second = (active * given * given).sum(axis=0, dtype=np.float64)
            rest, moved = missing.sum(axis=0, dtype=np.float64), (missing * given).sum(axis=0, dtype=np.float64)
            det = second * count - first * first
            fits = det > 1e-6 * np.maximum(second * count, 1e-30)
            safe = np.where(fits, det, 1.0)
            gain = np.where(fits, np.clip(gain + (moved * count - rest * first) / safe, *_GAINS), gain)
            only = rest / np.maximum(count, 1e-30)
            shift = shift + np.where(fits, (rest * second - moved * first) / safe, np.where(count > 0, only, 0.0))
        return gain, shift

    def _behind(self, values: Array, shortcut: Array | None) -> Array:
        values = values if shortcut is None else values + shortcut
        if np.isinf(self.low) and np.isinf(self.high):
            return values
        return np.clip(values, np.float32(self.low), np.float32(self.high))
