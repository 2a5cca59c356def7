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
    flat = codes.reshape(-1)
    if not flat.size:
        return 0.0
    low, high = int(flat.min()), int(flat.max())
    counts = np.zeros(high - low + 1, np.int64)
    for start in range(0, flat.size, _BLOCK):
        counts += np.bincount(flat[start : start + _BLOCK].astype(np.int64) - low, minlength=counts.size)
    share = counts[counts > 0] / flat.size
    return max(0.0, float(-(share * np.log2(share)).sum()))
