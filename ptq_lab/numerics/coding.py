"""Integer codes in as few bytes as their entropy allows, decoded by zlib and numpy alone.

Codes of trained weights look like noise with a bell-shaped histogram, so the histogram is all that can be used. The
bytes of `code_layout` are Huffman-coded by deflate: several codes share a byte, so that the code lengths, which are
whole bits, fit the probabilities closely, and one look-up decodes several codes.

Sources: Shannon 1948, Huffman 1952, RFC 1951. The original converter has bit packing, indices into distinct values,
run lengths and a tANS coder instead (its ``TensorCompressor`` and ``FSEEncoder``).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq_lab.numerics.code_layout import Codes, Layout, decode_codes, lay_out
from ptq_lab.numerics.entropy import code_entropy
from ptq_lab.numerics.fields import WIDTHS, Bytes, expand, join_planes, split_planes, squeeze, squeezed_size

_COUNTED = 1 << 20  # codes are counted one by one up to this span
_SPARSE = 0.6  # share of the most frequent code from which leaving it out can pay
_SPACED = 0.1  # share of all other codes up to which noting their distances can pay
_OUTLYING = (5e-2, 5e-3, 5e-4)  # shares of codes that may be noted one by one
_NARROW = 4  # with bits below them, fields are this wide at least
_PER_SECTION = 4  # bytes that the length of a section takes
_SLICE = 1 << 14  # codes of each eighth of a large tensor that layouts are tried on
_BEST = 5
_TABLE_SPAN, _PER_SYMBOL = 1 << 15, 0.4  # bytes that share a table of code lengths, and what a symbol costs in it
_MASK_PRICE, _BYTE_PRICE = 1.02, 1.005  # what decodes more slowly has to be that much smaller


@dataclass(frozen=True, slots=True, kw_only=True)
class Coded:
    """Codes as bytes.

    Attributes
    ----------
    layout : Layout
    data : bytes
        The sections, one after the other.
    """

    layout: Layout
    data: bytes


def encode_codes(codes: Codes) -> Coded:
    """Code integers in the layout that takes the fewest bytes.

    Parameters
    ----------
    codes : ndarray of int8, int16 or int32, any shape

    Returns
    -------
    Coded
        Equal codes give equal bytes.

    Examples
    --------
    >>> codes = np.random.default_rng(0).normal(0.0, 2.0, 40_000).round().astype(np.int8)
    >>> coded = encode_codes(codes)
    >>> bool((decode_codes(coded.layout, coded.data, codes.size, bits=8) == codes).all())
    True
    >>> len(coded.data) < 1.02 * entropy_bytes(codes)
    True
    """
    flat = np.ascontiguousarray(codes).reshape(-1)
    layout = _choose(flat) if flat.size else Layout()
    sections = [squeeze(part) for part in lay_out(layout, flat)]
    return Coded(layout=replace(layout, sections=tuple(map(len, sections))), data=b"".join(sections))


def coded_size(codes: Codes) -> int:
    """Return how many bytes codes take in a container, scales aside.

    Examples
    --------
    >>> coded_size(np.zeros(4096, np.int8)) < 64
    True
    """
    return len(encode_codes(codes).data)


def entropy_bytes(codes: Codes) -> float:
    """Return the order-0 entropy of all codes together, in bytes: the bound that coders are measured against.

    Examples
    --------
    >>> entropy_bytes(np.array([0, 1, 2, 3] * 4, np.int8))
    4.0
    """
    return code_entropy(codes) * codes.size / 8


def encode_array(array: NDArray[Any]) -> tuple[bytes, ...]:
    """Code numbers without loss, their bytes by significance: one section per byte of the type.

    Examples
    --------
    >>> ones = np.ones(1000, np.float32)
    >>> decode_array(encode_array(ones), np.dtype(np.float32), 1000).tolist() == ones.tolist()
    True
    """
    return tuple(squeeze(plane) for plane in split_planes(array))


def decode_array(sections: tuple[bytes | memoryview, ...], dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    """Return the numbers that :func:`encode_array` coded; shape (count,).

    Raises
    ------
    ValueError
        If the sections hold anything else.
    """
    if len(sections) != dtype.itemsize:
        raise ValueError(f"{len(sections)} sections for numbers of {dtype.itemsize} bytes")
    return join_planes(tuple(expand(section, count) for section in sections), dtype)


def _choose(flat: Codes) -> Layout:
    """Return the cheapest layout: by Huffman's count first, and then the best few by what deflate makes of them."""
    sample = _sample(flat)
    best = sorted(_layouts(flat), key=lambda each: _price(each, sample, _huffman_size))[:_BEST]
    return min(best, key=lambda each: _price(each, sample, squeezed_size))


