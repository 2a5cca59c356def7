"""Write a demo's files: a hand-built ONNX graph with readable names, and compressed arrays.

Nothing of the machine that trained the model enters the files: no doc strings, no paths, no dates.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8
DEMO_ROOM = Path(__file__).resolve().parent.parent / "ptq_lab" / "demo"


class GraphWriter:
    """Collect nodes and weights in the order they are written, then save one checked ONNX file.

    Parameters
    ----------
    name : str
        Name of the graph.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, onnx.TensorProto] = {}

    def weight(self, name: str, values: NDArray[np.generic]) -> str:
        """Store a constant once and return its name."""
        if name not in self.weights:
            self.weights[name] = numpy_helper.from_array(np.asarray(values), name)
        return name

    def node(self, op: str, scope: str, inputs: list[str], *, output: str = "", **attributes: object) -> str:
        """Append the node ``scope/op`` and return the name of its output tensor."""
        name = f"{scope}/{op}" if scope else op
        result = output or f"{name}_output"
        self.nodes.append(helper.make_node(op, inputs, [result], name=name, **attributes))
        return result

    def save(self, path: Path, *, takes: onnx.ValueInfoProto, gives: onnx.ValueInfoProto) -> None:
        """Check the model fully, shapes included, and write it."""
        weights = list(self.weights.values())
        graph = helper.make_graph(self.nodes, self.name, [takes], [gives], weights)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="ptq_lab demo")
        onnx.checker.check_model(model, full_check=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model.SerializeToString(deterministic=True))


def float_value(name: str, shape: list[int | str]) -> onnx.ValueInfoProto:
    """Describe a float32 graph input or output."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def integer_value(name: str, shape: list[int | str]) -> onnx.ValueInfoProto:
    """Describe an int64 graph input or output."""
    return helper.make_tensor_value_info(name, TensorProto.INT64, shape)


def run_model(path: Path, values: NDArray[np.generic]) -> NDArray[np.float32]:
    """Run the saved model on one batch and return its only output."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {session.get_inputs()[0].name: values})
    return np.asarray(result, dtype=np.float32)


def require_same(path: Path, values: NDArray[np.generic], expected: NDArray[np.float32]) -> None:
    """Stop unless the file computes what the trained network computes, within 1e-5 of the largest value."""
    difference = float(np.abs(run_model(path, values) - expected).max())
    allowed = 1e-5 * max(1.0, float(np.abs(expected).max()))
    if difference > allowed:
        raise SystemExit(f"{path.name}: differs from the trained network by {difference}, allowed {allowed}")
    print(f"{path.parent.name}: largest difference from the trained network {difference:.2e}")


def save_arrays(path: Path, **arrays: NDArray[np.generic]) -> None:
    """Write arrays by name, compressed; the same arrays give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)
