"""Which files of a folder are samples, and of what kind."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ptq_lab.calibration.images import SUFFIXES
from ptq_lab.errors import SampleError

Kind = Literal["IMAGE", "BIN", "NPY"]

KINDS: dict[str, Kind] = {**dict.fromkeys(sorted(SUFFIXES), "IMAGE"), ".bin": "BIN", ".npy": "NPY"}
"""File name suffix (small letters) -> what the file is read as."""

SIDE_FILES = frozenset({".txt", ".md", ".csv", ".tsv", ".json", ".yaml", ".yml", ".ini", ".cfg", ".npz", ".onnx"})
"""Never samples, even when input_type lets any suffix pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The sample files of one folder, sorted by the bytes of their names."""

    folder: Path
    kind: Kind
    paths: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def list_samples(folder: Path, input_type: str | None = None) -> Listing:
    """Find the sample files directly inside a folder.

    Parameters
    ----------
    folder : Path
        Hidden files, sub-folders and files of other kinds (``labels.txt``) are left out; the original
        counts all of them and then fails on their content.
    input_type : {"IMAGE", "BIN"}, optional
        What to look for; None takes the one kind that is there. A kind that is asked for is also found
        under unknown suffixes (``0001.raw``) when no file has a known one.

    Raises
    ------
    SampleError
        No folder, nothing usable in it, or several kinds.

    Examples
    --------
    >>> list_samples(Path("no such folder"))
    Traceback (most recent call last):
    ptq_lab.errors.SampleError: no such folder: no such folder
    """
    files = _files(folder)
    if input_type not in (None, "IMAGE", "BIN"):
        raise SampleError(f"input_type={input_type}: allowed are IMAGE, BIN")
    groups: dict[Kind, list[Path]] = {}
    for path in files:
        if kind := KINDS.get(path.suffix.lower()):
            groups.setdefault(kind, []).append(path)
    chosen = _chosen(folder, files, groups, input_type)
    paths = groups.get(chosen) or [path for path in files if path.suffix.lower() not in SIDE_FILES | KINDS.keys()]
    if not paths:
        only = f", only {_seen(files)}" if files else " and no other files"
        raise SampleError(f"{folder}: holds no {chosen} files{only}", path=folder)
    return Listing(folder=folder, kind=chosen, paths=tuple(paths), notes=_notes(folder, files, paths, chosen))


def _files(folder: Path) -> list[Path]:
    if not folder.exists():
        raise SampleError(f"{folder}: no such folder", path=folder)
    if not folder.is_dir():
        raise SampleError(f"{folder}: is a file, a folder of samples wanted", path=folder)
    found = (path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file())
    return sorted(found, key=lambda path: os.fsencode(path.name))


def _chosen(folder: Path, files: list[Path], groups: dict[Kind, list[Path]], input_type: str | None) -> Kind:
    if input_type == "IMAGE":
        return "IMAGE"
    if input_type == "BIN":
        return "BIN"
    if len(groups) == 1:
        return next(iter(groups))
    if groups:
        counts = ", ".join(f"{len(paths)} {kind}" for kind, paths in sorted(groups.items()))
        message = f"{folder}: mixes kinds of samples ({counts}); choose by input_type, or use separate folders"
        raise SampleError(message, path=folder)
    subfolders = sum(path.is_dir() for path in folder.iterdir())
    seen = [_seen(files)] if files else []
    seen += [f"{subfolders} sub-folders, which are not searched"] if subfolders else []
    only = f"holds no samples, only {' and '.join(seen)}" if seen else "is empty"
    raise SampleError(f"{folder}: {only}; images, .bin and .npy files are samples", path=folder)


def _seen(files: list[Path]) -> str:
    counts = Counter(path.suffix.lower() or path.name for path in files)
    return ", ".join(f"{count} {suffix}" for suffix, count in counts.most_common(5))


def _notes(folder: Path, files: list[Path], taken: list[Path], kind: Kind) -> tuple[str, ...]:
    left = [path for path in files if path not in set(taken) and path.name != "labels.txt"]
    if not left:
        return ()
    are = "1 file is" if len(left) == 1 else f"{len(left)} files are"
    return (f"{folder.name}: {are} not read as {kind} and left out ({_seen(left)})",)
