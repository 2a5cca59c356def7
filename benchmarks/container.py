"""Entropy-coded containers: size against the entropy of the codes, decoding, session creation, exactness.

For each model and width, per channel:

- bytes: the container, against 1.03 times (2 bits: 1.10 times) the order-0 entropy of the codes, tensor by tensor,
  + 8 bytes per channel + the tensors that stay float + 2 KB + 0.4 KB per weight;
- strict: the container as a ratio to the same bound without the tensors that stay float;
- codes: their coded bytes as a ratio to that entropy;
- decode: million weights per second of processor time, one thread: to codes, and to float32;
- load: session creation as a ratio to the float file, measured in turn, one thread within onnxruntime;
- exact: the largest difference of any output between the container and the plain file that it unpacks to.

BatchNormalization is folded first, as in a run that stores codes of a given width in a container.

``step`` in the place of a width: one step per tensor with a relative error of 0.02, as for mixed bits, nothing folded.
"""

from __future__ import annotations

import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from bars import Cell, Measured, Table, arguments_parser
from timing import in_turn, machine_facts
from workloads import Workload, find_workloads

from ptq_lab.container import load_session, unpack, write_container
from ptq_lab.graph import Model, Rules, find_targets, fold_batchnorm, load_model
from ptq_lab.numerics import QuantizedWeight, dequantize_weight
from ptq_lab.numerics.code_layout import code_range
from ptq_lab.numerics.coding import decode_codes, encode_codes, entropy_bytes
from ptq_lab.numerics.step import find_step, step_codes
from ptq_lab.plan import QuantPlan, TensorPlan, make_plan, round_weights

STEP_ERROR = 0.02
SHARES = {"2": 1.10}
SHARE = 1.03
FIXED, PER_WEIGHT = 2048, 410
SIZE_BARS = {("minilm_l6", "4"): 10.3e6}
LOAD_BAR, DECODE_BAR = 2.7, 250.0
DECODED = ("2", "3", "4")
COLUMNS = {
    "model": 16,
    "bits": 4,
    "bytes": 32,
    "strict": 8,
    "codes": 8,
    "decode to codes": 20,
    "to float32": 10,
    "load": 30,
    "load ms": 18,
    "exact": 18,
    "write s": 8,
}


