"""Weights of a model that is larger than the memory it may use: memory, time beside a file copy, and whether it runs.

A synthetic chain of matrix products with external data is quantized in a process of its own, which is asked for its
anonymous and its resident memory every few milliseconds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from bars import Cell, Measured, Table, arguments_parser
from onnx import TensorProto, helper
from timing import machine_facts

ANONYMOUS_BAR = 100.0  # MB
RESIDENT_BAR = 0.05  # of the model
COPY_BAR = 1.0  # of the time of a file copy
WIDE, NARROW = 4096, 2048
COLUMNS = {
    "bits": 5,
    "model GB": 9,
    "anonymous MB": 22,
    "resident": 22,
    "time / copy": 22,
    "time / safe copy": 17,
    "seconds": 8,
    "result GB": 10,
    "runs": 10,
}


def main() -> None:
    """Build the model, quantize it at every width, and print what it took."""
    parser = arguments_parser(__doc__)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 4])
    parser.add_argument("--folder", help="where the model is built; several times its size has to be free")
    parser.add_argument("--no-run", action="store_true", help="do not run the results, which takes twice the model")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(quantize_watched(*arguments.child)))
        return
    table, facts = Table(COLUMNS, ("bits",)), machine_facts()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        model = build(Path(folder), arguments.gigabytes)
        for bits in arguments.bits:
            table.add(measure(model, bits, run=not arguments.no_run))
    table.finish(arguments, facts)


def build(folder: Path, gigabytes: float) -> Path:
    """Write a chain of matrix products whose weights are external data."""
    rng, layers = np.random.default_rng(0), max(2, round(gigabytes * 1e9 / (4 * WIDE * NARROW)))
    block = (rng.standard_normal(WIDE * NARROW, np.float32) / np.float32(NARROW**0.5)).astype(np.float32)
    tensors, nodes, place = [], [], 0
    with (folder / "model.data").open("wb") as stream:
        for index in range(layers):
            shape = (NARROW, WIDE) if index % 2 == 0 else (WIDE, NARROW)
            values = np.roll(block, 7919 * index) * np.float32(0.5 + index % 7 / 7)
            stream.write(memoryview(values).cast("B"))
            tensor = TensorProto(name=f"w{index}", data_type=TensorProto.FLOAT, dims=shape)
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "model.data"), ("offset", place), ("length", values.nbytes)):
                tensor.external_data.add(key=key, value=str(value))
            tensors.append(tensor)
            place += values.nbytes
            nodes.append(helper.make_node("MatMul", [f"x{index}", f"w{index}"], [f"x{index + 1}"], f"product{index}"))
    last = NARROW if layers % 2 == 0 else WIDE
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, [1, NARROW])],
        [helper.make_tensor_value_info(f"x{layers}", TensorProto.FLOAT, [1, last])],
        tensors,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    (folder / "model.onnx").write_bytes(proto.SerializeToString())
    return folder / "model.onnx"


def measure(model: Path, bits: int, *, run: bool) -> dict[str, Cell]:
    """Return one row: the model at one width."""
    size = model.with_suffix(".data").stat().st_size
    copied, safe = copy_seconds(model.with_suffix(".data"))
    output = model.with_name(f"quantized{bits}.onnx")
    command = [sys.executable, __file__, "--child", str(model), str(output), str(bits)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    row: dict[str, Cell] = {"bits": bits, "model GB": f"{size / 1e9:.2f}"}
    row["anonymous MB"] = Measured(value=found["anonymous"] / 1e6, bar=ANONYMOUS_BAR, form=".0f")
    row["resident"] = Measured(value=found["resident"] / size, bar=RESIDENT_BAR, form=".1%")
    row["time / copy"] = Measured(value=found["seconds"] / copied, bar=COPY_BAR, form=".2f")
    row["time / safe copy"] = Measured(value=found["seconds_safe"] / safe)
    row["seconds"] = f"{found['seconds']:.1f}"
    row["result GB"] = f"{sum(file.stat().st_size for file in model.parent.glob(output.name + '*')) / 1e9:.2f}"
    row["runs"] = _ran(output) if run else "not tried"
    for file in model.parent.glob(output.name + "*"):
        file.unlink()
    return row


def copy_seconds(file: Path) -> tuple[float, float]:
    """Return how long a copy of a file takes, without and with waiting until it is on the disk."""
    started, copy = time.perf_counter(), file.with_name("copy.data")
    shutil.copyfile(file, copy)
    copied = time.perf_counter() - started
    flush(copy)
    safe = time.perf_counter() - started
    copy.unlink()
    return copied, safe


def flush(file: Path) -> None:
    """Wait until a file is on the disk."""
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())


def quantize_watched(model: str, output: str, bits: str) -> dict[str, float]:
    """Quantize in this process, and return the highest anonymous and resident memory, and seconds as for a copy."""
    import ptq_lab

    run = ptq_lab.quantize  # loads what it needs, which is not what is timed
    stop, highest = threading.Event(), {"RssAnon": 0, "VmRSS": 0}

    def watch() -> None:
        while not stop.wait(0.005):
            for line in Path("/proc/self/status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in highest:
                    highest[name] = max(highest[name], int(value.split()[0]) * 1024)

    started, thread = time.perf_counter(), threading.Thread(target=watch)
    thread.start()
    settings = {"quant_type": "WEIGHT_QUANT", "bit_num": int(bits), "workspace": str(Path(output).parent)}
    try:
        result = run(model, {"common_quant_param": settings}, output)
    finally:
        stop.set()
        thread.join()
    seconds = time.perf_counter() - started
    for file in result.files:
        flush(file)
    safe = time.perf_counter() - started
    return {
        "anonymous": highest["RssAnon"],
        "resident": highest["VmRSS"],
        "seconds": seconds,
        "seconds_safe": safe,
    }


def _ran(path: Path) -> str:
    """Run a model once and say whether what comes out is finite."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    result = session.run(None, {"x0": np.ones((1, NARROW), np.float32)})[0]
    return "yes" if np.isfinite(result).all() and np.abs(result).max() > 0 else "NO"


if __name__ == "__main__":
    main()
