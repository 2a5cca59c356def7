"""ptq_lab and the other quantizers that are installed, on the same models and samples, in turn.

Writes a CSV file, and from it docs/benchmarks.md with two pictures and the short table of the README. Rows that are
measured again replace those of the same model, tool, mode and variant; all others stay. docs/benchmarks.md tells how
to install the other tools and how to read the numbers.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from peers import installed, subjects
from peers.matrix import Task, tasks
from peers.measuring import Limits, Trial, measure, row_of
from peers.page import RESULTS, build
from peers.rows import Row, merged, read_rows, write_rows
from timing import machine_facts

PRIVATE = ("--work", "--results", "--adapters")  # their values are folders of one machine


def main() -> int:
    asked = arguments()
    if asked.page or asked.check:
        return publish(asked.results, check=asked.check)
    wanted = chosen(asked)
    missing = {task.tool for found in wanted.values() for task in found if installed.python_of(task.tool) is None}
    for tool in sorted(missing):
        print(f"not installed, so left out: {tool} (python benchmarks/peers/installed.py {tool})")
    facts = machine_facts()
    known = {"processor": f"{facts['processor']}, {os.cpu_count()} CPUs", "command": command()}
    known["runtime"] = f"onnxruntime {version('onnxruntime')}, numpy {version('numpy')}"
    adapters = asked.adapters.resolve() if asked.adapters else installed.HERE
    limits = Limits(rounds=asked.rounds, repeat_below=asked.repeat_below, timeout=asked.timeout, adapters=adapters)
    with tempfile.TemporaryDirectory() as folder:
        work = (asked.work or Path(folder)).resolve()
        for name, found in wanted.items():
            subject = subjects.prepare(name, work, asked.calib_size)
            present = [task for task in found if task.tool not in missing]

            def keep(trial: Trial, words: str, subject: subjects.Subject = subject) -> None:
                print(words, flush=True)
                save(asked.results, [row_of(subject, trial, known)])

            measure(subject, present, work, limits, keep)
    return publish(asked.results) if asked.results == RESULTS else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="", help=f"only these, separated by commas; here: {subjects.names()}")
    parser.add_argument("--only", default="", help=f"only these tools: {', '.join(installed.TOOLS)}")
    parser.add_argument("--modes", default="", help="only these: weight8, weight4, weight, full8, full8-best, dynamic8")
    parser.add_argument("--variants", default="", help="only these, as in peers/matrix.py; - is none")
    parser.add_argument("--rounds", type=int, default=3, help="how often every row is measured (3)")
    parser.add_argument("--repeat-below", type=float, default=20.0, help="seconds; slower tools quantize once (20)")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds for one task (900)")
    parser.add_argument("--calib-size", type=int, default=100, help="calibration samples for every tool (100)")
    parser.add_argument("--work", type=Path, help="keep archives, models and logs in this folder")
    parser.add_argument("--results", type=Path, default=RESULTS, help="another CSV file; then no page is written")
    parser.add_argument("--adapters", type=Path, help="take peer_<tool>.py from this folder")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page from the CSV file")
    parser.add_argument("--check", action="store_true", help="measure nothing, tell whether the page fits the CSV file")
    asked = parser.parse_args()
    unknown = [name for name in listed(asked.only) if name not in installed.TOOLS]
    if unknown:
        parser.error(f"--only: there is no {', '.join(unknown)}; there are {', '.join(installed.TOOLS)}")
    known = [*subjects.names(), *subjects.DEMOS]
    if unknown := [name for name in listed(asked.models) if name not in known]:
        parser.error(f"--models: there is no {', '.join(unknown)} here; there are {', '.join(dict.fromkeys(known))}")
    return asked


def chosen(asked: argparse.Namespace) -> dict[str, list[Task]]:
    """Return what is to be done for each model."""
    kinds = {name: kind for name, (kind, _, _) in subjects.TRAINED.items()} | subjects.DEMOS
    names = listed(asked.models) or subjects.names()
    filters = listed(asked.only), listed(asked.modes), listed(asked.variants)
    return {name: tasks(kinds[name], *filters) for name in names}


def save(results: Path, rows: list[Row]) -> None:
    """Put rows into the file, in the order of the models and of the matrix."""
    order = [
        (name, task.tool, task.mode, task.variant)
        for name, kind in [*((name, kind) for name, (kind, _, _) in subjects.TRAINED.items()), *subjects.DEMOS.items()]
        for task in tasks(kind, (), (), ())
    ]
    write_rows(results, merged(read_rows(results), rows, order))


def publish(results: Path, *, check: bool = False) -> int:
    """Write what is generated, or tell what differs."""
    made = build(results)
    old = [path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in old:
        print(f"{'differs from' if check else 'written from'} {results.name}: {path.name}")
        if not check:
            path.write_text(made[path], encoding="utf-8")
    return 1 if check and old else 0


def command() -> str:
    """Return the command line without folders of this machine."""
    words, rest = ["python", "benchmarks/side_by_side.py"], iter(sys.argv[1:])
    for word in rest:
        if word in PRIVATE:
            next(rest, None)
        elif not word.startswith(tuple(f"{name}=" for name in PRIVATE)):
            words.append(word)
    return shlex.join(words)


def listed(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


if __name__ == "__main__":
    sys.exit(main())
