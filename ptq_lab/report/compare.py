"""Two models on the same inputs: how far their outputs agree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ptq_lab.errors import InferenceError
from ptq_lab.graph import Model
from ptq_lab.numerics import cosine, sqnr_db
from ptq_lab.numerics.similarity import dot
from ptq_lab.progress import Progress, Step, silent
from ptq_lab.report.predictions import Answers, Predictions
from ptq_lab.report.tables import OutputRow, Table
from ptq_lab.runtime import CPU, Feeds, Sessions, open_session, run_session


class Inputs(Protocol):
    """What models are compared on: re-iterable, of known length, with a name for reports, made up or real."""

    @property
    def origin(self) -> str: ...  # noqa: D102
    @property
    def random(self) -> bool: ...  # noqa: D102
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Feeds]: ...


class Judge(Protocol):
    """A task metric; higher is better."""

    @property
    def name(self) -> str: ...  # noqa: D102
    def judge(self, session: Any) -> Judged: ...  # noqa: D102
    def judge_float(self, model: Model, providers: Sequence[str]) -> Judged: ...  # noqa: D102


class Judged(Protocol):
    """A score, and what it is made of where that is known: answers, and what is right."""

    @property
    def score(self) -> float: ...  # noqa: D102
    @property
    def output(self) -> str: ...  # noqa: D102
    @property
    def classes(self) -> int: ...  # noqa: D102
    @property
    def answers(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def labels(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def origin(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """How the quantized model does: its outputs against the original's, and the task metric and answers of both.

    `skipped`: the models were not run, for the reason that `compared_on` gives.
    """

    outputs: Table[OutputRow]
    compared_on: str
    metric: str = ""
    before: float | None = None
    after: float | None = None
    predictions: Predictions | None = None
    skipped: bool = False
    notes: tuple[str, ...] = ()


def measure(
    original: Model,
    quantized: Model,
    samples: Inputs,
    metric: Judge | None = None,
    *,
    sessions: Sessions | None = None,
    providers: Sequence[str] = CPU,
    progress: Progress = silent,
) -> Measured:
    """Run both models on every sample, and the metric on both if there is one.

    Raises
    ------
    InferenceError
        If a model does not run, or an output of the original is NaN throughout.
    """
    sessions, answers = sessions or Sessions(providers), Answers()
    outputs = compare_outputs(sessions(original), sessions(quantized), samples, answers=answers, progress=progress)
    seen = None if samples.random else answers.found(samples.origin)  # of noise there is no right class
    notes = tuple(f"the output {row.output} of {quantized.label} is NaN throughout" for row in outputs if row.is_lost)
    if metric is None:
        return Measured(outputs=outputs, compared_on=samples.origin, predictions=seen, notes=notes)
    progress(Step("evaluate", 0, 2, metric.name))
    before = metric.judge_float(original, providers)
    progress(Step("evaluate", 1, 2, metric.name))
    after = metric.judge(open_session(quantized, providers=providers, threads=0))
    return Measured(
        outputs=outputs,
        compared_on=samples.origin,
        metric=metric.name,
        before=before.score,
        after=after.score,
        predictions=_labelled(before, after) or seen,
        notes=notes,
    )


def _labelled(before: Judged, after: Judged) -> Predictions | None:
    if not before.labels:
        return None
    return Predictions(
        output=before.output,
        classes=before.classes,
        before=before.answers,
        after=after.answers,
        labels=before.labels,
        origin=before.origin,
    )


@dataclass(slots=True)
class _Agreement:
    """Running totals of one output; memory does not grow with the number of inputs."""

    cosine_sum: float = 0.0
    cosine_min: float = 1.0
    signal: float = 0.0
    noise: float = 0.0
    worst: float = 0.0
    count: int = 0
    undefined: bool = True  # NaN throughout, before
    lost: bool = True  # and after

    def add(self, before: NDArray[Any], after: NDArray[Any]) -> None:
        self.count += 1
        x, y = before.astype(np.float64).ravel(), after.astype(np.float64).ravel()
        self.undefined &= bool(x.size and np.isnan(x).all())
        self.lost &= bool(y.size and np.isnan(y).all())
        if before.shape == after.shape:
            finite = np.isfinite(x) & np.isfinite(y)
            if np.array_equal(x[~finite], y[~finite], equal_nan=True):  # e.g. the minus infinity of a mask
                return self._add_finite(x[finite], y[finite])
        # Another number of boxes, or an infinity on one side: as far apart as can be.
        self.cosine_min = min(self.cosine_min, 0.0)
        self.noise = self.worst = math.inf
        return None

    def _add_finite(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        error = y - x
        similarity = min(cosine(x, y), 1.0)
        self.cosine_sum += similarity
        self.cosine_min = min(self.cosine_min, similarity)
        self.signal += dot(x, x)
        self.noise += dot(error, error)
        self.worst = max(self.worst, float(np.abs(error).max(initial=0.0)))

    def row(self, output: str) -> OutputRow:
        return OutputRow(
            output=output,
            cosine_mean=self.cosine_sum / max(self.count, 1),
            cosine_min=self.cosine_min,
            sqnr_db=sqnr_db(self.signal, self.noise),
            max_abs_error=self.worst,
            is_lost=self.lost and self.count > 0,
        )


def compare_outputs(
    before: Any, after: Any, samples: Inputs, *, answers: Answers | None = None, progress: Progress = silent
) -> Table[OutputRow]:
    """Run two sessions on every sample and measure how their outputs agree.

    Parameters
    ----------
    before, after : onnxruntime.InferenceSession
        With the same inputs; outputs are matched by name.
    samples : iterable of {input name: array}
        Read once, one at a time.
    answers : Answers, optional
        Gets the first output of both.

    Returns
    -------
    Table of OutputRow
        One row per numeric output, in the order of `before`.

    Raises
    ------
    InferenceError
        If a session fails, or an output of `before` is NaN throughout, so that there is nothing to compare with.
    """
    totals: dict[str, _Agreement] = {}
    for index, feeds in enumerate(samples):
        wanted, got = run_session(before, feeds), run_session(after, feeds)
        first = next(iter(wanted), None)
        if answers is not None and first is not None:
            answers.add(first, wanted[first], got.get(first))
        for name, value in wanted.items():
            if isinstance(value, np.ndarray) and value.dtype.kind in "fiub" and name in got:
                totals.setdefault(name, _Agreement()).add(value, got[name])
        progress(Step("compare", index + 1, len(samples)))
    for name, agreement in totals.items():
        if agreement.count and agreement.undefined:
            hint = "look for NaN among its weights and in the samples"
            raise InferenceError(f"the output {name} of the float model is NaN on all {agreement.count} inputs; {hint}")
    return Table(OutputRow, (agreement.row(name) for name, agreement in totals.items()))
