"""Mixed bits: a width for each weight, by the original's rule or by what the output can bear."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ptq_lab.budget import Budget, budget_of
from ptq_lab.calibration import Samples
from ptq_lab.calibration.cache import Memory
from ptq_lab.config import QuantConfig
from ptq_lab.errors import ConfigError, Problem
from ptq_lab.flags import Flags, Judge
from ptq_lab.graph import Model
from ptq_lab.plan import QuantPlan
from ptq_lab.progress import Progress, Step
from ptq_lab.report.text import format_bytes
from ptq_lab.runtime import open_session
from ptq_lab.search.allocate import TRIES, Allocation, Tables, meet_error
from ptq_lab.search.choices import Choices, Read
from ptq_lab.search.climb import Climbed
from ptq_lab.search.coded import CodedSteps
from ptq_lab.search.packed import PackedWidths
from ptq_lab.search.recall import recall_sensitivity
from ptq_lab.search.sensitivity import WIDTHS, Sensitivity, changes_of
from ptq_lab.search.trials import Trials

PROBES = 8  # samples that the gains are measured on
JUDGES = 128  # other samples, as far as there are any, on which an allocation is verified
_JUDGES_BYTES = 64_000_000  # that they may take, because every trial runs them again
_SECTION = "ptq_lab.mixed_bit"
_SIZE_ROUNDS = 3

Write = Callable[[QuantPlan], Model]
Weigh = Callable[[QuantPlan], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Widths or steps that were found.

    Attributes
    ----------
    plan : QuantPlan
        With codes.
    notes : tuple of str
        How it was found.
    lowest_score : float
        Of the metric, by the budget; minus infinity without a limit.
    interrupted : str
        How far the search came if the user stopped it; empty if not.
    """

    plan: QuantPlan
    notes: tuple[str, ...]
    lowest_score: float = -math.inf
    interrupted: str = ""

    def within_drop(self, climbed: Climbed, plain: QuantPlan, write: Write, metric: Judge | None) -> Climbed:
        """Return weights that were made better if they keep the metric within the budget as well; else plain ones."""
        if self.lowest_score == -math.inf or metric is None or climbed.plan is plain:
            return climbed
        score = metric.score(open_session(write(climbed.plan), threads=0))
        if score >= self.lowest_score:
            return climbed
        note = f"rounding by what layers read was dropped: {metric.name} would be {score:.4g}, below the budget"
        return replace(climbed, plan=plain, layers=(), notes=(note,))


