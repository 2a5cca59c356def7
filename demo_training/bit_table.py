"""Measure what rounding the weights does to each demo: metric by number of bits.

A deliberately plain experiment, independent of ptq_lab's own quantizer: BatchNormalization folded, every
Conv, MatMul, Gemm and Gather weight rounded to an asymmetric min-max grid (zero exact), dequantized again
and written back as float32. Prints one Markdown row per demo and granularity.

Run as ``python demo_training/bit_table.py`` from the repository root, with the package importable.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

from ptq_lab import demo

BITS = (16, 8, 6, 5, 4, 3, 2, 1)
CHANNEL_AXIS = {"Conv": 0, "Gather": 0, "MatMul": 1}
Floats = NDArray[np.float32]


def round_weight(weight: Floats, bits: int, axis: int | None) -> Floats:
    """Round to ``2**bits`` levels between the extremes; one grid per slice along ``axis``, or one in all."""
    others = None if axis is None else tuple(k for k in range(weight.ndim) if k != axis)
    low = np.minimum(weight.min(axis=others, keepdims=True), 0).astype(np.float64)
    high = np.maximum(weight.max(axis=others, keepdims=True), 0).astype(np.float64)
    scale = np.where(high > low, (high - low) / (2**bits - 1), 1)
    zero_point = np.rint(-low / scale)
    codes = np.clip(np.rint(weight / scale) + zero_point, 0, 2**bits - 1)
    return ((codes - zero_point) * scale).astype(np.float32)


def fold_norms(model: onnx.ModelProto, weights: dict[str, Floats]) -> None:
    """Fold each BatchNormalization into the Conv before it; the node keeps only its bias."""
    maker = {node.output[0]: node for node in model.graph.node}
    for node in model.graph.node:
        if node.op_type != "BatchNormalization":
            continue
        scale, bias, mean, variance = node.input[1:5]
        epsilon = next(a.f for a in node.attribute if a.name == "epsilon")
        gain = weights[scale] / np.sqrt(weights[variance] + epsilon)
        weights[maker[node.input[0]].input[1]] *= gain[:, None, None, None]
        weights[bias] -= weights[mean] * gain
        weights[mean] = np.zeros_like(gain)
        weights[scale] = np.ones_like(gain)
        weights[variance] = np.full_like(gain, 1 - epsilon)


def targets(model: onnx.ModelProto, weights: dict[str, Floats]) -> dict[str, int]:
    """Map each weight that is to be rounded to its channel axis."""
    found = {}
    for node in model.graph.node:
        for name in node.input[:2]:
            if name in weights and weights[name].ndim >= 2:
                if node.op_type in CHANNEL_AXIS:
                    found[name] = CHANNEL_AXIS[node.op_type]
                if node.op_type == "Gemm":
                    found[name] = 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
    return found


def measure(card: demo.Demo, rounding: Callable[[Floats, int], Floats] | None) -> float:
    """Return the metric of a copy whose weights went through ``rounding(weight, axis)``."""
    model = onnx.load(card.model_path)
    floats = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    weights = {tensor.name: numpy_helper.to_array(tensor).copy() for tensor in floats}
    fold_norms(model, weights)
    for name, axis in targets(model, weights).items() if rounding else ():
        weights[name] = rounding(weights[name], axis)
    for tensor in floats:
        tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return card.evaluate(session)


def print_rows(name: str) -> None:
    """Print the row per channel and the row per tensor of one demo."""
    card = demo.load(name)
    form = "{:.1%}" if card.metric == "top-1" else "{:.2f}"
    for label in ("per channel", "per tensor"):
        cells = [form.format(measure(card, None))]
        for bits in BITS:
            whole = label == "per tensor"
            result = measure(card, lambda w, axis, b=bits, t=whole: round_weight(w, b, None if t else axis))
            cells.append(form.format(result))
        print(f"| {name} | {label} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Print the table for the demos named on the command line, or for all."""
    print("| demo | scale | float | " + " | ".join(f"{bits} bit" for bits in BITS) + " |")
    print("| --- | --- |" + " --- |" * (len(BITS) + 1))
    for name in sys.argv[1:] or demo.NAMES:
        print_rows(name)


if __name__ == "__main__":
    main()
