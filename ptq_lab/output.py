"""Where a quantized model goes: checked before any work, written as a draft, published at the end."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from ptq_lab.errors import OutputError
from ptq_lab.graph import Model, save_model


@dataclass(frozen=True, slots=True)
class Output:
    """The place of a quantized model.

    Attributes
    ----------
    path : Path
        The file, which may not exist yet.
    """

    path: Path
    _folder: tempfile.TemporaryDirectory[str] | None = field(default=None, repr=False)  # lives as long as this object

    @contextmanager
    def draft(self, model: Model, *, external: bool = False) -> Iterator[Model]:
        """Write the model beside its place, and move it there when the block ends without an error.

        With `external` its weights lie in a file of their own.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        with self.draft_file() as file:
            yield save_model(model, file, external=external)

    @contextmanager
    def draft_file(self) -> Iterator[Path]:
        """Give a file to write beside its place, and move it there when the block ends without an error.

        Raises
        ------
        OutputError
            If nothing can be written there.
        """
        try:
            folder = tempfile.TemporaryDirectory(prefix=".ptq_lab-", dir=self.path.parent)
        except OSError as error:
            raise self._refused(error) from error
        with _removed(folder):
            yield Path(folder.name) / self.path.name
            try:
                # The model last: whoever sees it finds its external data in place.
                for file in sorted(Path(folder.name).iterdir(), key=lambda file: file.name == self.path.name):
                    shutil.move(file, self.path.parent / file.name)
            except OSError as error:
                raise self._refused(error) from error

    def found(self, draft: Model) -> Model:
        """Return the model that :meth:`draft` gave, as the file at this place."""
        return replace(draft, label=self.path.name, path=self.path)

    def _refused(self, error: OSError) -> OutputError:
        return OutputError(f"{self.path}: cannot be written ({error.strerror or error})", path=self.path)


@contextmanager
def _removed(folder: tempfile.TemporaryDirectory[str]) -> Iterator[None]:
    """Remove a folder when the block ends, also if the user interrupts that once more."""
    try:
        yield
    finally:
        try:
            folder.cleanup()
        except KeyboardInterrupt:
            shutil.rmtree(folder.name, ignore_errors=True)
            raise


@dataclass(frozen=True, slots=True)
class Stamp:
    """A file as it was, so that one can tell later whether it has been written since.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     before = Stamp.of(f"{folder}/q")
    ...     _ = before.path.write_text("codes")
    ...     before.path.name, before.is_old()
    ('q.onnx', True)
    """

    path: Path
    _seen: tuple[int, int, int] | None

    @classmethod
    def of(cls, output: str | os.PathLike[str], *, suffix: str = ".onnx") -> Stamp:
        """Look at the file that an output names, with the suffix if there is none."""
        path = _named(Path(output), suffix)
        return cls(path, _look(path))

    def is_old(self) -> bool:
        """Tell whether the file has been written or replaced since."""
        now = _look(self.path)
        return now is not None and now != self._seen


def place_output(path: str | os.PathLike[str] | None, original: Model, *, suffix: str = ".onnx") -> Output:
    """Find the place for the quantized model; without a path, a temporary folder.

    Parameters
    ----------
    path : path, optional
        Gets the suffix if it has none.
    original : Model
        Its files are not overwritten.
    suffix : str

    Raises
    ------
    OutputError
        If the path is none, is a folder, is the original itself, or lies where nothing can be written.
    """
    if path is None:
        folder = tempfile.TemporaryDirectory(prefix="ptq_lab-")
        stem = original.path.stem if original.path is not None else "model"
        return Output(Path(folder.name) / f"{stem}_quantized{suffix}", folder)
    target = _target(path, suffix)
    if not target.parent.is_dir():
        raise OutputError(f"{target}: {_about_folder(target.parent)}", path=target)
    for file in original.files:
        if target.exists() and target.samefile(file):
            what = "the original model" if file == original.path else "external data of the original model"
            raise OutputError(f"{target}: is {what}; name another file for the quantized one", path=target)
    if not os.access(target.parent, os.W_OK):
        raise OutputError(f"{target}: nothing can be written into {target.parent}", path=target)
    return Output(target, None)


def _target(path: object, suffix: str) -> Path:
    """Return the file that is meant, with the suffix if there is none."""
    if not isinstance(path, str | os.PathLike):
        raise OutputError(f"output: {path!r} given; the path of a file wanted, or None for a temporary one")
    target = Path(path)
    if target.is_dir() or str(path).endswith(("/", os.sep)):
        raise OutputError(f"{path}: is a folder; name a file in it, e.g. {target / 'quantized'}{suffix}", path=target)
    named = _named(target, suffix)
    if named.is_dir():
        raise OutputError(f"{path}: becomes {named}, which is a folder; choose another name", path=named)
    return named


def _named(path: Path, suffix: str) -> Path:
    return path if path.suffix or not path.name else path.with_name(f"{path.name}{suffix}")


def _look(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _about_folder(folder: Path) -> str:
    """Say why nothing can be written into what is no folder."""
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            return f"{place} is a file, not a folder; choose another place"
    return f"the folder {folder} does not exist; make it first"
