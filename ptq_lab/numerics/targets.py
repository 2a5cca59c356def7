"""What to round towards: the float weights, or weights that make up for what earlier layers got wrong.

A quantized layer reads inputs that are off already. The weights that come nearest to the float layer's *outputs* from
these inputs are a least-squares solution; between the float weights (blend 0) and that solution (blend 1) lies what
is best on inputs not seen. How far to go is decided by folds: each part of the samples judges what the others say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptq_lab.numerics.solve import inverse_factor, solve_rows

Array = NDArray[np.float32]
Exact = NDArray[np.float64]

BLENDS = (0.0, 0.25, 0.5, 0.75, 1.0)
RIDGE = 0.01  # of the mean power of the inputs, added to each


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Sums over rows of inputs x and of what is missing behind them, e; they can be added.

    Attributes
    ----------
    count : float
    inputs : ndarray, shape (groups, K)
        Sum of x.
    missing : ndarray, shape (groups, rows)
        Sum of e: what the float weights should give beyond what they give from these inputs.
    squares : ndarray, shape (groups, K, K)
        Sum of x x.
    products : ndarray, shape (groups, K, rows)
        Sum of x e.
    """

    count: float
    inputs: Exact
    missing: Exact
    squares: Exact
    products: Exact

    @classmethod
    def of(cls, inputs: Array, missing: Array, weights: Array | None = None) -> Moments:
        """Measure rows.

        Parameters
        ----------
        inputs : ndarray of float32, shape (groups, N, K)
        missing : ndarray of float32, shape (groups, N, rows)
        weights : ndarray of float32, shape (N, 1), optional
            How often each row counts.
        """
        weighted = inputs if weights is None else inputs * weights
        transposed = np.swapaxes(weighted, 1, 2)
        total = float(inputs.shape[1]) if weights is None else float(weights.sum(dtype=np.float64))
        lost = missing if weights is None else missing * weights
        return cls(
            total,
            weighted.sum(axis=1, dtype=np.float64),
            lost.sum(axis=1, dtype=np.float64),
            (transposed @ inputs).astype(np.float64),
            (transposed @ missing).astype(np.float64),
        )

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count,
            self.inputs + other.inputs,
            self.missing + other.missing,
            self.squares + other.squares,
            self.products + other.products,
        )

    def covariance(self, *, centred: bool, ridge: float) -> Exact:
        """Return how the inputs vary together, with a ridge; inputs that are always zero get the ridge alone."""
        found = self.squares / self.count
        if centred:
            mean = self.inputs / self.count
            found = found - mean[:, :, None] * mean[:, None, :]
        power = np.diagonal(found, axis1=1, axis2=2).mean(axis=1)
        floor = np.where(power > 0.0, power * ridge, 1.0)
        return np.asarray(found + floor[:, None, None] * np.eye(found.shape[1]))

    def crossing(self, *, centred: bool) -> Exact:
        """Return how inputs and what is missing vary together, shape (groups, K, rows)."""
        found = self.products / self.count
        if not centred:
            return found
        mean, lost = self.inputs / self.count, self.missing / self.count
        return np.asarray(found - mean[:, :, None] * lost[:, None, :])

    def move(self, *, centred: bool, ridge: float) -> Array:
        """Return what least squares add to the weights, shape (groups, K, rows)."""
        factor = inverse_factor(self.covariance(centred=centred, ridge=ridge))
        found = solve_rows(np.swapaxes(self.crossing(centred=centred), 1, 2), factor)
        return np.ascontiguousarray(np.swapaxes(found, 1, 2), np.float32)


@dataclass(frozen=True, slots=True)
class Aim:
    """How to find a target: how far to go, and the ridge of the solution to go to."""

    blend: float
    ridge: float


def choose_aim(
    folds: Sequence[Moments],
    judge: Callable[[int, Array, Sequence[float]], Sequence[float]],
    *,
    centred: bool,
    blends: Sequence[float] = BLENDS,
    ridges: Sequence[float] = (RIDGE,),
) -> Aim:
    """Choose blend and ridge by what the move of all other folds does to each fold.

    Parameters
    ----------
    folds : sequence of Moments
        Two or more.
    judge : callable
        ``(fold, move, blends) -> errors`` of a fold's own rows, one for each blend.
    centred : bool
    blends, ridges : sequence of float

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> inputs = rng.standard_normal((1, 64, 2)).astype(np.float32)
    >>> missing = inputs @ np.array([[[0.5], [-1.0]]], np.float32)
    >>> parts = [Moments.of(inputs[:, part], missing[:, part]) for part in (slice(32), slice(32, 64))]
    >>> def judge(fold, move, blends):
    ...     rows = slice(32 * fold, 32 * fold + 32)
    ...     return [float(np.square(missing[:, rows] - each * inputs[:, rows] @ move).mean()) for each in blends]
    >>> choose_aim(parts, judge, centred=False).blend
    1.0
    """
    errors = np.zeros((len(ridges), len(blends)))
    for fold in range(len(folds)):
        rest = [moments for index, moments in enumerate(folds) if index != fold]
        total = rest[0]
        for moments in rest[1:]:
            total = total + moments
        for row, ridge in enumerate(ridges):
            move = total.move(centred=centred, ridge=ridge)
            errors[row] += judge(fold, move, blends)
    row, column = divmod(int(np.argmin(errors)), len(blends))
    return Aim(blend=blends[column], ridge=ridges[row])
