"""What may be written where only the model, the disk or the user's variables know: names, files, variables."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import FunctionType
from typing import Any

import onnx

from ptq_lab.config.layer_bits import write_name
from ptq_lab.config.lists import quote
from ptq_lab.config.places import Offer
from ptq_lab.demo import Demo
from ptq_lab.graph import OPERATORS, Model
from ptq_lab.graph.outline import Outline
from ptq_lab.result import QuantResult

MANY = 300  # offers that a list can hold before it helps nobody
_ENTRIES = 2000  # of a folder that are looked at


def matching(offers: Iterable[Offer], fragment: str) -> list[Offer]:
    """Return the offers that start with a fragment, or else those that contain it; case does not count.

    Examples
    --------
    >>> [offer.text for offer in matching([Offer(text="/a/Conv", kind="node"), Offer(text="x", kind="node")], "conv")]
    ['/a/Conv']
    """
    every, wanted = list(offers), fragment.strip('"').casefold()
    if not wanted:
        return every[:MANY]
    first = [offer for offer in every if offer.text.strip('"').casefold().startswith(wanted)]
    rest = [offer for offer in every if wanted in offer.text.casefold()]
    return (first or rest)[:MANY]


def node_offers(outline: Outline | None, fragment: str) -> list[Offer]:
    """Return names, patterns and operators for ``skip_quant_node``."""
    return _pattern_offers(outline, fragment, quote, end="")


def pin_offers(outline: Outline | None, fragment: str) -> list[Offer]:
    """Return names, patterns and operators for the keys of ``[ptq_lab.layer_bits]``, weights among them."""
    offers = _pattern_offers(outline, fragment, write_name, end="=")
    weights = outline.weights if outline is not None else ()
    return offers + matching([Offer(text=f"{write_name(name)}=", kind="weight") for name in weights], fragment)


def input_offers(outline: Outline | None, fragment: str) -> list[Offer]:
    """Return ``input:folder`` pairs for ``calibrate_path``: inputs first, folders behind the colon."""
    name, colon, folder = fragment.rpartition(":")
    if colon:
        return [Offer(text=f"{name}:{offer.text}", kind=offer.kind) for offer in file_offers(folder, ())]
    inputs = outline.inputs if outline is not None else ()
    return matching([Offer(text=f"{quote(each)}:", kind="input") for each, _ in inputs], fragment)


def shape_offers(outline: Outline | None, fragment: str) -> list[Offer]:
    """Return ``name:sizes`` for ``--inputShape``; a size that is not fixed is offered as 1."""
    inputs = outline.inputs if outline is not None else ()
    done, _, last = fragment.rpartition(";")
    texts = [f"{name}:{','.join(str(s) if isinstance(s, int) else '1' for s in sizes)}" for name, sizes in inputs]
    found = matching([Offer(text=text, kind="input") for text in texts], last)
    return [Offer(text=f"{done};{offer.text}" if done else offer.text, kind=offer.kind) for offer in found]


def file_offers(fragment: str, suffixes: tuple[str, ...], *, folders: bool = True) -> list[Offer]:
    """Return the entries of a folder: folders, and files with one of the suffixes.

    Parameters
    ----------
    fragment : str
        The start of a path; what stands before its last slash is the folder.
    suffixes : tuple of str
        None are files then.
    folders : bool
        Whether folders are offered.
    """
    head, slash, tail = fragment.strip("\"'").rpartition("/")
    shown, folder = f"{head}{slash}", Path(f"{head}{slash}" or ".").expanduser()
    found = []
    for entry in _entries(folder):
        if entry.name.startswith(".") and not tail.startswith("."):
            continue
        is_folder = entry.is_dir()
        if (is_folder and folders) or (not is_folder and entry.name.endswith(suffixes)):
            text = f"{shown}{entry.name}{'/' if is_folder else ''}"
            found.append(Offer(text=_quoted(text), kind="folder" if is_folder else "file"))
    found.sort(key=lambda offer: (offer.kind == "folder", offer.text))
    return matching(found, fragment.strip("\"'"))


def model_offers(names: Mapping[str, Any]) -> Iterator[Offer]:
    """Yield the variables that hold a model or the path of one."""
    for name, value in _visible(names):
        if isinstance(value, onnx.ModelProto | Model) or _is_path(value, (".onnx",)):
            yield Offer(text=name, kind="model")
        elif isinstance(value, Demo | QuantResult):
            yield Offer(text=f"{name}.model_path", kind="model")


def sample_offers(names: Mapping[str, Any]) -> Iterator[Offer]:
    """Yield the variables that may hold samples."""
    for name, value in _visible(names):
        of_arrays = isinstance(value, list | tuple) and bool(value) and isinstance(value[0], dict)
        if of_arrays or _is_path(value, (".npz",)) or (isinstance(value, Path) and value.is_dir()):
            yield Offer(text=name, kind="samples")
        elif isinstance(value, Demo):
            yield Offer(text=f"{name}.calib_path", kind="samples")


def judge_offers(names: Mapping[str, Any]) -> Iterator[Offer]:
    """Yield the variables that may score a model."""
    for name, value in _visible(names):
        if _is_path(value, (".npz",)) or (isinstance(value, FunctionType) and value.__module__ == "__main__"):
            yield Offer(text=name, kind="metric")
        elif isinstance(value, Demo):
            yield Offer(text=f"{name}.eval_path", kind="metric")
            yield Offer(text=f"{name}.evaluate", kind="metric")


def result_offers(names: Mapping[str, Any]) -> Iterator[Offer]:
    """Yield the variables that hold a finished run."""
    return (Offer(text=name, kind="result") for name, value in _visible(names) if isinstance(value, QuantResult))


def _pattern_offers(outline: Outline | None, fragment: str, write: Any, *, end: str) -> list[Offer]:
    if outline is None:
        kinds = [Offer(text=f"type:{kind}{end}", kind="operator") for kind in OPERATORS]
        return matching(kinds, fragment)
    bare = fragment.strip('"')
    if any(mark in bare for mark in "*?["):  # a pattern as it stands, then what it means
        hits = [name for name, _ in outline.nodes if fnmatch.fnmatchcase(name, f"{bare}*")]
        own = [Offer(text=f"{write(bare)}{end}", kind="pattern")]
        return own + [Offer(text=f"{write(name)}{end}", kind="node") for name in hits[:MANY]]
    nodes = [Offer(text=f"{write(name)}{end}", kind="node") for name, kind in outline.nodes if kind != "Constant"]
    kinds = [Offer(text=f"type:{kind}{end}", kind="operator") for kind in sorted({kind for _, kind in outline.nodes})]
    patterns = [Offer(text=f"{write(pattern)}{end}", kind="pattern") for pattern in _patterns(outline)]
    return matching([*nodes, *patterns, *kinds], fragment)


def _patterns(outline: Outline) -> list[str]:
    """Return a pattern for every path of names that two nodes or more lie under."""
    counts: dict[str, int] = {}
    for name, _ in outline.nodes:
        parts = name.split("/")
        for depth in range(1, len(parts)):
            head = "/".join(parts[:depth])
            if head:
                counts[head] = counts.get(head, 0) + 1
    return [f"{head}/*" for head, count in counts.items() if count > 1]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return [entry for entry, _ in zip(found, range(_ENTRIES), strict=False)]
    except (OSError, ValueError):
        return []


def _quoted(text: str) -> str:
    return f'"{text}"' if " " in text else text


def _is_path(value: object, suffixes: tuple[str, ...]) -> bool:
    return isinstance(value, str | Path) and str(value).endswith(suffixes) and "\n" not in str(value)


def _visible(names: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in names.items() if not name.startswith("_")]