def _sample(flat: Codes) -> Codes:
    """Return a slice from the middle of each eighth of many codes, which leaves neighbours and planes what they are."""
    if flat.size <= 8 * _SLICE:
        return flat
    eighth = flat.size // 8
    start = (eighth - _SLICE) // 2
    return np.ascontiguousarray(flat[: 8 * eighth].reshape(8, eighth)[:, start : start + _SLICE]).reshape(-1)


def _price(layout: Layout, flat: Codes, size_of: Callable[[Bytes], float]) -> float:
    """Return about how many bytes a layout takes, a little more if it takes longer to decode."""
    size = sum(size_of(part) + _PER_SECTION for part in lay_out(layout, flat))
    price = size if layout.rest is None else size * _MASK_PRICE
    return price * _BYTE_PRICE if layout.width == max(WIDTHS) else price


def _huffman_size(data: Bytes) -> float:
    """Return how many bytes Huffman codes take that start anew as often as deflate does, with their tables."""
    size = 0.0
    for start in range(0, data.size, _TABLE_SPAN):
        counts = np.bincount(data[start : start + _TABLE_SPAN])
        waiting = counts[counts > 0].tolist()
        size += _PER_SYMBOL * len(waiting)
        heapq.heapify(waiting)
        bits = 0
        while len(waiting) > 1:
            rarest = heapq.heappop(waiting)
            merged = rarest + waiting[0]
            heapq.heapreplace(waiting, merged)
            bits += merged
        size += min(bits / 8, min(_TABLE_SPAN, data.size - start))
    return size


def _layouts(flat: Codes) -> Iterator[Layout]:
    """Yield the layouts that are worth a try."""
    values, counts = _distinct(flat)
    yield from _dense(values, counts)
    most = int(counts.argmax())
    if counts[most] >= _SPARSE * flat.size:
        others = np.delete(values, most), np.delete(counts, most)
        for layout in _dense(*others):
            sparse = replace(layout, rest=int(values[most]), kept=int(flat.size - counts[most]))
            yield sparse
            if sparse.kept <= _SPACED * flat.size:
                yield replace(sparse, spaced=True)


def _dense(values: NDArray[np.int64], counts: NDArray[np.int64]) -> Iterator[Layout]:
    if not values.size:
        yield Layout(width=1)
        return
    span = int(values[-1] - values[0])
    bits = max(1, span.bit_length())
    yield from _fielded(Layout(low=int(values[0])), bits)
    index_bits = max(1, int(values.size - 1).bit_length())
    if index_bits < bits:
        yield from _fielded(Layout(levels=values.size), index_bits)
    for narrower, low in dict.fromkeys(_windows(values, counts, bits)):
        for cut in _fielded(Layout(low=low), narrower):
            outside = (values < low) | (values - low >= 1 << (cut.shift + cut.width))  # fields may be wider than it
            if outside.any():
                yield replace(cut, outliers=int(counts[outside].sum()))


def _fielded(layout: Layout, bits: int) -> Iterator[Layout]:
    """Yield a layout with each way to cut numbers of so many bits in two."""
    for width in WIDTHS:
        shift = max(0, bits - width)
        if shift and width < _NARROW:
            continue
        if width == max(WIDTHS) or width >= bits or width >= _NARROW:
            cut = replace(layout, width=width, shift=shift)
            yield cut
            if width < max(WIDTHS):
                yield replace(cut, planar=True)


def _windows(values: NDArray[np.int64], counts: NDArray[np.int64], bits: int) -> Iterator[tuple[int, int]]:
    """Yield windows that nearly all codes lie in, each the narrowest for a share: its bits, and where it starts."""
    below = np.concatenate([[0], np.cumsum(counts)])
    for share in _OUTLYING:
        found = None
        for narrower in range(bits - 1, 0, -1):
            inside = below[np.searchsorted(values, values + (1 << narrower))] - below[:-1]
            start = int(inside.argmax())
            if inside[start] < (1.0 - share) * below[-1]:
                break
            found = narrower, int(values[start])
        if found is not None:
            yield found


def _distinct(flat: Codes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the distinct codes in ascending order, and how often each occurs."""
    low, high = int(flat.min()), int(flat.max())
    if high - low >= _COUNTED:
        values, counts = np.unique(flat, return_counts=True)
        return values.astype(np.int64), counts.astype(np.int64)
    counts = np.zeros(high - low + 1, np.int64)
    for start in range(0, flat.size, 1 << 16):
        counts += np.bincount(flat[start : start + (1 << 16)].astype(np.int64) - low, minlength=counts.size)
    present = np.flatnonzero(counts)
    return present + low, counts[present]


__all__ = [
    "Coded",
    "Layout",
    "coded_size",
    "decode_array",
    "decode_codes",
    "encode_array",
    "encode_codes",
    "entropy_bytes",
]
