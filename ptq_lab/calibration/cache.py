"""Arrays kept from one run to the next, in files named after what they were made from.

The folder is that of the environment variable ``PTQ_LAB_CACHE`` (``off``: nothing is kept), or else the user's own
cache folder. Nothing depends on it: an entry that is missing, damaged or cannot be written costs time, never a result.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
T = TypeVar("T")

_log = logging.getLogger(__name__)

VARIABLE = "PTQ_LAB_CACHE"
LIMIT = 64_000_000
"""Bytes of all entries; beyond it those that were not used for longest go."""

_BROKEN = (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error)


def cache_folder() -> Path | None:
    """Return where entries are kept, ``None`` if they are not; the folder need not exist.

    Examples
    --------
    >>> from unittest.mock import patch
    >>> with patch.dict(os.environ, {"PTQ_LAB_CACHE": "off"}):
    ...     cache_folder() is None
    True
    """
    wanted = os.environ.get(VARIABLE, "").strip()
    if wanted.lower() == "off":
        return None
    try:
        root = Path(wanted).expanduser() if wanted else _user_folder() / "ptq_lab"
    except RuntimeError as fault:  # there is no home
        _log.info("nothing is cached: %s", fault)
        return None
    return root.absolute() / "calibration"


@dataclass(slots=True)
class Memory:
    """What one run measures, and what it need not measure because an earlier one did.

    Attributes
    ----------
    folder : Path or None
        Where entries are kept; ``None``: nowhere.
    measured, reused : int
        How many results were measured, and how many come from earlier runs.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for number in (5, 6):
    ...         memory = Memory(Path(folder))
    ...         kept = memory.recall(lambda: "ab12", lambda: {"x": np.array(number)}, pack=dict, unpack=dict)
    >>> int(kept["x"]), memory.note
    (5, 'calibration statistics reused from the cache')
    """

    folder: Path | None = field(default_factory=lambda: cache_folder())
    measured: int = 0
    reused: int = 0
    _own: set[str] = field(default_factory=set)

    def recall(
        self,
        key: Callable[[], str],
        measure: Callable[[], T],
        *,
        pack: Callable[[T], Arrays],
        unpack: Callable[[Arrays], T],
        worth: Callable[[T], bool] = lambda _: True,
    ) -> T:
        """Return what is kept under a key, or measure and keep it.

        Parameters
        ----------
        key : callable
            Returns a hash of all that shapes the result, as hex; only called if anything is kept at all.
        measure : callable
            Returns the result.
        pack, unpack : callable
            From a result to arrays and back; what `unpack` cannot read (KeyError, ValueError, IndexError, TypeError) is
            measured again.
        worth : callable
            Tells whether a result may be kept, e.g. because it is complete.
        """
        if self.folder is None:
            self.measured += 1
            return measure()
        name = key()
        arrays = read_entry(self.folder, name)
        if arrays is not None:
            with suppress(KeyError, ValueError, IndexError, TypeError):
                found = unpack(arrays)
                self.reused += name not in self._own
                return found
        result = measure()
        self.measured += 1
        if worth(result):
            self._own.add(name)
            write_entry(self.folder, name, pack(result))
        return result

    @property
    def note(self) -> str:
        """What a report should say about it; empty if everything was measured."""
        if not self.reused:
            return ""
        return f"calibration statistics {'partly ' if self.measured else ''}reused from the cache"


def read_entry(folder: Path, key: str) -> Arrays | None:
    """Return the arrays kept under a key, ``None`` if there are none that can be read.

    Parameters
    ----------
    folder : Path
        As from :func:`cache_folder`.
    key : str
        A hash, as hex.
    """
    path = _path(folder, key)
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        return None
    except (*_BROKEN, AttributeError, TypeError) as fault:  # the last two: it is a single array
        _log.info("%s: is damaged and will be replaced (%s)", path, fault)
        return None
    with suppress(OSError):
        os.utime(path)  # used last is dropped last
    return arrays


def write_entry(folder: Path, key: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Keep arrays under a key; the file appears whole or not at all, and if it cannot be written, only the log says so.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_entry(Path(folder) / "new", "ab12", {"x": np.arange(3)})
    ...     read_entry(Path(folder) / "new", "ab12"), read_entry(Path(folder) / "new", "cd34")
    ({'x': array([0, 1, 2])}, None)
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    path = _path(folder, key)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished.write_bytes(buffer.getvalue())
        unfinished.replace(path)
        _drop_oldest(folder)
    except OSError as fault:
        _log.info("%s: cannot be written, so it is measured again next time (%s)", path, fault)
    finally:
        with suppress(OSError):  # nothing is left under this name after a success
            unfinished.unlink()


def _user_folder() -> Path:
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"])
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return given if given.is_absolute() else Path.home() / ".cache"  # a relative one is invalid by the standard


def _path(folder: Path, key: str) -> Path:
    return folder / f"{key}.npz"


def _drop_oldest(folder: Path) -> None:
    """Keep the entries within `LIMIT`; what an interrupted run left unfinished counts too."""
    files = [(path, path.stat()) for path in folder.iterdir() if ".npz" in path.suffixes]
    total = sum(facts.st_size for _, facts in files)
    for path, facts in sorted(files, key=lambda each: each[1].st_mtime_ns):
        if total <= LIMIT:
            return
        with suppress(OSError):  # another run may have been quicker
            path.unlink()
        total -= facts.st_size
