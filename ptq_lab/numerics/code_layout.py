"""How integer codes stand in bytes: the steps that an entropy-coded tensor consists of, taken and undone.

A code's distance from the lowest one is a number, which is cut in two: its top bits go into a field, several fields
to a byte; the bits below are as good as random and stand by themselves. Three steps come before that where they pay:
a *mask* leaves out the most frequent code, *levels* number the few distinct codes, and *outliers* far from all
others are noted one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq_lab.numerics.fields import (
    WIDTHS,
    Bytes,
    expand,
    join_planes,
    pack_fields,
    packed_size,
    split_planes,
    unpack_fields,
)

Codes = NDArray[np.signedinteger[Any]]
Numbers = NDArray[np.unsignedinteger[Any]]

_MOST_BITS = 32
_INT32, _UINT32 = np.dtype(np.int32), np.dtype(np.uint32)
_INT32_LOW, _INT32_HIGH = -(1 << 31), (1 << 31) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How codes stand in their sections.

    Attributes
    ----------
    low : int
        What is added to every number; with levels, numbers are places in their table instead.
    shift : int
        Bits of a number below its field.
    width : int
        Bits of a field: 1, 2, 4 or 8.
    planar : bool
        The fields of a byte come from distant places instead of neighbouring ones; parts below always do.
    levels : int
        How many distinct codes the table lists; 0: there is no table.
    outliers : int
        How many codes are noted one by one.
    rest : int or None
        The code that the mask leaves out; ``None``: there is no mask.
    kept : int
        How many codes the mask keeps.
    spaced : bool
        In the place of the mask stand the distances between the codes that it would keep.
    sections : tuple of int
        Lengths of the sections, in order: mask, or four planes of distances; fields; each part of the bits below,
        widest first; four planes of levels; four planes of the distances between outliers; four planes of their codes,
        numbered 0, -1, 1, -2, ...
    """

    low: int = 0
    shift: int = 0
    width: int = 8
    planar: bool = False
    levels: int = 0
    outliers: int = 0
    rest: int | None = None
    kept: int = 0
    spaced: bool = False
    sections: tuple[int, ...] = ()

    def sizes(self, count: int) -> tuple[int, ...]:
        """Return how many bytes each section of `count` codes holds once it is inflated.

        Examples
        --------
        >>> Layout(width=4, shift=3).sizes(100)
        (50, 25, 13)
        """
        inner = count if self.rest is None else self.kept
        mask: tuple[int, ...] = ()
        if self.rest is not None:
            mask = (self.kept,) * 4 if self.spaced else (packed_size(count, 1),)
        below = (packed_size(inner, part) for part in parts_of(self.shift))
        levels = (self.levels,) * 4 if self.levels else ()
        outliers = (self.outliers,) * 8 if self.outliers else ()
        return (*mask, packed_size(inner, self.width), *below, *levels, *outliers)

    def to_dict(self) -> dict[str, Any]:
        """Return what differs from the defaults, ready for JSON."""
        values = {each.name: (getattr(self, each.name), each.default) for each in fields(self)}
        given = {name: value for name, (value, default) in values.items() if value != default}
        return {**given, "sections": list(self.sections)}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Layout:
        """Return the layout that :meth:`to_dict` described.

        Raises
        ------
        ValueError
            If it describes none.

        Examples
        --------
        >>> Layout.from_dict({"low": -8, "width": 4, "sections": [7]}).low
        -8
        """
        names = {each.name for each in fields(cls)}
        if unknown := sorted(set(record) - names):
            raise ValueError(f"{unknown[0]!r} is not known")
        if not isinstance(record.get("sections"), list):
            raise ValueError("it has no list of sections")  # noqa: TRY004 - as everything else that is wrong with it
        layout = cls(**{**record, "sections": tuple(record["sections"])})
        layout._check()
        return layout

    def _check(self) -> None:
        counts = (self.shift, self.levels, self.outliers, self.kept, *self.sections)
        codes = (self.low, *(() if self.rest is None else (self.rest,)))
        flags = all(type(flag) is bool for flag in (self.planar, self.spaced))
        if not flags or not all(type(number) is int for number in (*counts, *codes, self.width)):
            raise ValueError("a value is of the wrong kind")
        if min(counts) < 0 or self.width not in WIDTHS or self.shift + self.width > _MOST_BITS:
            raise ValueError("a number is out of range")
        if not all(_INT32_LOW <= code <= _INT32_HIGH for code in codes):
            raise ValueError("a code is out of range")


