"""What a whole process costs: importing the package, and quantizing a model from start to exit.

Each line is a fresh Python process: wall seconds, processor seconds (user and system, all threads), and the peak of
its resident memory. The files are in the page cache after an unmeasured first run. POSIX only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bars import Cell, Measured, Table, arguments_parser
from timing import machine_facts
from workloads import Workload, find_workloads

_REPOSITORY = Path(__file__).resolve().parents[1]
_PER_KILOBYTE = 1024 if sys.platform != "darwin" else 1  # unit of ru_maxrss
IMPORT_BAR, QUANTIZE_BAR = 1.0, 1.5  # seconds of wall, seconds of processor
CONFIG = "[common_quant_param]\nquant_type=WEIGHT_QUANT\nbit_num=8\n"
QUANTIZE = "import sys, ptq_lab; ptq_lab.quantize(*sys.argv[1:])"
PARTS = "import onnx, onnx_ir, onnxruntime, pydantic"
# The peak that the system reports for a process starts at that of the process which started it, so a small one does.
LAUNCHER = """
import os, sys, time
start = time.perf_counter()
process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)])
_, status, used = os.wait4(process, 0)
print(time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""
COLUMNS = {
    "process": 30,
    "wall s, median": 30,
    "wall s, least": 18,
    "CPU s, median": 30,
    "CPU s, least": 18,
    "peak MB": 10,
}


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of wall and of processor, and bytes of memory at the peak."""

    wall: float
    processor: float
    peak: int


def main() -> None:
    parser = arguments_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=7, help="processes per line (default %(default)s)")
    arguments = parser.parse_args()
    facts, table = machine_facts(), Table(COLUMNS, ("process",))
    workload = find_workloads(None)[0]  # the mobilenet, or the demo in its place
    with tempfile.TemporaryDirectory() as folder:
        for name, command, wall_bar, processor_bar in commands(workload, Path(folder)):
            run(command)
            costs = [run(command) for _ in range(arguments.repeats)]
            table.add(row(name, costs, wall_bar, processor_bar))
    table.finish(arguments, facts)


def commands(workload: Workload, folder: Path) -> Sequence[tuple[str, Sequence[str], float | None, float | None]]:
    """Return what is run: a name, arguments of Python, and the bars for wall and processor seconds."""
    config = folder / "weight.cfg"
    config.write_text(CONFIG, encoding="utf-8")
    model, output = str(workload.path), str(folder / "quantized.onnx")
    flags = ["--fmk=ONNX", f"--modelFile={model}", f"--outputFile={output}", f"--configFile={config}"]
    judged = QUANTIZE_BAR if workload.name == "mobilenet_v1_075" else None
    return (
        ("python, nothing else", ["-c", "pass"], None, None),
        ("import ptq_lab", ["-c", "import ptq_lab"], IMPORT_BAR, None),
        ("import what it depends on", ["-c", PARTS], None, None),
        ("import ptq_lab.quantize", ["-c", "from ptq_lab import quantize"], None, None),
        (f"quantize {workload.name}", ["-c", QUANTIZE, model, str(config), output], None, judged),
        (f"convert {workload.name}", ["-m", "ptq_lab", "convert", *flags], None, judged),
    )


def run(command: Sequence[str]) -> Cost:
    """Run Python with these arguments and return what the process took."""
    paths = [str(_REPOSITORY), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    launcher = [sys.executable, "-S", "-c", LAUNCHER, sys.executable, *command]
    done = subprocess.run(launcher, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    wall, processor, peak = map(float, done.stdout.split()[-3:])
    return Cost(wall, processor, int(peak) * _PER_KILOBYTE)


def row(name: str, costs: Sequence[Cost], wall_bar: float | None, processor_bar: float | None) -> dict[str, Cell]:
    """Return one row. The bars are held against the medians; the least shows what a quiet machine would give."""
    wall, processor = [cost.wall for cost in costs], [cost.processor for cost in costs]
    return {
        "process": name,
        "wall s, median": _median(wall, wall_bar),
        "wall s, least": Measured(value=min(wall)),
        "CPU s, median": _median(processor, processor_bar),
        "CPU s, least": Measured(value=min(processor)),
        "peak MB": Measured(value=max(cost.peak for cost in costs) / 1e6, form=".0f"),
    }


def _median(seconds: Sequence[float], bar: float | None) -> Measured:
    low, middle, high = np.percentile(seconds, [25, 50, 75])
    return Measured(value=float(middle), low=float(low), high=float(high), bar=bar)


if __name__ == "__main__":
    main()
