"""Codes chosen together: what one weight gets wrong, the next ones make up for.

The output of a layer is ``weight.T @ x``. With H the covariance of its inputs x, an error d of the weights behind one
output changes that output by ``d.T H d`` on average. Rounding each weight to the nearest step makes d small;
what is here makes ``d.T H d`` small: a pass that hands errors on (`hand_on`), sweeps over single weights (`descend`)
and the best step and offset for given codes (`refit`).

Weights are held with their inputs in front, ``(groups, K, rows)`` for K inputs of one output, because all of it goes
through the inputs one by one and treats all outputs at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq_lab.numerics.solve import inverse_factor

Array = NDArray[np.float32]
Exact = NDArray[np.float64]

FACTORS = np.linspace(1.0, 0.3, 36)  # of the full range, most of which is worth more than all of it at few bits
POWER = 2.4  # of the error that a range minimises: between the square and the largest
_BLOCK = 64  # inputs whose corrections are gathered before they are spread
_MOST_CHANGE = 3.0  # of a step in one refit
_TINY = 1e-30


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """Codes with their grids: ``weight = codes * scale + offset``.

    Attributes
    ----------
    codes : ndarray of float32, shape (groups, K, rows)
        Whole numbers ``0 .. 2**bits - 1``.
    scale, offset : ndarray of float32, shape (groups, 1, rows), or (groups, K, rows) if inputs lie in blocks
        Real units per step, and what code 0 means.
    bits : int
    free : bool
        Whether offsets are free numbers. Otherwise code ``2**(bits - 1)`` means zero, so that no offset has to be
        stored, and the sign of the scale says on which side of zero there is one code more.
    """

    codes: Array
    scale: Array
    offset: Array
    bits: int
    free: bool = True

    @property
    def values(self) -> Array:
        """What the codes stand for."""
        return self.codes * self.scale + self.offset


def nearest(weight: Array, scale: Array, offset: Array, bits: int) -> Steps:
    """Round every weight to the nearest step of a given grid.

    Examples
    --------
    >>> one = np.ones((1, 1, 1), np.float32)
    >>> nearest(np.array([[[-0.2], [0.9], [7.0]]], np.float32), one, 0 * one, bits=2).codes.ravel().astype(int).tolist()
    [0, 1, 3]
    """
    codes = np.clip(np.rint((weight - offset) / scale), 0, 2**bits - 1)
    return Steps(np.asarray(codes, np.float32), scale, offset, bits)


def fit_range(weight: Array, bits: int, importance: Array | None = None, *, free: bool = True) -> Steps:
    """Choose for each row the range whose nearest steps cost least, and round to it.

    Parameters
    ----------
    weight : ndarray of float32, shape (groups, K, rows)
    bits : int
    importance : ndarray of float32, shape (groups, K, 1), optional
        What a squared error of each input costs. Without, the error counts to the power 2.4.
    free : bool
        Whether offsets are free numbers, see `Steps`.

    Notes
    -----
    The range shrinks towards its middle in steps of 2 %. Source for the power: MQBench (Li et al. 2021); between the
    mean square, which clips too much, and the maximum, which does not clip. Zero need not be a step, since the offset
    is a free number.

    Examples
    --------
    >>> row = np.array([0.0, 1.0, 1.1, 2.0, 2.9], np.float32).reshape(1, 5, 1)
    >>> fit_range(row, 2).codes.ravel().astype(int).tolist()
    [0, 1, 1, 2, 3]
    """
    low, high = weight.min(axis=1, keepdims=True), weight.max(axis=1, keepdims=True)
    least, found = np.full(low.shape, np.inf), nearest(weight, *_grid(low, high, 1.0, bits, free), bits)
    scale, offset = found.scale, found.offset
    for factor in FACTORS:
        steps = nearest(weight, *_grid(low, high, factor, bits, free), bits)
        error = steps.values
        error -= weight
        np.square(error, out=error)
        cost = (
            np.power(error, POWER / 2, out=error) if importance is None else np.multiply(error, importance, out=error)
        )
        total = cost.sum(axis=1, keepdims=True, dtype=np.float64)
        better = total < least
        least = np.where(better, total, least)
        scale, offset = np.where(better, steps.scale, scale), np.where(better, steps.offset, offset)
    return replace(nearest(weight, scale, offset, bits), free=free)


def _grid(low: Array, high: Array, factor: float, bits: int, free: bool) -> tuple[Array, Array]:
    """Return scale and offset of a range that shrinks by a factor; of a constant row, the constant as code 0."""
    half = 2.0 ** (bits - 1)
    if not free:
        reach = np.maximum(np.maximum(high, -low), _TINY) * factor
        scale = np.where(high > -low, -reach, reach) / half
        return np.asarray(scale, np.float32), np.asarray(-half * scale, np.float32)
    middle, span = (low + high) / 2, high - low
    flat = span <= 1e-12 * np.maximum(np.abs(middle), _TINY)
    step, start = _ends(middle, np.where(flat, 1.0, span * factor), bits)
    return step, np.asarray(np.where(flat, low, start), np.float32)


def _ends(middle: NDArray[Any], span: NDArray[Any], bits: int) -> tuple[Array, Array]:
    """Return scale and offset of a range."""
    if bits == 1:  # two levels, a half span apart around the middle: the ends would be the worst choice
        return np.asarray(span / 2, np.float32), np.asarray(middle - span / 4, np.float32)
    return np.asarray(span / (2**bits - 1), np.float32), np.asarray(middle - span / 2, np.float32)


def hand_on(weight: Array, covariance: Exact, grid: Steps) -> Steps:
    """Round input by input, and let the inputs that are left make up for each error.

    Parameters
    ----------
    weight : ndarray of float32, shape (groups, K, rows)
    covariance : ndarray of float64, shape (groups, K, K)
        Of the inputs, positive definite.
    grid : Steps
        Whose scales and offsets are used.

    Notes
    -----
    Source: Frantar et al. 2022, *GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers*.
    Inputs are taken in the order of their power, strongest first.

    Examples
    --------
    >>> alike = np.array([[[1.0, 0.99], [0.99, 1.0]]])
    >>> row, one = np.array([[[0.4], [0.4]]], np.float32), np.ones((1, 1, 1), np.float32)
    >>> hand_on(row, alike, nearest(row, one, 0 * one, 2)).codes.ravel().tolist()
    [0.0, 1.0]
    """
    order = _by_power(covariance)
    rest = np.take_along_axis(weight, order[:, :, None], axis=1)
    scale, offset = _in_order(grid.scale, order), _in_order(grid.offset, order)
    upper = inverse_factor(_reordered(covariance, order)).astype(np.float32)
    codes = np.empty_like(rest)
    most, size = np.float32(2**grid.bits - 1), rest.shape[1]
    for start in range(0, size, _BLOCK):
        block = slice(start, min(start + _BLOCK, size))
        errors = np.empty_like(rest[:, block])
        for index in range(block.start, block.stop):
            here = rest[:, index : index + 1]
            step, low = _of(scale, index), _of(offset, index)
            code = np.clip(np.rint((here - low) / step), 0, most)
            error = (here - (code * step + low)) / upper[:, index, index, None, None]
            codes[:, index : index + 1], errors[:, index - start : index - start + 1] = code, error
            rest[:, index + 1 : block.stop] -= upper[:, index, index + 1 : block.stop, None] * error
        rest[:, block.stop :] -= np.swapaxes(upper[:, block, block.stop :], 1, 2) @ errors
    return replace(grid, codes=_put_back(codes, order))


def descend(weight: Array, covariance: Exact, start: Steps, *, sweeps: int = 8, refits: bool = True) -> Steps:
    """Give one weight after the other the code that is best for all others as they are, until nothing changes.

    Parameters
    ----------
    weight : ndarray of float32, shape (groups, K, rows)
        The target.
    covariance : ndarray of float64, shape (groups, K, K)
    start : Steps
    sweeps : int
        Over all inputs, at most.
    refits : bool
        Whether scales and offsets are chosen anew before each sweep, and at the end.

    Notes
    -----
    Source: Behdin et al. 2023, *QuantEase*, whose coordinate minimum is exact; so is this one, over all codes and
    not only the two neighbours. Each change lowers ``d.T H d`` or leaves it.

    Examples
    --------
    >>> alike = np.array([[[1.0, 0.99], [0.99, 1.0]]])
    >>> row, one = np.array([[[0.4], [0.4]]], np.float32), np.ones((1, 1, 1), np.float32)
    >>> better = descend(row, alike, nearest(row, one, 0 * one, 2), refits=False)
    >>> better.codes.ravel().tolist(), round(float(loss(row, alike, better).sum()), 2)
    ([1.0, 0.0], 0.04)
    """
    order = _by_power(covariance)
    target = np.take_along_axis(weight, order[:, :, None], axis=1)
    sorted_covariance = _reordered(covariance, order).astype(np.float32)
    codes = np.take_along_axis(start.codes, order[:, :, None], axis=1)
    steps = replace(start, codes=codes, scale=_in_order(start.scale, order), offset=_in_order(start.offset, order))
    for _ in range(sweeps):
        if refits:
            steps = refit(target, sorted_covariance, steps)
        if not _sweep(target, sorted_covariance, steps):
            break
    steps = refit(target, sorted_covariance, steps) if refits else steps
    if start.scale.shape[1] > 1:
        steps = replace(steps, scale=start.scale, offset=start.offset)
    return replace(steps, codes=_put_back(steps.codes, order))


def _sweep(target: Array, covariance: Array, steps: Steps) -> bool:
    """Go once over all inputs, changing codes in place; tell whether more than one in a thousand has changed."""
    codes, most = steps.codes, np.float32(2**steps.bits - 1)
    slope = covariance @ (steps.values - target)
    power = np.ascontiguousarray(np.diagonal(covariance, axis1=1, axis2=2))[:, :, None]
    changed, size = 0, codes.shape[1]
    per_step = steps.scale * power  # what a step adds to the slope at its own input
    units = np.broadcast_to(steps.scale, codes.shape)
    for start in range(0, size, _BLOCK):
        block = slice(start, min(start + _BLOCK, size))
        here, near = slope[:, block], np.ascontiguousarray(covariance[:, block, block])
        moves = np.empty_like(here)
        for index in range(block.stop - block.start):
            old = codes[:, start + index]
            new = np.rint(old - here[:, index] / per_step[:, start + index])
            np.clip(new, 0, most, out=new)
            moved = new - old
            count = int(np.count_nonzero(moved))
            changed += count
            moved *= units[:, start + index]
            moves[:, index] = moved
            if count:
                codes[:, start + index] = new
                here += near[:, :, index, None] * moved[:, None]
        if moves.any():
            slope[:, : block.start] += covariance[:, : block.start, block] @ moves
            slope[:, block.stop :] += covariance[:, block.stop :, block] @ moves
    return changed * 1000 > codes.size


def refit(weight: Array, covariance: NDArray[np.floating], steps: Steps) -> Steps:
    """Return the same codes with the scales and offsets that suit them best.

    Notes
    -----
    Two linear equations per row. A row keeps its grid where they have no stable solution, or one more than three
    times as coarse or as fine.

    Examples
    --------
    >>> row, one = np.array([[[0.0], [0.5], [1.0]]], np.float32), np.ones((1, 1, 1), np.float32)
    >>> steps = refit(row, np.eye(3)[None], nearest(row, one / 3, 0 * one, 2))
    >>> np.abs(steps.values - row).max().round(3)
    np.float32(0.107)
    """
    matrix = covariance.astype(np.float32, copy=False)
    if not steps.free:
        return _refit_scale(weight, matrix, steps)
    codes = steps.codes
    seen, ones = matrix @ codes, matrix.sum(axis=2, dtype=np.float64)[:, :, None]
    qq, q1 = _dot(codes, seen), _dot(codes, ones)
    qw, w1 = _dot(seen, weight), _dot(weight, ones)
    one = ones.sum(axis=1, keepdims=True)
    det = qq * one - q1 * q1
    stable = det > 1e-6 * np.maximum(qq * one, _TINY)
    safe = np.where(stable, det, 1.0)
    scale = np.where(stable, (qw * one - w1 * q1) / safe, steps.scale)
    kept = stable & _near(scale, steps.scale)
    scale = np.where(kept, scale, steps.scale)
    offset = np.where(kept, (w1 - scale * q1) / np.where(kept, one, 1.0), steps.offset)
    return replace(steps, scale=scale.astype(np.float32), offset=offset.astype(np.float32))


def _refit_scale(weight: Array, matrix: Array, steps: Steps) -> Steps:
    """Fit scales alone, to codes counted from their zero."""
    half = np.float32(2 ** (steps.bits - 1))
    codes = steps.codes - half
    seen = matrix @ codes
    power = _dot(codes, seen)
    scale = np.where(power > 0.0, _dot(seen, weight) / np.where(power > 0.0, power, 1.0), steps.scale)
    scale = np.where(_near(scale, steps.scale), scale, steps.scale).astype(np.float32)
    return replace(steps, scale=scale, offset=-half * scale)


def _near(scale: Exact, old: Array) -> NDArray[np.bool_]:
    """Tell where a scale has the sign of the old one, and about its size."""
    ratio = scale / old
    return np.asarray((ratio > 1.0 / _MOST_CHANGE) & (ratio < _MOST_CHANGE))


def loss(weight: Array, covariance: NDArray[np.floating], steps: Steps) -> Exact:
    """Return ``d.T H d`` of every row, shape (groups, 1, rows)."""
    error = steps.values - weight
    return _dot(error, covariance.astype(np.float32, copy=False) @ error)


def _dot(left: NDArray[np.floating], right: NDArray[np.floating]) -> Exact:
    """Sum products over the inputs, in double precision."""
    return np.asarray(np.multiply(left, right).sum(axis=1, keepdims=True, dtype=np.float64))


def _by_power(covariance: Exact) -> NDArray[np.int64]:
    return np.argsort(-np.diagonal(covariance, axis1=1, axis2=2), axis=1, kind="stable")


def _reordered(covariance: Exact, order: NDArray[np.int64]) -> Exact:
    rows = np.take_along_axis(covariance, order[:, :, None], axis=1)
    return np.take_along_axis(rows, order[:, None, :], axis=2)


def _in_order(numbers: Array, order: NDArray[np.int64]) -> Array:
    """Sort what belongs to inputs; what is the same for all of them stays."""
    return numbers if numbers.shape[1] == 1 else np.take_along_axis(numbers, order[:, :, None], axis=1)


def _of(numbers: Array, index: int) -> Array:
    """Return what belongs to one input, shape (groups, 1, rows)."""
    return numbers if numbers.shape[1] == 1 else numbers[:, index : index + 1]


def _put_back(codes: Array, order: NDArray[np.int64]) -> Array:
    found = np.empty_like(codes)
    np.put_along_axis(found, order[:, :, None], codes, axis=1)
    return found


def settle(weight: Array, bits: int, *, rounds: int = 6) -> Steps:
    """Choose the grid of each row for the least squared error of its weights, whatever reads them.

    Parameters
    ----------
    weight : ndarray of float32, shape (groups, K, rows)
    bits : int
    rounds : int
        In turn the best codes for a grid and the best grid for the codes; each lowers the error.

    Examples
    --------
    >>> row = np.array([0.0, 0.1, 1.0, 1.1], np.float32).reshape(1, 4, 1)
    >>> settle(row, 1).values.ravel().astype(float).round(3).tolist()
    [0.05, 0.05, 1.05, 1.05]
    """
    steps = fit_range(weight, bits, np.ones((1, 1, 1), np.float32))
    mean = weight.mean(axis=1, keepdims=True, dtype=np.float64)
    for _ in range(rounds):
        codes = steps.codes
        middle = codes.mean(axis=1, keepdims=True, dtype=np.float64)
        spread = np.square(codes).mean(axis=1, keepdims=True, dtype=np.float64) - middle**2
        shared = (codes * weight).mean(axis=1, keepdims=True, dtype=np.float64) - middle * mean
        fits = (spread > 1e-9) & (shared > 0.0)
        scale = np.where(fits, shared / np.where(fits, spread, 1.0), steps.scale).astype(np.float32)
        offset = np.where(fits, mean - scale * middle, steps.offset).astype(np.float32)
        steps = nearest(weight, scale, offset, bits)
    return steps
