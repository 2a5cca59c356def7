"""Fair timing on a shared machine: two things in turn, ratios of neighbours, median and quartiles."""

from __future__ import annotations

import gc
import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from bars import Measured
from numpy.typing import NDArray

import ptq_lab

_SHORTEST = 0.005  # seconds; shorter work is repeated until a reading takes this long


@dataclass(frozen=True, slots=True)
class Pairs:
    """Seconds of the reference and of the subject, measured in turn; shape (pairs,) each."""

    reference: NDArray[np.float64]
    subject: NDArray[np.float64]

    def ratio(self, bar: float | None = None) -> Measured:
        """Return the median of the pairs' ratios, with quartiles."""
        low, middle, high = np.percentile(self.subject / self.reference, [25, 50, 75])
        return Measured(value=float(middle), low=float(low), high=float(high), bar=bar)

    @property
    def milliseconds(self) -> str:
        """Medians of both, in words."""
        before, after = (1000 * float(np.median(seconds)) for seconds in (self.reference, self.subject))
        return f"{before:.2f} -> {after:.2f}"


def in_turn(reference: Callable[[], Any], subject: Callable[[], Any], pairs: int, *, repeat: bool = False) -> Pairs:
    """Time two pieces of work A, B, A, B, ... after one unmeasured run of each.

    Parameters
    ----------
    reference, subject : callable
        What the last call of a reading returns is freed outside the measured time.
    pairs : int
    repeat : bool
        Let one reading cover so many runs of both that it takes at least 5 ms.
    """
    runs = 1
    reference(), subject()
    if repeat:
        quicker = min(_seconds(reference, 1), _seconds(subject, 1))
        runs = max(1, math.ceil(_SHORTEST / quicker))
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        readings = [(_seconds(reference, runs), _seconds(subject, runs)) for _ in range(pairs)]
    finally:
        if collecting:
            gc.enable()
    before, after = np.array(readings).T
    return Pairs(before, after)


def _seconds(work: Callable[[], Any], runs: int) -> float:
    start = time.perf_counter()
    for _ in range(runs):
        result = work()
    stop = time.perf_counter()
    del result  # alive until here, so that freeing it is not measured
    return (stop - start) / runs


def machine_facts() -> dict[str, str]:
    """Return what numbers from this machine depend on, and print it."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"
    versions = ", ".join(f"{name} {_version(name)}" for name in ("numpy", "onnxruntime", "onnx", "onnx-ir"))
    facts = {
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, load average {load}",
        "processor": _processor(),
        "versions": f"ptq_lab {ptq_lab.__version__}, Python {platform.python_version()}, {versions}",
    }
    for name, fact in facts.items():
        print(f"{name}: {fact}")
    print()
    return facts


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"
