"""Weights in blocks, as onnxruntime's own operators store them: several codes to a byte, a scale for every block.

Source: ``MatMulNBits`` and ``GatherBlockQuantized`` in onnxruntime's ``ContribOperators.md``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ptq_lab.graph.forms import operand
from ptq_lab.graph.model import constant, float32


def unpack_fields(packed: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Return the fields of bytes along their last axis, the lowest bits first.

    Examples
    --------
    >>> unpack_fields(np.array([[0x21, 0x43]], np.uint8), 4).tolist()
    [[1, 2, 3, 4]]
    """
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    fields = (packed[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return np.asarray(fields.reshape(*packed.shape[:-1], -1), np.uint8)


def matmul_blocks(node: ir.Node) -> NDArray[np.float32] | None:
    """Return the weight of a ``MatMulNBits``, shape (K, N) as a MatMul would take it; ``None`` if it is not constant.

    Notes
    -----
    Codes lie as (N, blocks, bytes); a block that is not full is padded. Without zero points the middle code means 0.
    """
    rows, columns = node.attributes.get_int("K", 0), node.attributes.get_int("N", 0)
    bits, size = node.attributes.get_int("bits", 4), node.attributes.get_int("block_size", 32)
    codes, scale = constant(operand(node, 1)), constant(operand(node, 2))
    if codes is None or scale is None or not (rows and columns):
        return None
    blocks = -(-rows // size)
    steps = unpack_fields(codes.numpy().view(np.uint8).reshape(columns, blocks, -1), bits)[..., :size]
    zero = _zero_points(operand(node, 3), bits, (columns, blocks))
    if zero is None:
        return None
    values = (steps.astype(np.float32) - zero[..., None]) * float32(scale).reshape(columns, blocks, 1)
    return np.ascontiguousarray(values.reshape(columns, -1)[:, :rows].T)


def gather_blocks(node: ir.Node) -> NDArray[np.float32] | None:
    """Return the table of a ``GatherBlockQuantized``; ``None`` if it is not constant."""
    data, scale = constant(operand(node, 0)), constant(operand(node, 2))
    if data is None or scale is None:
        return None
    size, bits = node.attributes.get_int("block_size", 128), node.attributes.get_int("bits", 4)
    packed = data.dtype == ir.DataType.UINT8 and bits < 8
    codes = data.numpy()
    steps = unpack_fields(codes, bits) if packed else codes
    axis = node.attributes.get_int("quantize_axis", 1) % steps.ndim
    factors = float32(scale)
    zero: NDArray[Any] | None = np.asarray((1 << (bits - 1)) if data.dtype == ir.DataType.UINT8 else 0, np.float32)
    stored = operand(node, 3)
    if stored is not None:
        zero = _stored_zeros(constant(stored), bits, packed, factors.shape)
    if zero is None:
        return None
    expanded = [
        _spread(np.broadcast_to(each, factors.shape), axis, size, steps.shape[axis]) for each in (zero, factors)
    ]
    return np.asarray((steps.astype(np.float32) - expanded[0]) * expanded[1], np.float32)


def _stored_zeros(
    tensor: ir.TensorProtocol | None, bits: int, packed: bool, shape: tuple[int, ...]
) -> NDArray[np.float32] | None:
    if tensor is None:
        return None
    numbers = unpack_fields(tensor.numpy(), bits) if packed else tensor.numpy()
    return np.asarray(numbers[..., : shape[-1]].reshape(shape), np.float32)


def _spread(numbers: NDArray[Any], axis: int, size: int, length: int) -> NDArray[Any]:
    """Repeat a number per block for every element of it."""
    return np.repeat(numbers, size, axis=axis).take(np.arange(length), axis=axis)


def _zero_points(value: ir.Value | None, bits: int, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    if value is None:
        return np.full(shape, 1 << (bits - 1), np.float32)
    tensor = constant(value)
    if tensor is None:
        return None
    if tensor.dtype != ir.DataType.UINT8:  # of the type of the scales, one to each
        return float32(tensor).reshape(shape)
    fields = unpack_fields(tensor.numpy().reshape(shape[0], -1), bits)
    return fields[:, : shape[1]].astype(np.float32)
