"""All values of one input, sample by sample, wherever they are kept.

A column is cheap to make and to pickle, and reads only what is asked for: memory does not grow with the
number of samples. `Samples` zips one column per input.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ptq_lab.errors import SampleError

Array = NDArray[Any]


class Column(Protocol):
    """What `Samples` asks of the values of one input."""

    @property
    def hint(self) -> str:
        """What to try when the shape is wrong."""

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> Iterator[Array]:
        """Yield samples ``start`` to ``stop`` (exclusive) as they are kept."""

    def place(self, index: int) -> str:
        """Say where a sample came from, for messages."""

    def digest(self, start: int, stop: int) -> bytes:
        """Hash the content of the samples, and how it is read."""


def hash_arrays(arrays: Iterator[Array]) -> bytes:
    """Hash values together with their types and shapes.

    Examples
    --------
    >>> hash_arrays(iter([np.zeros(2)])) == hash_arrays(iter([np.zeros((1, 2))]))
    False
    """
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(f"{array.dtype} {array.shape};".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.digest()


class Reader(Protocol):
    """Turns one file into one sample; ``repr(reader)`` tells everything that shapes the result."""

    @property
    def hint(self) -> str:
        """What to try when the shape is wrong."""

    def __call__(self, path: Path) -> Array:
        """Read a sample."""


@dataclass(frozen=True, slots=True)
class FileColumn:
    """One file per sample; each is opened when its turn comes."""

    paths: tuple[Path, ...]
    reader: Reader

    @property
    def hint(self) -> str:  # noqa: D102
        return self.reader.hint

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, start: int, stop: int) -> Iterator[Array]:  # noqa: D102
        return (self.reader(path) for path in self.paths[start:stop])

    def place(self, index: int) -> str:  # noqa: D102
        return str(self.paths[index])

    def digest(self, start: int, stop: int) -> bytes:  # noqa: D102
        sha = hashlib.sha256(repr(self.reader).encode())
        for path in self.paths[start:stop]:
            try:
                sha.update(hashlib.sha256(path.read_bytes()).digest())
            except OSError as fault:
                raise SampleError(f"{path}: cannot be read: {fault.strerror}", path=path) from fault
        return sha.digest()


@dataclass(frozen=True, slots=True)
class ArrayColumn:
    """The first axis of an array in memory."""

    array: Array
    name: str
    hint: str = ""

    def __len__(self) -> int:
        return len(self.array)

    def read(self, start: int, stop: int) -> Iterator[Array]:  # noqa: D102
        return (np.asarray(self.array[index]) for index in range(start, stop))

    def place(self, index: int) -> str:  # noqa: D102
        return f"sample {index}"

    def digest(self, start: int, stop: int) -> bytes:  # noqa: D102
        return hash_arrays(self.read(start, stop))


@dataclass(frozen=True, slots=True)
class ItemColumn:
    """One input's values out of a sequence of ``{input name: array}``."""

    items: Sequence[Mapping[str, Any]]
    name: str
    hint: str = ""

    def __len__(self) -> int:
        return len(self.items)

    def read(self, start: int, stop: int) -> Iterator[Array]:  # noqa: D102
        return (self._value(index) for index in range(start, stop))

    def _value(self, index: int) -> Array:
        item = self.items[index]
        if not isinstance(item, Mapping):
            raise SampleError(f"{self.place(index)}: is {type(item).__name__}, a dict {{input name: array}} wanted")
        if self.name not in item:
            seen = ", ".join(map(str, item)) or "nothing"
            raise SampleError(f"{self.place(index)}: holds no {self.name!r}, only: {seen}")
        try:
            return np.asarray(item[self.name])
        except ValueError as fault:  # rows of different lengths
            raise SampleError(f"{self.place(index)}: {self.name!r} is no array ({fault})") from fault

    def place(self, index: int) -> str:  # noqa: D102
        return f"sample {index}"

    def digest(self, start: int, stop: int) -> bytes:  # noqa: D102
        return hash_arrays(self.read(start, stop))
