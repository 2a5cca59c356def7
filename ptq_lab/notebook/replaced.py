"""What a cell is going to write over: the file, and the run of this notebook that made it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ptq_lab.publish import CODED, PLAIN
from ptq_lab.report.text import format_bytes, title
from ptq_lab.result import QuantResult


def files_there(output: str | None, names: Mapping[str, Any]) -> dict[Path, str]:
    """Return what is said of the files that an output may replace, by their paths.

    Parameters
    ----------
    output : str or None
        As the first line of a cell names it; the suffix, if it has none, is that of a model or of a container.
    names : mapping
        The user's variables, among which results of earlier cells are looked for.

    Returns
    -------
    dict of Path to str
        In words: the run that wrote the file if a variable holds it, else its size.
    """
    if not output:
        return {}
    path = Path(output)
    paths = [path] if path.suffix else [path.with_name(f"{path.name}{suffix}") for suffix in (PLAIN, CODED)]
    return {each: _describe(each, names) for each in paths if each.is_file()}


def _describe(path: Path, names: Mapping[str, Any]) -> str:
    size = path.stat().st_size
    runs = [(name, run) for name, run in _results(names) if run.model_path.exists() and run.model_path.samefile(path)]
    # The last one that gave a file of this size: others have been replaced already.
    for name, run in reversed(runs):
        summary = run.report.summary
        if summary.bytes_after == size:
            what = title(summary).partition(": ")[2]
            return f"{name} ({what}, {format_bytes(size)}, cosine {summary.cosine_mean:.6f})"
    return f"a file of {format_bytes(size)}"


def _results(names: Mapping[str, Any]) -> Iterator[tuple[str, QuantResult]]:
    """Yield the user's results, and last what the last cell gave if no variable holds it."""
    named = [(name, each) for name, each in names.items() if name[:1] != "_" and isinstance(each, QuantResult)]
    yield from named
    last = names.get("_")
    if isinstance(last, QuantResult) and all(last is not each for _, each in named):
        yield "the run before", last
