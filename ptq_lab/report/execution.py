"""How a quantized model runs here: which layers are integer kernels, and how long one inference takes against float."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ptq_lab.graph import Model
from ptq_lab.graph.kernels import KernelReport, count_kernels
from ptq_lab.plan import QuantPlan
from ptq_lab.runtime import CPU, Feeds, Sessions, optimized_model, run_session

PAIRS = 15
_FEWEST, _SHORTEST, _LONGEST = 3, 0.25, 5.0  # pairs; seconds: small models get more pairs, large ones fewer
_LEAST_SPREAD, _ENOUGH = 9, 0.1  # pairs from which their spread says something; seconds
_UNCERTAIN = 0.02  # of the median: what may be left of the doubt


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """What was seen when the quantized model ran.

    Attributes
    ----------
    kernels : KernelReport
    latency_ratio : float
        Time of the quantized model over that of the original, on one sample and one thread; below 1 is faster.
    """

    kernels: KernelReport
    latency_ratio: float


def measure_execution(
    original: Model,
    quantized: Model,
    plan: QuantPlan,
    feeds: Feeds,
    *,
    sessions: Sessions | None = None,
    providers: Sequence[str] = CPU,
) -> Execution:
    """Look at the kernels of an integer model and time it against its original.

    Parameters
    ----------
    original, quantized : Model
    plan : QuantPlan
        That `quantized` was written from.
    feeds : mapping of str to ndarray
        One sample.
    sessions : Sessions, optional
        Where the models may be open already.
    providers : sequence of str
        onnxruntime execution providers.

    Raises
    ------
    InferenceError
        If onnxruntime fails on one of the models.
    """
    return Execution(
        kernels=count_kernels(optimized_model(quantized, providers=providers), plan),
        latency_ratio=latencies([original, quantized], feeds, sessions=sessions or Sessions(providers))[1].ratio,
    )


@dataclass(frozen=True, slots=True)
class Latency:
    """Median time of one inference: in milliseconds, and relative to the first model timed in the same turns."""

    milliseconds: float
    ratio: float


def latencies(
    models: Sequence[Model], feeds: Feeds, *, sessions: Sessions | None = None, rounds: int = PAIRS
) -> tuple[Latency, ...]:
    """Return how long models take on one thread, each also relative to the first.

    They run in turns, in rounds whose order alternates, and the median of the rounds' ratios is taken: what else the
    machine does meanwhile slows all of them.

    Parameters
    ----------
    models : sequence of Model
        Two or more.
    feeds : mapping of str to ndarray
        One sample.
    sessions : Sessions, optional
        Where the models may be open already.
    rounds : int
        More if they take less than a quarter of a second; fewer, but at least 3, if more than five seconds, and fewer,
        but at least 9 and a tenth of a second, if they agree.
    """
    sessions = sessions or Sessions()
    opened = [sessions(model) for model in models]
    for session in opened:
        run_session(session, feeds)  # the first run allocates
    seconds: list[list[float]] = [[] for _ in models]
    ratios: list[list[float]] = [[] for _ in models]
    start = time.perf_counter()
    while (took := time.perf_counter() - start) < _LONGEST or len(ratios[0]) < _FEWEST:
        settled = took >= _ENOUGH and all(map(_agree, ratios))
        if (len(ratios[0]) >= rounds and took >= _SHORTEST) or settled:
            break
        forward = len(ratios[0]) % 2 == 0
        for index in range(len(models)) if forward else reversed(range(len(models))):
            seconds[index].append(_seconds(opened[index], feeds))
        for index in range(len(models)):
            ratios[index].append(seconds[index][-1] / seconds[0][-1])
    return tuple(
        Latency(1e3 * statistics.median(times), statistics.median(relative))
        for times, relative in zip(seconds, ratios, strict=True)
    )


def _agree(ratios: Sequence[float]) -> bool:
    """Tell whether the median of some ratios is known well: from the middle half of them, as if it were of a normal."""
    if len(ratios) < _LEAST_SPREAD:
        return False
    first, middle, third = statistics.quantiles(ratios, n=4)
    return (third - first) / math.sqrt(len(ratios)) <= _UNCERTAIN * middle


def _seconds(session: Any, feeds: Feeds) -> float:
    start = time.perf_counter()
    run_session(session, feeds)
    return time.perf_counter() - start
