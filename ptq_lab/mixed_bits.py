"""Mixed bits: a width for each weight, by the original's rule or by what the output can bear."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from ptq_lab.calibration import Samples
from ptq_lab.config import QuantConfig
from ptq_lab.errors import ConfigError, Problem
from ptq_lab.flags import Flags
from ptq_lab.graph import Model
from ptq_lab.plan import QuantPlan, round_weights
from ptq_lab.progress import Progress, Step, silent
from ptq_lab.report.text import format_bytes
from ptq_lab.runtime import open_session
from ptq_lab.search.allocate import TRIES, Allocation, Tables, make_tables, meet_error
from ptq_lab.search.relative import fewest_bits
from ptq_lab.search.sensitivity import changes_of, measure_sensitivity
from ptq_lab.search.trials import Trials

AUTO_TUNE_COSINE = 0.995
PROBES = 8  # samples that the gains are measured on
JUDGES = 32  # other samples, as far as there are any, on which an allocation is verified
_SECTION = "ptq_lab.mixed_bit"
_SIZE_ROUNDS = 3

Write = Callable[[QuantPlan], Model]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What an allocation may cost: every limit has to hold.

    Attributes
    ----------
    file : float
        Bytes of the whole file.
    codes : float
        Bytes of codes, scales and offsets.
    error : float
        ``1 - cosine`` of the output.
    drop : float
        Of the metric.
    seconds : float
        For the search.
    """

    file: float = math.inf
    codes: float = math.inf
    error: float = math.inf
    drop: float = math.inf
    seconds: float = math.inf

    @property
    def bounds_size(self) -> bool:
        """Whether there is a limit on size."""
        return min(self.file, self.codes) < math.inf

    @property
    def bounds_loss(self) -> bool:
        """Whether there is a limit on what is lost."""
        return min(self.error, self.drop) < math.inf


