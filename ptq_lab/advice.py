"""What to edit so that a result gets better, and what the edit really does: tried, not promised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ptq_lab.config import QuantConfig, load_config
from ptq_lab.debug import without_debug
from ptq_lab.errors import ConfigError, Problem, PtqLabError
from ptq_lab.explanation import Explanation, explain
from ptq_lab.manifest import config_text
from ptq_lab.pipeline import quantize
from ptq_lab.progress import Progress, Step, silent
from ptq_lab.report.diagnosis import Cause, Edit
from ptq_lab.result import QuantResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """An edit that was tried.

    Attributes
    ----------
    edit : Edit
    cause : Cause
    cosine : float
        Of the output with the edit, mean over the samples compared.
    gain : float
        How much higher that is than without.
    bytes : int
        How much larger the file becomes.
    latency : float or None
        How much longer an inference takes, as a share of the float model's time.
    metric : float or None
        How much the metric rises.
    config : QuantConfig
        The configuration with the edit.
    """

    edit: Edit
    cause: Cause
    cosine: float
    gain: float
    bytes: int
    latency: float | None
    metric: float | None
    config: QuantConfig

    def worth(self, *, by_metric: bool) -> tuple[float, float]:
        """Return what to rank by: the larger, the better; (0, 0) is nothing gained."""
        return (self.metric or 0.0 if by_metric else 0.0), self.gain

    def __str__(self) -> str:
        parts = [f"{100 * self.gain:+.3g} points cosine", f"{self.bytes / 1e3:+.3g} kB"]
        parts += [f"{100 * self.latency:+.3g} % latency"] if self.latency is not None else []
        parts += [f"{self.metric:+.4g} metric"] if self.metric is not None else []
        return f"{self.edit}: {', '.join(parts)}"


def advise(
    result: QuantResult,
    explanation: Explanation | None = None,
    *,
    count: int = 4,
    by_metric: bool = False,
    progress: Progress = silent,
) -> tuple[Advice, ...]:
    """Try the edits that the most harmful causes suggest, and return them with what they really do, best first.

    Parameters
    ----------
    result : QuantResult
    explanation : Explanation, optional
        Of the result; made if not given.
    count : int
        How many edits to try; each quantizes the model once.
    by_metric : bool
        The best is the one with the best metric, if there is one, and the cosine decides between equals. Otherwise the
        cosine decides: on a few hundred labelled samples a metric moves by chance.
    progress : Progress
    """
    explanation = explanation or explain(result, progress=progress)
    tried: dict[Edit, Advice] = {}
    wanted = [(edit, cause) for cause in explanation.causes for edit in cause.edits]
    for index, (edit, cause) in enumerate(wanted):
        if len(tried) >= count:
            break
        config = edited(result.config, [edit])
        if edit in tried or config is None:
            continue
        progress(Step("advise", index, len(wanted), str(edit)))
        tried[edit] = _measured(result, quantize_again(result, config), edit, cause, config)
    return tuple(sorted(tried.values(), key=lambda advice: advice.worth(by_metric=by_metric), reverse=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """What came of a repair.

    Attributes
    ----------
    result : QuantResult
        The best one.
    steps : tuple of Advice
        The edits it took, in order, each with what it did.
    reached : bool
        Whether the goal was met.
    """

    result: QuantResult
    steps: tuple[Advice, ...]
    reached: bool

    @property
    def config(self) -> QuantConfig:
        """The configuration of the best result."""
        return self.result.config

    def __str__(self) -> str:
        lines = [f"{index}. {step.cause.kind}: {step}" for index, step in enumerate(self.steps, 1)]
        return "\n".join(
            [*lines, "the goal is reached" if self.reached else "the goal is not reached; this is the best"]
        )


def repair(
    result: QuantResult,
    *,
    min_cosine: float | None = None,
    max_metric_drop: float | None = None,
    rounds: int = 5,
    tries: int = 3,
    progress: Progress = silent,
) -> Repair:
    """Edit a configuration until its result is good enough: the best edit first, each one tried.

    Parameters
    ----------
    result : QuantResult
    min_cosine, max_metric_drop : float, optional
        The goal; the metric needs a result that was evaluated. Without either, a cosine of 0.999.
    rounds : int
        How many edits at most.
    tries : int
        How many edits are tried for each one taken.
    progress : Progress

    Raises
    ------
    ConfigError
        If a goal is out of range, or the metric is one and the result has none.

    Notes
    -----
    Ctrl-C ends the search, and the best result so far is returned.
    """
    _check_goal(min_cosine, max_metric_drop, result)
    goal = _Goal(0.999 if min_cosine is None and max_metric_drop is None else min_cosine, max_metric_drop)
    best = result
    steps: list[Advice] = []
    try:
        while not goal.met(best) and len(steps) < rounds:
            advice = advise(best, count=tries, by_metric=goal.drop is not None, progress=progress)
            if not advice or advice[0].worth(by_metric=goal.drop is not None) <= (0.0, 0.0):
                break
            steps.append(advice[0])
            best = quantize_again(best, advice[0].config)
    except KeyboardInterrupt:
        pass
    return Repair(result=best, steps=tuple(steps), reached=goal.met(best))


def _check_goal(min_cosine: float | None, max_metric_drop: float | None, result: QuantResult) -> None:
    """Refuse goals that nothing reaches, and one that needs a metric where there is none."""
    problems = []
    if min_cosine is not None and not 0.0 < min_cosine <= 1.0:
        problems.append(Problem(key="min_cosine", message=f"{min_cosine:g} is outside 0..1"))
    if max_metric_drop is not None and not 0.0 <= max_metric_drop < math.inf:
        problems.append(Problem(key="max_metric_drop", message=f"{max_metric_drop:g} is not a number of 0 or more"))
    if max_metric_drop is not None and result.report.summary.metric_after is None:
        message = "the result was not evaluated, so there is no metric to keep"
        problems.append(Problem(key="max_metric_drop", message=message, hint="quantize with evaluate="))
    if problems:
        raise ConfigError(problems)


@dataclass(frozen=True, slots=True)
class _Goal:
    cosine: float | None
    drop: float | None

    def met(self, result: QuantResult) -> bool:
        summary = result.report.summary
        near = self.cosine is None or summary.cosine_mean >= self.cosine
        return near and (self.drop is None or (summary.metric_drop or 0.0) <= self.drop)


def quantize_again(result: QuantResult, config: QuantConfig) -> QuantResult:
    """Quantize the model of a result with another configuration, on the same samples, without debug reports."""
    run, config = result.run, without_debug(config)
    return quantize(run.original, config, samples=run.given, evaluate=run.evaluate, **run.flags)


def edited(config: QuantConfig, edits: Sequence[Edit]) -> QuantConfig | None:
    """Return a configuration with some edits, or ``None`` if they do not make one; names to skip are added."""
    overrides = {}
    for edit in edits:
        value = edit.value
        if edit.key == "skip_quant_node":
            value = ",".join(dict.fromkeys([*config.common.skip_quant_node, *edit.value.split(",")]))
        overrides[f"{edit.section}.{edit.key}"] = value
    try:
        return load_config(config_text(config), overrides=overrides)
    except PtqLabError:
        return None


def _measured(before: QuantResult, after: QuantResult, edit: Edit, cause: Cause, config: QuantConfig) -> Advice:
    old, new = before.report.summary, after.report.summary
    both = old.latency_ratio is not None and new.latency_ratio is not None
    scored = old.metric_after is not None and new.metric_after is not None
    return Advice(
        edit=edit,
        cause=cause,
        cosine=new.cosine_mean,
        gain=new.cosine_mean - old.cosine_mean,
        bytes=new.bytes_after - old.bytes_after,
        latency=(new.latency_ratio or 0.0) - (old.latency_ratio or 0.0) if both else None,
        metric=(new.metric_after or 0.0) - (old.metric_after or 0.0) if scored else None,
        config=config,
    )


__all__ = ["Advice", "Repair", "advise", "edited", "quantize_again", "repair"]
