"""The best widths for every size: a sweep of the price of a byte gives the whole front in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Move:
    """A weight goes to its next better width: what that costs and what it brings."""

    layer: int
    column: int
    bytes: float
    gain: float


@dataclass(frozen=True, slots=True, eq=False)
class Front:
    """Allocations from the smallest to the most exact, each the best for its size.

    Attributes
    ----------
    start : ndarray of int, shape (L,)
        Column of the width that every weight starts with.
    moves : tuple of Move
        What follows, in order of falling gain per byte; the first n of them make the n-th point.
    sizes, errors : ndarray of float64, shape (M + 1,)
        Bytes and expected output error after each move.
    """

    start: NDArray[np.int64]
    moves: tuple[Move, ...]
    sizes: NDArray[np.float64]
    errors: NDArray[np.float64]

    def columns(self, point: int) -> NDArray[np.int64]:
        """Return the width of every weight (as a column of the tables) at a point of the front."""
        columns = self.start.copy()
        for move in self.moves[:point]:
            columns[move.layer] = move.column
        return columns


def pareto_front(costs: NDArray[np.float64], sizes: NDArray[np.float64], allowed: NDArray[np.bool_]) -> Front:
    """Find the allocations on the lower hull of error against size.

    Parameters
    ----------
    costs : ndarray of float64, shape (L, W)
        Expected output error of every weight at every width; adds up over weights.
    sizes : ndarray of float64, shape (L, W)
        Bytes.
    allowed : ndarray of bool, shape (L, W)
        Which widths a weight may get; at least one each.

    Notes
    -----
    A price per byte, lambda, splits the problem: every weight takes the width with the smallest ``cost + lambda *
    bytes`` for itself. As the price falls, a weight walks along the lower hull of its own points, so the points of all
    hulls merged by slope are all solutions for all prices. Source: Everett 1963; Shoham and Gersho 1988.

    Examples
    --------
    >>> costs, sizes = np.array([[4.0, 1.0], [2.0, 0.5]]), np.array([[1.0, 2.0], [1.0, 2.0]])
    >>> front = pareto_front(costs, sizes, np.ones((2, 2), bool))
    >>> front.sizes.tolist(), front.errors.tolist(), front.columns(1).tolist()
    ([2.0, 3.0, 4.0], [6.0, 3.0, 1.5], [1, 0])
    """
    # As lists: taking single numbers out of arrays would be most of the time of a search.
    rows_of = list(zip(costs.tolist(), sizes.tolist(), allowed.tolist(), strict=True))
    hulls = [_hull(*row) for row in rows_of]
    start = np.array([hull[0] for hull in hulls], np.int64)
    walks = [_walk(layer, hull, *rows_of[layer][:2]) for layer, hull in enumerate(hulls)]
    moves = tuple(merge(*walks, key=lambda move: -move.gain / move.bytes))
    rows = np.arange(len(costs))
    return Front(
        start=start,
        moves=moves,
        sizes=np.cumsum([sizes[rows, start].sum(), *(move.bytes for move in moves)]),
        errors=np.maximum(0.0, np.cumsum([costs[rows, start].sum(), *(-move.gain for move in moves)])),
    )


def fit_size(front: Front, size: float) -> NDArray[np.int64] | None:
    """Return the widths that are best within a size, or ``None`` if the smallest allocation is larger.

    The moves are taken in order as long as they fit; then smaller ones that still do fill what is left.
    """
    if front.sizes[0] > size:
        return None
    columns, room, stuck = front.start.copy(), size - float(front.sizes[0]), set()
    for move in front.moves:
        if move.layer in stuck:
            continue
        if move.bytes > room:
            stuck.add(move.layer)  # its next moves start from here
            continue
        columns[move.layer] = move.column
        room -= move.bytes
    return columns


def fit_error(front: Front, error: float) -> NDArray[np.int64] | None:
    """Return the smallest widths whose expected output error is within a limit, or ``None`` if none is."""
    within = np.flatnonzero(front.errors <= error)
    return front.columns(int(within[0])) if within.size else None


def _hull(costs: Sequence[float], sizes: Sequence[float], allowed: Sequence[bool]) -> list[int]:
    """Return the columns on the lower hull, from the smallest to the most exact."""
    hull: list[int] = []
    columns = (column for column, may in enumerate(allowed) if may)
    for column in sorted(columns, key=lambda each: (sizes[each], costs[each])):
        if hull and costs[column] >= costs[hull[-1]]:
            continue
        while len(hull) > 1 and not _bends(costs, sizes, hull[-2], hull[-1], column):
            hull.pop()
        hull.append(column)
    return hull


def _bends(costs: Sequence[float], sizes: Sequence[float], first: int, middle: int, last: int) -> bool:
    """Tell whether the middle point lies below the line between the other two."""
    before = (costs[first] - costs[middle]) * (sizes[last] - sizes[middle])
    return before > (costs[middle] - costs[last]) * (sizes[middle] - sizes[first])


def _walk(layer: int, hull: Sequence[int], costs: Sequence[float], sizes: Sequence[float]) -> list[Move]:
    return [Move(layer, to, sizes[to] - sizes[at], costs[at] - costs[to]) for at, to in pairwise(hull)]
