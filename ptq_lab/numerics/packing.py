"""k-bit codes in k bits: two layouts, for every width from 1 to 16.

*Bit stream* (`pack_bits`): codes one after the other, least significant bit first, as the original
converter and ONNX's own int4 store them. Dense, but a code may straddle two bytes.

*Lanes* (`pack_lanes`): the width is split into powers of two (5 = 4 + 1) and each part is packed so
that unpacking is one broadcast shift and one mask over whole arrays, which an ONNX graph can say in
four standard operators. Lane ``l`` of a part of width ``w`` holds elements ``l*m .. (l+1)*m``, not every
(8/w)-th one, so nothing has to be interleaved.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Parts = tuple[NDArray[np.uint8], ...]

_CHUNK = 65536  # codes at a time


def split_width(bits: int) -> tuple[int, ...]:
    """Split a width into powers of two, widest first.

    Examples
    --------
    >>> split_width(5), split_width(11), split_width(16)
    ((4, 1), (8, 2, 1), (8, 8))
    """
    if not 1 <= bits <= 16:
        raise ValueError(f"bits: {bits} is outside 1..16")
    return (8, 8) if bits == 16 else tuple(width for width in (8, 4, 2, 1) if bits & width)


def padded_length(count: int) -> int:
    """Return `count` rounded up to whole bytes of one-bit lanes, the length lanes are packed to."""
    return -(-count // 8) * 8


def pack_lanes(codes: NDArray[np.signedinteger[Any]], bits: int) -> Parts:
    """Pack rows of signed codes into byte lanes, one array per part of the width.

    Parameters
    ----------
    codes : ndarray of int, shape (rows, n)
        Two's complement codes in ``-2**(bits-1) .. 2**(bits-1)-1``.
    bits : int
        Width, 1..15 (16 needs no packing).

    Returns
    -------
    tuple of ndarray of uint8
        Part ``p`` of width ``w`` has shape ``(rows, padded_length(n) * w / 8)``: together exactly `bits`
        bits per (padded) code.

    Examples
    --------
    >>> parts = pack_lanes(np.array([[-4, -1, 0, 3, 2]]), bits=3)
    >>> [part.shape for part in parts]
    [(1, 2), (1, 1)]
    >>> unpack_lanes(parts, bits=3, count=5).tolist()
    [[-4, -1, 0, 3, 2]]
    """
    rows, count = codes.shape
    eighth = padded_length(count) // 8  # every lane of every part is a whole number of these
    if eighth * 8 != count:
        codes = np.pad(codes, ((0, 0), (0, eighth * 8 - count)))
    fields = codes.view(f"uint{8 * codes.itemsize}")
    widths = split_width(bits)
    parts = tuple(np.zeros((rows, eighth * width), np.uint8) for width in widths)
    for row, octant, start, stop in _chunks(rows, eighth):
        chunk = fields[row, octant * eighth + start : octant * eighth + stop]
        below = bits
        for width, part in zip(widths, parts, strict=True):
            below -= width
            field = chunk >> below if below else chunk
            if width < 8:
                field = field & ((1 << width) - 1)
            lane, at = octant // width, octant % width * eighth
            target = part[row, at + start : at + stop]
            np.bitwise_or(target, (field.astype(np.uint8, copy=False)) << (lane * width), out=target)
    return parts


def _chunks(rows: int, eighth: int) -> Iterator[tuple[slice, int, int, int]]:
    """Cut (rows, 8 * eighth) into pieces that stay in the cache and never cross an eighth."""
    span = min(eighth, _CHUNK)
    height = max(1, _CHUNK // max(span, 1))
    for row in range(0, rows, height):
        for octant in range(8):
            for start in range(0, eighth, max(span, 1)):
                yield slice(row, row + height), octant, start, min(start + span, eighth)


def unpack_lanes(parts: Parts, bits: int, count: int) -> NDArray[np.int16]:
    """Return the codes that :func:`pack_lanes` packed; shape (rows, count)."""
    rows = parts[0].shape[0]
    total = np.zeros((rows, padded_length(count)), np.int32)
    below = bits
    for width, part in zip(split_width(bits), parts, strict=True):
        below -= width
        lanes = [(part.astype(np.int32) >> (lane * width)) & ((1 << width) - 1) for lane in range(8 // width)]
        total |= np.concatenate(lanes, axis=1) << below
    sign = 1 << (bits - 1)
    return ((total[:, :count] ^ sign) - sign).astype(np.int16)


def pack_bits(codes: NDArray[np.integer[Any]], bits: int) -> NDArray[np.uint8]:
    """Pack signed codes into a bit stream, least significant bit first.

    Parameters
    ----------
    codes : ndarray of int, any shape
        In ``-2**(bits-1) .. 2**(bits-1)-1``.
    bits : int
        Width, 1..16.

    Returns
    -------
    ndarray of uint8
        Whole bytes for widths up to 8, whole little-endian 16-bit words above; padded with zero bits.

    Notes
    -----
    The original converter stores ``code + 2**(bits-1)``; its unit is a byte below 8 bits and a 16-bit word
    above (semantics of its ``BitPack``).

    Examples
    --------
    >>> bytes(pack_bits(np.array([-4, -1, 0, 3, 2]), bits=3)).hex()
    '186f'
    """
    unsigned = (codes.ravel().astype(np.int32) + (1 << (bits - 1))).astype(np.uint16)
    stream = np.unpackbits(unsigned.view(np.uint8).reshape(-1, 2), axis=1, bitorder="little")[:, :bits]
    packed = np.packbits(stream.ravel(), bitorder="little")
    if bits > 8 and packed.size % 2:
        packed = np.append(packed, np.uint8(0))
    return packed


def unpack_bits(packed: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.int32]:
    """Return the `count` signed codes of a bit stream written by :func:`pack_bits`."""
    stream = np.unpackbits(packed, bitorder="little")[: count * bits].reshape(count, bits)
    weights = (1 << np.arange(bits)).astype(np.int32)
    return (stream.astype(np.int32) @ weights - (1 << (bits - 1))).astype(np.int32)


def pack_nibbles(codes: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Pack 4-bit codes two to a byte, first code in the low half: ONNX's own ``int4`` layout.

    Examples
    --------
    >>> pack_nibbles(np.array([1, -1, 7], np.int8)).tolist()
    [241, 7]
    """
    flat = codes.reshape(-1).view(np.uint8)
    packed = flat[0::2] & np.uint8(0x0F)
    high = flat[1::2] << np.uint8(4)
    packed[: high.size] |= high
    return np.asarray(packed, np.uint8)
