"""Where arrays wait until a later layer reads them: in memory, and beyond a limit in a temporary file each."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

IN_MEMORY = 128 << 20  # bytes


class Shelf:
    """Arrays by name and sample; closing it removes its files.

    Parameters
    ----------
    limit : int
        Bytes that are kept in memory. What is returned does not depend on it.

    Examples
    --------
    >>> with Shelf(limit=8) as shelf:
    ...     shelf.put("x", 0, np.arange(4.0))
    ...     shelf.take("x", 0).tolist(), shelf.in_memory
    ([0.0, 1.0, 2.0, 3.0], 0)
    """

    def __init__(self, limit: int = IN_MEMORY) -> None:
        self._limit = limit
        self._arrays: dict[tuple[str, int], NDArray[Any]] = {}
        self._files: dict[tuple[str, int], tuple[Path, np.dtype[Any], tuple[int, ...]]] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._written = 0
        self.in_memory = 0

    def __enter__(self) -> Shelf:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._arrays.clear()
        self._files.clear()
        if self._folder is not None:
            self._folder.cleanup()

    def put(self, name: str, sample: int, array: NDArray[Any]) -> None:
        """Keep an array."""
        if self.in_memory + array.nbytes <= self._limit:
            self._arrays[name, sample] = array
            self.in_memory += array.nbytes
            return
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="ptq_lab-")
        path = Path(self._folder.name) / str(self._written)
        self._written += 1
        np.ascontiguousarray(array).tofile(path)
        self._files[name, sample] = path, array.dtype, array.shape

    def take(self, name: str, sample: int) -> NDArray[Any]:
        """Return an array that was put here; read it, do not write into it."""
        if (name, sample) in self._arrays:
            return self._arrays[name, sample]
        path, dtype, shape = self._files[name, sample]
        return np.fromfile(path, dtype).reshape(shape)

    def drop(self, name: str, sample: int) -> None:
        """Forget an array."""
        array = self._arrays.pop((name, sample), None)
        if array is not None:
            self.in_memory -= array.nbytes
            return
        found = self._files.pop((name, sample), None)
        if found is not None:
            found[0].unlink()
