"""Mixed bits: a width for each weight, by the original's rule or by what the output can bear."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

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
from ptq_lab.search.sensitivity import changes_of
from ptq_lab.search.trials import Trials

AUTO_TUNE_COSINE = 0.995
PROBES = 8  # samples that the gains are measured on
JUDGES = 128  # other samples, as far as there are any, on which an allocation is verified
_JUDGES_BYTES = 64_000_000  # that they may take, because every trial runs them again
_SECTION = "ptq_lab.mixed_bit"
_SIZE_ROUNDS = 3

Write = Callable[[QuantPlan], Model]
Weigh = Callable[[QuantPlan], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What an allocation may cost: every limit has to hold.

    Attributes
    ----------
    file : float
        Bytes of the whole file.
    bits : float
        Average width of a weight; scales are not counted.
    error : float
        ``1 - cosine`` of the output.
    drop : float
        Of the metric.
    seconds : float
        For the search.
    """

    file: float = math.inf
    bits: float = math.inf
    error: float = math.inf
    drop: float = math.inf
    seconds: float = math.inf

    @property
    def bounds_size(self) -> bool:
        """Whether there is a limit on size."""
        return min(self.file, self.bits) < math.inf

    @property
    def bounds_loss(self) -> bool:
        """Whether there is a limit on what is lost."""
        return min(self.error, self.drop) < math.inf


def limits_output(config: QuantConfig) -> bool:
    """Tell whether widths follow from the output, by a budget or ``auto_tune``, instead of from ``init_scale``."""
    given = config.budget
    sizes = (given.target_size_mb, given.compression_ratio, given.average_bits)
    losses = (given.min_cosine, given.max_metric_drop)
    return config.mixed_bit.auto_tune or any(limit is not None for limit in (*sizes, *losses))


def budget_of(config: QuantConfig, original: Model) -> Budget | None:
    """Return what a configuration allows, or ``None`` if it names no limit but the error of each weight.

    ``auto_tune`` is a limit of its own, and gives way to any that is named.
    """
    if not limits_output(config):
        return None
    given = config.budget
    sizes = [1e6 * given.target_size_mb] if given.target_size_mb is not None else []
    sizes += [original.size / given.compression_ratio] if given.compression_ratio is not None else []
    budget = Budget(
        file=min(sizes, default=math.inf),
        bits=given.average_bits if given.average_bits is not None else math.inf,
        error=1.0 - given.min_cosine if given.min_cosine is not None else math.inf,
        drop=given.max_metric_drop if given.max_metric_drop is not None else math.inf,
        seconds=given.time_limit_s if given.time_limit_s is not None else math.inf,
    )
    named = budget.bounds_size or budget.bounds_loss
    return budget if named else replace(budget, error=1.0 - AUTO_TUNE_COSINE)


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
class MixedBits:
    """The search for the width of each weight of one model.

    Attributes
    ----------
    original : Model
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
        tables, notes, interrupted = self._tables(deadline)
        if budget.drop < math.inf:
            found = self._meet_drop(tables, budget, lowest, deadline)
        elif budget.error < math.inf:
            found = self._meet_error(tables, budget.error)
        else:
            found = self._meet_size(tables, budget)
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
        return float(self.flags.metric.score(open_session(self.original, threads=0))) - budget.drop

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

    def _meet_size(self, tables: Tables, budget: Budget) -> Allocation:
        """Find the best widths within an average, within the size of the file that comes out, or both."""
        smallest = tables.smallest
        within_average = tables.within_average(budget.bits) if budget.bits < math.inf else None
        if budget.bits < math.inf and within_average is None:
            raise self._too_small(tables, "average_bits", f"{smallest.average:.2f} bits on average at least")
        if budget.file == math.inf:
            assert within_average is not None  # there is a limit on one of the two
            return within_average
        overhead = self._size_of(smallest) - smallest.size
        for _ in range(_SIZE_ROUNDS):
            fits = within_average is not None and within_average.size + overhead <= budget.file
            found = within_average if fits else tables.within_size(budget.file - overhead)
            if found is None:
                low, high = (format_bytes(round(each.size + overhead)) for each in (smallest, tables.most_exact))
                raise self._too_small(tables, "target_size_mb", f"{low} to {high}")
            written = self._size_of(found)
            if written <= budget.file:
                return found
            overhead = written - found.size
        return smallest

    def _meet_error(self, tables: Tables, limit: float) -> Allocation:
        judges = self._judges()
        trials = Trials(self.original, tables.sensitivity.tensors, judges, providers=self.config.lab.providers)

        def measure(labels: Mapping[str, int]) -> float:
            error = trials.error(changes_of(self.choices.rounded(labels), self.original.weight))
            self.progress(Step("verify", trials.runs - 1, TRIES + 1, f"1 - cosine {error:.2g}"))
            return error

        found = meet_error(tables, limit, measure)
        if found is None:
            reached = 1.0 - measure(tables.most_exact.labels)
            message = f"no allocation keeps a cosine of {1 - limit:g}; the most exact one reaches {reached:.6f}"
            raise _refusal("min_cosine", message, "allow more bits, e.g. bits=4,8,16")
        return found

    def _meet_drop(self, tables: Tables, budget: Budget, lowest: float, deadline: float) -> Allocation:
        """Halve the front for the smallest allocation whose metric does not fall too far."""
        metric = self.flags.metric
        assert metric is not None  # it has given the lowest score
        start = tables.within_error(budget.error) if budget.error < math.inf else tables.smallest
        points = [tables.allocation(tables.front.columns(point)) for point in range(len(tables.front.moves) + 1)]
        points = [point for point in points if start is not None and point.size >= start.size]
        best, low, high = None, 0, len(points) - 1
        while low <= high and (best is None or time.monotonic() < deadline):
            middle = high if best is None else (low + high) // 2
            score = metric.score(open_session(self._written(points[middle]), threads=0))
            drop = budget.drop + lowest - score
            self.progress(Step("evaluate", len(points) - 1 - (high - low), len(points), f"{metric.name} {-drop:+.4g}"))
            if score >= lowest:
                best, high = points[middle], middle - 1
            elif best is not None:
                low = middle + 1
            else:
                message = f"no allocation keeps the metric within {budget.drop:g}; the most exact one loses {drop:.4g}"
                raise _refusal("max_metric_drop", message, "allow more bits, or a larger loss")
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

    def _too_small(self, tables: Tables, key: str, reach: str) -> ConfigError:
        widths = ",".join(map(str, self.config.budget.bits))
        given = "with encode=entropy" if self.config.lab.coded else f"with bits={widths}"
        message = f"no allocation is so small; {given} it takes {reach}"
        return _refusal(key, message, "allow fewer bits, or a larger file")


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
