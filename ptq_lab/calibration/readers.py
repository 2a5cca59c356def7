"""One sample file to one array: images, raw ``.bin`` buffers, ``.npy`` files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq_lab.calibration.archives import load_npy
from ptq_lab.calibration.columns import FileColumn
from ptq_lab.calibration.fitting import batch_of_one, shown
from ptq_lab.calibration.images import decode_rgb
from ptq_lab.calibration.layouts import (
    OTHER,
    TO_OTHER,
    Layout,
    layout_for,
    layout_of,
    looks_better_otherwise,
    moves_nothing,
)
from ptq_lab.calibration.preprocess import Preprocessing, check_image_options, preprocess_image
from ptq_lab.errors import SampleError
from ptq_lab.graph.tensors import TensorSpec

SMOOTHNESS_SAMPLES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReader:
    """Decode, preprocess, and put the channels where the model has them."""

    options: Preprocessing
    layout: Layout
    dtype: np.dtype[Any]

    @property
    def hint(self) -> str:
        """What to try when the size is wrong."""
        return "set resize_width, resize_height and resize_method, or center_crop_width and center_crop_height"

    def __call__(self, path: Path) -> NDArray[Any]:
        """Read a sample."""
        try:
            image = preprocess_image(decode_rgb(path), self.options)
        except SampleError as fault:
            if fault.path:
                raise
            raise SampleError(f"{path}: {fault}", path=path) from fault
        if self.dtype == np.uint8 and not self.options.normalize_mean:
            image = np.clip(np.rint(image), 0, 255)  # resizing leaves fractions and overshoots
        return image.transpose(2, 0, 1) if self.layout == "NCHW" else image


@dataclass(frozen=True, slots=True, kw_only=True)
class BinReader:
    """Read a raw little-endian buffer; ``order`` moves its axes to the model's, None leaves them."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: tuple[int, ...] | None = None

    @property
    def hint(self) -> str:
        """Not reached: the size of a buffer is checked in bytes."""
        return ""

    @property
    def size(self) -> int:
        """Bytes of a file."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def check(self, path: Path) -> None:
        """Compare the file's size with what the input takes.

        Raises
        ------
        SampleError
            The sizes differ by any number of bytes.
        """
        seen = path.stat().st_size
        if seen != self.size:
            parts = " x ".join(str(size) for size in self.shape) or "1"
            raise SampleError(
                f"{path}: {seen} bytes, {self.size} wanted ({parts} values of {self.dtype.itemsize} bytes, "
                f"{self.dtype}); such a file is the bare buffer of one sample",
                path=path,
            )

    def __call__(self, path: Path) -> NDArray[Any]:
        """Read a sample."""
        self.check(path)
        # bool would take any byte for true; as a number, anything but 0 and 1 is refused later.
        dtype = np.dtype(np.uint8) if self.dtype.kind == "b" else self.dtype
        values = np.fromfile(path, dtype).reshape(self.shape)
        return values if self.order is None else values.transpose(self.order)


@dataclass(frozen=True, slots=True, kw_only=True)
class NpyReader:
    """Read a ``.npy`` file that is one sample."""

    hint: str = ""

    def __call__(self, path: Path) -> NDArray[Any]:
        """Read a sample."""
        return np.array(load_npy(path))


def image_column(
    paths: Sequence[Path], spec: TensorSpec, options: Preprocessing, layout: Layout | None
) -> tuple[FileColumn, tuple[str, ...]]:
    """Make the column of an image folder, and notes about it.

    ``layout`` decides only where the input's shape leaves both open.

    Raises
    ------
    SampleError
        The input is not 4-D, takes another number of channels, or the options contradict each other.
    """
    notes = list(check_image_options(options))
    if len(spec.shape) != 4:
        raise SampleError(f"{spec.name}: images fit inputs with 4 axes, this one has {shown(spec.shape)}; use .npy")
    found = layout_for(spec, options.channels, layout)
    if found is None:
        raise SampleError(_channel_fault(spec, options))
    if spec.dtype.kind == "f" and not options.normalize_mean:
        notes.append("normalize_mean and normalize_std are not set: images are fed as 0..255")
    how = replace(options, calibrate_path=(), calibrate_size=None, input_type=None)  # not where from or how many
    reader = ImageReader(options=how, layout=found, dtype=spec.dtype)
    return FileColumn(tuple(paths), reader), tuple(notes)


def _channel_fault(spec: TensorSpec, options: Preprocessing) -> str:
    grey = layout_for(spec, 1) is not None
    hint = "image_to_format=GRAY makes one channel" if grey else "GRAY gives 1 channel, RGB and BGR give 3"
    return (
        f"{spec.name}: the model wants {shown(spec.shape)}, image_to_format="
        f"{options.image_to_format or 'BGR (not set)'} gives {options.channels} channels; {hint}"
    )


def bin_column(paths: Sequence[Path], spec: TensorSpec, layout: Layout | None) -> tuple[FileColumn, tuple[str, ...]]:
    """Make the column of a folder of raw buffers, and notes about it.

    Parameters
    ----------
    paths : sequence of Path
        One sample each.
    spec : TensorSpec
        The model's input; its dynamic axes other than the first must have been fixed by ``inputShape``.
    layout : {"NCHW", "NHWC"}, optional
        Of the files' 4-D data; None means NHWC, as the document says.

    Raises
    ------
    SampleError
        A dynamic axis has no size, or a file is not exactly as long as the input.
    """
    shape = _sizes(spec)
    if len(shape) != 4:
        return _checked(paths, BinReader(shape=shape, dtype=spec.dtype)), ()
    own = layout_of(shape)
    files = layout or "NHWC"
    if moves_nothing(shape, own):
        return _checked(paths, BinReader(shape=shape, dtype=spec.dtype)), ()
    kept = shape if files == own else tuple(shape[axis] for axis in TO_OTHER[own])
    order = None if files == own else TO_OTHER[files]
    column = _checked(paths, BinReader(shape=kept, dtype=spec.dtype, order=order))
    return column, _layout_notes(column, spec, (own, files), assumed=layout is None)


def _sizes(spec: TensorSpec) -> tuple[int, ...]:
    wanted = batch_of_one(spec.shape)
    sizes = tuple(size for size in wanted if isinstance(size, int))
    if len(sizes) != len(wanted):
        names = ", ".join(size for size in wanted if isinstance(size, str))
        example = ",".join(str(size) if isinstance(size, int) else "8" for size in wanted)
        raise SampleError(
            f"{spec.name}: the input is {shown(spec.shape)}, and a .bin file cannot tell the size of {names}"
            f"; give it, e.g. inputShape={spec.name}:{example}"
        )
    return sizes


def _checked(paths: Sequence[Path], reader: BinReader) -> FileColumn:
    for path in paths:
        reader.check(path)
    return FileColumn(tuple(paths), reader)


def _layout_notes(
    column: FileColumn, spec: TensorSpec, layouts: tuple[Layout, Layout], *, assumed: bool
) -> tuple[str, ...]:
    own, files = layouts
    reader = column.reader
    if not isinstance(reader, BinReader):
        return ()
    notes = []
    if assumed:
        moved = "as the model has them" if reader.order is None else f"and moved to the model's {own}"
        notes.append(
            f"{spec.name}: .bin files are read as {files} {shown(reader.shape)} {moved} "
            f"(the document's default); inputDataFormat={OTHER[files]} says otherwise"
        )
    raw = BinReader(shape=reader.shape, dtype=reader.dtype)
    first = [raw(path) for path in islice(column.paths, SMOOTHNESS_SAMPLES)]
    shape = tuple(size for size in batch_of_one(spec.shape) if isinstance(size, int))
    if looks_better_otherwise(first, shape, own, files):
        notes.append(
            f"warning: {spec.name}: as {OTHER[files]} the .bin files look clearly smoother than as {files}"
            f"; if that is what they are, set inputDataFormat={OTHER[files]}"
        )
    return tuple(notes)
