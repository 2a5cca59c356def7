"""Random inputs for models that come without samples, the same on every machine and every run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptq_lab.calibration.columns import Array
from ptq_lab.calibration.fitting import with_shapes
from ptq_lab.calibration.samples import Samples
from ptq_lab.errors import SampleError
from ptq_lab.graph.tensors import TensorSpec

SEED = 5489

SPANS = {"int8": (-127, 255), "uint8": (0, 255)}
"""Lowest value and how many values, where they are not 0 and 1."""

SPATIAL_SIZE = 32
"""For a dynamic height or width of a 4-D or 5-D input, in pixels."""

SEQUENCE_SIZE = 8
"""For any other dynamic axis, in steps."""


@dataclass(frozen=True, slots=True)
class RandomColumn:
    """Seeded random values; every column starts the same stream."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    count: int
    hint: str = ""

    def __len__(self) -> int:
        return self.count

    def read(self, start: int, stop: int) -> Iterator[Array]:  # noqa: D102
        stream = np.random.RandomState(SEED)  # the original's generator, word for word
        for index in range(stop):
            words = stream.randint(0, 1 << 32, size=self.shape, dtype=np.uint32)
            if index >= start:
                yield self._values(words)

    def _values(self, words: Array) -> Array:
        if self.dtype.kind in "iub":
            low, many = SPANS.get(self.dtype.name, (0, 2))
            steps = (words.astype(np.uint64) * np.uint64(many)) >> np.uint64(32)  # 0 .. many - 1
            return (low + steps.astype(np.int64)).astype(self.dtype)
        largest = np.nextafter(np.float32(1), np.float32(0))  # rounding to float32 must not reach 1
        return np.minimum((0.1 + 0.9 * (words / 2.0**32)).astype(np.float32), largest)

    def place(self, index: int) -> str:  # noqa: D102
        return f"random input {index}"

    def digest(self, start: int, stop: int) -> bytes:  # noqa: D102
        return f"random {self.shape} {self.dtype} {start}..{stop}".encode()


def random_samples(
    inputs: Sequence[TensorSpec],
    *,
    count: int = 8,
    input_shape: Mapping[str, Sequence[int]] | None = None,
    sequence: int = SEQUENCE_SIZE,
) -> Samples:
    """Make ``count`` seeded random samples.

    Floats lie in [0.1, 1), int8 in -127..127, uint8 in 0..254, other integers and booleans are 0 or 1.
    A dynamic first axis counts 1, a dynamic height or width 32, any other dynamic axis ``sequence``
    (8); axes that share a name get the same size.

    Raises
    ------
    SampleError
        ``count`` is below 1, or ``input_shape`` contradicts the model.

    Notes
    -----
    Source: the original's calibration without data. One 32-bit Mersenne Twister per tensor, seeded with
    5489; a float is ``0.1 + 0.9 * word / 2**32``. Here the stream goes on from sample to sample.

    Examples
    --------
    >>> spec = TensorSpec(name="x", dtype=np.dtype("float32"), shape=("batch", 2))
    >>> samples = random_samples([spec])
    >>> next(iter(samples))["x"].round(5).tolist(), samples.origin
    ([[0.8332499861717224, 0.22192999720573425]], '8 seeded random inputs')
    """
    if count < 1:
        raise SampleError(f"{count} random samples asked for, at least 1 is needed")
    sizes = _named(inputs, input_shape or {})
    fixed = _without_dynamic_axes(with_shapes(inputs, input_shape), sizes, sequence)
    columns = tuple(RandomColumn(spec.fixed(), spec.dtype, count) for spec in fixed)
    return Samples(inputs=fixed, columns=columns, stop=count, unit="seeded random input", source="", random=True)


def _named(inputs: Sequence[TensorSpec], input_shape: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Collect the sizes that ``input_shape`` gives to names of axes, for the inputs it leaves out."""
    return {
        own: size
        for spec in inputs
        for own, size in zip(spec.shape, input_shape.get(spec.name, ()), strict=False)
        if isinstance(own, str) and own != "?" and size > 0
    }


def _without_dynamic_axes(inputs: Sequence[TensorSpec], sizes: dict[str, int], sequence: int) -> tuple[TensorSpec, ...]:
    batches = {spec.shape[0] for spec in inputs if spec.shape and isinstance(spec.shape[0], str)}
    sizes = {str(name): 1 for name in batches - {"?"}} | sizes
    result = []
    for spec in inputs:
        shape = tuple(
            size if isinstance(size, int) else _size(size, axis, len(spec.shape), sizes, sequence)
            for axis, size in enumerate(spec.shape)
        )
        result.append(TensorSpec(name=spec.name, dtype=np.dtype(spec.dtype), shape=shape))
    return tuple(result)


def _size(name: str, axis: int, rank: int, sizes: dict[str, int], sequence: int) -> int:
    default = 1 if axis == 0 else SPATIAL_SIZE if rank >= 4 and axis >= 2 else sequence
    return default if name == "?" else sizes.setdefault(name, default)
