"""The document's performance table: size, memory, latency and cosine of several forms of one model, on this machine."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ptq_lab.graph import Model
from ptq_lab.report.execution import latencies
from ptq_lab.report.rows import PerformanceRow
from ptq_lab.report.tables import Table
from ptq_lab.runtime import Feeds, Sessions

_PROBE = Path(__file__).parents[1] / "probe.py"
_PATIENCE = 600  # seconds that a model may take to load and to run once


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One form of a model: what to call it, what it computes in, where it is, and how close its outputs are."""

    name: str
    arithmetic: str
    model: Model
    cosine: float = 1.0


def measure_performance(
    forms: Sequence[Form], feeds: Feeds, *, sessions: Sessions | None = None
) -> Table[PerformanceRow]:
    """Measure several forms of one model side by side.

    Parameters
    ----------
    forms : sequence of Form
        The float model first; every model in a file.
    feeds : mapping of str to ndarray
        One sample.
    sessions : Sessions, optional
        Where the models may be open already. Memory is measured on the CPU, in processes of their own.

    Raises
    ------
    InferenceError
        If onnxruntime fails on one of the models.
    """
    times = latencies([form.model for form in forms], feeds, sessions=sessions)
    memory = memory_of([form.model for form in forms], feeds)
    size = forms[0].model.size
    rows = (
        PerformanceRow(
            model=form.name,
            arithmetic=form.arithmetic,
            bytes=form.model.size,
            memory=held.run if held is not None else None,
            memory_loaded=held.loaded if held is not None else None,
            latency_ms=time.milliseconds,
            cosine=form.cosine,
            compression_ratio=size / form.model.size,
            memory_change=held.run / memory[0].run - 1.0 if held is not None and memory[0] is not None else None,
            latency_change=time.ratio - 1.0,
        )
        for form, time, held in zip(forms, times, memory, strict=True)
    )
    return Table(PerformanceRow, rows)


@dataclass(frozen=True, slots=True)
class Memory:
    """How many bytes a model adds to a process: right after loading, and after it was run once as well."""

    loaded: int
    run: int


def memory_of(models: Sequence[Model], feeds: Feeds) -> list[Memory | None]:
    """Return how much memory each model adds to a process of its own, loaded and run once.

    ``None`` where the system does not tell (it is read from Linux's ``/proc``), or the process failed.
    """
    if not Path("/proc/self/statm").exists():
        return [None for _ in models]
    with tempfile.TemporaryDirectory() as folder:
        sample, files = Path(folder) / "sample.npz", []
        np.savez(sample, allow_pickle=False, **feeds)
        for index, model in enumerate(models):
            files.append(model.path or Path(folder) / f"{index}.onnx")
            if model.path is None:
                files[-1].write_bytes(model.serialize())
        return _probe(files, sample)


def _probe(models: Sequence[Path], sample: Path) -> list[Memory | None]:
    command = [sys.executable, "-P", str(_PROBE), str(sample), *map(str, models)]  # the package need not be installed
    try:
        done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=_PATIENCE)
        lines = [line.split() for line in done.stdout.splitlines()]
        held = [Memory(int(line[0]), int(line[1])) if len(line) > 1 else None for line in lines]
    except (subprocess.SubprocessError, OSError, ValueError):
        held = []
    return held if len(held) == len(models) else [None for _ in models]
