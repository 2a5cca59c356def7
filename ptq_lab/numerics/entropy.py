"""How many bits a code is worth: the order-0 entropy that an entropy coder approaches."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1 << 16  # codes at a time: counting widens them to 64 bits


def code_entropy(codes: NDArray[Any]) -> float:
    """Return the entropy of integer codes, in bits per code; 0 for none, or for one value throughout.

    Notes
    -----
    Source: Shannon 1948. No lossless code that looks at one symbol at a time needs fewer bits on average.

    Examples
    --------
    >>> code_entropy(np.array([0, 1, 2, 3], np.int8)), code_entropy(np.array([7, 7], np.int8))
    (2.0, 0.0)
    """
    return entropy_of(count_levels(codes))


def count_levels(codes: NDArray[Any]) -> NDArray[np.int64]:
    """Return how often each code between the smallest and the largest occurs.

    Examples
    --------
    >>> count_levels(np.array([3, 5, 5], np.int8)).tolist()
    [1, 0, 2]
    """
    flat = codes.reshape(-1)
    if not flat.size:
        return np.zeros(0, np.int64)
    low, high = int(flat.min()), int(flat.max())
    counts = np.zeros(high - low + 1, np.int64)
    for start in range(0, flat.size, _BLOCK):
        counts += np.bincount(flat[start : start + _BLOCK].astype(np.int64) - low, minlength=counts.size)
    return counts


def entropy_of(counts: NDArray[np.int64]) -> float:
    """Return the entropy of what occurs so often, in bits per occurrence.

    Examples
    --------
    >>> entropy_of(np.array([2, 0, 2]))
    1.0
    """
    some = counts[counts > 0]
    share = some / max(1, int(some.sum()))
    return max(0.0, float(-(share * np.log2(share)).sum()))
