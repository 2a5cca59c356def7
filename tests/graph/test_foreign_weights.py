"""Weights of files that other tools wrote are read as the numbers that the file's own operators compute with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ptq_lab import demo
from ptq_lab.graph import Model, load_model
from ptq_lab.graph.blocks import unpack_fields
from ptq_lab.graph.found_layers import FoundModel
from ptq_lab.graph.operand import Operand
from ptq_lab.numerics import dequantize_weight
from tests.conftest import Run
from tests.foreign import blocks, dynamic, half, multiplied_by_one, static, stored
from tests.graph.products import ahead_of_time, multiplied
from tests.graph.quantized import quantized
from tests.models import OPERATOR_MODELS, gather, matmul, model, node, random, recurrent, sliced

Arrays = Mapping[str, NDArray[Any]]


@pytest.fixture(scope="module")
def digits() -> demo.Demo:
    """A classifier of fifteen Conv and a Gemm."""
    return demo.load("digits_cnn")


@pytest.fixture
def decoded(run: Run) -> Any:
    """Run a model without inputs."""

    def run_it(model: Model) -> NDArray[np.float32]:
        return np.asarray(next(iter(run(model, {}, optimize="basic").values())), np.float32)

    return run_it


def operands(source: Any) -> dict[str, Operand]:
    """Return the constant operands of all layers by the name they are stored under."""
    found = FoundModel.read(load_model(source))
    return {operand.tensor: operand for layer in found.layers for operand in layer.operands.values()}


def by_hand(arrays: Arrays, name: str, axis: int) -> NDArray[np.float32]:
    """Dequantize a weight that onnxruntime.quantization has stored under its usual names."""
    codes, scale, zero = (arrays[f"{name}_{part}"] for part in ("quantized", "scale", "zero_point"))
    shape = [1] * codes.ndim
    shape[axis] = -1
    steps = codes.astype(np.int64) - zero.astype(np.int64).reshape(shape if zero.size > 1 else ())
    return (steps * scale.reshape(shape if scale.size > 1 else ())).astype(np.float32)


WAYS = {
    "QDQ": ("QDQ", True, "QInt8"),
    "QDQ per tensor": ("QDQ", False, "QInt8"),
    "QDQ uint8": ("QDQ", False, "QUInt8"),
    "QDQ int16": ("QDQ", True, "QInt16"),
    "QOperator": ("QOperator", True, "QInt8"),
    "QOperator uint8": ("QOperator", False, "QUInt8"),
}


@pytest.mark.parametrize("way", WAYS)
def test_weights_of_static_files_are_codes_minus_zero_point_times_scale(
    way: str, digits: demo.Demo, tmp_path: Path, decoded: Any
) -> None:
    form, per_channel, kind = WAYS[way]
    with np.load(digits.calib_path) as archive:
        samples = [{"image": archive["image"][i : i + 1]} for i in range(2)]
    path = static(digits.model_path, tmp_path / "q.onnx", samples, form, per_channel=per_channel, weight_type=kind)
    arrays, found = stored(path), operands(path)
    assert len(found) == 16
    for name, operand in found.items():
        plain = name.removesuffix("_quantized")
        values = operand.values(decoded)
        assert values is not None
        wanted = by_hand(arrays, plain, axis=0)
        assert np.array_equal(values, wanted.T if wanted.ndim == 2 else wanted)  # Gemm's is read as a MatMul's
        assert operand.bits == (16 if kind == "QInt16" else 8)
        channels = arrays[f"{plain}_scale"].size
        assert operand.granularity == (f"per-channel ({channels})" if per_channel else "per-tensor")
        assert operand.symmetric == (kind != "QUInt8" or bool((arrays[f"{plain}_zero_point"] == 128).all()))


@pytest.mark.parametrize("kind", ["QInt8", "QUInt8"])
def test_weights_of_run_time_quantized_files_have_the_scale_that_is_multiplied_in_behind_the_sums(
    kind: str, digits: demo.Demo, tmp_path: Path, decoded: Any
) -> None:
    path = dynamic(digits.model_path, tmp_path / "q.onnx", kind, per_channel=True)
    arrays = stored(path)
    for name, operand in operands(path).items():
        wanted = by_hand(arrays, name.removesuffix("_quantized"), axis=-1)
        assert np.array_equal(operand.values(decoded), wanted)
        assert operand.storage.startswith(f"{kind[1:].lower()} ")


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weights_in_blocks_are_what_onnxruntime_makes_of_the_identity(
    bits: int, symmetric: bool, tmp_path: Path, decoded: Any
) -> None:
    proto = model([node("MatMul", ["x", "w"], ["y"])], {"x": (2, 40)}, ["y"], {"w": random(40, 24)}, opset=21)
    onnx.save(proto, tmp_path / "f.onnx")
    path = blocks(tmp_path / "f.onnx", tmp_path / "q.onnx", bits, symmetric=symmetric, size=16)  # 40 is no multiple
    (product,) = (each for each in onnx.load(path).graph.node if each.op_type == "MatMulNBits")
    (operand,) = operands(path).values()
    wanted = multiplied_by_one(product, stored(path), rows=40)
    assert np.allclose(operand.values(decoded), wanted, rtol=1e-6, atol=1e-7)
    assert (operand.bits, operand.symmetric, operand.granularity) == (bits, symmetric, "blocks of 16 (72)")


@pytest.mark.parametrize("symmetric", [True, False])
def test_tables_in_blocks_are_what_onnxruntime_looks_up(
    symmetric: bool, tmp_path: Path, decoded: Any, run: Run
) -> None:
    proto = model([node("Gather", ["t", "i"], ["y"])], {"i": (7, (9,))}, ["y"], {"t": random(9, 40)}, opset=21)
    onnx.save(proto, tmp_path / "f.onnx")
    path = blocks(tmp_path / "f.onnx", tmp_path / "q.onnx", 4, symmetric=symmetric, size=16)
    assert any(each.op_type == "GatherBlockQuantized" for each in onnx.load(path).graph.node)
    (operand,) = operands(path).values()
    wanted = run(path.read_bytes(), {"i": np.arange(9)})["y"]
    assert np.allclose(operand.values(decoded), wanted, rtol=1e-6, atol=1e-7)
    assert (operand.bits, operand.symmetric) == (4, symmetric)


@pytest.mark.parametrize("symmetric", [True, False])
def test_weights_in_blocks_behind_dequantize_linear_are_decoded(
    symmetric: bool, tmp_path: Path, decoded: Any, run: Run
) -> None:
    onnx.save(
        model([node("MatMul", ["x", "w"], ["y"])], {"x": (64, 64)}, ["y"], {"w": random(64, 24)}, opset=21),
        tmp_path / "f.onnx",
    )
    path = blocks(tmp_path / "f.onnx", tmp_path / "q.onnx", 4, symmetric=symmetric, form="QDQ")
    (operand,) = operands(path).values()
    wanted = run(path.read_bytes(), {"x": np.eye(64, dtype=np.float32)}, optimize="basic")["y"]
    assert np.allclose(operand.values(decoded), wanted, rtol=1e-5, atol=1e-6)
    assert (operand.bits, operand.granularity) == (4, "blocks of 32 (48)")


@pytest.mark.parametrize("bits", [1, 3, 4, 5, 8, 9, 11, 16])
@pytest.mark.parametrize("kind", OPERATOR_MODELS)
def test_weights_that_ptq_lab_packs_come_out_bit_by_bit(kind: str, bits: int, decoded: Any) -> None:
    _, packed, plan = quantized(OPERATOR_MODELS[kind]().proto, bits)
    layers = FoundModel.read(packed).layers
    seen = 0
    for entry in plan.entries:
        assert entry.weight is not None
        wanted = dequantize_weight(entry.weight)
        for layer in (layer for layer in layers if layer.name in entry.nodes):
            for operand in layer.operands.values():
                if operand.bits is None or not operand.tensor.startswith(f"{entry.tensor}."):
                    continue  # another weight of the same layer
                values = operand.values(decoded)
                assert values is not None
                gain = layer.node.attributes.get_float("alpha", 1.0)
                turned = values.T if values.ndim == 2 and values.shape != wanted.shape else values
                assert np.array_equal(turned, wanted * np.float32(gain))
                assert operand.bits == bits
                seen += 1
    assert seen >= len(plan.entries)


@pytest.mark.parametrize("strategy", ["ALWC", "ACWL", "ACWC"])
def test_integer_products_of_ptq_lab_have_the_scales_that_are_divided_among_their_nodes(
    strategy: str, decoded: Any
) -> None:
    tiny = matmul()
    weights = {each.name: onnx.numpy_helper.to_array(each) for each in tiny.proto.graph.initializer}
    found = operands(multiplied(tiny.proto, strategy)[0])
    for name in ("b", "batched"):
        operand = found[f"{name}.codes"]
        wanted = ahead_of_time(weights[name], strategy)
        assert np.allclose(operand.values(decoded), wanted, rtol=1e-6, atol=1e-7)
        assert operand.symmetric


@pytest.mark.parametrize("make", [gather, sliced], ids=["looked up", "sliced"])
def test_a_table_of_run_time_quantized_rows_is_read_whole(make: Any, decoded: Any) -> None:
    _, packed, plan = quantized(make().proto, 6)
    (entry,) = plan.entries
    assert entry.weight is not None
    for layer in FoundModel.read(packed).layers:
        assert np.array_equal(layer.operands[0].values(decoded), dequantize_weight(entry.weight))


def test_half_precision_is_no_quantization_and_keeps_its_numbers(
    digits: demo.Demo, tmp_path: Path, decoded: Any
) -> None:
    floats = stored(digits.model_path)
    for name, operand in operands(half(digits.model_path, tmp_path / "h.onnx")).items():
        wanted = floats[name].astype(np.float16).astype(np.float32)
        assert operand.bits is None
        assert operand.storage == "float16"
        assert np.array_equal(operand.values(decoded), wanted.T if wanted.ndim == 2 else wanted)


def test_an_lstm_of_onnxruntime_has_its_weights_turned_back(tmp_path: Path, decoded: Any) -> None:
    tiny = recurrent("LSTM", both_ways=True)
    onnx.save(tiny.proto, tmp_path / "f.onnx")
    path = dynamic(tmp_path / "f.onnx", tmp_path / "q.onnx", "QInt8")
    assert any(each.op_type == "DynamicQuantizeLSTM" for each in onnx.load(path).graph.node)
    (layer,) = FoundModel.read(load_model(path)).layers
    floats = {each.name: onnx.numpy_helper.to_array(each) for each in tiny.proto.graph.initializer}
    for role, name in ((1, "w"), (2, "r")):
        values = layer.operands[role].values(decoded)
        assert values is not None
        assert values.shape == floats[name].shape
        assert np.abs(values - floats[name]).max() <= 0.51 * np.abs(floats[name]).max() / 127


def test_what_is_computed_from_inputs_is_no_weight() -> None:
    nodes = [node("Mul", ["w", "x"], ["v"]), node("MatMul", ["x", "v"], ["y"])]
    found = FoundModel.read(load_model(model(nodes, {"x": (4, 4)}, ["y"], {"w": random(4, 4)})))
    (layer,) = found.layers
    assert not layer.operands
    assert [value.name for value in layer.sources] == ["x", "v"]


@given(st.sampled_from([1, 2, 4, 8]), st.binary(min_size=1, max_size=40))
def test_fields_of_bytes_put_together_again_are_the_bytes(bits: int, data: bytes) -> None:
    packed = np.frombuffer(data, np.uint8)
    fields = unpack_fields(packed, bits).reshape(-1, 8 // bits).astype(np.int64)
    assert (fields < 1 << bits).all()
    assert np.array_equal((fields << np.arange(0, 8, bits)).sum(axis=1), packed)
