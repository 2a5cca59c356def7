"""How good a model is, as one number: the user's own function, or top-1 accuracy on labelled samples."""

from __future__ import annotations

import importlib
import math
import numbers
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ptq_lab.calibration import Layout, PreprocessOptions, Samples, open_samples
from ptq_lab.calibration.archives import NpzColumn, npz_names
from ptq_lab.errors import PtqLabError, SampleError
from ptq_lab.runtime import open_session
from ptq_lab.top1 import InferenceSession, Judged, Top1

if TYPE_CHECKING:
    from ptq_lab.graph import Model
    from ptq_lab.graph.tensors import TensorSpec

LABEL_ARRAYS = ("labels", "label")
LABEL_FILE = "labels.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A way to score a model; higher is better.

    Attributes
    ----------
    name : str
        For tables: ``"top-1"``, or the name of the user's function.
    function : callable, session -> float
        What computes it.
    origin : str
        The data behind it, e.g. ``"400 images of imagenet-eval"``; empty for a function of the user.
    notes : tuple of str
        What the user should know about the data.

    Examples
    --------
    >>> Metric(name="constant", function=lambda session: 0.5).score(None)
    0.5
    """

    name: str
    function: Callable[[Any], Any]
    origin: str = ""
    notes: tuple[str, ...] = ()
    _known: list[tuple[Model, tuple[str, ...], Judged]] = field(default_factory=list, repr=False, compare=False)

    @property
    def samples(self) -> Samples | None:
        """The samples behind it, if it is about labelled ones."""
        return self.function.samples if isinstance(self.function, Top1) else None

    def judge(self, session: Any) -> Judged:
        """Score a session, and say what it answered where the metric knows.

        Raises
        ------
        SampleError
            As :meth:`score`.
        """
        if isinstance(self.function, Top1):
            return self.function.judge(session)
        return Judged(score=self.score(session))

    def judge_float(self, model: Model, providers: Sequence[str]) -> Judged:
        """Judge the float model of a run: once, though a search and the report both want to know.

        Raises
        ------
        SampleError
            As :meth:`score`.
        """
        for known, where, judged in self._known:
            if known is model and where == tuple(providers):
                return judged
        judged = self.judge(open_session(model, providers=providers, threads=0))
        self._known[:] = [(model, tuple(providers), judged)]
        return judged

    def score(self, session: Any) -> float:
        """Score a session (anything the function accepts; data forms need `InferenceSession`).

        Raises
        ------
        SampleError
            The function gave no finite number, or the data do not fit the model's output.
        """
        try:
            value = self.function(session)
        except PtqLabError:
            raise
        except Exception as fault:  # whatever a user's function raises is the user's to know, not a fault of ours
            raise SampleError(f"{self.name}: raised {type(fault).__name__}: {fault}") from fault
        if isinstance(value, np.ndarray) and value.size == 1:
            value = value.item()
        if not isinstance(value, numbers.Real | np.number | np.bool_):
            raise SampleError(f"{self.name}: returned {_short(value)}, a number (higher is better) wanted")
        if not math.isfinite(value):
            raise SampleError(f"{self.name}: returned {float(value)}, a finite number wanted")
        return float(value)


def _short(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"


def open_metric(
    source: Any,
    inputs: Sequence[TensorSpec],
    *,
    outputs: Sequence[TensorSpec] = (),
    preprocess: PreprocessOptions | None = None,
    input_data_format: Layout | None = None,
    limit: int | None = None,
    input_shape: Mapping[str, Sequence[int]] | None = None,
) -> Metric:
    """Make a metric of what the user gave.

    Parameters
    ----------
    source : callable, str, path or Metric
        - a callable ``session -> float``, higher is better;
        - ``"module:function"``, imported with the working directory on the path;
        - an ``.npz`` archive with the model's inputs and ``labels`` (or ``label``): top-1;
        - a folder of samples with ``labels.txt``: top-1. A line holds a file's name and its class index,
          separated by a tab, a comma or blanks; further columns are ignored, empty lines and ``#`` too.
    inputs : sequence of TensorSpec
        The model's inputs.
    outputs : sequence of TensorSpec
        The model's outputs; labels are checked against the shape of the first one where it tells the classes.
    preprocess, input_data_format, limit, input_shape
        As in `ptq_lab.calibration.open_samples`; they act on the data forms.

    Raises
    ------
    SampleError
        The source is none of these, cannot be read, or its labels do not fit its samples or the model's classes.

    Examples
    --------
    >>> def share_of_correct_answers(session):
    ...     return 0.75
    >>> metric = open_metric(share_of_correct_answers, inputs=[])
    >>> metric.name, metric.score(None)
    ('share_of_correct_answers', 0.75)
    """
    if isinstance(source, Metric):
        return source
    if callable(source):
        return _of_callable(source)
    if not isinstance(source, str | os.PathLike):
        raise SampleError(f"evaluate: {_short(source)} given; {_ALLOWED}")
    path = Path(source).expanduser()
    if not path.exists() and (match := _FUNCTION.fullmatch(os.fspath(source))):
        return _of_callable(_imported(match["module"], match["function"]))
    if not path.is_dir() and not (path.suffix.lower() == ".npz" and path.exists()):
        reason = "is neither a folder nor an .npz" if path.exists() else "no such file or folder"
        raise SampleError(f"evaluate: {path}: {reason}; {_ALLOWED}", path=path)
    samples = open_samples(
        path,
        inputs,
        preprocess=preprocess,
        limit=limit,
        input_shape=input_shape,
        input_data_format=input_data_format,
    )
    metric = _top1_of_folder(path, samples) if path.is_dir() else _top1_of_archive(path, samples)
    _check_labels(metric.function, _classes(outputs))
    return metric


_ALLOWED = (
    "a callable session -> float, 'module:function', an .npz with inputs and labels, "
    f"or a folder of samples with {LABEL_FILE} wanted"
)
_FUNCTION = re.compile(r"(?P<module>\w+(\.\w+)*):(?P<function>\w+(\.\w+)*)")


def _of_callable(function: Callable[[Any], Any]) -> Metric:
    return Metric(name=getattr(function, "__name__", type(function).__name__), function=function)


def _imported(module: str, function: str) -> Callable[[Any], Any]:
    where = f"evaluate: {module}:{function}"
    try:
        with _working_directory_importable():
            found: Any = importlib.import_module(module)
    except ImportError as fault:
        hint = f"; write {module.removesuffix('.py')}:{function}" if module.endswith(".py") else ""
        raise SampleError(f"{where}: {module} cannot be imported: {fault}{hint}") from fault
    except Exception as fault:
        raise SampleError(f"{where}: importing {module} failed with {type(fault).__name__}: {fault}") from fault
    for part in function.split("."):
        if not hasattr(found, part):
            raise SampleError(f"{where}: {getattr(found, '__name__', module)} has no {part}")
        found = getattr(found, part)
    if not callable(found):
        raise SampleError(f"{where}: is {_short(found)}, a function session -> float wanted")
    return found  # type: ignore[no-any-return]


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    here = os.getcwd()  # noqa: PTH109 - sys.path holds strings
    sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(here)


def _classes(outputs: Sequence[TensorSpec]) -> int | None:
    """Return how many classes the first output has, where its shape says so: one axis beside the batch above 1."""
    sizes = outputs[0].shape[1:] if outputs else ()
    fixed = [size for size in sizes if isinstance(size, int)]
    several = [size for size in fixed if size > 1]
    return several[0] if len(several) == 1 and len(fixed) == len(sizes) else None


def _check_labels(top1: Any, classes: int | None) -> None:
    """Refuse a label that is no class of the model before any work is done."""
    for index, label in enumerate(top1.labels):
        if classes is not None and label >= classes:
            raise top1.no_such_class(index, classes)


def _top1(samples: Samples, labels: Sequence[int], notes: tuple[str, ...] = ()) -> Metric:
    top1 = Top1(samples=samples, labels=tuple(labels))
    return Metric(name="top-1", function=top1, origin=samples.origin, notes=(*samples.notes, *notes))


def _top1_of_archive(path: Path, samples: Samples) -> Metric:
    arrays = npz_names(path)
    name = next((name for name in LABEL_ARRAYS if name in arrays), None)
    if name is None:
        seen = ", ".join(arrays)
        raise SampleError(f"{path}: no array {LABEL_ARRAYS[0]!r} for top-1, it holds: {seen}", path=path)
    column = NpzColumn.open(path, name)
    if column.shape[1:] not in ((), (1,)) or column.dtype.kind not in "iuf":
        raise _no_labels(path, column)
    values = np.array([float(value.item()) for value in column.read(0, len(column))])
    if not (np.isfinite(values) & (values >= 0) & (values == np.floor(values))).all():
        raise _no_labels(path, column)
    if len(values) < len(samples):
        raise SampleError(f"{path}: {len(values)} {name} for {samples.origin}", path=path)
    ignored = f"arrays that are no inputs were ignored: {name}"
    kept = tuple(note for note in samples.notes if not note.endswith(ignored))
    return _top1(replace(samples, notes=kept), [int(value) for value in values[: len(samples)]])


def _no_labels(path: Path, column: NpzColumn) -> SampleError:
    seen = f"{column.name!r} is {column.dtype} {list(column.shape)}"
    return SampleError(f"{path}: {seen}; one class index (0 or more) per sample wanted", path=path)


def _top1_of_folder(folder: Path, samples: Samples) -> Metric:
    listed = read_labels(folder / LABEL_FILE)
    paths = [Path(samples.place(index)) for index in range(len(samples))]
    home, names = paths[0].parent, [path.name for path in paths]
    unlabelled = [name for name in names if name not in listed]
    if unlabelled:
        raise SampleError(
            f"{folder / LABEL_FILE}: no label for {unlabelled[0]}"
            + (f" and {len(unlabelled) - 1} more files" if len(unlabelled) > 1 else ""),
            path=folder / LABEL_FILE,
        )
    absent = [name for name in listed if not (home / name).exists()] if len(listed) > len(names) else []
    notes = (f"{LABEL_FILE} names {len(absent)} files that are not in the folder, e.g. {absent[0]}",) if absent else ()
    return _top1(samples, [listed[name] for name in names], notes)


def read_labels(path: Path) -> dict[str, int]:
    """Return the class index of every file that a ``labels.txt`` lists.

    Raises
    ------
    SampleError
        If it is missing, unreadable, or a line holds no class index.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as fault:
        hint = "each line: file name, class index"
        raise SampleError(f"{path.parent}: no {LABEL_FILE} for top-1; {hint}", path=path) from fault
    except (OSError, UnicodeDecodeError) as fault:
        raise SampleError(f"{path}: cannot be read: {fault}", path=path) from fault
    labels: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            name, label = _fields(line, f"{path}, line {number}")
            if labels.get(name, label) != label:
                raise SampleError(
                    f"{path}, line {number}: {name} has two labels, {labels[name]} and {label}", path=path
                )
            labels[name] = label
    return labels


def _fields(line: str, where: str) -> tuple[str, int]:
    # Names may hold blanks when something else separates.
    separator = next((mark for mark in "\t," if mark in line), None)
    parts = [part.strip() for part in line.split(separator)]
    if len(parts) < 2 or not parts[1].isdecimal():
        raise SampleError(f"{where}: {line.strip()!r}; a file name and a class index (0 or more) wanted")
    return parts[0], int(parts[1])


__all__ = ["InferenceSession", "Judged", "Metric", "Top1", "open_metric", "read_labels"]
