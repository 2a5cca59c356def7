"""Codes and grids as the ladder finds them, and as a weight stores them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ptq_lab.numerics import QuantizedWeight
from ptq_lab.numerics.blocked import round_scales
from ptq_lab.numerics.rounding import Steps

Array = NDArray[np.float32]


def store_steps(steps: Steps, codes: Array, like: QuantizedWeight) -> QuantizedWeight:
    """Return a weight of the same width, axis and blocks as another.

    Parameters
    ----------
    steps : Steps
        Scales and offsets; codes count from 0.
    codes : ndarray of float32
        Those of the steps, in the shape of the weight.
    like : QuantizedWeight
    """
    top = np.float32(2 ** (like.bits - 1))
    whole = (codes - top).astype(like.codes.dtype)
    if like.block:  # a scale for each block, and no offsets
        blocks = np.swapaxes(steps.scale[:, :: like.block], 1, 2).reshape(like.scale.shape)
        return replace(
            like,
            codes=whole,
            scale=np.ascontiguousarray(blocks),
            offset=np.zeros((len(blocks), 1), np.float32),
            step=blocks.astype(np.float64),
            mean_correction=np.zeros(blocks.shape),
        )
    per_channel = like.axis is not None
    scale = steps.scale.reshape(-1) if per_channel else steps.scale.reshape(-1)[0]
    low = steps.offset.reshape(-1) if per_channel else steps.offset.reshape(-1)[0]
    offset = np.asarray(low + scale * top, np.float32)
    exact = np.asarray(scale, np.float64)
    zero_point = np.clip(np.rint(-offset / exact), -(2**30), 2**30).astype(np.int32)
    return QuantizedWeight(
        codes=whole,
        bits=like.bits,
        axis=like.axis,
        scale=np.asarray(scale, np.float32),
        offset=offset,
        step=exact,
        zero_point=zero_point,
        spread_correction=np.ones_like(exact),
        mean_correction=offset + zero_point * exact,
    )


def stretch(weight: QuantizedWeight, factor: Array) -> QuantizedWeight:
    """Return a weight whose channels are multiplied by a factor each."""
    if not weight.block:
        return replace(weight, scale=weight.scale * factor, offset=weight.offset * factor)
    scale = round_scales(weight.scale * factor[:, None])
    return replace(weight, scale=scale, offset=weight.offset * factor[:, None])
