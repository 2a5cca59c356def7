"""Arrays that lie in files: telling them from arrays in memory, and giving their pages back to the system."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


def mapping_of(array: object) -> mmap.mmap | None:
    """Return the memory map that an array is a view of; ``None`` for an array in memory.

    Examples
    --------
    >>> mapping_of(np.zeros(3)[1:]) is None
    True
    >>> mapping_of(np.frombuffer(mmap.mmap(-1, 8), np.uint8)[2:]) is None
    False
    """
    while array is not None and not isinstance(array, mmap.mmap):
        array = array.obj if isinstance(array, memoryview) else getattr(array, "base", None)
    return array


def let_go(array: object) -> None:
    """Give back the pages of a mapped array; they are read from the file again when somebody asks.

    Does nothing for an array in memory, and where the system has no such call.
    """
    pages = mapping_of(array)
    if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)


def map_external(tensor: ir.ExternalTensor) -> NDArray[Any]:
    """Return a tensor of external data as a map of its own, which is gone with the array.

    onnx-ir keeps the whole data file mapped for as long as the model lives, with every page that was ever read.
    """
    shape = tuple(int(size) for size in tensor.shape.numpy())
    dtype = tensor.dtype.numpy().newbyteorder("<")
    return np.asarray(np.memmap(tensor.path, dtype, "r", offset=tensor.offset or 0, shape=shape))
