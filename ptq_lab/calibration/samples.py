"""`Samples`: what calibration, search, comparison and evaluation iterate over."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from ptq_lab.calibration.columns import Column
from ptq_lab.calibration.fitting import fit_array
from ptq_lab.errors import SampleError
from ptq_lab.graph.tensors import TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Samples:
    """Model inputs, one sample at a time, as often as wanted.

    Iterating yields ``{input name: array}`` with arrays of the model's own shape (batch axis first),
    element type and layout; read them, do not write into them. Every pass reads the files again, so
    memory stays flat and an interrupted pass leaves nothing behind. The object can be pickled, so that
    executors may share it out with `part`.

    Attributes
    ----------
    inputs : tuple of TensorSpec
        What the model takes.
    columns : tuple of Column
        One per input, in the same order.
    start, stop : int
        Which of the columns' samples are meant.
    unit, source : str
        What one sample is and where they are kept, for `origin`.
    notes : tuple of str
        What the user should know: an assumed layout, a suspicious range, arrays that were ignored.
    random : bool
        Made up, for want of real ones: good for comparing two models, not for fitting one.

    Examples
    --------
    >>> import numpy as np
    >>> from ptq_lab.calibration import open_samples
    >>> spec = TensorSpec(name="x", dtype=np.dtype("float32"), shape=("batch", 2))
    >>> samples = open_samples([{"x": [1, 2]}, {"x": [3, 4]}], [spec])
    >>> [sample["x"].tolist() for sample in samples], samples.origin
    ([[[1.0, 2.0]], [[3.0, 4.0]]], '2 samples given by the caller')
    """

    inputs: tuple[TensorSpec, ...]
    columns: tuple[Column, ...]
    stop: int
    start: int = 0
    unit: str = "sample"
    source: str = "given by the caller"
    notes: tuple[str, ...] = ()
    random: bool = False
    _known: list[str] | None = field(default=None, repr=False)  # the fingerprint, once it was taken of pinned samples

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the model's inputs."""
        return tuple(spec.name for spec in self.inputs)

    @property
    def origin(self) -> str:
        """How many samples of what, from where; e.g. ``"400 images of imagenet-eval"``."""
        plural = "" if len(self) == 1 else "s"
        return f"{len(self)} {self.unit}{plural} {self.source}".strip()

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]:
        passes = [column.read(self.start, self.stop) for column in self.columns]
        for index, arrays in enumerate(zip(*passes, strict=True), start=self.start):
            yield {
                spec.name: fit_array(array, spec, where=column.place(index), hint=column.hint)
                for spec, column, array in zip(self.inputs, self.columns, arrays, strict=True)
            }

    def place(self, index: int) -> str:
        """Say where sample ``index`` came from: the path of its file, or its number."""
        return self.columns[0].place(self.start + index)

    def take(self, count: int) -> Samples:
        """Return the first ``count`` samples, or all when there are fewer.

        Raises
        ------
        SampleError
            ``count`` is below 1.
        """
        if count < 1:
            raise SampleError(f"{count} samples asked for, at least 1 is needed")
        return self.part(0, min(count, len(self)))

    def part(self, start: int, stop: int) -> Samples:
        """Return samples ``start`` to ``stop`` (exclusive, both counted within these samples).

        Raises
        ------
        SampleError
            The part is empty or reaches outside.
        """
        if not 0 <= start < stop <= len(self):
            raise SampleError(f"samples {start}..{stop} asked for, there are {len(self)}")
        known: list[str] | None = None if self._known is None else []
        return replace(self, start=self.start + start, stop=self.start + stop, _known=known)

    def pinned(self) -> Samples:
        """Return the same samples for one run: their fingerprint is taken once, and changes after that go unnoticed."""
        return self if self._known is not None else replace(self, _known=[])

    def fingerprint(self) -> str:
        """Return a hash (64 hex digits) of the samples' content and of how they are read.

        It does not depend on paths, times or file names; it reads everything once, of pinned samples in the first
        call only.
        """
        if self._known:
            return self._known[0]
        sha = hashlib.sha256()
        for spec, column in zip(self.inputs, self.columns, strict=True):
            sha.update(f"{spec.name} {spec.dtype} {spec.shape};".encode())
            sha.update(column.digest(self.start, self.stop))
        if self._known is not None:
            self._known.append(sha.hexdigest())
        return sha.hexdigest()
