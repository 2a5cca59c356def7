"""The affine grid: real numbers to integers and back.

A grid is a step (``scale``) and the integer that means zero (``zero_point``)::

    code  = clip(round(value / scale) + zero_point, qmin, qmax)
    value = (code - zero_point) * scale

This file knows one tensor and its grid. Whole weights, with corrections, are in `weights`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Codes = NDArray[np.int8 | np.uint8 | np.int16 | np.uint16 | np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantSpec:
    """How to quantize: the kind of grid, without its numbers.

    Attributes
    ----------
    bits : int
        Width of a code, 1..16.
    signed : bool
        Codes from ``-2**(bits-1)`` up, or from 0 up.
    symmetric : bool
        Range widened to ``[-a, a]``, so that the zero point is 0 for signed codes.
    narrow : bool
        Leave out the lowest signed code, so that the codes are symmetric as well.
    axis : int or None
        Channel axis with a scale of its own per index; ``None``: one scale for the tensor.

    Examples
    --------
    >>> spec = QuantSpec(bits=8, symmetric=True, narrow=True)
    >>> spec.qmin, spec.qmax
    (-127, 127)
    """

    bits: int = 8
    signed: bool = True
    symmetric: bool = False
    narrow: bool = False
    axis: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 16:
            raise ValueError(f"bits: {self.bits} is outside 1..16")

    @property
    def qmin(self) -> int:
        """Lowest code."""
        return (-(1 << (self.bits - 1)) + self.narrow) if self.signed else 0

    @property
    def qmax(self) -> int:
        """Highest code."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """Smallest numpy integer type that holds the codes."""
        kind = "int" if self.signed else "uint"
        return np.dtype(f"{kind}{8 if self.bits <= 8 else 16}")


@dataclass(frozen=True, slots=True)
class QuantParams:
    """The numbers of a grid.

    Attributes
    ----------
    spec : QuantSpec
    scale : ndarray of float64
        Real units per step; shape ``()`` per tensor or ``(C,)`` per channel.
    zero_point : ndarray of int32
        The code that means 0.0; same shape as `scale`.
    """

    spec: QuantSpec
    scale: NDArray[np.float64]
    zero_point: NDArray[np.int32]


def round_half_away(values: NDArray[np.floating[Any]]) -> NDArray[Any]:
    """Round to the nearest integer, ties away from zero (the original's rule; numpy rounds them to even).

    Examples
    --------
    >>> round_half_away(np.array([-2.5, -0.5, 0.4, 1.5])).tolist()
    [-3.0, -1.0, 0.0, 2.0]
    """
    return np.asarray(np.trunc(values + np.copysign(np.asarray(0.5, values.dtype), values)))


def choose_params(low: ArrayLike, high: ArrayLike, spec: QuantSpec) -> QuantParams:
    """Choose scale and zero point so that the range ``[low, high]`` fits the codes.

    Zero is always on the grid, so padding and ReLU cost no error; the range is nudged for that.

    Parameters
    ----------
    low, high : array_like of float
        Bounds seen, in real units; shape ``()`` per tensor or ``(C,)`` per channel.
    spec : QuantSpec
        Width, sign and symmetry of the codes.

    Returns
    -------
    QuantParams
        ``scale`` is positive.

    Raises
    ------
    ValueError
        If a bound is not finite.

    Notes
    -----
    The steps of MindSpore Lite's converter, in double precision throughout: widen an empty range by
    1e-10, mirror it if symmetric, include zero, then move both ends by less than half a step.

    Examples
    --------
    >>> params = choose_params(-1.0, 2.0, QuantSpec(bits=8))
    >>> round(float(params.scale), 7), int(params.zero_point)
    (0.0117647, -43)
    """
    bottom, top = np.asarray(low, np.float64), np.asarray(high, np.float64)
    if not (np.isfinite(bottom).all() and np.isfinite(top).all()):
        raise ValueError("the range is not finite: values contain NaN or infinity")
    top = np.maximum(top, bottom + 1e-10)
    if spec.symmetric:
        top = np.maximum(np.abs(bottom), np.abs(top))
        bottom = -top
    bottom, top = np.minimum(bottom, 0.0), np.maximum(top, 0.0)
    steps = spec.qmax - spec.qmin
    step = (top - bottom) / steps
    below_zero = round_half_away(-bottom / step)  # how many steps lie under zero
    nudged_low, nudged_high = -below_zero * step, (steps - below_zero) * step
    scale = (nudged_high - nudged_low) / steps
    zero_point = round_half_away(spec.qmin - nudged_low / scale).astype(np.int32)
    return QuantParams(spec, scale, zero_point)


def quantize_array(
    values: NDArray[np.floating[Any]], params: QuantParams, *, ties: Literal["even", "away"] = "even"
) -> Codes:
    """Quantize an array to codes.

    Parameters
    ----------
    values : ndarray of float, any shape
        Real values.
    params : QuantParams
        Per-channel numbers lie along ``params.spec.axis``.
    ties : {"even", "away"}
        ``"even"`` equals ONNX ``QuantizeLinear`` to the last code: round, then add the zero point.
        ``"away"`` is the original converter's order: add the zero point, then round ties away from zero.

    Returns
    -------
    ndarray of ``params.spec.dtype``, shape of `values`

    Examples
    --------
    >>> params = choose_params(-1.0, 2.0, QuantSpec(bits=8))
    >>> quantize_array(np.array([-1, 0, 1, 3], np.float32), params).tolist()
    [-128, -43, 42, 127]
    """
    spec = params.spec
    scale = along_axis(params.scale, values.ndim, spec.axis)
    zero_point = along_axis(params.zero_point, values.ndim, spec.axis)
    if ties == "even":
        codes = np.rint(values / scale.astype(np.float32)) + zero_point
    else:
        codes = round_half_away(values / scale + zero_point)
    return np.asarray(np.clip(codes, spec.qmin, spec.qmax).astype(spec.dtype))


def dequantize_array(codes: Codes, params: QuantParams) -> NDArray[np.float32]:
    """Return the real values that the codes stand for; equals ONNX ``DequantizeLinear``.

    Examples
    --------
    >>> params = choose_params(-1.0, 2.0, QuantSpec(bits=4))
    >>> dequantize_array(np.array([-8, -3, 7], np.int8), params).tolist()
    [-1.0, 0.0, 2.0]
    """
    scale = along_axis(params.scale, codes.ndim, params.spec.axis).astype(np.float32)
    zero_point = along_axis(params.zero_point, codes.ndim, params.spec.axis)
    return np.asarray((codes.astype(np.int32) - zero_point).astype(np.float32) * scale)


def along_axis(numbers: NDArray[Any], rank: int, axis: int | None) -> NDArray[Any]:
    """Reshape ``(C,)`` numbers so that they broadcast along `axis` of a tensor of the given rank.

    Examples
    --------
    >>> along_axis(np.ones(5), rank=4, axis=1).shape
    (1, 5, 1, 1)
    """
    if axis is None or numbers.ndim == 0:
        return numbers.reshape(())
    shape = [1] * rank
    shape[axis] = -1
    return numbers.reshape(shape)
