"""What calibration costs: statistics of all activations that int8 needs, as a ratio to plain inference.

Subject: `collect_statistics` over the samples, in one onnxruntime thread. Reference: the float model run on the same
samples, also one thread. The samples are decoded before, both are measured in turn, and loading the model counts on
either side. Then the KL search of every tensor, and how the peak of resident memory grows with the number of samples
(a fresh process each, reading real files). ``CPU`` is the ratio of processor time, all threads.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from bars import Cell, Measured, Table, arguments_parser
from process_cost import run
from timing import in_turn, machine_facts
from workloads import Workload, find_workloads

from ptq_lab.calibration import collect_statistics, open_samples
from ptq_lab.graph import Model, load_model
from ptq_lab.numerics import TensorStatistics, choose_range
from ptq_lab.runtime import open_session, run_session

ACTIVATIONS = ("Clip", "Relu", "GlobalAveragePool", "Concat", "Gemm")
RATIO_BARS = {"MAX_MIN": 1.7, "KL": 5.0, "REMOVAL_OUTLIER": None, "MSE": None}
SEARCH_BAR, GROWTH_BAR = 15.0, 10.0  # milliseconds per tensor, megabytes from few samples to many
_PROCESSES = 3  # per peak; it differs by a few megabytes from one to the next
COLUMNS = {"model": 18, "what": 34, "value": 34, "CPU": 6, "plain, with ms": 20}


def main() -> None:
    parser = arguments_parser(__doc__)
    parser.add_argument("--models", default="mobilenet_v1_075,squeezenet1_1", help="comma-separated")
    parser.add_argument("--samples", type=int, default=100, help="samples per measurement (default %(default)s)")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of measurements (default %(default)s)")
    parser.add_argument("--few", type=int, default=8, help="samples of the small memory run (default %(default)s)")
    parser.add_argument("--many", type=int, default=400, help="samples of the large one (default %(default)s)")
    parser.add_argument("--peak", nargs=2, metavar=("METHOD", "SAMPLES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    workloads = find_workloads(arguments.models)
    if arguments.peak:  # the fresh process whose memory is measured
        collect(workloads[0], arguments.peak[0], int(arguments.peak[1]))
        return
    facts, table = machine_facts(), Table(COLUMNS, ("model", "what"))
    for workload in workloads:
        measure_time(workload, arguments, table)
        for method in ("MAX_MIN", "KL"):
            measure_memory(workload, method, arguments, table)
    table.finish(arguments, facts)


def tensors_of(model: Model) -> tuple[str, ...]:
    """Return the inputs and everything behind an activation function or a pool."""
    inner = [node.outputs[0].name or "" for node in model.graph if node.op_type in ACTIVATIONS]
    return tuple(spec.name for spec in model.inputs if spec.dtype.kind == "f") + tuple(inner)


def measure_time(workload: Workload, arguments: argparse.Namespace, table: Table) -> None:
    """Add the ratios of all methods, and the time of the KL search."""
    model = load_model(workload.path)
    tensors = tensors_of(model)
    samples = open_samples([dict(sample) for sample in workload.samples(arguments.samples)], model.inputs)
    seen: dict[str, TensorStatistics] = {}

    def plain() -> None:
        session = open_session(model, threads=1)
        for feeds in samples:
            run_session(session, feeds)

    for method, bar in RATIO_BARS.items():

        def calibrate(method: str = method) -> None:
            seen.update(collect_statistics(model, tensors, samples, methods=[method], threads=1))

        used: dict[str, list[float]] = {"plain": [], "calibrate": []}
        times = in_turn(
            counting_processor(plain, used["plain"]), counting_processor(calibrate, used["calibrate"]), arguments.pairs
        )
        processor = Measured(value=float(np.median(np.array(used["calibrate"]) / np.array(used["plain"]))))
        what = f"{method}, {len(tensors)} tensors, {len(samples)} samples"
        row: dict[str, Cell] = {"model": workload.name, "what": what}
        table.add(row | {"value": times.ratio(bar), "CPU": processor, "plain, with ms": times.milliseconds})
        if method == "KL":
            table.add(row | {"what": "KL search, ms per tensor", "value": search_time(list(seen.values()))})


def counting_processor(work: Callable[[], None], used: list[float]) -> Callable[[], None]:
    """Note the processor seconds of every run too: unlike wall time they hardly depend on who else is at work."""

    def counted() -> None:
        start = time.process_time()
        work()
        used.append(time.process_time() - start)

    return counted


def search_time(seen: Sequence[TensorStatistics]) -> Measured:
    """Return the milliseconds of the KL search, median and quartiles over tensors."""
    seconds = []
    for statistics in seen:
        start = time.perf_counter()
        choose_range(statistics, "KL", never_negative=statistics.low >= 0)
        seconds.append(time.perf_counter() - start)
    low, middle, high = np.percentile(1000 * np.array(seconds), [25, 50, 75])
    return Measured(value=float(middle), low=float(low), high=float(high), bar=SEARCH_BAR)


def measure_memory(workload: Workload, method: str, arguments: argparse.Namespace, table: Table) -> None:
    """Add how much higher the peak is with many samples than with few."""
    command = [str(Path(__file__)), "--models", workload.name, "--peak", method]
    few, many = (
        np.median([run([*command, str(count)]).peak / 1e6 for _ in range(_PROCESSES)])
        for count in (arguments.few, arguments.many)
    )
    what = f"{method}, peak MB, {arguments.few} to {arguments.many} samples"
    table.add(
        {"model": workload.name, "what": what, "value": Measured(value=float(many - few), bar=GROWTH_BAR, form=".1f")}
    )


def collect(workload: Workload, method: str, count: int) -> None:
    model = load_model(workload.path)
    collect_statistics(model, tensors_of(model), workload.samples(count), methods=[method], threads=1)


if __name__ == "__main__":
    main()
