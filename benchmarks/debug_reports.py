"""What debug reports cost: all files of a fully quantized model, as a ratio to running both models on the same samples.

The subject is everything that ``debug_info_save_path`` adds to a run but the page: loading both models with all their
tensors as outputs, describing every tensor of every sample before and after quantization, and writing the CSV files.
The reference is plain inference of the float and of the quantized model, loaded already, one thread each. Samples are
in memory for both. Memory is what Python and numpy hold at most, with few samples and with many.
"""

from __future__ import annotations

import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bars import Cell, Measured, Table, arguments_parser
from timing import machine_facts
from workloads import Feeds, Workload, find_workloads

import ptq_lab
from ptq_lab.calibration import open_samples
from ptq_lab.config import load_config
from ptq_lab.debug import place_debug, without_debug
from ptq_lab.graph import load_model
from ptq_lab.route import Quantized
from ptq_lab.runtime import open_session

BARS = {"exact": 15.0, "sampled": 4.0}
MEMORY_BAR = 1.1
FEW = 4
COLUMNS = {"model": 18, "quartiles": 9, "ratio": 20, "ms a sample": 12, "plain ms": 10, "memory, many to few": 22}


def main() -> None:
    parser = arguments_parser(__doc__)
    parser.add_argument("--models", default="mobilenet_v1_075", help="comma-separated (default %(default)s)")
    parser.add_argument("--samples", type=int, default=100, help="samples (default %(default)s)")
    arguments = parser.parse_args()
    facts, table = machine_facts(), Table(COLUMNS, ("model", "quartiles"))
    for workload in find_workloads(arguments.models):
        for quartiles in BARS:
            table.add(measure(workload, quartiles, list(workload.samples(arguments.samples))))
    table.finish(arguments, facts)


def measure(workload: Workload, quartiles: str, feeds: list[Feeds]) -> dict[str, Cell]:
    """Return a row: one model, one way of taking quartiles."""
    with tempfile.TemporaryDirectory() as folder:
        config = load_config(
            {
                "common_quant_param": {"quant_type": "FULL_QUANT", "debug_info_save_path": f"{folder}/debug"},
                "ptq_lab": {"debug_quantiles": quartiles, "effort": "fast"},
            }
        )
        result = ptq_lab.quantize(
            workload.path, without_debug(config), Path(folder) / "quantized.onnx", samples=feeds[:32]
        )
        original = load_model(workload.path)
        assert result.run is not None
        done = Quantized(plan=result.plan, model=result.model, prepared=result.run.prepared)
        place = place_debug(config)
        assert place is not None  # the configuration names a folder

        def write(some: list[Feeds]) -> None:
            place.write_tables(original, result.model, done, open_samples(some, original.inputs))

        plain = _plain_seconds([open_session(original), open_session(result.model)], feeds)
        start = time.perf_counter()
        write(feeds)
        seconds = time.perf_counter() - start
        few, many = _peak(lambda: write(feeds[:FEW])), _peak(lambda: write(feeds[: 8 * FEW]))
    return {
        "model": workload.name,
        "quartiles": quartiles,
        "ratio": Measured(value=seconds / plain, bar=BARS[quartiles]),
        "ms a sample": f"{1e3 * seconds / len(feeds):.1f}",
        "plain ms": f"{1e3 * plain / len(feeds):.1f}",
        "memory, many to few": Measured(value=many / few, bar=MEMORY_BAR),
    }


def _plain_seconds(sessions: list[Any], feeds: list[Feeds]) -> float:
    """Return the seconds that plain inference of all samples takes: the better of two passes."""
    passes = []
    for _ in range(2):
        start = time.perf_counter()
        for sample in feeds:
            for session in sessions:
                session.run(None, sample)
        passes.append(time.perf_counter() - start)
    return min(passes)


def _peak(work: Callable[[], None]) -> int:
    """Return the bytes that Python and numpy held at most."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


if __name__ == "__main__":
    main()
