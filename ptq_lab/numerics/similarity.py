"""How alike two arrays are: cosine, relative error, signal to quantization noise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TINY = 2.2e-16
_CHUNK = 65536  # elements widened to float64 at a time


def cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return the cosine of the angle between two arrays, flattened.

    NaN or infinity anywhere gives 0; two zero arrays give 1; one zero array gives 0 (the original's rules).

    Examples
    --------
    >>> cosine(np.array([1.0, 0.0]), np.array([1.0, 1.0])).__round__(6)
    0.707107
    """
    x = np.asarray(a, np.float64).ravel()
    y = np.asarray(b, np.float64).ravel()
    return cosine_of(dot(x, x), dot(y, y), dot(x, y))


def cosine_of(power_x: float, power_y: float, product: float) -> float:
    """Return the cosine from the sums of squares and of products, by the rules of :func:`cosine`.

    Examples
    --------
    >>> cosine_of(1.0, 4.0, 2.0)
    1.0
    """
    if not (math.isfinite(power_x) and math.isfinite(power_y)):
        return 0.0
    if power_x < _TINY and power_y < _TINY:
        return 1.0
    if power_x * power_y < _TINY * _TINY:
        return 0.0
    return product / math.sqrt(power_x * power_y)


def dot(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Return the sum of the products of two vectors, always added in the same order.

    The ``@`` of a long vector is shared out among the threads of a linear algebra library, whose number decides the
    last bits, and which on a busy machine wait for each other far longer than the sum takes.

    Examples
    --------
    >>> dot(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    11.0
    """
    return float(np.einsum("i,i->", x, y))


def power_of(values: NDArray[Any]) -> float:
    """Return the sum of the squares of an array, added up in float64 however large or small the values are.

    Examples
    --------
    >>> power_of(np.array([[3.0], [4.0]], np.float32))
    25.0
    """
    flat = values.reshape(-1)
    parts = (flat[start : start + _CHUNK].astype(np.float64) for start in range(0, flat.size, _CHUNK))
    return math.fsum(dot(part, part) for part in parts)


def relative_error(original: NDArray[Any], changed: NDArray[Any]) -> float:
    """Return ``||original - changed|| / ||original||``; 0 when both are zero.

    Examples
    --------
    >>> relative_error(np.array([3.0, 4.0]), np.array([3.0, 3.5]))
    0.1
    """
    x, y = original.reshape(-1), changed.reshape(-1)
    signal = noise = 0.0
    for start in range(0, x.size, _CHUNK):
        part = x[start : start + _CHUNK].astype(np.float64)
        error = y[start : start + _CHUNK].astype(np.float64) - part
        signal += dot(part, part)
        noise += dot(error, error)
    return math.sqrt(noise / signal) if noise and signal else math.sqrt(noise)


def sqnr_db(signal_power: float, noise_power: float) -> float:
    """Return signal to quantization noise in dB; infinite when nothing was lost, minus infinite when all was.

    Examples
    --------
    >>> sqnr_db(100.0, 1.0)
    20.0
    """
    if noise_power <= 0.0:
        return math.inf
    if signal_power <= 0.0 or math.isinf(noise_power):
        return -math.inf
    return 10.0 * math.log10(signal_power / noise_power)
