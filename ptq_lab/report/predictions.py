"""What a classifier answers before and after quantization, sample by sample."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq_lab.numerics.classes import NO_CLASS, best_class, class_scores

_NAMES = re.compile(r"logit|prob|softmax|class|score|pred", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """The class with the largest score, for every sample.

    Attributes
    ----------
    output : str
        The tensor of scores.
    classes : int
        How many there are.
    before, after : tuple of int
        Answers of the original and of the quantized model; -1 where the scores are not numbers.
    labels : tuple of int
        What is right; empty if nobody said.
    origin : str
        Which samples, e.g. ``"400 images of imagenet-eval"``.

    Examples
    --------
    >>> seen = Predictions(output="logits", classes=3, before=(0, 1, 2, 1), after=(0, 2, 2, 2), labels=(0, 1, 2, 2))
    >>> seen.changed, seen.flips, seen.lost, seen.won
    (2, ((1, 2, 2),), 1, 1)
    >>> seen.counts
    ((1, 2, 0), (2, 1, 3), (0, 1, 1))
    >>> seen.matrix()
    ((1, 0, 0), (0, 0, 2), (0, 0, 1))
    """

    output: str
    classes: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    labels: tuple[int, ...] = ()
    origin: str = ""

    @property
    def changed(self) -> int:
        """How many samples have another answer than before."""
        return sum(old != new for old, new in zip(self.before, self.after, strict=True))

    @property
    def flips(self) -> tuple[tuple[int, int, int], ...]:
        """Answer before, answer after, and how often, where they differ; the most frequent first."""
        found = Counter(pair for pair in zip(self.before, self.after, strict=True) if pair[0] != pair[1])
        return tuple(
            (old, new, count) for (old, new), count in sorted(found.items(), key=lambda item: (-item[1], item))
        )

    @property
    def counts(self) -> tuple[tuple[int, int, int], ...]:
        """Class, how often it was the answer before, and after; those first whose number changed most."""
        old, new = Counter(self.before), Counter(self.after)
        found = ((each, old[each], new[each]) for each in {*old, *new})
        return tuple(sorted(found, key=lambda item: (-abs(item[1] - item[2]), item)))

    @property
    def lost(self) -> int:
        """How many answers were right and are wrong now; 0 without labels."""
        return sum(a == right != b for a, b, right in self._judged())

    @property
    def won(self) -> int:
        """How many answers were wrong and are right now; 0 without labels."""
        return sum(b == right != a for a, b, right in self._judged())

    def matrix(self) -> tuple[tuple[int, ...], ...]:
        """Return how often each answer before (row) became each answer after (column); needs few classes."""
        table = np.zeros((self.classes, self.classes), np.int64)
        for old, new in zip(self.before, self.after, strict=True):
            if NO_CLASS not in (old, new):
                table[old, new] += 1
        return tuple(tuple(map(int, row)) for row in table)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return asdict(self)

    def _judged(self) -> list[tuple[int, int, int]]:
        return list(zip(self.before, self.after, self.labels, strict=True)) if self.labels else []


@dataclass(slots=True)
class Answers:
    """Collects the answers of two models to the same samples, as long as their first output looks like scores."""

    _output: str = ""
    _classes: int = 0
    _pairs: list[tuple[int, int]] = field(default_factory=list)
    _broken: bool = False

    def add(self, name: str, wanted: Any, got: Any) -> None:
        """Take the first outputs of both models for one sample."""
        old, new = scores_of_classes(name, wanted), class_scores(got)
        if (
            self._broken
            or old is None
            or new is None
            or old.size != new.size
            or old.size != (self._classes or old.size)
        ):
            self._broken = True
            return
        self._output, self._classes = name, old.size
        self._pairs.append((best_class(old), best_class(new)))

    def found(self, origin: str) -> Predictions | None:
        """Return the answers, or ``None`` if the output is no row of scores."""
        if self._broken or not self._pairs:
            return None
        before, after = zip(*self._pairs, strict=True)
        return Predictions(output=self._output, classes=self._classes, before=before, after=after, origin=origin)


def scores_of_classes(name: str, values: Any) -> NDArray[Any] | None:
    """Return the scores in an output for one sample, or ``None`` if it does not look like scores of classes.

    One row of floats does if it is called like some (logits, probabilities, ...) or adds up to 1 without a negative
    one. An embedding has the same shape and is neither.
    """
    scores = class_scores(values)
    if scores is None or scores.dtype.kind != "f":
        return None
    adds_up = scores.min() >= 0.0 and abs(float(scores.sum(dtype=np.float64)) - 1.0) < 1e-3
    return scores if _NAMES.search(name) or adds_up else None
