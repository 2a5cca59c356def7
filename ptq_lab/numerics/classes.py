"""What a classifier answers: the class with the largest score."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

NO_CLASS = -1
"""The answer of a model whose scores are not numbers."""


def class_scores(values: Any) -> NDArray[Any] | None:
    """Return one score per class if an output for one sample holds them: a single row of two numbers or more.

    Examples
    --------
    >>> class_scores(np.ones((1, 3))).shape, class_scores(np.ones((2, 3)))
    ((3,), None)
    """
    array = np.asarray(values)
    classes = max(array.shape, default=0)
    if array.dtype.kind not in "fiu" or classes < 2 or array.size != classes:
        return None
    return array.reshape(-1)


def best_class(scores: NDArray[Any]) -> int:
    """Return the index of the largest score; :data:`NO_CLASS` if one is not a number.

    Examples
    --------
    >>> best_class(np.array([0.1, 0.9])), best_class(np.array([np.nan, 0.9]))
    (1, -1)
    """
    return NO_CLASS if np.isnan(scores).any() else int(np.argmax(scores))
