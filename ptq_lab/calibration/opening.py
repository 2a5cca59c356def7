"""`open_samples`: from whatever the user has (folder, archive, arrays) to `Samples`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ptq_lab.calibration.archives import NpyColumn, NpzColumn, npz_names
from ptq_lab.calibration.columns import ArrayColumn, Column, FileColumn, ItemColumn
from ptq_lab.calibration.first_look import first_look
from ptq_lab.calibration.fitting import check_name, nearest, with_shapes
from ptq_lab.calibration.folders import list_samples
from ptq_lab.calibration.layouts import Layout
from ptq_lab.calibration.preprocess import Preprocessing, PreprocessOptions, plain
from ptq_lab.calibration.readers import NpyReader, bin_column, image_column
from ptq_lab.calibration.samples import Samples
from ptq_lab.errors import SampleError
from ptq_lab.graph.tensors import TensorSpec

UNITS = {"IMAGE": "image", "BIN": ".bin file", "NPY": ".npy file"}


@dataclass(slots=True, kw_only=True)
class _Opening:
    """What is known while a source is being opened."""

    inputs: tuple[TensorSpec, ...]
    options: Preprocessing
    layout: Layout | None
    limit: int | None
    columns: dict[str, Column] = field(default_factory=dict)
    unit: str = "sample"
    source: str = "given by the caller"
    notes: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return [spec.name for spec in self.inputs]

    def note(self, *notes: str) -> None:
        """Add notes, each once: two folders of images have much in common."""
        self.notes.extend(note for note in notes if note not in self.notes)


def open_samples(
    source: Any,
    inputs: Sequence[TensorSpec],
    *,
    preprocess: PreprocessOptions | None = None,
    limit: int | None = None,
    input_shape: Mapping[str, Sequence[int]] | None = None,
    input_data_format: Layout | None = None,
) -> Samples:
    """Open samples for a model, check what can be checked at once, and read the first one.

    Parameters
    ----------
    source : path, mapping, ndarray, iterable, Samples or None
        - a folder of images, ``.bin`` or ``.npy`` files, one sample each (models with one input), or a
          folder with one such sub-folder per input name;
        - an ``.npz`` archive of arrays by input name, or a ``.npy`` file (one input): the first axis counts
          the samples. An array of the archive is decompressed as a stream, once per pass;
        - a mapping from input name to a folder, a ``.npy`` file, or an array whose first axis counts;
        - an iterable of ``{input name: array}``, each with or without its batch axis. A sequence is kept and
          read item by item; anything else (a generator) is read into memory at once;
        - `Samples` for the same inputs, which are returned (the other parameters but ``limit`` do nothing);
        - None: the folders of ``preprocess.calibrate_path``.
    inputs : sequence of TensorSpec
        The model's inputs.
    preprocess : object with the keys of ``[data_preprocess_param]`` as attributes, optional
        How images become arrays. Path and size count only when ``source`` is None.
    limit : int, optional
        Take the first so many, in the byte order of the file names; None takes all.
    input_shape : mapping from input name to sizes, optional
        Fixes dynamic axes; needed for ``.bin`` files of inputs with dynamic axes beside the batch.
    input_data_format : {"NHWC", "NCHW"}, optional
        Layout of 4-D ``.bin`` data (NHWC when omitted); for images, the model's layout where its shape
        leaves both possible.

    Returns
    -------
    Samples

    Raises
    ------
    SampleError
        Samples are missing, too few, unreadable, of the wrong kind, shape or element type; an input has
        none; inputs have different numbers of them.

    Notes
    -----
    Source: the document's section *Data Preprocessing*. Unlike the original, hidden files, sub-folders and
    files like ``labels.txt`` are left out of the count, and images are turned to the layout of the model.
    Files of several inputs are paired by their sorted position, as in the original; different numbers are
    refused here.

    Examples
    --------
    >>> spec = TensorSpec(name="image", dtype=np.dtype("float32"), shape=("batch", 1, 2, 2))
    >>> samples = open_samples({"image": np.zeros((5, 1, 2, 2))}, [spec], limit=3)
    >>> len(samples), next(iter(samples))["image"].shape
    (3, (1, 1, 2, 2))
    """
    options = plain(preprocess)
    if isinstance(source, Samples):
        return _reopened(source, inputs, limit)
    if source is None:
        source, limit = _calibrate_path(options), limit or options.calibrate_size
    if limit is not None and limit < 1:
        raise SampleError(f"{limit} samples asked for, at least 1 is needed")
    opening = _Opening(inputs=with_shapes(inputs, input_shape), options=options, layout=input_data_format, limit=limit)
    _open(source, opening)
    return _finished(opening)


def _reopened(source: Samples, inputs: Sequence[TensorSpec], limit: int | None) -> Samples:
    if set(source.names) != {spec.name for spec in inputs}:
        wanted = ", ".join(spec.name for spec in inputs)
        raise SampleError(f"these samples are for the inputs {', '.join(source.names)}, the model has {wanted}")
    if limit is not None and limit > len(source):
        raise SampleError(f"{source.origin}: {limit} wanted")
    return source if limit is None else source.take(limit)


def _calibrate_path(options: Preprocessing) -> dict[str, str]:
    if not options.calibrate_path:
        raise SampleError("no samples given; pass samples, or set calibrate_path in [data_preprocess_param]")
    return dict(options.calibrate_path)


def _open(source: Any, opening: _Opening) -> None:
    if isinstance(source, Mapping):
        _open_mapping(source, opening)
    elif isinstance(source, np.ndarray):
        _open_mapping({_only_input(opening, "an array"): source}, opening)
    elif isinstance(source, str | os.PathLike):
        _open_path(Path(source).expanduser(), opening)
    elif isinstance(source, Iterable):
        _open_items(source, opening)
    else:
        raise SampleError(
            f"samples: {type(source).__name__} given; a folder, an .npz or .npy file, a mapping from input "
            "name to folder, or an iterable of {input name: array} wanted"
        )


def _shown(path: Path) -> str:
    return path.name or path.resolve().name  # "." has no name of its own


def _only_input(opening: _Opening, what: str) -> str:
    if len(opening.inputs) != 1:
        names = ", ".join(opening.names)
        raise SampleError(f"{what} serves a model with one input, this one has: {names}; name the parts")
    return opening.inputs[0].name


def _open_path(path: Path, opening: _Opening) -> None:
    opening.source = f"of {_shown(path)}"
    if path.is_dir():
        _open_folder(path, opening)
    elif path.suffix.lower() == ".npz":
        _open_npz(path, opening)
    elif path.suffix.lower() == ".npy":
        opening.columns[_only_input(opening, f"{path}: a single array")] = NpyColumn.open(path)
        _note_unused(opening)
    elif path.exists():
        raise SampleError(f"{path}: a folder, an .npz or a .npy file wanted", path=path)
    else:
        raise SampleError(f"{path}: no such file or folder", path=path)


def _open_npz(path: Path, opening: _Opening) -> None:
    arrays = npz_names(path)
    for name in opening.names:
        if name not in arrays:
            seen = ", ".join(arrays) or "nothing"
            hint = nearest(name, arrays) or "; name the arrays as the model's inputs: numpy.savez(file, name=array)"
            raise SampleError(f"{path}: no array for the input {name!r}, it holds: {seen}{hint}", path=path)
        opening.columns[name] = NpzColumn.open(path, name)
    extra = [name for name in arrays if name not in opening.names]
    if extra:
        opening.note(f"{path.name}: arrays that are no inputs were ignored: {', '.join(extra)}")
    _note_unused(opening)


def _note_unused(opening: _Opening) -> None:
    if opening.options.image_keys:
        keys = ", ".join(opening.options.image_keys)
        opening.note(f"the arrays are fed as they are: {keys} act on image files only")


def _open_folder(folder: Path, opening: _Opening) -> None:
    subfolders = {name: _subfolder(folder, name) for name in opening.names}
    found = [name for name, path in subfolders.items() if path.is_dir()]
    if len(found) == len(opening.names):
        for name, path in subfolders.items():
            _open_files(name, path, opening)
    elif len(opening.names) == 1:
        _open_files(opening.names[0], folder, opening)
    else:
        missing = ", ".join(name for name in opening.names if name not in found)
        seen = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_dir())) or "no sub-folder"
        raise SampleError(
            f"{folder}: one sub-folder per input wanted, missing: {missing}; the folder holds: {seen}",
            path=folder,
        )


def _subfolder(folder: Path, name: str) -> Path:
    # An input called /model/x or ../x must not lead out of the folder.
    return folder.joinpath(*(part for part in name.split("/") if part not in ("", ".", "..")), ".")


def _open_mapping(source: Mapping[Any, Any], opening: _Opening) -> None:
    for name in source:
        check_name(name, opening.names, "samples")
    missing = [name for name in opening.names if name not in source]
    if missing:
        raise SampleError(f"samples: nothing given for the input {', '.join(missing)}, only for {', '.join(source)}")
    if all(isinstance(value, str | os.PathLike) for value in source.values()):
        folders = (_shown(Path(source[name])) for name in opening.names)
        opening.source = f"of {', '.join(dict.fromkeys(folders))}"
    for name in opening.names:
        _open_value(name, source[name], opening)


def _open_value(name: str, value: Any, opening: _Opening) -> None:
    if not isinstance(value, str | os.PathLike):
        array = np.asarray(value)
        if array.ndim == 0:
            raise SampleError(f"samples: {name!r} is {value!r}; a folder or an array of samples wanted")
        opening.columns[name] = ArrayColumn(array, name)
    elif (path := Path(value).expanduser()).suffix.lower() == ".npy" and not path.is_dir():
        opening.columns[name] = NpyColumn.open(path)
    else:
        _open_files(name, path, opening)


def _open_files(name: str, folder: Path, opening: _Opening) -> None:
    listing = list_samples(folder, opening.options.input_type)
    opening.note(*listing.notes)
    opening.unit = UNITS[listing.kind]
    spec = opening.inputs[opening.names.index(name)]
    notes: tuple[str, ...] = ()
    if listing.kind == "NPY":
        opening.columns[name] = FileColumn(listing.paths, NpyReader())
        _note_unused(opening)
    elif listing.kind == "BIN":
        # Files beyond the limit may be anything, as in the original.
        opening.columns[name], notes = bin_column(listing.paths[: opening.limit], spec, opening.layout)
    else:
        opening.columns[name], notes = image_column(listing.paths, spec, opening.options, opening.layout)
    opening.note(*notes)


def _open_items(source: Iterable[Any], opening: _Opening) -> None:
    if isinstance(source, Sequence):
        items: Sequence[Any] = source
    else:
        items = list(source if opening.limit is None else islice(source, opening.limit))
    if items and isinstance(items[0], Mapping):
        extra = [str(name) for name in items[0] if name not in opening.names]
        missing = [name for name in opening.names if name not in items[0]]
        if missing and extra:
            check_name(extra[0], opening.names, "sample 0")
        if extra:
            opening.note(f"samples: arrays that are no inputs were ignored: {', '.join(extra)}")
    opening.columns = {name: ItemColumn(items, name) for name in opening.names}


def _finished(opening: _Opening) -> Samples:
    columns = tuple(opening.columns[name] for name in opening.names)
    counts = {name: len(column) for name, column in opening.columns.items()}
    if len(set(counts.values())) != 1:
        seen = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise SampleError(f"samples: the inputs have different numbers of them: {seen}")
    count = len(columns[0])
    if count < (opening.limit or 1):
        samples = Samples(inputs=opening.inputs, columns=columns, stop=count, unit=opening.unit, source=opening.source)
        raise SampleError(f"too few samples: {samples.origin}, {opening.limit or 1} wanted")
    samples = Samples(
        inputs=opening.inputs,
        columns=columns,
        stop=opening.limit or count,
        unit=opening.unit,
        source=opening.source,
    )
    return replace(samples, notes=(*opening.notes, *first_look(samples)))
