"""Blocks of codes mean to onnxruntime what they mean here."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from ptq_lab.numerics.blocked import pack_blocks


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("length", [64, 75])
def test_onnxruntime_multiplies_with_exactly_the_packed_codes(bits: int, length: int) -> None:
    rng = np.random.default_rng(bits)
    codes = rng.integers(0, 2**bits, (24, length)).astype(np.uint8)
    packed = pack_blocks(codes, bits=bits, block=32)
    scale = rng.uniform(0.5, 2.0, packed.shape[:2]).astype(np.float32)
    node = helper.make_node(
        "MatMulNBits", ["x", "b", "s"], ["y"], domain="com.microsoft",
        K=length, N=24, bits=bits, block_size=32, accuracy_level=1,
    )  # fmt: skip
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [length, length])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [length, 24])
    held = [numpy_helper.from_array(packed, "b"), numpy_helper.from_array(scale.reshape(-1), "s")]
    sets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(helper.make_graph([node], "g", [x], [y], held), opset_imports=sets, ir_version=10)
    session = onnxruntime.InferenceSession(onnx.ModelProto.SerializeToString(model))
    decoded = (codes.astype(np.float32) - 2 ** (bits - 1)) * np.repeat(scale, 32, axis=1)[:, :length]
    (got,) = session.run(None, {"x": np.eye(length, dtype=np.float32)})
    np.testing.assert_allclose(got, decoded.T, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("bits", "block", "code"), [(3, 32, 1), (4, 24, 1), (4, 8, 1), (2, 32, 4)])
def test_what_no_byte_holds_is_refused(bits: int, block: int, code: int) -> None:
    with pytest.raises(ValueError, match=r"wanted|needs more"):
        pack_blocks(np.full((1, 32), code, np.uint8), bits=bits, block=block)
