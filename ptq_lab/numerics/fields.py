"""Small unsigned numbers in bytes, and bytes in sections that are deflated where that makes them shorter.

A *field* is 1, 2, 4 or 8 bits wide. Fields lie in their bytes in one of two orders: *adjacent*, where the first
byte holds the first fields, lowest bits first, or *planar*, where it holds one field of each of `8 / width` equal
stretches of the array. Which of the two an entropy coder likes better depends on what is alike in the array:
neighbours, or numbers a whole stretch apart.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

WIDTHS = (1, 2, 4, 8)
MOST_INFLATED = 1032  # bytes that one byte of deflate can become at most

_RAW = -15  # no zlib header: sizes and checksums stand elsewhere
_STRATEGIES = (zlib.Z_HUFFMAN_ONLY, zlib.Z_DEFAULT_STRATEGY)
_LEVEL = 6
_MEMORY = 9  # the longest blocks: fewer tables of code lengths
_SLICE = 1 << 15  # bytes that a sample of a section has per place
_SLICES = 8
_REPETITIVE = 0.99  # of the size without looking for repetitions, which takes far longer
_NOT_WORTH_IT = 0.995  # of the size; what gains less is stored, which needs no decoding
_CHUNK = 1 << 16


def packed_size(count: int, width: int) -> int:
    """Return how many bytes `count` fields take.

    Examples
    --------
    >>> packed_size(5, width=2)
    2
    """
    return -(-count * width // 8)


def pack_fields(values: Bytes, width: int, *, planar: bool = False) -> Bytes:
    """Pack numbers below ``2**width`` into bytes.

    Parameters
    ----------
    values : ndarray of uint8, shape (n,)
    width : {1, 2, 4, 8}
        Bits per number.
    planar : bool
        Byte ``i`` holds numbers ``i``, ``i + m``, ``i + 2 m``, ... of `m` bytes; otherwise neighbours.

    Returns
    -------
    ndarray of uint8, shape (packed_size(n, width),)
        Lowest bits first; what is missing in the last bytes is 0.

    Examples
    --------
    >>> values = np.array([1, 2, 3, 0, 2], np.uint8)
    >>> pack_fields(values, 2).tolist(), pack_fields(values, 2, planar=True).tolist()
    ([57, 2], [45, 2])
    """
    if width == 8:
        return values
    lanes = 8 // width
    length = packed_size(values.size, width)
    padded = values if values.size == lanes * length else np.pad(values, (0, lanes * length - values.size))
    fields = padded.reshape(lanes, length) if planar else padded.reshape(length, lanes).T
    packed: Bytes = fields[0].copy()
    for lane in range(1, lanes):
        packed |= fields[lane] << np.uint8(lane * width)
    return packed


def unpack_fields(packed: Bytes, width: int, count: int, *, planar: bool = False) -> Bytes:
    """Return the numbers that :func:`pack_fields` packed.

    Examples
    --------
    >>> unpack_fields(np.array([57, 2], np.uint8), 2, 5).tolist()
    [1, 2, 3, 0, 2]
    """
    if width == 8:
        return packed
    lanes, mask = 8 // width, np.uint8((1 << width) - 1)
    if not planar:
        every = np.arange(256, dtype=np.uint8)[:, None]
        table = (every >> (np.arange(lanes, dtype=np.uint8) * np.uint8(width))) & mask  # (256, lanes)
        together: NDArray[Any] = table.view(f"u{lanes}").reshape(256)  # all lanes in one look-up
        return np.take(together, packed).view(np.uint8)[:count]
    values = np.empty((lanes, packed.size), np.uint8)
    for start in range(0, packed.size, _CHUNK):
        part = packed[start : start + _CHUNK]
        for lane in range(lanes):
            target = values[lane, start : start + _CHUNK]
            shifted = np.right_shift(part, np.uint8(lane * width), out=target) if lane else part
            if lane < lanes - 1:  # nothing is left above the last one
                np.bitwise_and(shifted, mask, out=target)
    return values.reshape(-1)[:count]


def squeeze(data: Bytes) -> bytes:
    """Return a section: the bytes deflated, or as they are if that is not shorter.

    Notes
    -----
    Raw deflate, RFC 1951. Huffman codes alone (no repetitions) are what noise-like codes want and decode fastest;
    the strategy that also looks for repetitions is taken where a sample says that it is shorter.

    Examples
    --------
    >>> len(squeeze(np.zeros(1000, np.uint8))) < 20, squeeze(np.array([97, 98], np.uint8))
    (True, b'ab')
    """
    codes, repetitions = (_sampled(data, strategy) for strategy in _STRATEGIES)
    strategy = _STRATEGIES[repetitions < _REPETITIVE * codes]
    if min(codes, repetitions) < _NOT_WORTH_IT * data.size:
        short = _deflate(data, strategy)
        if len(short) < data.size:
            return short
    return data.tobytes()


def squeezed_size(data: Bytes) -> int:
    """Return about how long :func:`squeeze` makes a section; exact for short ones."""
    return int(min(data.size, *(_sampled(data, strategy) for strategy in _STRATEGIES)))


def expand(section: bytes | memoryview, size: int) -> Bytes:
    """Return the bytes of a section.

    Parameters
    ----------
    section : bytes
        As :func:`squeeze` returned it.
    size : int
        How many bytes it holds; no more are ever inflated.

    Raises
    ------
    ValueError
        If it holds another number of bytes, or is no deflate stream.

    Examples
    --------
    >>> expand(squeeze(np.zeros(1000, np.uint8)), 1000).any()
    np.False_
    """
    if len(section) == size:
        return np.frombuffer(section, np.uint8)
    if len(section) > size or size > MOST_INFLATED * len(section):
        raise ValueError(f"{len(section)} bytes cannot stand for {size}")
    inflating = zlib.decompressobj(_RAW)
    try:
        data = inflating.decompress(section, size + 1)  # one more shows that there is more
    except zlib.error as error:
        raise ValueError(f"it is no deflate stream ({error})") from error
    if len(data) != size or not inflating.eof or inflating.unused_data:
        raise ValueError(f"it does not inflate to {size} bytes")
    return np.frombuffer(data, np.uint8)


def split_planes(array: NDArray[Any]) -> tuple[Bytes, ...]:
    """Return the bytes of numbers by significance: all lowest bytes, ..., all highest bytes.

    Examples
    --------
    >>> [plane.tolist() for plane in split_planes(np.array([258, 3], np.uint16))]
    [[2, 3], [1, 0]]
    """
    little = np.ascontiguousarray(array).reshape(-1)
    little = little.astype(little.dtype.newbyteorder("<"), copy=False)
    return tuple(np.ascontiguousarray(little.view(np.uint8).reshape(-1, little.itemsize).T))


def join_planes(planes: tuple[Bytes, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the numbers that :func:`split_planes` took apart; shape (n,)."""
    together = np.ascontiguousarray(np.stack(planes, axis=1))
    return together.view(dtype.newbyteorder("<")).reshape(-1).astype(dtype, copy=False)


def _deflate(data: Bytes, strategy: int) -> bytes:
    deflating = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW, _MEMORY, strategy)
    return deflating.compress(data.data) + deflating.flush()


def _sampled(data: Bytes, strategy: int) -> float:
    """Return about how many bytes deflate takes, from a few places of a long section."""
    if data.size <= _SLICE * _SLICES:
        return float(len(_deflate(data, strategy)))
    starts = np.linspace(0, data.size - _SLICE, _SLICES).astype(np.int64)
    short = sum(len(_deflate(data[start : start + _SLICE], strategy)) for start in starts)
    return short * data.size / (_SLICE * _SLICES)
