"""Widths for a budget: predicted from the sensitivity, verified by real runs, the best so far always at hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ptq_lab.plan import QuantPlan
from ptq_lab.search.front import Front, fit_error, fit_size, pareto_front
from ptq_lab.search.sensitivity import Sensitivity

TRIES = 4  # real runs that a limit on the error may take
_CLOSE = 0.85  # of the limit: an allocation whose error lies between is good enough
_AIM = 0.95  # of the limit, so that what is measured rarely lies above it

Columns = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """Widths of all weights, what they are expected to cost, and what they really cost.

    Attributes
    ----------
    bits : mapping of str to int
        Width by tensor.
    size : float
        Bytes of codes, scales and offsets.
    predicted, measured : float
        Output error, ``1 - cosine``; ``measured`` is NaN until it has been run.
    """

    bits: Mapping[str, int]
    size: float
    predicted: float
    measured: float = float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class Tables:
    """What every weight may cost and weigh, ready for any budget.

    Attributes
    ----------
    plan : QuantPlan
        The weights; its own widths do not matter.
    sensitivity : Sensitivity
    sizes : ndarray of float64, shape (L, W)
        Bytes at every width.
    allowed : ndarray of bool, shape (L, W)
        Which widths a weight may get.
    front : Front
        All best allocations.
    """

    plan: QuantPlan
    sensitivity: Sensitivity
    sizes: NDArray[np.float64]
    allowed: NDArray[np.bool_]
    front: Front = field(repr=False)

    def allocation(self, columns: Columns) -> Allocation:
        """Return widths given as columns of the tables, with what they are expected to cost."""
        rows, widths = np.arange(len(columns)), self.sensitivity.widths
        return Allocation(
            bits={tensor: widths[column] for tensor, column in zip(self.sensitivity.tensors, columns, strict=True)},
            size=float(self.sizes[rows, columns].sum()),
            predicted=float(self.sensitivity.costs[rows, columns].sum()),
        )

    def columns(self, bits: Mapping[str, int]) -> Columns:
        """Return the columns of some widths."""
        widths = self.sensitivity.widths
        return np.array([widths.index(bits[tensor]) for tensor in self.sensitivity.tensors], np.int64)

    @property
    def smallest(self) -> Allocation:
        """The allocation with the fewest bytes."""
        return self.allocation(self.front.columns(0))

    @property
    def most_exact(self) -> Allocation:
        """The allocation with the smallest expected error."""
        return self.allocation(self.front.columns(len(self.front.moves)))

    def within_size(self, size: float) -> Allocation | None:
        """Return the best allocation of at most `size` bytes, or ``None`` if there is none."""
        columns = fit_size(self.front, size)
        return None if columns is None else self.allocation(columns)

    def coarser(self, than: Allocation, more: float) -> Allocation | None:
        """Return an allocation about half way down to the next point of the front, or to a size if that is nearer.

        ``None`` if there is none in between: points lie on the hull, and what is between them does not.
        """
        smaller = self.front.sizes[self.front.sizes < than.size - 0.5]
        floor = max(more, float(smaller[-1]) if smaller.size else 0.0)
        found = self.within_size((floor + than.size) / 2)
        return found if found is not None and more < found.size < than.size else None

    def within_average(self, bits: float) -> Allocation | None:
        """Return the best allocation of at most so many bits per weight, scales and padding not counted."""
        counts = np.array([math.prod(entry.shape) for entry in self.plan.entries], np.float64)
        nominal = counts[:, None] * np.asarray(self.sensitivity.widths, np.float64)
        front = pareto_front(self.sensitivity.costs, nominal, self.allowed)
        columns = fit_size(front, bits * float(counts.sum()))
        return None if columns is None else self.allocation(columns)

    def within_error(self, error: float) -> Allocation | None:
        """Return the smallest allocation with at most an expected error, or ``None`` if there is none."""
        columns = fit_error(self.front, error)
        return None if columns is None else self.allocation(columns)


def make_tables(
    plan: QuantPlan, sensitivity: Sensitivity, widths: tuple[int, ...], pins: Mapping[str, int] | None = None
) -> Tables:
    """Lay out what every weight may cost and weigh.

    Parameters
    ----------
    plan : QuantPlan
    sensitivity : Sensitivity
        Of the same weights, in the same order.
    widths : tuple of int
        The widths a weight may get.
    pins : mapping of str to int, optional
        Weights whose width is fixed, also outside of `widths`.
    """
    columns, pins = sensitivity.widths, pins or {}
    sizes = np.array(
        [[replace(entry, bits=bits).bytes_after for bits in columns] for entry in plan.entries], np.float64
    )
    allowed = np.array(
        [[bits == pins[e.tensor] if e.tensor in pins else bits in widths for bits in columns] for e in plan.entries]
    )
    front = pareto_front(sensitivity.costs, sizes, allowed)
    return Tables(plan, sensitivity, sizes, allowed, front)


def meet_error(tables: Tables, limit: float, measure: Callable[[Mapping[str, int]], float]) -> Allocation | None:
    """Find the smallest allocation whose measured error is within a limit.

    Parameters
    ----------
    tables : Tables
    limit : float
        Of the output error.
    measure : callable
        Widths by tensor to the error of a real run.

    Returns
    -------
    Allocation or None
        The smallest that was measured to be within the limit; ``None`` if not even the most exact one is.

    Notes
    -----
    Predictions are right but for a factor that is nearly the same for neighbouring allocations; each run corrects it.
    """
    best: Allocation | None = None
    aim, failed = _AIM * limit, 0.0  # the latter: bytes that were too few
    for _ in range(TRIES):
        wanted: Allocation | None = tables.within_error(aim) or tables.most_exact
        if best is not None and wanted is not None and wanted.size >= best.size:
            wanted = tables.coarser(best, failed)
        if wanted is None:
            break
        found = replace(wanted, measured=measure(wanted.bits))
        if found.measured <= limit:
            best = found if best is None or found.size < best.size else best
        else:
            failed = max(failed, found.size)
        if _CLOSE * limit <= found.measured <= limit or found.measured == 0.0:
            break
        aim = _AIM * limit * found.predicted / found.measured
    if best is None:
        exact = tables.most_exact
        exact = replace(exact, measured=measure(exact.bits))
        best = exact if exact.measured <= limit else None
    return best
