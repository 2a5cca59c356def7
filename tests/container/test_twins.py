"""Weights that a model holds twice, or that several nodes share, stand once in a plain file and in a container."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import ptq_lab
from ptq_lab.container import Container, load_session, unpack
from ptq_lab.graph import load_model, tie_weights
from ptq_lab.runtime import open_session
from tests.container.packed import largest_difference
from tests.models import model, node, random

SIZE = 64


def tied(*, twins: bool) -> onnx.ModelProto:
    """An embedding table that is also the last product's weight: one initializer, or two with equal bytes."""
    table = random(256, SIZE)
    weights = {"table": table, "inner": random(SIZE, SIZE)} | ({"head": table.copy()} if twins else {})
    nodes = [
        node("Gather", ["table", "x"], ["rows"], name="embed"),
        node("MatMul", ["rows", "inner"], ["h"], name="inside"),
        node("Gemm", ["h", "head" if twins else "table"], ["y"], name="head", transB=1),
    ]
    proto = model(nodes, {"x": (5,)}, ["y"], weights)
    proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    return proto


@pytest.mark.parametrize("encode", ["packed", "entropy"])
@pytest.mark.parametrize("twins", [False, True])
def test_tied_weights_are_stored_once(encode: str, twins: bool, tmp_path: Path) -> None:
    onnx.save(tied(twins=twins), tmp_path / "float.onnx")
    config: dict[str, dict[str, object]] = {
        "common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": 8, "min_quant_weight_channel": 0},
        "ptq_lab": {"encode": encode},
    }
    result = ptq_lab.quantize(tmp_path / "float.onnx", config, tmp_path / "q")
    one = 256 * SIZE  # bytes of the table's codes
    assert result.model_path.stat().st_size < 1.5 * one + SIZE * SIZE + 8_000
    feeds = {"x": np.arange(5)}
    session = load_session(result.model_path, intra_op_num_threads=1)
    if encode == "entropy":
        with Container(result.model_path) as container:
            tensors = {tensor.name: tensor for tensor in container.manifest.tensors}
        assert len({tensor.stream for tensor in tensors.values()}) == 2
        plain = unpack(result.model_path, tmp_path / "plain.onnx")
        assert plain.stat().st_size < 1.5 * one + SIZE * SIZE + 8_000
        assert largest_difference(session.run(None, feeds), load_session(plain).run(None, feeds)) == 0.0


def test_equal_weights_stay_apart_where_nodes_are_named(tmp_path: Path) -> None:
    onnx.save(tied(twins=True), tmp_path / "float.onnx")
    config: dict[str, dict[str, object]] = {
        "common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": 8, "min_quant_weight_channel": 0},
        "ptq_lab.layer_bits": {"head": 4},
    }
    result = ptq_lab.quantize(tmp_path / "float.onnx", config)
    assert {entry.tensor: entry.bits for entry in result.plan.entries} == {"table": 8, "inner": 8, "head": 4}


def test_tying_changes_no_output_and_no_model_whose_weights_differ() -> None:
    twins = load_model(tied(twins=True))
    one = tie_weights(twins)
    assert sorted(twins.graph.initializers) == ["head", "inner", "table"]  # not changed
    assert sorted(one.graph.initializers) == ["inner", "table"]
    feeds = {"x": np.arange(5)}
    assert (
        largest_difference(list(open_session(twins).run(None, feeds)), list(open_session(one).run(None, feeds))) == 0.0
    )
    assert tie_weights(one) is one
