"""How few bits a weight could take at the error it has: Shannon's lower bound on any code, beside which ours stand."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ptq_lab.numerics.similarity import power_of
from ptq_lab.numerics.weights import QuantizedWeight

_PICKED = 1 << 16  # values that a density is estimated from
_TINY = float(np.finfo(np.float64).tiny)


def differential_entropy(values: NDArray[np.floating]) -> float:
    """Return the entropy of the density that values were drawn from, in bits; minus infinity for equal values.

    Notes
    -----
    Vasicek 1976: the distance of values some places apart, in ascending order, tells the density around them. From
    10,000 values on it is right within 0.02 bit; of a few hundred that are spread over several orders of magnitude it
    can make half a bit too much.

    Examples
    --------
    >>> values = np.random.default_rng(0).normal(size=20_000).astype(np.float32)
    >>> true = 0.5 * math.log2(2 * math.pi * math.e)
    >>> bool(0.0 < true - differential_entropy(values) < 0.02)
    True
    """
    ordered = np.sort(values.reshape(-1).astype(np.float64))
    count = ordered.size
    if count < 2 or ordered[0] == ordered[-1]:
        return -math.inf
    apart = max(1, min(round(count ** (1 / 3)), count // 2))
    places = np.arange(count)
    above, below = np.minimum(places + apart, count - 1), np.maximum(places - apart, 0)
    distance = np.maximum(ordered[above] - ordered[below], _TINY)
    between = (above - below).astype(np.float64)
    expected = between * np.exp(-0.5 / between)  # of the logarithm of a distance: about its digamma function
    return float(np.mean(np.log2(distance * (count / expected))))


def rate_bound(values: NDArray[np.float32], weight: QuantizedWeight, error: float) -> float | None:
    """Return the bits per weight that no code can go below at an error.

    Parameters
    ----------
    values : ndarray of float32, not empty
        The original weight.
    weight : QuantizedWeight
        Its scales and offsets: what a decoder knows of each channel. The codes are not looked at.
    error : float
        ``||w - decoded|| / ||w||``.

    Returns
    -------
    float or None
        0 or more; ``None`` where nothing is lost, which a density says nothing about.

    Notes
    -----
    Shannon's lower bound, ``h - 1/2 log2(2 pi e D)``, with the mean squared error D and the differential entropy h of
    the weights given the grid of their channel: the mean of ``log2(scale)`` plus the entropy of the density of
    ``(w - offset) / scale``. For normally distributed weights under one scale this is ``1/2 log2(variance / D)``; all
    other densities of the same variance have less. The model is that of an order-0 coder: weights are independent
    draws, and only their density (not their order) can be used; the scales themselves are not counted. Rounding to
    multiples of one step costs ``1/2 log2(2 pi e / 12) = 0.254`` bit more where steps are fine, which is the price of
    rounding weights one by one (Gish and Pierce 1968). Cover and Thomas, Elements of Information Theory, chapter 10.

    Examples
    --------
    >>> from ptq_lab.numerics import quantize_step, weight_error
    >>> values = np.random.default_rng(0).normal(size=60_000).astype(np.float32)
    >>> weight = quantize_step(values, 0.1)
    >>> bound = rate_bound(values, weight, weight_error(values, weight))
    >>> abs(bound - math.log2(math.sqrt(12) / 0.1)) < 0.02
    True
    """
    noise = error * error * power_of(values) / values.size
    if not noise > 0.0:
        return None
    scale = np.maximum(weight.scale.astype(np.float64).reshape(-1), _TINY)
    picked = np.arange(0, values.size, max(1, values.size // _PICKED))
    if weight.axis is not None:
        behind = math.prod(values.shape[weight.axis + 1 :])
        channels = picked // behind % values.shape[weight.axis]
    else:
        channels = np.zeros(picked.size, np.int64)
    steps = (values.reshape(-1)[picked] - weight.offset.astype(np.float64).reshape(-1)[channels]) / scale[channels]
    known = float(np.log2(scale).mean()) + differential_entropy(steps)
    return max(0.0, known - 0.5 * math.log2(2.0 * math.pi * math.e * noise))
