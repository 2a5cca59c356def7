"""Blocks of a channel with a scale each: how many codes they take in, how they are chosen, and how they are packed.

A block is a run of the weights that one output channel multiplies its inputs with. The inputs are counted in the
order in which the weight holds them, so that a block of a convolution may take in several taps of its kernel.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ptq_lab.numerics.packing import pack_fields
from ptq_lab.numerics.rounding import Steps, fit_range, nearest
from ptq_lab.numerics.weights import QuantizedWeight

Float32 = NDArray[np.float32]

BLOCKED_WIDTHS = (2, 4, 8)  # widths that fill a byte without a rest
_CHUNK = 1 << 20  # weights treated at a time
_LARGEST_CHANGE = 1e-3  # of a scale; 16-bit floats that are not tiny are within half of it
_NOTHING = 1e-30  # a block whose values reach no further is one of zeros
_ALIKE = np.ones((1, 1, 1), np.float32)  # what an error costs, wherever it is


def equal_blocks(length: int, most: int) -> int:
    """Return how long blocks are that are as equal as can be and hold at most so many weights each.

    Examples
    --------
    >>> [equal_blocks(length, 32) for length in (64, 48, 33, 9)]
    [32, 24, 17, 9]
    """
    return -(-length // -(-length // most))


def channel_rows(array: NDArray[np.generic], axis: int) -> NDArray[np.generic]:
    """Arrange a weight as (channels, inputs); a view where the channels come first or last.

    Examples
    --------
    >>> channel_rows(np.arange(6).reshape(3, 2), 1).tolist()
    [[0, 2, 4], [1, 3, 5]]
    """
    front = np.moveaxis(array, axis, 0)
    return front.reshape(len(front), -1) if axis == 0 or array.ndim > 2 else front


def is_half(scale: Float32) -> bool:
    """Tell whether 16-bit floats hold numbers exactly.

    Examples
    --------
    >>> is_half(np.array([0.5, -3.0], np.float32)), is_half(np.array([0.1, 1e6], np.float32))
    (True, False)
    """
    with np.errstate(over="ignore"):
        return bool(np.array_equal(scale.astype(np.float16).astype(np.float32), scale))


def round_scales(scale: Float32) -> Float32:
    """Return scales as 16-bit floats hold them; the scales as they are where one would be off by more than 1 in 1000.

    Examples
    --------
    >>> round_scales(np.array([0.1], np.float32)).tolist(), round_scales(np.array([0.1, 1e-7], np.float32)).tolist()
    ([0.0999755859375], [0.10000000149011612, 1.0000000116860974e-07])
    """
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = scale.astype(np.float16).astype(np.float32)
        fits = np.abs(rounded - scale) <= _LARGEST_CHANGE * np.abs(scale)
    return rounded if fits.all() else scale


def quantize_blocks(
    values: Float32, *, bits: int, axis: int, block: int, correct: bool = False, search: bool = False
) -> QuantizedWeight:
    """Quantize a weight with one scale per block of each channel, and zero as a code.

    Parameters
    ----------
    values : ndarray of float32
    bits : int
        2 to 8.
    axis : int
        Of the channels, not negative.
    block : int
        How many inputs of a channel share a scale; the last block may be shorter.
    correct : bool
        Give every channel back its mean, by an offset of the channel.
    search : bool
        Whether each block gets the range whose squared errors sum up to least (see
        :func:`~ptq_lab.numerics.rounding.fit_range`) instead of the one that reaches its largest value.

    Returns
    -------
    QuantizedWeight
        ``scale`` of shape (channels, blocks), ``offset`` of shape (channels, 1), zeros without correction. A scale may
        be negative: there is one code more below zero than above, and it is given to the side that reaches further.
        Scales are numbers that 16-bit floats hold, where they are not too small or too large for that.

    Raises
    ------
    ValueError
        If a value is NaN or infinite.

    Examples
    --------
    >>> weight = quantize_blocks(np.array([[1.0, -0.5, 8.0, 4.0]], np.float32), bits=4, axis=0, block=2)
    >>> weight.codes.tolist(), weight.scale.tolist()
    ([[-8, 4, -8, -4]], [[-0.125, -1.0]])
    """
    rows = channel_rows(values, axis)
    if not np.isfinite(values).all():
        raise ValueError("the values contain NaN or infinity")
    channels, length = rows.shape
    blocks, half = -(-length // block), np.float32(2 ** (bits - 1))
    codes, scale = np.empty(rows.shape, np.int8), np.empty((channels, blocks), np.float32)
    offset = np.zeros((channels, 1), np.float32)
    step = max(1, _CHUNK // max(1, length))
    for start in range(0, channels, step):
        part = slice(start, start + step)
        padded = np.zeros((len(rows[part]), blocks * block), np.float32)
        padded[:, :length] = rows[part]
        found, scale[part] = _round_blocks(padded.reshape(-1, blocks, block), half, bits if search else 0)
        codes[part] = found.reshape(len(padded), -1)[:, :length]
        if correct:
            found *= scale[part][..., None]
            lost = padded.sum(axis=1, dtype=np.float64) - found.sum(axis=(1, 2), dtype=np.float64)
            offset[part, 0] = lost / length
    whole = np.moveaxis(codes.reshape(np.moveaxis(values, axis, 0).shape), 0, axis)
    return QuantizedWeight(
        codes=np.ascontiguousarray(whole),
        bits=bits,
        axis=axis,
        scale=scale,
        offset=offset,
        step=scale.astype(np.float64),
        zero_point=np.zeros(scale.shape, np.int32),
        spread_correction=np.ones(scale.shape),
        mean_correction=np.array(np.broadcast_to(offset, scale.shape), np.float64),
        block=block,
    )


def _round_blocks(values: Float32, half: np.float32, searched: int) -> tuple[Float32, Float32]:
    """Return codes and scales of (channels, blocks, length); with a width, of the ranges that cost least."""
    if searched:
        found = fit_range(np.ascontiguousarray(values.transpose(1, 2, 0)), searched, _ALIKE, free=False)
        scale = np.ascontiguousarray(found.scale[:, 0].T)
    else:
        low, high = values.min(axis=-1), values.max(axis=-1)
        scale = np.where(high > -low, high, low) / -half
    scale = round_scales(np.where(np.abs(scale) > _NOTHING, scale, 1.0).astype(np.float32))
    codes = np.rint(values / scale[..., None])
    return np.clip(codes, -half, half - 1, out=codes), scale


def fit_blocks(weight: Float32, bits: int, block: int, importance: Float32 | None = None) -> Steps:
    """Choose for each block of a row the range whose nearest steps cost least, with zero as a code.

    Parameters
    ----------
    weight : ndarray of float32, shape (groups, K, rows)
    bits : int
    block : int
        How many inputs share a range; the last block may be shorter.
    importance : ndarray of float32, shape (groups, K, 1), optional
        As in :func:`~ptq_lab.numerics.rounding.fit_range`.

    Examples
    --------
    >>> row = np.array([0.1, -0.2, 3.0, 6.0], np.float32).reshape(1, 4, 1)
    >>> fit_blocks(row, 2, 2).scale.ravel().astype(float).round(2).tolist()
    [0.1, 0.1, -3.0, -3.0]
    """
    groups, size, rows = weight.shape
    count = -(-size // block)
    shape = (groups * count, block, -1)
    rest = ((0, 0), (0, count * block - size), (0, 0))
    costs = None if importance is None else np.pad(importance, rest).reshape(shape)
    found = fit_range(np.pad(weight, rest).reshape(shape), bits, costs, free=False)
    scale = round_scales(np.where(np.abs(found.scale) > _NOTHING, found.scale, 1.0).astype(np.float32))
    found = replace(nearest(np.pad(weight, rest).reshape(shape), scale, -(2.0 ** (bits - 1)) * scale, bits), free=False)
    scale, offset = (
        each.reshape(groups, count, rows).repeat(block, axis=1)[:, :size] for each in (found.scale, found.offset)
    )
    return replace(found, codes=found.codes.reshape(groups, -1, rows)[:, :size], scale=scale, offset=offset)


def pack_blocks(codes: NDArray[np.uint8], *, bits: int, block: int) -> NDArray[np.uint8]:
    """Pack unsigned codes of a weight, output channel by output channel, block by block.

    Parameters
    ----------
    codes : ndarray of uint8, shape (N, K)
        One row per output channel, each code in ``0 .. 2**bits - 1``.
    bits : int
        2, 4 or 8.
    block : int
        Codes of a row that share a scale: a power of two, at least 16.

    Returns
    -------
    ndarray of uint8, shape (N, ceil(K / block), block * bits / 8)
        The first code of a byte in its lowest bits; the last block is filled up with zeros.

    Raises
    ------
    ValueError
        For another width or block, or a code that needs more bits.

    Notes
    -----
    Layout of input ``B`` of ``com.microsoft.MatMulNBits`` (onnxruntime, ContribOperators).

    Examples
    --------
    >>> pack_blocks(np.arange(16, dtype=np.uint8)[None], bits=4, block=16)[0, 0].tolist()
    [16, 50, 84, 118, 152, 186, 220, 254]
    """
    if bits not in BLOCKED_WIDTHS:
        raise ValueError(f"{bits} bits cannot be packed in blocks; 2, 4 or 8 wanted")
    if block < 16 or block & (block - 1):
        raise ValueError(f"a block of {block} codes; a power of two from 16 on wanted")
    if codes.size and int(codes.max()) >> bits:
        raise ValueError(f"the code {codes.max()} needs more than {bits} bits")
    rows, length = codes.shape
    blocks = -(-length // block)
    padded = np.zeros((rows, blocks * block), np.uint8)
    padded[:, :length] = codes
    return pack_fields(padded.reshape(rows, blocks, block), bits)
