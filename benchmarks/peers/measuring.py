"""Runs tasks and says what they cost: every tool in turn, round after round, the order reversed each time."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from peers.adapter import JUDGED_MARK, RESULT_MARK
from peers.installed import HERE, TOOLS, python_of
from peers.matrix import Task
from peers.rows import FAILED, NOT_LOADABLE, NOT_OFFERED, OK, TIMED_OUT, Row
from peers.subjects import Subject

Told = Callable[["Trial", str], None]
FLOAT_OUTPUTS = "float_outputs.npy"
ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How often and how long.

    Attributes
    ----------
    rounds : int
    repeat_below : float
        Seconds; what takes longer is quantized once, and its file is timed in every round all the same.
    timeout : float
        Seconds for one task.
    adapters : Path
        The folder of ``peer_<tool>.py``.
    """

    rounds: int = 3
    repeat_below: float = 20.0
    timeout: float = 900.0
    adapters: Path = HERE


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a process took: seconds on the clock, of processors (children included), largest memory in MB, exit code."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    timed_out: bool
    code: int
    output: str


@dataclass(slots=True)
class Trial:
    """What is known of a task so far."""

    task: Task
    file: Path
    costs: list[Cost] = field(default_factory=list)
    turns: list[tuple[float, float]] = field(default_factory=list)
    told: dict[str, Any] = field(default_factory=dict)
    judged: dict[str, Any] = field(default_factory=dict)
    status: str = OK
    reason: str = ""
    load: str = ""


def measure(subject: Subject, tasks: Sequence[Task], work: Path, limits: Limits, told: Told) -> None:
    """Quantize a model in every way asked for, judge the files, and tell of every trial after each of its rounds."""
    folder = work / subject.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FLOAT_OUTPUTS).unlink(missing_ok=True)
    trials = [Trial(task, folder / f"{task.label}.onnx") for task in tasks]
    for turn in range(limits.rounds):
        for trial in trials if turn % 2 == 0 else reversed(trials):
            if trial.status == OK:
                _one_round(subject, trial, limits)
                told(trial, f"{subject.name} round {turn + 1}: {trial.task.label}: {_in_short(trial)}")


def row_of(subject: Subject, trial: Trial, facts: dict[str, str]) -> Row:
    """Return what a trial came to."""
    judged = {name: value for name, value in trial.judged.items() if name != "turns"}
    made = trial.file.is_file() and trial.status in (OK, NOT_LOADABLE)
    return Row(
        model=subject.name,
        tool=trial.task.tool,
        mode=trial.task.mode,
        variant=trial.task.variant,
        status=trial.status,
        reason=trial.reason,
        settings=" ".join(str(trial.told.get("notes", "")).split()),
        data=subject.data,
        samples=subject.samples,
        float_bytes=subject.model.stat().st_size,
        bytes=_size(trial.file) if made else None,
        version=trial.told.get("versions", {}).get(TOOLS[trial.task.tool].package, ""),
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        load=trial.load,
        rounds=len(trial.costs),
        **_latency(trial),
        **_costs(trial),
        **judged,
        **facts,
    )


def run_measured(command: Sequence[str | Path], log: Path, timeout: float) -> Cost:
    """Run a command to its end and return its cost; the whole group of processes is stopped when time is up."""
    launcher = [sys.executable, "-S", "-E", HERE / "launch.py", timeout, log, *command]
    words, surroundings = [str(part) for part in launcher], os.environ | ONE_THREAD
    done = subprocess.run(words, env=surroundings, stdout=subprocess.PIPE, text=True, check=True)
    return Cost(**json.loads(done.stdout), output=log.read_text(encoding="utf-8", errors="replace"))


def _one_round(subject: Subject, trial: Trial, limits: Limits) -> None:
    if not trial.costs or trial.costs[0].wall_s < limits.repeat_below:
        _quantize(subject, trial, limits)
    if trial.status == OK:
        _judge(subject, trial, limits)


