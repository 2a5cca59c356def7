"""One step for a whole tensor, chosen by the error it may make: the original's rule for mixed bits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptq_lab.numerics.similarity import dot

TOLERANCE = 0.01  # of the target
ROUNDS = 100
_TINY = 2.2e-16
_BLOCK = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step, and what rounding a tensor to its multiples does.

    Attributes
    ----------
    step : float
        Distance of two levels, in real units, before the correction.
    spread, mean : float
        Corrections: a code q stands for ``spread * step * q + mean``.
    error : float
        ``||w - decoded|| / ||w||``.
    met : bool
        Whether the error is the target, within 1 %.
    rounds : int
        How many steps were tried.
    """

    step: float
    spread: float
    mean: float
    error: float
    met: bool
    rounds: int


def step_codes(values: NDArray[np.float32], step: float) -> NDArray[np.int32]:
    """Return the nearest multiples of a step, halves rounded up: ``floor(w / step + 0.5)``, as the original does."""
    return np.asarray(np.floor(values / np.float32(step) + np.float32(0.5)), np.int32)


def try_step(values: NDArray[np.float32], step: float, *, rounds: int = 1, target: float | None = None) -> Step:
    """Return what rounding to multiples of a step does; corrections give back mean and standard deviation.

    Examples
    --------
    >>> values = np.array([0.0, 1.0, 2.1, -3.0], np.float32)
    >>> found = try_step(values, 1.0)
    >>> round(found.error, 4), round(found.spread, 4), round(found.mean, 4)
    (0.018, 1.0144, 0.025)
    """
    flat = values.reshape(-1)
    mean = float(flat.mean(dtype=np.float64))
    power = spread_of_values = spread_of_codes = together = first = 0.0
    for start in range(0, flat.size, _BLOCK):
        part = flat[start : start + _BLOCK]
        codes = np.floor(part / np.float32(step) + np.float32(0.5)).astype(np.float64)
        centred = part.astype(np.float64) - mean
        power += dot(part.astype(np.float64), part.astype(np.float64))
        spread_of_values += dot(centred, centred)
        spread_of_codes += dot(codes, codes)
        together += dot(centred, codes)
        first += float(codes.sum())
    spread_of_codes -= first * first / flat.size
    deviation = step * math.sqrt(max(0.0, spread_of_codes) / flat.size)
    spread = math.sqrt(spread_of_values / flat.size) / deviation if deviation > _TINY else 1.0
    scale = spread * step
    noise = max(0.0, spread_of_values - 2.0 * scale * together + scale * scale * max(0.0, spread_of_codes))
    error = math.sqrt(noise / power) if power > 0.0 else 0.0
    met = target is not None and abs(error - target) <= TOLERANCE * target
    return Step(step=step, spread=spread, mean=mean - scale * first / flat.size, error=error, met=met, rounds=rounds)


def find_step(values: NDArray[np.float32], target: float) -> Step:
    """Find the step at which a tensor's relative error is a target.

    Parameters
    ----------
    values : ndarray of float32, not empty
    target : float
        Of ``||w - decoded|| / ||w||``, between 0 and 1.

    Returns
    -------
    Step
        ``met`` is false if no step was found in 100 rounds; the original then takes 8 bits per channel instead.

    Notes
    -----
    The original halves an interval from ``(max - min) * target``. Rounding errors spread evenly over a step give
    ``target * ||w|| * sqrt(12 / N)`` in closed form, which is nearly always within a few percent; from there one
    secant step at a time, inside the interval that the trials have left. A constant tensor takes ``|max| + 1e-5``.

    Examples
    --------
    >>> values = np.random.default_rng(0).normal(size=4096).astype(np.float32)
    >>> found = find_step(values, 0.02)
    >>> found.met, abs(found.error - 0.02) <= 0.0002, found.rounds <= 3
    (True, True, True)
    """
    largest = float(values.max())
    if largest - float(values.min()) < 1e-5:
        return try_step(values, abs(largest) + 1e-5, target=target)
    norm = math.sqrt(dot(values.reshape(-1), values.reshape(-1)))
    step, low, high = target * norm * math.sqrt(12.0 / values.size), 0.0, math.inf
    for rounds in range(1, ROUNDS + 1):
        found = try_step(values, step, rounds=rounds, target=target)
        if found.met:
            return found
        low, high = (step, high) if found.error < target else (low, step)
        step = _next(step, found.error, target, low, high)
    return found


def _next(step: float, error: float, target: float, low: float, high: float) -> float:
    """Return the next step to try: in proportion to the error, if that stays inside the interval; else its middle."""
    proportional = step * target / error if error > 0.0 else 2.0 * step
    if low < proportional < high:
        return proportional
    return 2.0 * step if math.isinf(high) else (low + high) / 2.0