def choices_of(config: QuantConfig, plan: QuantPlan, read: Read, pins: Mapping[str, int]) -> Choices:
    """Return what can be chosen: widths where codes are packed, steps where an entropy coder stores them."""
    if config.lab.coded:
        return CodedSteps(plan=plan, read=read, pins=pins)
    return PackedWidths(plan=plan, read=read, allowed=config.budget.bits, pins=pins)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reach:
    """What was found out before the sensitivities: how far the smallest and the most exact allocation get.

    Attributes
    ----------
    overhead : float
        Bytes of the smallest file besides its weights.
    exact : mapping of str to int
        The most exact allocation.
    score : float
        What the metric says of it; NaN without a limit on that.
    measure : callable or None
        An allocation to its error on the samples that judge, where there is a limit on that; the most exact one has
        been measured.
    """

    overhead: float = math.nan
    exact: Mapping[str, int] = field(default_factory=dict)
    score: float = math.nan
    measure: Callable[[Mapping[str, int]], float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedBits:
    """The search for the width of each weight of one model.

    Attributes
    ----------
    original : Model
    reference : Model
        The float model as it was given, whose score limits what the metric may lose.
    plan : QuantPlan
        The weights; its own widths do not matter.
    pins : mapping of str to int
        Weights whose width is given.
    config : QuantConfig
    samples : Samples
        What the search measures on.
    flags : Flags
    write : callable
        Turns a plan with codes into a model that runs.
    weigh : callable
        Bytes of the file that a plan with codes gives.
    progress : Progress
    """

    original: Model
    reference: Model
    plan: QuantPlan
    pins: Mapping[str, int]
    config: QuantConfig
    samples: Samples
    flags: Flags
    write: Write
    weigh: Weigh
    progress: Progress

    @property
    def choices(self) -> Choices:
        """What can be chosen for each weight."""
        return choices_of(self.config, self.plan, self.original.weight, self.pins)

    def choose(self) -> Chosen:
        """Return the plan with widths and codes, and how they were found.

        Raises
        ------
        ConfigError
            If no allocation keeps within the budget; the message says what can be reached.
        """
        budget = budget_of(self.config, self.original)
        return self._by_rule() if budget is None else self._by_sensitivity(budget)

    def _by_rule(self) -> Chosen:
        target = self.config.mixed_bit.init_scale
        found = self.choices.by_rule(target, progress=self.progress)
        return Chosen(plan=found, notes=(f"{_chosen(found)} by init_scale={target:g}: {_average(found)}",))

    def _by_sensitivity(self, budget: Budget) -> Chosen:
        lowest = self._lowest_score(budget)
        deadline = time.monotonic() + budget.seconds
        reach = self._reach(budget, lowest)
        tables, notes, interrupted = self._tables(deadline)
        if budget.drop < math.inf:
            found = self._meet_drop(tables, budget, lowest, deadline, reach=reach)
        elif budget.error < math.inf:
            found = self._meet_error(tables, budget.error, reach)
        else:
            found = self._meet_size(tables, budget, reach.overhead)
        plan = self.choices.rounded(found.labels, progress=self.progress)
        if budget.bounds_loss and budget.bounds_size:
            self._check_size(plan, budget, found)
        verified = (
            "" if math.isnan(found.measured) else f", {found.measured:.2g} on {len(self._judges())} other samples"
        )
        how = f"{_chosen(plan)} by sensitivity: {_average(plan)}; 1 - cosine expected {found.predicted:.2g}{verified}"
        return Chosen(plan=plan, notes=(*notes, how), lowest_score=lowest, interrupted=interrupted)

    def _lowest_score(self, budget: Budget) -> float:
        """Return what the metric may fall to."""
        if budget.drop == math.inf:
            return -math.inf
        if self.flags.metric is None:
            raise _refusal("max_metric_drop", "needs something that evaluates the model", "give evaluate=, or --eval")
        return float(self.flags.metric.judge_float(self.reference, self.config.lab.providers).score) - budget.drop

    def _reach(self, budget: Budget, lowest: float) -> _Reach:
        """Refuse at once what no allocation can reach: sensitivities take a run per weight, this takes one or two.

        Which allocations are the smallest and the most exact is known before anything is measured.
        """
        ends = self.choices.tables(_alike(self.plan))
        smallest, exact, overhead = ends.smallest, ends.most_exact, math.nan
        if smallest.average > budget.bits + 1e-9:
            raise self._too_small("average_bits", f"{smallest.average:.2f} bits on average at least")
        if budget.file < math.inf:
            overhead = self._size_of(smallest) - smallest.size
            if smallest.size + overhead > budget.file:
                low, high = (format_bytes(round(each.size + overhead)) for each in (smallest, exact))
                raise self._too_small("target_size_mb", f"{low} to {high}")
        if budget.drop < math.inf:
            score = self._score_of(exact)
            if score < lowest:
                raise _lost_too_much(budget.drop, budget.drop + lowest - score)
            return _Reach(overhead=overhead, exact=exact.labels, score=score)
        if budget.error == math.inf:
            return _Reach(overhead=overhead)
        measure = self._trial()
        error = measure(exact.labels)
        if error > budget.error:
            raise _lost_too_much(budget.error, error, of_output=True)
        return _Reach(
            overhead=overhead,
            exact=exact.labels,
            measure=lambda labels: error if labels == exact.labels else measure(labels),
        )

    def _trial(self) -> Callable[[Mapping[str, int]], float]:
        """Return what measures the error of an allocation on the samples that judge."""
        tensors = [entry.tensor for entry in self.plan.entries]
        trials = Trials(self.original, tensors, self._judges(), providers=self.config.lab.providers)

        def measure(labels: Mapping[str, int]) -> float:
            error = trials.error(changes_of(self.choices.rounded(labels), self.original.weight))
            self.progress(Step("verify", trials.runs - 1, TRIES + 2, f"1 - cosine {error:.2g}"))
            return error

        return measure

    def _score_of(self, found: Allocation) -> float:
        assert self.flags.metric is not None  # it has given the lowest score
        return self.flags.metric.score(open_session(self._written(found), threads=0))

    def _tables(self, deadline: float) -> tuple[Tables, list[str], str]:
        memory = Memory()
        sensitivity = recall_sensitivity(
            self.original,
            self.plan,
            self.samples.take(PROBES),
            memory=memory,
            providers=self.config.lab.providers,
            executor=self.flags.executor,
            deadline=deadline,
            single_step=self.config.lab.coded,
            progress=self.progress,
        )
        notes, interrupted, total = [], "", len(sensitivity.tensors)
        if memory.reused:
            notes.append("sensitivities reused from the cache")
        if self.samples.random:
            notes.append("there are no samples: the search measured on seeded random inputs; real ones do better")
        if sensitivity.measured < total:
            interrupted = f"the sensitivities were stopped after {sensitivity.measured} of {total} weights"
            notes.append(f"stopped after {sensitivity.measured} of {total} weights; the others were guessed from them")
            interrupted = "" if time.monotonic() > deadline else interrupted
        return self.choices.tables(sensitivity), notes, interrupted

    def _meet_size(self, tables: Tables, budget: Budget, overhead: float) -> Allocation:
        """Find the best widths within an average, within the size of the file that comes out, or both."""
        within_average = tables.within_average(budget.bits) if budget.bits < math.inf else None
        if budget.file == math.inf:
            return within_average or tables.smallest
        for _ in range(_SIZE_ROUNDS):
            fits = within_average is not None and within_average.size + overhead <= budget.file
            found = within_average if fits else tables.within_size(budget.file - overhead)
            if found is None:
                break
            written = self._size_of(found)
            if written <= budget.file:
                return found
            overhead = written - found.size
        return tables.smallest

    def _meet_error(self, tables: Tables, limit: float, reach: _Reach) -> Allocation:
        assert reach.measure is not None  # there is a limit on the error
        found = meet_error(tables, limit, reach.measure)
        if found is None:
            raise _lost_too_much(limit, reach.measure(tables.most_exact.labels), of_output=True)
        return found

    def _meet_drop(
        self, tables: Tables, budget: Budget, lowest: float, deadline: float, *, reach: _Reach
    ) -> Allocation:
        """Halve the front for the smallest allocation whose metric does not fall too far."""
        assert self.flags.metric is not None  # it has given the lowest score
        start = tables.within_error(budget.error) if budget.error < math.inf else tables.smallest
        points = [tables.allocation(tables.front.columns(point)) for point in range(len(tables.front.moves) + 1)]
        points = [point for point in points if start is not None and point.size >= start.size]
        best, low, high = None, 0, len(points) - 1
        while low <= high and (best is None or time.monotonic() < deadline):
            middle = high if best is None else (low + high) // 2
            score = reach.score if points[middle].labels == reach.exact else self._score_of(points[middle])
            drop, tried = budget.drop + lowest - score, len(points) - 1 - (high - low)
            self.progress(Step("evaluate", tried, len(points), f"{self.flags.metric.name} {-drop:+.4g}"))
            if score >= lowest:
                best, high = points[middle], middle - 1
            elif best is not None:
                low = middle + 1
            else:
                raise _lost_too_much(budget.drop, drop)
        if best is None:
            raise _refusal("min_cosine", f"no allocation is expected to keep a cosine of {1 - budget.error:g}", "")
        return best

    def _judges(self) -> list[dict[str, Any]]:
        """Return samples to verify on: others than those of the gains, if there are enough."""
        start = PROBES if len(self.samples) >= 2 * PROBES else 0
        judges: list[dict[str, Any]] = []
        room = _JUDGES_BYTES
        for feeds in self.samples.part(start, min(len(self.samples), start + JUDGES)):
            room -= sum(array.nbytes for array in feeds.values())
            if judges and room < 0:
                break
            judges.append(feeds)
        return judges

    def _written(self, found: Allocation) -> Model:
        return self.write(self.choices.rounded(found.labels))

    def _size_of(self, found: Allocation) -> float:
        return float(self.weigh(self.choices.rounded(found.labels)))

    def _check_size(self, plan: QuantPlan, budget: Budget, found: Allocation) -> None:
        written, average = self.weigh(plan), found.average
        if written > budget.file or average > budget.bits:
            message = f"what keeps the quality asked for takes {format_bytes(written)}, {average:.2f} bits on average"
            raise _refusal(
                "target_size_mb" if written > budget.file else "average_bits", message, "allow a larger loss"
            )

    def _too_small(self, key: str, reach: str) -> ConfigError:
        widths = ",".join(map(str, self.config.budget.bits))
        given = "with encode=entropy" if self.config.lab.coded else f"with bits={widths}"
        message = f"no allocation is so small; {given} it takes {reach}"
        return _refusal(key, message, "allow fewer bits, or a larger file")


def _alike(plan: QuantPlan) -> Sensitivity:
    """Return every weight as sensitive as any other, and more exact with every bit."""
    shape = (len(plan.entries), len(WIDTHS))
    return Sensitivity(
        tensors=tuple(entry.tensor for entry in plan.entries),
        widths=WIDTHS,
        gains=np.ones(shape[0]),
        noise=np.broadcast_to(0.25 ** np.array(WIDTHS, np.float64), shape),
        power=np.ones(shape[0]),
        measured=0,
        runs=0,
    )


def _lost_too_much(limit: float, lost: float, *, of_output: bool = False) -> ConfigError:
    """Say that not even the most exact allocation loses as little as asked for."""
    if of_output:
        message = f"no allocation keeps a cosine of {1 - limit:g}; the most exact one reaches {1.0 - lost:.6f}"
        return _refusal("min_cosine", message, "allow more bits, e.g. bits=4,8,16")
    message = f"no allocation keeps the metric within {limit:g}; the most exact one loses {lost:.4g}"
    return _refusal("max_metric_drop", message, "allow more bits, or a larger loss")


def _refusal(key: str, message: str, hint: str) -> ConfigError:
    return ConfigError([Problem(section=_SECTION, key=key, message=message, hint=hint)])


def _chosen(plan: QuantPlan) -> str:
    return "steps" if any(entry.has_single_step for entry in plan.entries) else "widths"


def _average(plan: QuantPlan) -> str:
    weights = [math.prod(entry.shape) for entry in plan.entries]
    bits = [entry.bits if entry.coding is None else entry.coding.entropy for entry in plan.entries]
    mean = sum(each * count for each, count in zip(bits, weights, strict=True)) / sum(weights)
    coded = any(entry.coding is not None for entry in plan.entries)
    return f"{mean:.2f} {'coded bits' if coded else 'bits'} per weight on average, {min(bits):.3g} to {max(bits):.3g}"