def parts_of(shift: int) -> tuple[int, ...]:
    """Split the bits below a field into parts that a byte holds a whole number of, widest first.

    Examples
    --------
    >>> parts_of(0), parts_of(3), parts_of(12)
    ((), (2, 1), (8, 4))
    """
    return (8,) * (shift // 8) + tuple(width for width in (4, 2, 1) if shift % 8 & width)


def code_range(bits: int) -> tuple[int, int]:
    """Return the lowest and the highest signed code of a width.

    Examples
    --------
    >>> code_range(4)
    (-8, 7)
    """
    return -(1 << (bits - 1)), (1 << (bits - 1)) - 1


def lay_out(layout: Layout, flat: Codes) -> Iterator[Bytes]:
    """Yield the sections of codes, not yet squeezed; shape (n,) in."""
    if layout.rest is not None:
        mask = flat != layout.rest
        if layout.spaced:
            yield from _distances(np.flatnonzero(mask))
        else:
            yield pack_fields(mask.view(np.uint8), 1)
        flat = flat[mask]
    numbers, levels, outliers = _numbered(layout, flat)
    yield pack_fields(_bits(numbers, layout.shift, layout.width), layout.width, planar=layout.planar)
    below = layout.shift
    for part in parts_of(layout.shift):
        below -= part
        yield pack_fields(_bits(numbers, below, part), part, planar=True)
    if levels is not None:
        yield from split_planes(levels)
    if outliers is not None:
        yield from _distances(outliers)
        yield from split_planes(_zigzag(flat[outliers].astype(_INT32)))


def _numbered(layout: Layout, flat: Codes) -> tuple[Numbers, NDArray[np.int32] | None, NDArray[np.int64] | None]:
    """Return a number per code, the table of levels, and the places of outliers."""
    if layout.levels:
        levels = np.unique(flat)
        return np.searchsorted(levels, flat).astype(np.uint32), levels.astype(_INT32), None
    outliers = None
    if layout.outliers:
        top = min(layout.low + (1 << (layout.shift + layout.width)) - 1, int(np.iinfo(flat.dtype).max))
        outliers = np.flatnonzero((flat < layout.low) | (flat > top))
        flat = np.clip(flat, layout.low, top)
    unsigned = np.dtype(f"u{flat.itemsize}")
    lowest = np.array(layout.low % (1 << (8 * flat.itemsize)), unsigned)
    return flat.view(unsigned) - lowest, None, outliers  # differences are right modulo a power of two


def _bits(numbers: Numbers, below: int, width: int) -> Bytes:
    """Return some bits of every number."""
    shifted = (numbers >> numbers.dtype.type(below)).astype(np.uint8) if below else numbers.astype(np.uint8, copy=False)
    return shifted if width == 8 else shifted & np.uint8((1 << width) - 1)


def decode_codes(layout: Layout, data: bytes | memoryview, count: int, *, bits: int = 32) -> Codes:
    """Return the codes that stand in sections.

    Parameters
    ----------
    layout : Layout
    data : bytes
        The sections, one after the other.
    count : int
        How many codes.
    bits : int
        Width of the signed codes, 1..32.

    Returns
    -------
    ndarray of int8, int16 or int32, shape (count,)
        The smallest type that holds `bits` bits.

    Raises
    ------
    ValueError
        If the bytes are not what the layout says; nothing is inflated beyond its sizes.

    Examples
    --------
    >>> decode_codes(Layout(low=-2, width=2, sections=(1,)), bytes([0b11_10_01_00]), 4, bits=2)
    array([-2, -1,  0,  1], dtype=int8)
    """
    sections = _Sections(layout, data, count)
    if layout.rest is None:
        return _decode_kept(layout, sections, count, bits)
    where = sections.places(count) if layout.spaced else unpack_fields(sections.take(), 1, count).view(np.bool_)
    if not layout.spaced and np.count_nonzero(where) != layout.kept:
        raise ValueError(f"the mask keeps {np.count_nonzero(where)} codes, not {layout.kept}")
    kept = _decode_kept(layout, sections, layout.kept, bits)
    _check_range(layout.rest, layout.rest, bits)
    codes = np.full(count, layout.rest, kept.dtype)
    codes[where] = kept
    return codes


class _Sections:
    """Sections inflated one at a time."""

    def __init__(self, layout: Layout, data: bytes | memoryview, count: int) -> None:
        sizes = layout.sizes(count)
        if len(sizes) != len(layout.sections):
            raise ValueError(f"{len(layout.sections)} sections, but {len(sizes)} belong to this layout")
        if sum(layout.sections) != len(data):
            raise ValueError(f"the sections have {sum(layout.sections)} bytes in all, but there are {len(data)}")
        self._sizes = iter(zip(layout.sections, sizes, strict=True))
        self._data, self._start = memoryview(data), 0

    def take(self) -> Bytes:
        """Return the next section, inflated."""
        length, size = next(self._sizes)
        section = self._data[self._start : self._start + length]
        self._start += length
        return expand(section, size)

    def numbers(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the numbers whose four planes come next."""
        return join_planes(tuple(self.take() for _ in range(4)), dtype)

    def places(self, count: int) -> NDArray[np.int64]:
        """Return the places below `count` whose distances come next."""
        found = np.cumsum(self.numbers(_UINT32), dtype=np.int64)
        if found.size and found[-1] >= count:
            raise ValueError(f"there is something at place {found[-1]} of {count}")
        return found


def _decode_kept(layout: Layout, sections: _Sections, count: int, bits: int) -> Codes:
    dtype = np.dtype(np.int8 if bits <= 8 else np.int16 if bits <= 16 else np.int32)
    numbers = _decode_numbers(layout, sections, count)
    highest = int(numbers.max(initial=0))
    if layout.levels:
        levels = sections.numbers(_INT32)
        if highest >= layout.levels:
            raise ValueError(f"a code is level {highest} of {layout.levels}")
        _check_range(int(levels.min()), int(levels.max()), bits)
        return np.asarray(levels.astype(dtype)[numbers])
    if count:
        _check_range(layout.low, layout.low + highest, bits)
    unsigned = np.dtype(f"u{dtype.itemsize}")
    codes = numbers.astype(unsigned, copy=not numbers.flags.writeable)
    codes += np.array(layout.low % (1 << (8 * dtype.itemsize)), unsigned)  # right modulo a power of two
    codes = codes.view(dtype)
    if layout.outliers:
        places = sections.places(count)
        outlying = _unzigzag(sections.numbers(_UINT32))
        _check_range(int(outlying.min()), int(outlying.max()), bits)
        codes[places] = outlying
    return codes


def _decode_numbers(layout: Layout, sections: _Sections, count: int) -> Numbers:
    total = layout.shift + layout.width
    numbers: Numbers = unpack_fields(sections.take(), layout.width, count, planar=layout.planar)
    if total > 8:
        numbers = numbers.astype(np.uint16 if total <= 16 else np.uint32)
    for part in parts_of(layout.shift):
        lower = unpack_fields(sections.take(), part, count, planar=True)
        if not numbers.flags.writeable:
            numbers = numbers.copy()
        numbers *= numbers.dtype.type(1 << part)  # numpy multiplies bytes several times faster than it shifts them
        numbers |= lower
    return numbers


def _distances(places: NDArray[np.int64]) -> tuple[Bytes, ...]:
    """Return the planes of the distances between places in ascending order, the first one from the start."""
    return split_planes(np.diff(places, prepend=0).astype(_UINT32))


def _zigzag(codes: NDArray[np.int32]) -> NDArray[np.uint32]:
    """Return the places of codes in 0, -1, 1, -2, 2, ...: small ones of either sign have no high bytes."""
    return np.asarray((codes << 1) ^ (codes >> 31)).view(np.uint32)


def _unzigzag(numbers: NDArray[np.uint32]) -> NDArray[np.int32]:
    return ((numbers >> np.uint32(1)) ^ (np.uint32(0) - (numbers & np.uint32(1)))).view(np.int32)


def _check_range(lowest: int, highest: int, bits: int) -> None:
    low, high = code_range(bits)
    if not low <= lowest <= highest <= high:
        raise ValueError(f"codes {lowest}..{highest} do not fit into {bits} bits")
