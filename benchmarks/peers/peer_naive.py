"""A yardstick: weights rounded to nearest, symmetric, one scale per output channel.

Variants: fold, gather (tables too).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from adapter import Job, NotOfferedError, run

PLACES = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1, "Gather": 0}  # where the weight stands


def quantize(job: Job) -> str:
    import onnx
    from onnx import numpy_helper

    if job.bits is None or job.bits > 8:
        raise NotOfferedError("weights of at most 8 bits only")
    model = onnx.load(job.prepared(13 if job.bits > 4 else 21))
    graph = model.graph
    held = {tensor.name: tensor for tensor in graph.initializer}
    done: dict[str, Any] = {}
    for node in graph.node:
        place = PLACES.get(node.op_type)
        if place is None or (node.op_type == "Gather" and "gather" not in job.variant):
            continue
        name = node.input[place]
        if name not in held or held[name].data_type != onnx.TensorProto.FLOAT or len(held[name].dims) < 2:
            continue
        if name not in done:
            array = numpy_helper.to_array(held[name])
            done[name] = _decoded(name, array, _channel_axis(node, array.ndim), job.bits)
        node.input[place] = f"{name}_decoded"
    _swap(graph, done)
    onnx.save(model, job.out)
    return f"{len(done)} weights in {job.bits} bits, min-max, symmetric, per output channel, nothing corrected"


def _channel_axis(node: Any, rank: int) -> int:
    if node.op_type == "Gemm":
        return 0 if any(each.name == "transB" and each.i for each in node.attribute) else 1
    return {"Conv": 0, "Gather": 0, "ConvTranspose": 1, "MatMul": rank - 1}[node.op_type]


def _decoded(name: str, array: Any, axis: int, bits: int) -> tuple[Any, list[Any]]:
    """Return the node that decodes a weight, and its constants."""
    from onnx import TensorProto, helper, numpy_helper

    largest = 2 ** (bits - 1) - 1
    others = tuple(each for each in range(array.ndim) if each != axis)
    scale = np.maximum(np.abs(array).max(axis=others, keepdims=True), 1e-12).astype(np.float32) / largest
    codes = np.clip(np.rint(array / scale), -largest, largest).astype(np.int8)
    if bits > 4:
        stored = numpy_helper.from_array(codes, f"{name}_codes")
    else:
        low = np.append(codes.ravel(), np.zeros(codes.size % 2, np.int8)).view(np.uint8) & 15
        packed = (low[0::2] | low[1::2] << 4).tobytes()
        stored = helper.make_tensor(f"{name}_codes", TensorProto.INT4, array.shape, packed, raw=True)
    scales = numpy_helper.from_array(scale.ravel(), f"{name}_scale")
    node = helper.make_node(
        "DequantizeLinear", [stored.name, scales.name], [f"{name}_decoded"], name=f"{name}_decode", axis=axis
    )
    return node, [stored, scales]


def _swap(graph: Any, done: dict[str, Any]) -> None:
    """Put codes in the place of the weights that nobody reads any longer."""
    read = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read or tensor.name not in done]
    nodes = [node for node, _ in done.values()] + list(graph.node)
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.initializer.extend(tensor for _, tensors in done.values() for tensor in tensors)
    graph.node.extend(nodes)
    for value in [value for value in graph.input if value.name in done]:
        graph.input.remove(value)


if __name__ == "__main__":
    run(quantize, ("numpy", "onnx"))
