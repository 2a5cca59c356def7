"""Arrays that lie in files: telling them from arrays in memory, and giving their pages back to the system."""

from __future__ import annotations

import math
import mmap
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ptq_lab.errors import ModelError

_POPULATE_READ = 22  # MADV_POPULATE_READ of Linux 5.14, which Python does not name
_AT_ONCE = 8 << 20  # bytes that are read ahead of a weight


class Pages(mmap.mmap):
    """A map that this house has made; always shared with its file, so that pages may be dropped at any time."""


def mapping_of(array: object) -> Pages | None:
    """Return the map that an array is a view of; ``None`` for an array in memory, and for maps that others made.

    Examples
    --------
    >>> mapping_of(np.zeros(3)[1:]) is None
    True
    >>> mapping_of(np.frombuffer(Pages(-1, 8), np.uint8)[2:]) is None
    False
    """
    while array is not None and not isinstance(array, mmap.mmap):
        array = array.obj if isinstance(array, memoryview) else getattr(array, "base", None)
    return array if isinstance(array, Pages) else None


def let_go(array: object) -> None:
    """Give back the pages of a mapped array, or of a whole map; they are read from the file again when somebody asks.

    Does nothing for an array in memory, and where the system has no such call.
    """
    pages = mapping_of(array)
    if pages is None or not hasattr(mmap, "MADV_DONTNEED"):
        return
    if not isinstance(array, np.ndarray) or not array.flags.c_contiguous:
        pages.madvise(mmap.MADV_DONTNEED)
        return
    start = _place(array, pages)
    first = start - start % mmap.PAGESIZE
    pages.madvise(mmap.MADV_DONTNEED, first, min(start + array.nbytes, len(pages)) - first)


def fetch(array: NDArray[Any], first: int, last: int) -> None:
    """Read some elements of a mapped array in one call, which is faster than page by page; no matter if refused."""
    pages = mapping_of(array)
    if pages is None or sys.platform != "linux" or first >= last:
        return
    start = _place(array, pages)
    begin, end = start + first * array.itemsize, min(start + last * array.itemsize, len(pages))
    begin -= begin % mmap.PAGESIZE
    with suppress(OSError):
        pages.madvise(_POPULATE_READ, begin, end - begin)


def _place(array: NDArray[Any], pages: Pages) -> int:
    """Return where in its map an array starts."""
    address = array.__array_interface__["data"][0]
    return int(address - np.frombuffer(pages, np.uint8).__array_interface__["data"][0])


def map_file(file: int, start: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return a part of an open file as an array in a map of its own, which is gone with the array.

    Raises
    ------
    OSError, ValueError
        If the file ends before the array does.
    """
    pages = Pages(file, 0, access=mmap.ACCESS_READ)
    array = np.frombuffer(pages, dtype, math.prod(shape), start).reshape(shape)
    fetch(array, 0, min(array.size, _AT_ONCE // array.itemsize))
    return array


def map_external(tensor: ir.ExternalTensor) -> NDArray[Any]:
    """Return a tensor of external data as a map of its own, which is gone with the array.

    onnx-ir keeps the whole data file mapped for as long as the model lives, with every page that was ever read.

    Raises
    ------
    ModelError
        If the file is gone, or has become shorter since the model was opened.
    """
    shape = tuple(int(size) for size in tensor.shape.numpy())
    dtype = tensor.dtype.numpy().newbyteorder("<")
    try:
        with Path(tensor.path).open("rb") as stream:
            return map_file(stream.fileno(), tensor.offset or 0, dtype, shape)
    except (OSError, ValueError) as error:
        message = f"{tensor.path}: the weight {tensor.name} cannot be read from it any more ({error})"
        raise ModelError(message, tensor=tensor.name or "") from error