def main() -> None:
    parser = arguments_parser(__doc__)
    parser.add_argument("--models", metavar="A,B", default="mobilenet_v1_075,minilm_l6", help="default: %(default)s")
    parser.add_argument("--bits", default="2,3,4,6,8,step", help="widths and step (default %(default)s)")
    parser.add_argument("--loads", type=int, default=15, help="pairs of session creations (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=7, help="times to decode (default %(default)s)")
    arguments = parser.parse_args()
    facts, table = machine_facts(), Table(COLUMNS, ("model", "bits"))
    for workload in find_workloads(arguments.models):
        for bits in arguments.bits.split(","):
            table.add(measure(workload, bits, arguments))
    table.finish(arguments, facts)


def measure(workload: Workload, bits: str, arguments: Namespace) -> dict[str, Cell]:
    """Return one row: a model at one width."""
    original = load_model(workload.path)
    original = original if bits == "step" else fold_batchnorm(original)
    plan = single_steps(original) if bits == "step" else at_width(original, int(bits))
    weights = [entry.weight for entry in plan.entries if entry.weight is not None]
    entropy = sum(entropy_bytes(weight.codes) for weight in weights)
    row: dict[str, Cell] = {"model": workload.name, "bits": bits}
    with tempfile.TemporaryDirectory() as folder:
        container, plain = Path(folder) / "c.ptqz", Path(folder) / "c.onnx"
        start = time.perf_counter()
        write_container(original, plan, container)
        seconds = time.perf_counter() - start
        strict = SHARES.get(bits, SHARE) * entropy + FIXED
        strict += sum(8 * entry.channels + PER_WEIGHT for entry in plan.entries)
        bound = strict + stays_float(original, plan)
        bound = min(bound, SIZE_BARS.get((workload.name, bits), bound))
        row["bytes"] = Measured(value=container.stat().st_size, bar=bound, form=",.0f")
        row["strict"] = f"{container.stat().st_size / strict:.4f}"
        row |= decoding(weights, entropy, bits, arguments.repeats)
        loads = in_turn(lambda: session(workload.path), lambda: session(container), arguments.loads)
        row |= {"load": loads.ratio(LOAD_BAR), "load ms": loads.milliseconds}
        worst = difference(session(unpack(container, plain)), session(container), workload.feeds)
        row["exact"] = Measured(value=worst, bar=0.0, form=".1e")
    row["write s"] = f"{seconds:.1f}"
    return row


def decoding(weights: list[QuantizedWeight], entropy: float, bits: str, repeats: int) -> dict[str, Cell]:
    """Code every weight by itself, and time the way back."""
    coded = [encode_codes(weight.codes) for weight in weights]
    count = sum(weight.codes.size for weight in weights)
    sizes = [weight.codes.size for weight in weights]

    def to_codes() -> list[Any]:
        work = zip(coded, sizes, weights, strict=True)
        return [decode_codes(each.layout, each.data, size, bits=weight.bits) for each, size, weight in work]

    def to_floats() -> list[Any]:
        floats = []
        for each, weight in zip(coded, weights, strict=True):
            codes = decode_codes(each.layout, each.data, weight.codes.size, bits=weight.bits)
            floats.append(dequantize_weight(replace(weight, codes=codes.reshape(weight.codes.shape))))
        return floats

    bar = DECODE_BAR if bits in DECODED else None
    return {
        "codes": f"{sum(len(each.data) for each in coded) / entropy:.4f}",
        "decode to codes": Measured(value=count / fastest(to_codes, repeats) / 1e6, bar=bar, at_least=True, form=".0f"),
        "to float32": f"{count / fastest(to_floats, repeats) / 1e6:.0f}",
    }


def fastest(work: Callable[[], Any], repeats: int) -> float:
    """Return the least processor seconds of this thread that some work has taken."""
    seconds = []
    for _ in range(repeats):
        start = time.thread_time()
        work()
        seconds.append(time.thread_time() - start)
    return min(seconds)


def at_width(original: Model, bits: int) -> QuantPlan:
    """Return the plan of one width for all weights, per channel."""
    return round_weights(make_plan(find_targets(original, Rules()), bits=bits), original.weight)


def single_steps(original: Model) -> QuantPlan:
    """Return a plan of one step per tensor."""
    plan = make_plan(find_targets(original, Rules()), bits=8, per_channel=False)
    return replace(plan, entries=tuple(single_step(entry, original) for entry in plan.entries))


def single_step(entry: TensorPlan, original: Model) -> TensorPlan:
    """Return an entry with the codes of one step, in the narrowest width that holds them."""
    values = original.weight(entry.tensor)
    found = find_step(values, STEP_ERROR)
    codes = step_codes(values, found.step)
    low, high = int(codes.min()), int(codes.max())
    bits = next(bits for bits in range(1, 17) if code_range(bits)[0] <= low and high <= code_range(bits)[1])
    one = np.ones(())
    weight = QuantizedWeight(
        codes=codes.astype(np.int8 if bits <= 8 else np.int16),
        bits=bits,
        axis=None,
        scale=np.array(found.spread * found.step, np.float32),
        offset=np.array(found.mean, np.float32),
        step=one,
        zero_point=one.astype(np.int32),
        spread_correction=one,
        mean_correction=one,
    )
    return replace(entry, bits=bits, weight=weight)


def stays_float(original: Model, plan: QuantPlan) -> int:
    """Return the bytes of all tensors that the plan does not quantize."""
    quantized = {entry.tensor for entry in plan.entries}
    values = (value for name, value in original.graph.initializers.items() if name not in quantized)
    return sum(value.const_value.nbytes for value in values if value.const_value is not None)


def difference(wanted: Any, got: Any, feeds: Any) -> float:
    """Return the largest absolute difference of any output on one sample."""
    pairs = zip(wanted.run(None, dict(feeds)), got.run(None, dict(feeds)), strict=True)
    return max(float(np.abs(np.subtract(a, b, dtype=np.float64)).max(initial=0.0)) for a, b in pairs)


def session(path: Path) -> Any:
    """Open a model on one thread, a container or not."""
    return load_session(path, intra_op_num_threads=1, inter_op_num_threads=1)


if __name__ == "__main__":
    main()
