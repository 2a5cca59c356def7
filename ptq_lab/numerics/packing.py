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

_CHUNK = 262144  # bytes of codes at a time


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
    fields = codes.view(f"uint{8 * codes.itemsize}").reshape(rows, 8, eighth)
    widths = split_width(bits)
    parts = tuple(np.empty((rows, width, eighth), np.uint8) for width in widths)
    for row, piece in _chunks(rows, eighth, _CHUNK // codes.itemsize):
        chunk = fields[row, :, piece]
        low = chunk.astype(np.uint8, copy=False)  # holds all of every part below 8 bits
        below = bits
        for width, part in zip(widths, parts, strict=True):
            below -= width
            target = part[row, :, piece]
            if width == 8:
                np.copyto(target, chunk >> below, casting="unsafe")
                continue
            for lane in range(8 // width):
                source = low[:, lane * width : (lane + 1) * width]
                _place(source, target, shift=lane * width - below, mask=((1 << width) - 1) << (lane * width))
    return tuple(part.reshape(rows, width * eighth) for width, part in zip(widths, parts, strict=True))


def _place(source: NDArray[np.uint8], target: NDArray[np.uint8], *, shift: int, mask: int) -> None:
    """Move a field to its lane: the first lane replaces what is there, the others join it."""
    # numpy multiplies bytes several times faster than it shifts them to the left
    moved = source * np.uint8(1 << shift) if shift > 0 else source >> np.uint8(-shift)
    np.bitwise_and(moved, np.uint8(mask), out=moved)
    if mask & 1:
        np.copyto(target, moved)
    else:
        np.bitwise_or(target, moved, out=target)


def _chunks(rows: int, eighth: int, size: int) -> Iterator[tuple[slice, slice]]:
    """Cut (rows, 8, eighth) along its first and last axis into pieces of about `size` elements."""
    span = max(1, min(eighth, size // 8))
    height = max(1, size // (8 * span))
    for row in range(0, rows, height):
        for start in range(0, eighth, span):
            yield slice(row, row + height), slice(start, start + span)


def unpack_lanes(parts: Parts, bits: int, count: int) -> NDArray[np.int8 | np.int16]:
    """Return the codes that :func:`pack_lanes` packed, int8 up to 8 bits; shape (rows, count)."""
    rows = parts[0].shape[0]
    unsigned = np.dtype(np.uint8 if bits <= 8 else np.uint16)
    total = np.zeros((rows, padded_length(count)), unsigned)
    below = bits
    for width, part in zip(split_width(bits), parts, strict=True):
        below -= width
        lanes = total.reshape(rows, 8 // width, -1)
        for lane in range(8 // width):
            field = (part >> np.uint8(lane * width)) & np.uint8((1 << width) - 1)
            lanes[:, lane] |= field.astype(unsigned, copy=False) << unsigned.type(below)
    sign = unsigned.type(1 << (bits - 1))
    np.bitwise_xor(total, sign, out=total)
    np.subtract(total, sign, out=total)  # right modulo a power of two
    return total[:, :count].view(np.int8 if bits <= 8 else np.int16)


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
    flat = np.ascontiguousarray(codes).reshape(-1).view(np.uint8)
    packed = np.empty((flat.size + 1) // 2, np.uint8)
    pairs = flat[: flat.size // 2 * 2].view("<u2")  # two codes at a time, the first one in the low byte
    for start in range(0, pairs.size, _CHUNK // 2):
        pair = pairs[start : start + _CHUNK // 2]
        packed[start : start + pair.size] = (pair >> 4) & 0xF0 | pair & 0x0F
    if flat.size % 2:
        packed[-1] = flat[-1] & 0x0F
    return packed


def pack_fields(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Pack codes side by side, the first of a byte in its lowest bits.

    Parameters
    ----------
    codes : ndarray of uint8, shape (..., n)
        Their lowest `bits` count; n fills whole bytes.
    bits : int
        1, 2, 4 or 8.

    Examples
    --------
    >>> pack_fields(np.array([1, 2, 3, 0], np.uint8), 2).tolist()
    [57]
    """
    lanes = 8 // bits
    shifts = np.arange(lanes, dtype=np.uint8) * np.uint8(bits)
    fields = codes.reshape(*codes.shape[:-1], -1, lanes) & np.uint8((1 << bits) - 1)
    return np.asarray(np.bitwise_or.reduce(fields << shifts, axis=-1), np.uint8)