def budget_of(config: QuantConfig, original: Model, plan: QuantPlan) -> Budget | None:
    """Return what a configuration allows, or ``None`` if it names no limit but the error of each weight.

    ``auto_tune`` is a limit of its own, and gives way to any that is named.
    """
    given = config.budget
    weights = sum(math.prod(entry.shape) for entry in plan.entries)
    scales = sum(8 * entry.channels for entry in plan.entries)  # what no width changes
    sizes = [1e6 * given.target_size_mb] if given.target_size_mb is not None else []
    sizes += [original.size / given.compression_ratio] if given.compression_ratio is not None else []
    budget = Budget(
        file=min(sizes, default=math.inf),
        codes=given.average_bits * weights / 8 + scales if given.average_bits is not None else math.inf,
        error=1.0 - given.min_cosine if given.min_cosine is not None else math.inf,
        drop=given.max_metric_drop if given.max_metric_drop is not None else math.inf,
        seconds=given.time_limit_s if given.time_limit_s is not None else math.inf,
    )
    if budget.bounds_size or budget.bounds_loss:
        return budget
    return replace(budget, error=1.0 - AUTO_TUNE_COSINE) if config.mixed_bit.auto_tune else None


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
        Turns a plan with codes into the model that will be stored.
    progress : Progress
    """

    original: Model
    plan: QuantPlan
    pins: Mapping[str, int]
    config: QuantConfig
    samples: Samples
    flags: Flags
    write: Write
    progress: Progress

    def choose(self) -> tuple[QuantPlan, tuple[str, ...]]:
        """Return the plan with widths and codes, and how they were found.

        Raises
        ------
        ConfigError
            If no allocation keeps within the budget; the message says what can be reached.
        """
        budget = budget_of(self.config, self.original, self.plan)
        return self._by_rule() if budget is None else self._by_sensitivity(budget)

    def _by_rule(self) -> tuple[QuantPlan, tuple[str, ...]]:
        target = self.config.mixed_bit.init_scale
        found = fewest_bits(self.plan, self.original.weight, target, pins=self.pins, progress=self.progress)
        return found, (f"widths by init_scale={target:g}: {_average(found)}",)

    def _by_sensitivity(self, budget: Budget) -> tuple[QuantPlan, tuple[str, ...]]:
        deadline = time.monotonic() + budget.seconds
        tables, notes = self._tables(deadline)
        if budget.drop < math.inf:
            found = self._meet_drop(tables, budget, deadline)
        elif budget.error < math.inf:
            found = self._meet_error(tables, budget.error)
        else:
            found = self._meet_size(tables, budget)
        plan = self._with_bits(found.bits, progress=self.progress)
        if budget.bounds_loss and budget.bounds_size:
            self._check_size(plan, budget, found)
        verified = (
            "" if math.isnan(found.measured) else f", {found.measured:.2g} on {len(self._judges())} other samples"
        )
        how = f"widths by sensitivity: {_average(plan)}; 1 - cosine expected {found.predicted:.2g}{verified}"
        return plan, (*notes, how)

    def _tables(self, deadline: float) -> tuple[Tables, list[str]]:
        sensitivity = measure_sensitivity(
            self.original,
            self.plan,
            list(islice(self.samples, PROBES)),
            providers=self.config.lab.providers,
            executor=self.flags.executor,
            deadline=deadline,
            progress=self.progress,
        )
        notes, total = [], len(sensitivity.tensors)
        if self.samples.random:
            notes.append("there are no samples: the search measured on seeded random inputs; real ones do better")
        if sensitivity.measured < total:
            notes.append(f"stopped after {sensitivity.measured} of {total} weights; the others were guessed from them")
        return make_tables(self.plan, sensitivity, self.config.budget.bits, self.pins), notes

    def _meet_size(self, tables: Tables, budget: Budget) -> Allocation:
        """Find the best widths within a size; that of a file is measured on the file that comes out."""
        whole = budget.file < math.inf
        overhead = self._size_of(tables.smallest) - tables.smallest.size if whole else 0.0
        for _ in range(_SIZE_ROUNDS):
            found = tables.within_size(min(budget.codes, budget.file - overhead))
            if found is None:
                raise self._too_small(tables, overhead)
            written = self._size_of(found) if whole else 0.0
            if written <= budget.file:
                return found
            overhead = written - found.size
        return tables.smallest

    def _meet_error(self, tables: Tables, limit: float) -> Allocation:
        judges = self._judges()
        trials = Trials(self.original, tables.sensitivity.tensors, judges, providers=self.config.lab.providers)

        def measure(bits: Mapping[str, int]) -> float:
            error = trials.error(changes_of(self.plan.with_bits(bits), self.original.weight))
            self.progress(Step("verify", trials.runs - 1, TRIES + 1, f"1 - cosine {error:.2g}"))
            return error

        found = meet_error(tables, limit, measure)
        if found is None:
            reached = 1.0 - measure(tables.most_exact.bits)
            message = f"no allocation keeps a cosine of {1 - limit:g}; the most exact one reaches {reached:.6f}"
            raise _refusal("min_cosine", message, "allow more bits, e.g. bits=4,8,16")
        return found

    def _meet_drop(self, tables: Tables, budget: Budget, deadline: float) -> Allocation:
        """Halve the front for the smallest allocation whose metric does not fall too far."""
        metric = self.flags.metric
        if metric is None:
            message = "max_metric_drop needs something that evaluates the model"
            raise _refusal("max_metric_drop", message, "give evaluate=, or --eval")
        before = metric.score(open_session(self.original, threads=0))
        start = tables.within_error(budget.error) if budget.error < math.inf else tables.smallest
        points = [tables.allocation(tables.front.columns(point)) for point in range(len(tables.front.moves) + 1)]
        points = [point for point in points if start is not None and point.size >= start.size]
        best, low, high = None, 0, len(points) - 1
        while low <= high and (best is None or time.monotonic() < deadline):
            middle = high if best is None else (low + high) // 2
            drop = before - metric.score(open_session(self._written(points[middle]), threads=0))
            self.progress(Step("evaluate", len(points) - 1 - (high - low), len(points), f"{metric.name} {-drop:+.4g}"))
            if drop <= budget.drop:
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
        return list(self.samples.part(start, min(len(self.samples), start + JUDGES)))

    def _with_bits(self, bits: Mapping[str, int], *, progress: Progress = silent) -> QuantPlan:
        """Return the plan with some widths and with codes."""
        return round_weights(self.plan.with_bits(bits), self.original.weight, progress=progress)

    def _written(self, found: Allocation) -> Model:
        return self.write(self._with_bits(found.bits))

    def _size_of(self, found: Allocation) -> float:
        return float(len(self._written(found).serialize()))

    def _check_size(self, plan: QuantPlan, budget: Budget, found: Allocation) -> None:
        written = len(self.write(plan).serialize())
        if written > budget.file or found.size > budget.codes:
            message = f"the smallest file that keeps the quality asked for has {format_bytes(written)}"
            raise _refusal("target_size_mb", message, "allow a larger file, or a larger loss")

    def _too_small(self, tables: Tables, overhead: float) -> ConfigError:
        low, high = (format_bytes(round(each.size + overhead)) for each in (tables.smallest, tables.most_exact))
        widths = ",".join(map(str, self.config.budget.bits))
        message = f"no allocation is so small; with bits={widths} it takes {low} to {high}"
        return _refusal("target_size_mb", message, "allow fewer bits, or a larger file")


def _refusal(key: str, message: str, hint: str) -> ConfigError:
    return ConfigError([Problem(section=_SECTION, key=key, message=message, hint=hint)])


def _average(plan: QuantPlan) -> str:
    weights = [math.prod(entry.shape) for entry in plan.entries]
    bits = sum(entry.bits * count for entry, count in zip(plan.entries, weights, strict=True))
    narrow, wide = min(entry.bits for entry in plan.entries), max(entry.bits for entry in plan.entries)
    return f"{bits / sum(weights):.2f} bits per weight on average, {narrow} to {wide}"
