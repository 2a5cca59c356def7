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
    """A choice for every weight, what it is expected to cost, and what it really costs.

    Attributes
    ----------
    labels : mapping of str to int
        What was chosen, by tensor: a width, or how fine a step is.
    size : float
        Bytes of codes, scales and offsets.
    average : float
        Bits per weight that a budget counts.
    predicted, measured : float
        Output error, ``1 - cosine``; ``measured`` is NaN until it has been run.
    """

    labels: Mapping[str, int]
    size: float
    average: float
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
    nominal : ndarray of float64, shape (L, W)
        Bits per weight that a budget counts, scales and padding left out.
    front : Front
        All best allocations.
    """

    plan: QuantPlan
    sensitivity: Sensitivity
    sizes: NDArray[np.float64]
    allowed: NDArray[np.bool_]
    nominal: NDArray[np.float64]
    front: Front = field(repr=False)

    @property
    def _counts(self) -> NDArray[np.float64]:
        return np.array([math.prod(entry.shape) for entry in self.plan.entries], np.float64)

    def allocation(self, columns: Columns) -> Allocation:
        """Return widths given as columns of the tables, with what they are expected to cost."""
        rows, widths = np.arange(len(columns)), self.sensitivity.widths
        return Allocation(
            labels={tensor: widths[column] for tensor, column in zip(self.sensitivity.tensors, columns, strict=True)},
            size=float(self.sizes[rows, columns].sum()),
            average=float(self._counts @ self.nominal[rows, columns] / self._counts.sum()),
            predicted=float(self.sensitivity.costs[rows, columns].sum()),
        )

    def columns(self, labels: Mapping[str, int]) -> Columns:
        """Return the columns of a choice."""
        widths = self.sensitivity.widths
        return np.array([widths.index(labels[tensor]) for tensor in self.sensitivity.tensors], np.int64)

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
        front = pareto_front(self.sensitivity.costs, self._counts[:, None] * self.nominal, self.allowed)
        columns = fit_size(front, bits * float(self._counts.sum()))
        return None if columns is None else self.allocation(columns)

    def within_error(self, error: float) -> Allocation | None:
        """Return the smallest allocation with at most an expected error, or ``None`` if there is none."""
        columns = fit_error(self.front, error)
        return None if columns is None else self.allocation(columns)


def lay_out(
    plan: QuantPlan,
    sensitivity: Sensitivity,
    sizes: NDArray[np.float64],
    allowed: NDArray[np.bool_],
    nominal: NDArray[np.float64],
) -> Tables:
    """Return tables with all their best allocations found.

    Parameters
    ----------
    plan : QuantPlan
    sensitivity : Sensitivity
        Of the same weights, in the same order.
    sizes, allowed, nominal : ndarray, shape (L, W)
        As in :class:`Tables`.
    """
    return Tables(plan, sensitivity, sizes, allowed, nominal, pareto_front(sensitivity.costs, sizes, allowed))


def meet_error(tables: Tables, limit: float, measure: Callable[[Mapping[str, int]], float]) -> Allocation | None:
    """Find the smallest allocation whose measured error is within a limit.

    Parameters
    ----------
    tables : Tables
    limit : float
        Of the output error.
    measure : callable
        A choice by tensor to the error of a real run.

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
        found = replace(wanted, measured=measure(wanted.labels))
        if found.measured <= limit:
            best = found if best is None or found.size < best.size else best
        else:
            failed = max(failed, found.size)
        if _CLOSE * limit <= found.measured <= limit or found.measured == 0.0:
            break
        aim = _AIM * limit * found.predicted / found.measured
    if best is None:
        exact = tables.most_exact
        exact = replace(exact, measured=measure(exact.labels))
        best = exact if exact.measured <= limit else None
    return best
