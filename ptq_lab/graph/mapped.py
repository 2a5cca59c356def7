"""Arrays that lie in files: telling them from arrays in memory, and giving their pages back to the system."""

from __future__ import annotations

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
_AT_ONCE = 64 << 20  # bytes that may be resident of one weight


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
    """Give back the pages of a mapped array; they are read from the file again when somebody asks.

    Does nothing for an array in memory, and where the system has no such call.
    """
    pages = mapping_of(array)
    if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)


def _fetch(pages: Pages, start: int, length: int) -> None:
    """Ask for what will be read in one call, which is several times faster than page by page; no matter if refused."""
    if length <= _AT_ONCE and sys.platform == "linux":
        first = start - start % mmap.PAGESIZE
        with suppress(OSError):
            pages.madvise(_POPULATE_READ, first, min(start + length, len(pages)) - first)


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
            pages = Pages(stream.fileno(), 0, access=mmap.ACCESS_READ)
        _fetch(pages, tensor.offset or 0, tensor.nbytes)
        return np.frombuffer(pages, dtype, tensor.size, tensor.offset or 0).reshape(shape)
    except (OSError, ValueError) as error:
        message = f"{tensor.path}: the weight {tensor.name} cannot be read from it any more ({error})"
        raise ModelError(message, tensor=tensor.name or "") from error
