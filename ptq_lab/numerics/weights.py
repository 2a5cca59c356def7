"""A whole weight at once: range, codes, and the correction that gives back its mean and spread.

A quantized weight is stored as ``w = code * scale + offset``, one scale and one offset per channel. Both
are free floats: the zero point and the two corrections are folded into them, so decoding is one
multiplication and one addition whatever went in.

The passes over the values (ranges, codes with their sums) are made in `weight_grid`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index
from numpy.typing import NDArray

from ptq_lab.numerics.affine import QuantSpec, along_axis, choose_params
from ptq_lab.numerics.weight_grid import BLOCK, Moments, Visit, WeightGrid

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_TINY = 2.2e-16
_MAX_SPREAD = 10.0  # the original leaves the spread alone when it would have to grow more than this


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QuantizedWeight:
    """Codes of one weight and the numbers that decode them.

    Attributes
    ----------
    codes : ndarray of int8 (up to 8 bits) or int16, shape of the weight
    bits : int
        Width of a code, 1..16.
    axis : int or None
        Channel axis; ``None``: one scale for the tensor.
    scale, offset : ndarray of float32, shape (C,) or (); in blocks (C, blocks) and (C, 1)
        ``w = codes * scale + offset``.
    step : ndarray of float64
        Step of the grid before corrections, in real units.
    zero_point : ndarray of int32
        The code that means 0.0 before corrections.
    spread_correction : ndarray of float64
        ``std(w) / std(dequantized)`` (the original's *variance correction*), 1 when off.
    mean_correction : ndarray of float64
        What is added after scaling, in real units, 0 when off.
    block : int
        How many inputs of a channel share a scale; 0: all of them.
    """

    codes: NDArray[np.int8 | np.int16]
    bits: int
    axis: int | None
    scale: Float32
    offset: Float32
    step: Float64
    zero_point: NDArray[np.int32]
    spread_correction: Float64
    mean_correction: Float64
    block: int = 0


def decoded_by(
    codes: NDArray[Any], *, bits: int, axis: int | None, scale: Float32, offset: Float32 | None = None
) -> QuantizedWeight:
    """Return a weight of which no more is known than its codes and what decodes them.

    Examples
    --------
    >>> decoded_by(np.array([1, 2], np.int8), bits=8, axis=None, scale=np.float32(0.5)).offset
    array(0., dtype=float32)
    """
    scale = np.asarray(scale, np.float32)
    return QuantizedWeight(
        codes=codes,
        bits=bits,
        axis=axis,
        scale=scale,
        offset=np.zeros_like(scale) if offset is None else offset,
        step=scale.astype(np.float64),
        zero_point=np.zeros(scale.shape, np.int32),
        spread_correction=np.ones(scale.shape),
        mean_correction=np.zeros(scale.shape),
    )


def quantize_weight(values: Float32, *, bits: int, axis: int | None, correct: bool = True) -> QuantizedWeight:
    """Quantize a weight on an asymmetric grid, per channel or as a whole.

    Parameters
    ----------
    values : ndarray of float32, any shape
        The weight.
    bits : int
        Width of a code, 1..16.
    axis : int or None
        Channel axis (negative: counted from the last), or ``None`` for one grid per tensor.
    correct : bool
        Give every channel back its mean and standard deviation.

    Returns
    -------
    QuantizedWeight

    Raises
    ------
    ValueError
        If a value is NaN or infinite, or there is no such axis.

    Notes
    -----
    Grid: :func:`choose_params` on minimum and maximum. Correction (MindSpore Lite's *bias correction* of
    weights): ``v = std(w)/std(d)``, used while both deviations are positive and ``v < 10``, and
    ``m = mean(w) - v * mean(d)``, population statistics; decoded is ``v * d + m``. Differences: ties
    round to even, and with one bit and correction the two levels are the means of the values below
    and above the channel's mean, the best pair for that split.

    Examples
    --------
    >>> from ptq_lab.numerics import dequantize_weight
    >>> weight = np.array([[-1.0, 0.1, 2.0], [3.0, 3.5, 4.0]], np.float32)
    >>> quantized = quantize_weight(weight, bits=8, axis=0)
    >>> quantized.codes.shape, quantized.scale.shape
    ((2, 3), (2,))
    >>> bool(np.abs(dequantize_weight(quantized) - weight).max() < 0.02)
    True
    """
    return round_weight(values, bits=bits, axis=axis, correct=correct).weight


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RoundedWeight:
    """A quantized weight, and what the passes over its values have seen.

    Attributes
    ----------
    weight : QuantizedWeight
    low, high : ndarray of float32, shape (C,) or ()
        The channels' extremes.
    error : float or None
        ``||w - dequantized|| / ||w||``; the norm of the error itself where the weight is zero. ``None`` if it was not
        added up: without a place for the codes, and with one bit and correction.
    """

    weight: QuantizedWeight
    low: Float32
    high: Float32
    error: float | None


def round_weight(
    values: Float32,
    *,
    bits: int,
    axis: int | None,
    correct: bool = True,
    into: NDArray[np.int8 | np.int16] | None = None,
    visit: Visit | None = None,
) -> RoundedWeight:
    """Quantize a weight as :func:`quantize_weight` does, to codes at a place of the caller's.

    Parameters
    ----------
    values, bits, axis, correct
        As there.
    into : ndarray of int8 (up to 8 bits) or int16, shape of the weight, optional
        Where the codes go; a new array without it.
    visit : callable, optional
        Told which elements come next, so that pages of arrays in files can be given back and read ahead.

    Examples
    --------
    >>> values, codes = np.array([[-1.0, 0.4, 1.0]], np.float32), np.zeros((1, 3), np.int8)
    >>> rounded = round_weight(values, bits=2, axis=None, correct=False, into=codes)
    >>> codes.tolist(), round(rounded.error, 3)
    ([[-2, 1, 1]], 0.369)
    """
    axis = None if axis is None else normalize_axis_index(axis, values.ndim)
    grid = WeightGrid(np.ascontiguousarray(values, np.float32), axis, into=into, visit=visit)
    low, high, moments = grid.measure()
    params = choose_params(low, high, QuantSpec(bits=bits, axis=axis))
    step, zero_point = params.scale, params.zero_point
    spread, mean = np.ones_like(step), np.zeros_like(step)
    code_moments: Moments | None = None
    if bits == 1 and correct:
        codes, lower, mean = grid.split_at(moments.mean)
        step, zero_point = mean - lower, np.zeros_like(zero_point)
    else:
        codes, code_moments = grid.round_to(params, low, high)
        if correct:
            spread, mean = _corrections(moments, code_moments, step, zero_point)
    shape = () if axis is None else (-1,)
    scale = (step * spread).astype(np.float32)
    weight = QuantizedWeight(
        codes=codes.reshape(values.shape),
        bits=bits,
        axis=axis,
        scale=scale.reshape(shape),
        # From the scale as it is stored, so that without corrections the zero point decodes to exactly 0.
        offset=(mean - zero_point * scale.astype(np.float64)).astype(np.float32).reshape(shape),
        step=step.reshape(shape),
        zero_point=zero_point.reshape(shape),
        spread_correction=spread.reshape(shape),
        mean_correction=mean.reshape(shape),
    )
    error = None
    if into is not None and code_moments is not None:
        error = _error(weight, grid.lost_by_channel(), moments, code_moments, grid.per_channel)
    return RoundedWeight(weight=weight, low=low.reshape(shape), high=high.reshape(shape), error=error)


def _error(weight: QuantizedWeight, lost: Float64, values: Moments, codes: Moments, count: int) -> float:
    """Return the relative error of a weight from what its passes have added up.

    With ``c`` the codes above their zero point and ``x`` the values in steps, the error is ``(v - 1) c + (c - x) + m``
    steps (``v`` the spread correction, ``m`` the mean correction in steps). Its square is written out; the one sum that
    the passes have not seen, of ``c (c - x)``, follows from ``x**2 = (c - (c - x))**2``.
    """
    step, zero_point, grow, move = (
        numbers.reshape(-1).astype(np.float64)
        for numbers in (weight.step, weight.zero_point, weight.spread_correction - 1.0, weight.mean_correction)
    )
    shift = move / step
    code, value = codes.mean - zero_point, values.mean / step
    codes_squared, values_squared = codes.std**2 + code**2, values.std**2 / step**2 + value**2
    rounding = lost / count
    across = (codes_squared + rounding - values_squared) / 2
    noise = grow**2 * codes_squared + rounding + shift**2
    noise += 2 * (grow * across + shift * (code - value) + grow * shift * code)
    power = float(np.sum(np.maximum(noise, 0.0) * step**2))
    signal = float(np.sum(values.std**2 + values.mean**2))
    return math.sqrt(power / signal) if power and signal else math.sqrt(power * count)


def quantize_symmetric(
    values: Float32,
    *,
    axis: int | None,
    bits: int = 8,
    smallest: Float32 | None = None,
    factor: Float32 | None = None,
) -> QuantizedWeight:
    """Quantize a weight on a symmetric, narrow grid with zero point 0, as integer kernels want it.

    Parameters
    ----------
    values : ndarray of float32
    axis : int or None
        Channel axis, or ``None`` for one scale.
    bits : int
        Codes in ``-(2**(bits-1)-1) .. 2**(bits-1)-1``.
    smallest : ndarray of float32, optional
        No scale is below these, shape (C,) or ().
    factor : ndarray of float32, optional
        What to multiply the scales by that just reach the largest values, shape (C,) or (); below 1 it cuts those off.

    Raises
    ------
    ValueError
        If a value is NaN or infinite.

    Examples
    --------
    >>> quantize_symmetric(np.array([[-1.0, 0.5]], np.float32), axis=0).codes.tolist()
    [[-127, 64]]
    """
    across = tuple(index for index in range(values.ndim) if index != axis) if axis is not None else None
    reach = np.maximum(values.max(axis=across), -values.min(axis=across))
    if not np.isfinite(reach).all():
        raise ValueError("the values contain NaN or infinity")
    limit = 2 ** (bits - 1) - 1
    scale = np.maximum(np.asarray(reach / limit, np.float32), np.finfo(np.float32).tiny)
    scale = scale if factor is None else scale * factor
    scale = scale if smallest is None else np.maximum(scale, smallest)
    codes = _nearest_steps(values, along_axis(scale, values.ndim, axis), limit)
    return decoded_by(codes, bits=bits, axis=axis, scale=scale)


def _nearest_steps(values: Float32, scale: Float32, limit: int) -> NDArray[Any]:
    """Round values to whole steps, in blocks of rows that stay in the cache."""
    codes = np.empty(values.shape, np.int8 if limit < 128 else np.int16)
    rows = max(1, BLOCK // max(1, values[:1].size))
    for start in range(0, len(values), rows):
        part = slice(start, start + rows)
        steps = values[part] / (scale[part] if scale.ndim and len(scale) > 1 else scale)
        codes[part] = np.clip(np.rint(steps, out=steps), -limit, limit, out=steps)
    return codes


def _corrections(
    values: Moments, codes: Moments, step: Float64, zero_point: NDArray[np.int32]
) -> tuple[Float64, Float64]:
    """Return spread and mean correction; codes are taken with their zero point, which moves the mean only."""
    std_dequantized = codes.std * step
    usable = (values.std > _TINY) & (std_dequantized > _TINY)
    spread = np.divide(values.std, std_dequantized, out=np.ones_like(step), where=usable)
    spread[spread >= _MAX_SPREAD] = 1.0
    return spread, values.mean - spread * (codes.mean - zero_point) * step
