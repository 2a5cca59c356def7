"""Top-1: the share of labelled samples that a classifier gets right, and what it answers to each of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ptq_lab.calibration import Samples
from ptq_lab.errors import SampleError
from ptq_lab.numerics.classes import best_class, class_scores

_log = logging.getLogger(__name__)


class InferenceSession(Protocol):
    """What a metric needs of a session; ``onnxruntime.InferenceSession`` has it."""

    def run(self, output_names: None, input_feed: Mapping[str, NDArray[Any]], /) -> Sequence[Any]:
        """Return the values of all outputs."""

    def get_outputs(self) -> Sequence[Any]:
        """Return descriptions of the outputs, each with a ``name``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A score and what it is made of.

    Attributes
    ----------
    score : float
    answers, labels : tuple of int
        The class that the model gives every sample, and the right one; empty where the metric is not about classes.
    classes : int
        How many there are.
    output, origin : str
        The tensor of scores, and which samples were judged.
    """

    score: float
    answers: tuple[int, ...] = ()
    labels: tuple[int, ...] = ()
    classes: int = 0
    output: str = ""
    origin: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Top1:
    """The share of samples whose largest class score is at the labelled class.

    Examples
    --------
    >>> from ptq_lab.calibration import random_samples
    >>> Top1(samples=random_samples([], count=2), labels=(1, 0))
    Traceback (most recent call last):
    ptq_lab.errors.SampleError: top-1: the model has no inputs
    """

    samples: Samples
    labels: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.samples.names:
            message = "top-1: the model has no inputs"
            raise SampleError(message)

    def __call__(self, session: InferenceSession) -> float:
        """Run every sample, one at a time.

        Raises
        ------
        SampleError
            The first output is no row of class scores, or a label is not below their number.
        """
        return self.judge(session).score

    def judge(self, session: InferenceSession) -> Judged:
        """Run every sample, one at a time, and return every answer with their score.

        Raises
        ------
        SampleError
            As a call.
        """
        answers, classes = [], 0
        for index, (label, feeds) in enumerate(zip(self.labels, self.samples, strict=True)):
            scores = _class_scores(session, feeds)
            classes = max(classes, len(scores))
            if label >= len(scores):
                raise self.no_such_class(index, len(scores))
            answers.append(best_class(scores))
        hits = sum(best == label for best, label in zip(answers, self.labels, strict=True))
        shifted = sum(best == label + 1 for best, label in zip(answers, self.labels, strict=True))
        if shifted > 2 * hits and shifted > len(self.labels) // 10:
            # A model with a background class in front; whether that is meant, only the user knows.
            _log.warning("top-1: %s of %s answers are the label plus 1, %s the label", shifted, len(self.labels), hits)
        return Judged(
            score=hits / len(self.labels),
            answers=tuple(answers),
            labels=self.labels,
            classes=classes,
            output=session.get_outputs()[0].name,
            origin=self.samples.origin,
        )

    def no_such_class(self, index: int, classes: int) -> SampleError:
        """Return what is to be said when a label is not below the number of classes."""
        return SampleError(
            f"top-1: {self.samples.place(index)} is labelled {self.labels[index]}, but the model has only "
            f"{classes} classes (0..{classes - 1})"
        )


def _class_scores(session: InferenceSession, feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    values = np.asarray(session.run(None, feeds)[0])
    scores = class_scores(values)
    if scores is None:
        name = session.get_outputs()[0].name
        raise SampleError(
            f"top-1: the output {name!r} gives {values.dtype} {list(values.shape)} for one sample, one score per class "
            "([1, classes]) wanted; evaluate with a function session -> float instead"
        )
    return scores
