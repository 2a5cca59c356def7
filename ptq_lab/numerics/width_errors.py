"""What every width would cost a weight, from a few passes over it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ptq_lab.numerics.loss import weight_error
from ptq_lab.numerics.similarity import dot
from ptq_lab.numerics.weights import quantize_weight

_LAST = 8  # bits up to which the error is measured; beyond, every bit quarters its power


def width_errors(
    values: NDArray[np.float32], widths: Sequence[int], *, axis: int | None, correct: bool = True
) -> NDArray[np.float64]:
    """Return ``||w - decoded||**2`` for each of several widths.

    Parameters
    ----------
    values : ndarray of float32
    widths : sequence of int
        1..16 bits.
    axis : int or None
        Channel axis, or one scale for the tensor.
    correct : bool
        As in :func:`~ptq_lab.numerics.quantize_weight`.

    Notes
    -----
    Widths above 8 are not measured: the error is then spread evenly over a step, and a step halves with every bit.

    Examples
    --------
    >>> values = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    >>> eight, nine = width_errors(values, [8, 9], axis=0)
    >>> float(eight / nine)
    4.0
    """
    power = dot(values.reshape(-1), values.reshape(-1))
    measured: dict[int, float] = {}
    for width in widths:
        bits = min(width, _LAST)
        if bits not in measured:
            weight = quantize_weight(values, bits=bits, axis=axis, correct=correct)
            measured[bits] = weight_error(values, weight) ** 2 * power
    return np.array([measured[min(width, _LAST)] * 4.0 ** -max(0, width - _LAST) for width in widths])
