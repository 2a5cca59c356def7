"""Files that appear whole or not at all: what was there before stays until the new one is complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ptq_lab.errors import OutputError


@contextmanager
def replacing(path: Path, *, what: str = "") -> Iterator[IO[str]]:
    """Write a text file under another name, and put it in its place when the block ends without an error.

    Parameters
    ----------
    path : Path
        Its folder must exist.
    what : str
        What the file is, for the message of an error, e.g. ``"the report"``.

    Raises
    ------
    OutputError
        If it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder) / "a.txt") as stream:
    ...         _ = stream.write("whole")
    ...     [file.name for file in Path(folder).iterdir()]
    ['a.txt']
    """
    unfinished = _unfinished(path)
    try:
        with unfinished.open("w", encoding="utf-8", newline="") as stream:
            yield stream
        unfinished.replace(path)
    except OSError as fault:
        if isinstance(fault, OutputError):
            raise
        refused = f"{what} cannot be written".lstrip()
        raise OutputError(f"{path}: {refused} ({fault.strerror or fault})", path=path) from fault
    finally:
        with suppress(OSError):  # nothing is left under this name after a success
            unfinished.unlink()


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file so that whoever looks at `target` finds the old one or the new one.

    Raises
    ------
    OSError
        If it cannot be read or written.
    """
    unfinished = _unfinished(target)
    try:
        shutil.copy2(source, unfinished)
        unfinished.replace(target)
    finally:
        with suppress(OSError):
            unfinished.unlink()


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.unfinished")
