"""What every width would cost a weight, from a few passes over it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ptq_lab.numerics.loss import weight_error
from ptq_lab.numerics.similarity import power_of
from ptq_lab.numerics.weights import quantize_weight

MEASURED = (1, 2, 3, 4, 6, 8)  # bits; the others follow
_SMALL = 1 << 17  # elements up to which every width below 8 is measured: few values do not follow the rule so closely


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
    Some widths of a large weight are measured. Between them the logarithm of the error falls evenly; above 8 bits the
    error is spread evenly over a step, and a step halves with every bit.

    Examples
    --------
    >>> values = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    >>> eight, nine = width_errors(values, [8, 9], axis=0)
    >>> float(eight / nine)
    4.0
    """
    power = power_of(values)
    tried = tuple(range(1, MEASURED[-1] + 1)) if values.size <= _SMALL else MEASURED
    rounded = (quantize_weight(values, bits=bits, axis=axis, correct=correct) for bits in tried)
    measured = np.array([weight_error(values, weight) ** 2 * power for weight in rounded])
    logarithms = np.log2(np.maximum(measured, np.finfo(np.float64).tiny))
    below = np.exp2(np.interp(np.minimum(widths, MEASURED[-1]), tried, logarithms))
    errors = below * 4.0 ** -np.maximum(0, np.asarray(widths) - MEASURED[-1])
    return np.asarray(errors if measured[-1] > 0.0 else np.interp(widths, tried, measured), np.float64)
