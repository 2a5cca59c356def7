"""Lows and highs without outliers, sample by sample: what ``REMOVAL_OUTLIER`` averages.

A *round* is one sample. The values at places ``int(0.0001 * n)`` and ``int(0.9999 * n)`` of a round's n sorted values
are its low and high. Where n is below 10,000 these are the first and the last one and nothing is removed, which is
what the original does; here rounds are pooled until every pool holds at least 10,000 values. Only the few
outermost values of an unfinished pool are kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

LOW_PART, HIGH_PART = 0.0001, 0.9999
LEAST = 10_000
"""Values from which on something is removed."""

_BLOCK = 128  # values

Values = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Pools:
    """Which rounds are pooled; known before the rounds are, so that any part of them can be worked on alone.

    Attributes
    ----------
    rounds : int
        All rounds.
    per_pool : int
        Rounds in a pool; the last pool takes the rest as well.
    kept : int
        How many of the outermost values at either end have to be kept to know a pool's low and high.

    Examples
    --------
    >>> pools = Pools.plan(rounds=11, fewest=2500, most=2500)
    >>> pools.per_pool, [pools.of(index) for index in range(11)], pools.size(1)
    (4, [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1], 7)
    """

    rounds: int
    per_pool: int
    kept: int

    @classmethod
    def plan(cls, *, rounds: int, fewest: int, most: int) -> Pools:
        """Make pools as small as they may be for rounds of `fewest` to `most` values."""
        per_pool = min(rounds, math.ceil(LEAST / fewest))
        largest = rounds - (rounds // per_pool - 1) * per_pool  # rounds in the last pool
        return cls(rounds, per_pool, int(LOW_PART * largest * most) + 2)

    def of(self, index: int) -> int:
        """Return the pool of a round."""
        return min(index // self.per_pool, self._last)

    def size(self, pool: int) -> int:
        """Return the number of rounds of a pool."""
        return self.per_pool if pool < self._last else self.rounds - self._last * self.per_pool

    @property
    def _last(self) -> int:
        return self.rounds // self.per_pool - 1


@dataclass(frozen=True, slots=True, eq=False)
class Unfinished:
    """A pool of which rounds are missing: how much it holds, and its outermost values in order."""

    rounds: int
    count: int
    lowest: Values
    highest: Values


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trimmed:
    """Sums of lows and highs over finished pools (as fractions: exact in any order), and what is unfinished."""

    pools: Pools
    low: Fraction = Fraction(0)
    high: Fraction = Fraction(0)
    finished: int = 0
    unfinished: Mapping[int, Unfinished]

    def merge(self, other: Trimmed) -> Trimmed:
        """Return what is known from the rounds of both."""
        joined = dict(self.unfinished)
        for pool, part in other.unfinished.items():
            joined[pool] = _join(joined[pool], part, self.pools.kept) if pool in joined else part
        low, high, finished = self.low + other.low, self.high + other.high, self.finished + other.finished
        for pool in [pool for pool, part in joined.items() if part.rounds == self.pools.size(pool)]:
            done = joined.pop(pool)
            if not done.count:  # its tensors were all empty
                continue
            low += Fraction(float(done.lowest[int(LOW_PART * done.count)]))
            high += Fraction(float(done.highest[int(HIGH_PART * done.count) - done.count]))
            finished += 1
        return Trimmed(pools=self.pools, low=low, high=high, finished=finished, unfinished=joined)

    @property
    def means(self) -> tuple[float, float]:
        """Mean low and mean high over pools, in real units; all rounds must have been merged."""
        return float(self.low / self.finished), float(self.high / self.finished)


def trim_round(pools: Pools, index: int, values: Values) -> Trimmed:
    """Return what one round contributes."""
    flat = values.reshape(-1)
    part = Unfinished(1, flat.size, _lowest(flat, pools.kept), -_lowest(-flat, pools.kept)[::-1])
    nothing = Trimmed(pools=pools, unfinished={})
    return nothing.merge(Trimmed(pools=pools, unfinished={pools.of(index): part}))


def _lowest(flat: Values, kept: int) -> Values:
    """Return the smallest values in order: they are all in the blocks with the smallest minima."""
    blocks = flat[: flat.size - flat.size % _BLOCK].reshape(-1, _BLOCK)
    if len(blocks) > 2 * kept:
        best = np.argpartition(blocks.min(axis=1), kept)[:kept]
        flat = np.concatenate([blocks[best].reshape(-1), flat[blocks.size :]])
    return np.sort(flat)[:kept]


def _join(ours: Unfinished, theirs: Unfinished, kept: int) -> Unfinished:
    lowest = np.sort(np.concatenate([ours.lowest, theirs.lowest]))[:kept]
    highest = np.sort(np.concatenate([ours.highest, theirs.highest]))[-kept:]
    return Unfinished(ours.rounds + theirs.rounds, ours.count + theirs.count, lowest, highest)
