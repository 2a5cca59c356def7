"""What storing weights in 1 to 16 bits costs: exactness, file size, session creation, latency.

For every model and width, against the original float file:

- exact: the largest difference of any output between the quantized file and a float model that holds the
  dequantized weights, on real samples; with all of onnxruntime's optimizations, and with none;
- bytes: the file, against k/32 of the float weights + the rest of the original file + 8 bytes per channel
  + 1536 bytes per weight;
- load, run: session creation and one inference, as ratios to the original file, measured in turn on one thread.
"""

from __future__ import annotations

import tempfile
from argparse import Namespace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
from bars import Cell, Measured, Table, arguments_parser, parse_widths
from timing import in_turn, machine_facts
from workloads import Workload, find_workloads

import ptq_lab
from ptq_lab.graph import Model, load_model, raise_opset, required_opset, save_model
from ptq_lab.graph.model import constants
from ptq_lab.numerics import dequantize_weight, split_width
from ptq_lab.plan import QuantPlan

ALL, NONE = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
EXACT_BAR, PLAIN_BAR, RUN_BAR = 0.0, 1e-4, 1.05
NATIVE_LOAD_BAR = 1.7  # 4, 8, 16 bits: an element type of ONNX
LOAD_BARS = {1: 3.4, 2: 4.6, 3: 6.0}  # by how many parts the width has beyond the first
NARROW_LOAD_BAR = 2.3  # 1 and 2 bits
SIZE_BARS = {("minilm_l6", 8): 23.8e6, ("minilm_l6", 4): 12.65e6}
COLUMNS = {
    "model": 16,
    "bits": 4,
    "exact, all optimizations": 24,
    "exact, none": 26,
    "bytes": 30,
    "load": 30,
    "load ms": 18,
    "run": 30,
    "run ms": 16,
}


def main() -> None:
    parser = arguments_parser(__doc__)
    parser.add_argument("--models", metavar="A,B", help="only these")
    parser.add_argument("--bits", type=parse_widths, default=parse_widths("1..16"), help="widths, e.g. 1..16 or 4,8")
    parser.add_argument("--samples", type=int, default=4, help="samples for exactness (default %(default)s)")
    parser.add_argument("--loads", type=int, default=15, help="pairs of session creations (default %(default)s)")
    parser.add_argument("--runs", type=int, default=31, help="pairs of inferences (default %(default)s)")
    arguments = parser.parse_args()
    facts, table = machine_facts(), Table(COLUMNS, ("model", "bits"))
    for workload in find_workloads(arguments.models):
        for bits in arguments.bits:
            table.add(measure(workload, bits, arguments))
    table.finish(arguments, facts)


def measure(workload: Workload, bits: int, arguments: Namespace) -> dict[str, Cell]:
    """Return one row: a model at one width."""
    config = {
        "common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": bits, "min_quant_weight_channel": 0},
    }
    with tempfile.TemporaryDirectory() as folder:
        quantized = Path(folder) / "quantized.onnx"
        plan = ptq_lab.quantize(workload.path, config, quantized, samples=workload.samples(1)).plan
        original = load_model(workload.path)
        twin = save_model(float_twin(original, plan), Path(folder) / "twin.onnx").path
        assert twin is not None  # it was just written
        row: dict[str, Cell] = {"model": workload.name, "bits": bits}
        for name, level, bar in (("exact, all optimizations", ALL, EXACT_BAR), ("exact, none", NONE, PLAIN_BAR)):
            worst = difference(workload, twin, quantized, level, arguments.samples)
            row[name] = Measured(value=worst, bar=bar, form=".1e")
        row["bytes"] = Measured(value=quantized.stat().st_size, bar=size_bar(workload, original, plan), form=",.0f")
        loads = in_turn(lambda: session(workload.path), lambda: session(quantized), arguments.loads)
        row |= {"load": loads.ratio(load_bar(bits)), "load ms": loads.milliseconds}
        before, after, feeds = session(workload.path), session(quantized), workload.feeds
        runs = in_turn(lambda: before.run(None, feeds), lambda: after.run(None, feeds), arguments.runs, repeat=True)
        row |= {"run": runs.ratio(RUN_BAR), "run ms": runs.milliseconds}
    return row


def float_twin(original: Model, plan: QuantPlan) -> Model:
    """Return the original at the opset of the quantized file, its weights replaced by the dequantized ones."""
    raised = raise_opset(original, required_opset(plan))
    twin = raised if raised is not original else original.clone()
    holders = constants(twin.graph)
    for entry in plan.entries:
        assert entry.weight is not None  # quantize() returns a plan with codes
        holder, producer = holders[entry.tensor], holders[entry.tensor].producer()
        tensor = ir.tensor(dequantize_weight(entry.weight), name=entry.tensor)
        if producer is None:
            holder.const_value = tensor
        else:
            producer.attributes["value"] = ir.AttrTensor("value", tensor)
    return twin


def difference(workload: Workload, twin: Path, quantized: Path, level: object, count: int) -> float:
    """Return the largest absolute difference of any output on the first samples."""
    wanted, got = session(twin, level), session(quantized, level)
    worst = 0.0
    for feeds in workload.samples(count):
        for left, right in zip(wanted.run(None, dict(feeds)), got.run(None, dict(feeds)), strict=True):
            distance = np.abs(np.subtract(left, right, dtype=np.float64)).max(initial=0.0)
            worst = float("nan") if np.isnan(distance) else max(worst, float(distance))
    return worst


def size_bar(workload: Workload, original: Model, plan: QuantPlan) -> float:
    """Return how many bytes the file may have."""
    bits = plan.entries[0].bits
    floats = sum(entry.bytes_before for entry in plan.entries)
    numbers = sum(8 * entry.channels + 1536 for entry in plan.entries)
    bound = bits / 32 * floats + (original.size - floats) + numbers
    return min(bound, SIZE_BARS.get((workload.name, bits), bound))


def load_bar(bits: int) -> float:
    """Return how many times as long as the float file a session may take to create."""
    if bits in (4, 8, 16):
        return NATIVE_LOAD_BAR
    parts = len(split_width(bits))
    return NARROW_LOAD_BAR if parts == 1 else LOAD_BARS[parts - 1]


def session(path: Path, level: object = ALL) -> onnxruntime.InferenceSession:
    """Open a model on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = level
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    main()