def _quantize(subject: Subject, trial: Trial, limits: Limits) -> None:
    task, python = trial.task, python_of(trial.task.tool)
    assert python is not None  # only installed tools are asked
    trial.load = trial.load or f"{os.getloadavg()[0]:.1f}"
    command = [python, limits.adapters / f"peer_{task.tool}.py", "--model", subject.model, "--calib", subject.calib]
    command += ["--calib-size", str(subject.samples), "--out", trial.file, "--mode", task.mode]
    cost = run_measured([*command, f"--variant={task.variant}"], trial.file.with_suffix(".log"), limits.timeout)
    trial.costs.append(cost)
    told = _marked(cost.output, RESULT_MARK)
    if told is None:
        trial.status = TIMED_OUT if cost.timed_out else FAILED
        trial.reason = f"stopped after {limits.timeout:.0f} s" if cost.timed_out else _last_words(cost.output)
        return
    trial.told = told
    if "unsupported" in told:
        trial.status, trial.reason = NOT_OFFERED, told["unsupported"]
    elif not told["ok"]:
        trial.status, trial.reason = FAILED, _one_line(told.get("error", "no reason given"))


def _judge(subject: Subject, trial: Trial, limits: Limits) -> None:
    command = [sys.executable, HERE / "judge.py", "--model", subject.model, "--data", subject.evaluation]
    command += ["--float-outputs", trial.file.parent / FLOAT_OUTPUTS]
    command += ["--file", trial.file, *(["--latency-only"] if trial.judged else [])]
    cost = run_measured(command, trial.file.with_suffix(".judged.log"), limits.timeout)
    found = _marked(cost.output, JUDGED_MARK)
    if found is None and not cost.timed_out and cost.code >= 0:
        raise RuntimeError(f"judging {trial.task.label} failed: {cost.output[-2000:]}")  # ours to repair: no result
    if found is None or "error" in found:
        trial.status = TIMED_OUT if cost.timed_out else NOT_LOADABLE
        trial.reason = _one_line(found["error"]) if found else f"onnxruntime ended with signal {-cost.code}"
        return
    trial.turns += found["turns"]
    trial.judged = trial.judged or found


def _marked(output: str, mark: str) -> dict[str, Any] | None:
    lines = [line for line in output.splitlines() if line.startswith(mark)]
    return json.loads(lines[-1].removeprefix(mark)) if lines else None


def _last_words(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    return _one_line(lines[-1]) if lines else "ended without a word"


def _one_line(text: str) -> str:
    """Make one line of a message, without the folders of this machine."""
    words = re.sub(r"^onnxruntime\S*_state\.", "", " ".join(text.split()))
    return " ".join(word.rsplit("/", 1)[-1] if word.count("/") > 1 else word for word in words.split(" "))[:160]


def _size(path: Path) -> int:
    beside = [path.with_name(path.name + ending) for ending in ("", ".data", "_data")]
    return sum(each.stat().st_size for each in beside if each.is_file())


def _latency(trial: Trial) -> dict[str, float]:
    if not trial.turns:
        return {}
    ratios = [after / before for before, after in trial.turns]
    low, middle, high = (float(value) for value in np.percentile(ratios, [25, 50, 75]))
    return {"latency": middle, "latency_low": low, "latency_high": high}


def _costs(trial: Trial) -> dict[str, float]:
    if not trial.costs:
        return {}
    walls, seconds = ([getattr(cost, name) for cost in trial.costs] for name in ("wall_s", "cpu_s"))
    memory = max(cost.peak_mb for cost in trial.costs)
    return {"wall_s": float(np.median(walls)), "cpu_s": float(np.median(seconds)), "peak_mb": memory}


def _in_short(trial: Trial) -> str:
    if trial.status != OK:
        return f"{trial.status}: {trial.reason}"
    cost, cosine = trial.costs[-1], trial.judged["cosine"]
    return f"cosine {cosine:.5f}, {_size(trial.file) / 1e6:.3f} MB, {cost.cpu_s:.1f} CPU s, {cost.peak_mb:.0f} MB peak"
