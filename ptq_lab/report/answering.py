"""What a float model and several quantized ones answer on the same samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq_lab.calibration import Samples
from ptq_lab.numerics import cosine
from ptq_lab.numerics.classes import best_class, class_scores
from ptq_lab.progress import Progress, Step, silent
from ptq_lab.report.predictions import scores_of_classes
from ptq_lab.runtime import Feeds, run_session

Picture = Callable[[Feeds], bytes]


@dataclass(slots=True)
class Answers:
    """What was seen.

    Attributes
    ----------
    errors : list of float
        Per quantized model: ``1 - cosine`` of its outputs, mean over samples and outputs.
    classes : list of tuple of int
        Per sample: the answer of the float model, then of each quantized one; empty if they are no classifiers.
    pictures : dict of int to bytes
        Samples whose answers differ, by number.
    """

    errors: list[float] = field(default_factory=list)
    classes: list[tuple[int, ...]] = field(default_factory=list)
    pictures: dict[int, bytes] = field(default_factory=dict)


def answer_samples(
    original: Any,
    quantized: Sequence[Any],
    samples: Samples,
    *,
    limit: int,
    picture: Picture | None = None,
    labelled: bool = False,
    progress: Progress = silent,
) -> Answers:
    """Run a float model and quantized ones on the same samples.

    Parameters
    ----------
    original : onnxruntime.InferenceSession
    quantized : sequence of onnxruntime.InferenceSession
        With the inputs of the float model; outputs are matched by name.
    samples : Samples
        Read once, one at a time.
    limit : int
        How many of them at most.
    picture : callable, optional
        Draws a sample whose answers differ; without it none is drawn and no answer is kept.
    labelled : bool
        The samples have classes, so a row of numbers is one of scores, whatever it is called.
    progress : Progress
        Told once per sample.
    """
    found = Answers(errors=[0.0] * len(quantized))
    count = min(limit, len(samples))
    for index, feeds in enumerate(islice(samples, count)):
        wanted = run_session(original, feeds)
        got = [run_session(session, feeds) for session in quantized]
        for which, outputs in enumerate(got):
            found.errors[which] += _error(wanted, outputs) / count
        if picture is not None:
            classes = [_class_of(outputs, labelled=labelled) for outputs in (wanted, *got)]
            _note_classes(found, index, classes, feeds, picture)
        progress(Step("compare runs", index + 1, count))
    return found


def _note_classes(found: Answers, index: int, classes: Sequence[int | None], feeds: Feeds, picture: Picture) -> None:
    if any(each is None for each in classes):
        return
    answers = tuple(each for each in classes if each is not None)
    found.classes.append(answers)
    if len(set(answers)) > 1:
        found.pictures[index] = picture(feeds)


def _error(wanted: Feeds, got: Feeds) -> float:
    shared = [name for name, value in wanted.items() if _is_numeric(value) and name in got]
    alike = [_likeness(wanted[name], got[name]) for name in shared]
    return 1.0 - sum(alike) / len(alike) if alike else 0.0


def _likeness(wanted: NDArray[Any], got: NDArray[Any]) -> float:
    return min(1.0, cosine(wanted, got)) if wanted.shape == got.shape else 0.0


def _class_of(outputs: Feeds, *, labelled: bool) -> int | None:
    """Return the class of one sample, if the first output holds scores of classes."""
    name, values = next(iter(outputs.items()))
    scores = class_scores(values) if labelled else scores_of_classes(name, values)
    return None if scores is None else best_class(scores)


def _is_numeric(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiub"
