"""Columns of numpy's own files: ``.npy`` through a memory map, ``.npz`` as a stream."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ptq_lab.calibration.columns import Array, hash_arrays
from ptq_lab.errors import SampleError

_BROKEN = (ValueError, tokenize.TokenError)
"""What numpy raises on a damaged header."""


@dataclass(frozen=True, slots=True)
class NpyColumn:
    """The first axis of a ``.npy`` file, through a memory map."""

    path: Path
    count: int
    hint: str = ""

    @classmethod
    def open(cls, path: Path) -> NpyColumn:
        """Look at the file's header.

        Raises
        ------
        SampleError
            No such file, no ``.npy``, or an array without axes.
        """
        array = load_npy(path)
        if array.ndim == 0:
            raise SampleError(f"{path}: a single number; the first axis must count the samples", path=path)
        return cls(path, len(array))

    def __len__(self) -> int:
        return self.count

    def read(self, start: int, stop: int) -> Iterator[Array]:  # noqa: D102
        array = load_npy(self.path)
        return (np.array(array[index]) for index in range(start, stop))

    def place(self, index: int) -> str:  # noqa: D102
        return f"{self.path}, sample {index}"

    def digest(self, start: int, stop: int) -> bytes:  # noqa: D102
        return hash_arrays(self.read(start, stop))


def load_npy(path: Path) -> Array:
    """Map a ``.npy`` file into memory, read only.

    Raises
    ------
    SampleError
        No such file, or no ``.npy`` of plain numbers.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as fault:
        raise SampleError(f"{path}: no such file", path=path) from fault
    except (*_BROKEN, OSError, EOFError) as fault:
        raise SampleError(f"{path}: is no .npy file of numbers ({fault})", path=path) from fault
    if not isinstance(array, np.ndarray):
        array.close()
        raise SampleError(f"{path}: is an .npz archive; rename it to end in .npz", path=path)
    return array


@dataclass(frozen=True, slots=True)
class NpzColumn:
    """The first axis of one array in an ``.npz`` archive, decompressed as a stream once per pass."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    hint: str = ""

    @classmethod
    def open(cls, path: Path, name: str) -> NpzColumn:
        """Look at the array's header.

        Raises
        ------
        SampleError
            The array is damaged, holds objects, or has no axes.
        """
        with _archive(path) as archive, archive.open(f"{name}.npy") as stream:
            shape, fortran, dtype = _npy_header(stream)
        if dtype.hasobject:
            raise SampleError(f"{path}: {name!r} holds Python objects, numbers wanted", path=path)
        if not shape:
            message = f"{path}: {name!r} is a single number; the first axis must count the samples"
            raise SampleError(message, path=path)
        return cls(path, name, shape, dtype, fortran)

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, start: int, stop: int) -> Iterator[Array]:  # noqa: D102
        with _archive(self.path) as archive, archive.open(f"{self.name}.npy") as stream:
            if self.fortran:  # a sample's values lie scattered over the whole array
                yield from np.lib.format.read_array(stream, allow_pickle=False)[start:stop]
                return
            _npy_header(stream)
            size = int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize
            stream.seek(start * size, 1)
            for _ in range(start, stop):
                content = stream.read(size)
                if len(content) != size:
                    message = "the array ends early"
                    raise EOFError(message)
                yield np.frombuffer(content, self.dtype).reshape(self.shape[1:])

    def place(self, index: int) -> str:  # noqa: D102
        return f"{self.path}, sample {index}"

    def digest(self, start: int, stop: int) -> bytes:  # noqa: D102
        return hash_arrays(self.read(start, stop))


def npz_names(path: Path) -> tuple[str, ...]:
    """List the arrays of an ``.npz`` archive.

    Raises
    ------
    SampleError
        No such file, or no ``.npz``.
    """
    with _archive(path) as archive:
        names = archive.namelist()
    return tuple(name.removesuffix(".npy") for name in names if name.endswith(".npy"))


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive, and turn what a missing or damaged one raises into one message."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except SampleError:
        raise
    except FileNotFoundError as fault:
        raise SampleError(f"{path}: no such file", path=path) from fault
    except (*_BROKEN, zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as fault:
        hint = "numpy.savez(file, name=array) writes one"
        raise SampleError(f"{path}: is no readable .npz archive ({fault}); {hint}", path=path) from fault


_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def _npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        message = f".npy version {version}"
        raise ValueError(message)
    shape, fortran, dtype = _HEADERS[version](stream)
    return shape, fortran, dtype
