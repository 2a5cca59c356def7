"""Models as other tools write them: onnxruntime's own quantizers, its optimizer, float16, and files without names."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

quantization = pytest.importorskip("onnxruntime.quantization")

Feeds = dict[str, NDArray[Any]]
Arrays = dict[str, NDArray[Any]]


class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
    """Calibration samples, once through."""

    def __init__(self, samples: Sequence[Feeds]) -> None:
        self._samples: Iterator[Feeds] = iter(samples)

    def get_next(self) -> Feeds | None:
        return next(self._samples, None)


def static(
    source: Path, target: Path, samples: Sequence[Feeds], form: str = "QDQ", *, per_channel: bool = True, **more: Any
) -> Path:
    """Quantize weights and activations: ``QDQ`` or ``QOperator``."""
    kinds = {"activation_type": "QUInt8", "weight_type": "QInt8"} | more
    types = {name: getattr(quantization.QuantType, kind) for name, kind in kinds.items()}
    with quiet():
        quantization.quantize_static(
            str(source),
            str(target),
            Reader(samples),
            quant_format=getattr(quantization.QuantFormat, form),
            per_channel=per_channel,
            **types,
        )
    return target


def dynamic(source: Path, target: Path, kind: str = "QUInt8", *, per_channel: bool = False) -> Path:
    """Quantize weights, and activations while the model runs."""
    with quiet():
        quantization.quantize_dynamic(
            str(source), str(target), weight_type=getattr(quantization.QuantType, kind), per_channel=per_channel
        )
    return target


def blocks(
    source: Path, target: Path, bits: int = 4, *, symmetric: bool = True, size: int = 32, form: str = "QOperator"
) -> Path:
    """Quantize the weights of MatMul (and of Gather at 4 bits) in blocks."""
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    how = DefaultWeightOnlyQuantConfig(
        block_size=size,
        is_symmetric=symmetric,
        quant_format=getattr(quantization.QuantFormat, form),
        op_types_to_quantize=("MatMul", "Gather") if bits == 4 and form == "QOperator" else ("MatMul",),
        bits=bits,
    )
    with quiet():
        quantizer = MatMulNBitsQuantizer(onnx.load(source), algo_config=how)
        quantizer.process()
        quantizer.model.save_model_to_file(str(target))
    return target


def half(source: Path, target: Path, *, keep_ports: bool = False) -> Path:
    """Convert to float16, inputs and outputs too unless they are to be kept."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=keep_ports), target)
    return target


def optimized(source: Path, target: Path, level: str = "EXTENDED") -> Path:
    """Let onnxruntime fuse nodes and write what it has made of the model."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(target)
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    return target


def anonymous(source: Path | onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in which no node has a name, and tensors have numbers; inputs and outputs keep theirs."""
    proto = onnx.ModelProto()
    proto.CopyFrom(onnx.load(source) if isinstance(source, Path) else source)
    graph, names = proto.graph, dict[str, str]()
    kept = {value.name for value in (*graph.input, *graph.output)} | {""}

    def renamed(name: str) -> str:
        return name if name in kept else names.setdefault(name, str(len(names)))

    for tensor in graph.initializer:
        tensor.name = renamed(tensor.name)
    for node in graph.node:
        node.name = ""
        for values in (node.input, node.output):
            values[:] = [renamed(name) for name in values]
    del graph.value_info[:]
    return proto


def stored(path: Path) -> Arrays:
    """Return the initializers of a file."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def peek(source: Path | onnx.ModelProto, tensors: Sequence[str], feeds: Feeds) -> Arrays:
    """Run a model as it is written, with inner tensors as outputs."""
    proto = onnx.load(source) if isinstance(source, Path) else source
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.output[:]
    copy.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in tensors)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(tensors, session.run(list(tensors), feeds), strict=True))


def multiplied_by_one(node: Any, arrays: Arrays, rows: int) -> NDArray[np.float32]:
    """Return the weight of a ``MatMulNBits`` as onnxruntime decodes it: what the identity matrix becomes."""
    names = [name for name in node.input[1:] if name]
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(node.input[0], TensorProto.FLOAT, [rows, rows])],
        [helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)],
        [numpy_helper.from_array(arrays[name], name) for name in names],
    )
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_model(graph, opset_imports=imports, ir_version=10)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {node.input[0]: np.eye(rows, dtype=np.float32)})[0], np.float32)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what the tools log to themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


TOOLS: dict[str, Callable[[Path, Path, Sequence[Feeds]], Path]] = {
    "QDQ per tensor": lambda source, target, samples: static(source, target, samples, per_channel=False),
    "QDQ per channel": static,
    "QDQ uint8": lambda source, target, samples: static(
        source, target, samples, per_channel=False, weight_type="QUInt8"
    ),
    "QOperator": lambda source, target, samples: static(source, target, samples, "QOperator"),
    "dynamic uint8": lambda source, target, samples: dynamic(source, target),
    "dynamic int8 per channel": lambda source, target, samples: dynamic(source, target, "QInt8", per_channel=True),
    "float16": lambda source, target, samples: half(source, target),
    "float16 inside": lambda source, target, samples: half(source, target, keep_ports=True),
    "optimized": lambda source, target, samples: optimized(source, target),
}
"""What any model can be put through."""
