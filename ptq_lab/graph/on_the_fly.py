"""Weights that stay codes while the model runs: which operators can take them, and how these are written.

A MatMul becomes onnxruntime's ``MatMulNBits``, which decodes blocks of the weight as it multiplies. In front of a
convolution stands ``DequantizeLinear``, which onnxruntime does not fold: it decodes the weight of one layer at a time.
In front of a MatMul it would not do, because onnxruntime turns the pair into a product of its own choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ptq_lab.graph.block_shapes import Blocks
from ptq_lab.graph.decode import CODES, OFFSET, SCALE, GraphWriter
from ptq_lab.graph.lookups import LOOKUPS, looks_up_rows
from ptq_lab.graph.model import Model, constant, constants, shape_of
from ptq_lab.numerics import QuantizedWeight, pack_blocks
from ptq_lab.numerics.blocked import channel_rows
from ptq_lab.numerics.packing import pack_fields

PRODUCT, DECODING, ROWS = "MatMulNBits", "DequantizeLinear", "rows"
DOMAIN = "com.microsoft"
FLOAT32, INT8 = 1, 4  # onnxruntime's accuracy levels: what an operator may round its input to
RELEASES = {4: "1.20", 8: "1.23", 2: "1.24"}  # first onnxruntime that multiplies codes of a width in float32 (tried)
_DECODED = ("Conv", "ConvTranspose", "LSTM", "GRU", "RNN")
_NATIVE = {2: ir.DataType.INT2, 4: ir.DataType.INT4}


def decoder_for(model: Model, tensor: str, channel_axis: int) -> tuple[str, str]:
    """Return what takes the codes of a weight on every run, and otherwise why nothing can.

    Returns
    -------
    decoder, reason : str
        ``MatMulNBits``, ``DequantizeLinear``, ``rows`` where a table is looked up and only rows of it are ever
        decoded, or an empty text with a reason.
    """
    holder = constants(model.graph).get(tensor)
    stored = constant(holder)
    if holder is None or stored is None:
        return "", "it is no constant of the model"
    uses = list(holder.uses())
    if any(node.graph is not model.graph for node, _ in uses):
        return "", "a subgraph reads it as well"
    if all(node.op_type in LOOKUPS and index == 0 and looks_up_rows(node) for node, index in uses):
        return ROWS, ""
    if stored.dtype != ir.DataType.FLOAT:
        return "", f"the model computes in {stored.dtype.name.lower()}"
    if all(node.op_type in _DECODED and index in (1, 2) for node, index in uses):
        return DECODING, ""
    refusals = [_why_no_product(node, index, len(shape_of(stored)), channel_axis) for node, index in uses]
    return ("", next(filter(None, refusals))) if any(refusals) else (PRODUCT, "")


def _why_no_product(node: ir.Node, index: int, rank: int, channel_axis: int) -> str:
    """Return why a node cannot become a product with codes; empty if it can."""
    if node.op_type not in ("MatMul", "Gemm"):
        return f"{node.op_type} reads it, which takes floats"
    if index != 1 or rank != 2:
        return f"it is the left operand of {node.op_type}" if index == 0 else f"it has {rank} axes"
    turned = node.op_type == "Gemm" and bool(node.attributes.get_int("transB", 0))
    if channel_axis != (0 if turned else 1):
        return "its users read it in different directions"
    if node.op_type == "Gemm":
        factors = [node.attributes.get_float(name, 1.0) for name in ("alpha", "beta")]
        if node.attributes.get_int("transA", 0) or factors != [1.0, 1.0]:
            return "its Gemm transposes or scales as well"
    return ""


def write_products(
    write: GraphWriter, holder: ir.Value, weight: QuantizedWeight, *, int8: bool
) -> Iterator[tuple[ir.Node, ir.Value]]:
    """Yield every MatMul and Gemm that reads a weight, with the product with its codes to put in its place."""
    rows = channel_rows(weight.codes, weight.axis or 0)
    steps = (rows.astype(np.int16) + (1 << (weight.bits - 1))).astype(np.uint8)
    packed = pack_blocks(steps, bits=weight.bits, block=weight.block)
    name = holder.name or ""
    codes = write.weight(f"{name}.{CODES}", ir.tensor(packed))
    scale = write.weight(f"{name}.{SCALE}", ir.tensor(np.ascontiguousarray(weight.scale)))
    attributes = {
        "K": rows.shape[1],
        "N": rows.shape[0],
        "bits": weight.bits,
        "block_size": weight.block,
        "accuracy_level": INT8 if int8 else FLOAT32,
    }
    for node, _ in list(holder.uses()):
        write.before = node
        inputs: list[ir.Value | None] = [node.inputs[0], codes, scale]
        added = node.inputs[2] if len(node.inputs) > 2 else None
        as_bias = added is not None and _is_bias(added, rows.shape[0])
        if as_bias:
            inputs += [None, None, added]
        product = write.node(PRODUCT, inputs, attributes, domain=DOMAIN)
        if added is not None and not as_bias:
            product = write.node("Add", [product, added])
        yield node, product


def decode_every_run(write: GraphWriter, name: str, weight: QuantizedWeight) -> ir.Value:
    """Return a weight as float32, decoded by an operator that onnxruntime does not fold."""
    blocks = Blocks(weight) if weight.block else None
    stored = weight if blocks is None else blocks.stored
    codes, axis = stored.codes, 0 if weight.axis is None else weight.axis
    if blocks is not None:  # a row for every block, so that each has a scale along one axis
        codes, axis = codes.reshape(-1, weight.block), 0
    scale = weight.scale.reshape(-1) if weight.scale.ndim else weight.scale
    inputs = [
        write.weight(f"{name}.{CODES}", _packed(codes, weight.bits)),
        write.weight(f"{name}.{SCALE}", ir.tensor(scale)),
    ]
    values = write.node(DECODING, inputs, {"axis": axis} if scale.ndim else {})
    if blocks is not None:
        values = blocks.join(write, values)
    if weight.offset.any():
        rank = weight.codes.ndim
        shape = [1] * rank if weight.axis is None else [-1 if index == weight.axis else 1 for index in range(rank)]
        values = write.node("Add", [values, write.weight(f"{name}.{OFFSET}", ir.tensor(weight.offset.reshape(shape)))])
    return values


def _packed(codes: NDArray[Any], bits: int) -> ir.TensorProtocol:
    """Return signed codes in ONNX's own element type of their width, the first of a byte in its lowest bits."""
    if bits == 8:
        return ir.tensor(codes)
    fields = np.zeros(-(-codes.size * bits // 8) * 8 // bits, np.uint8)
    fields[: codes.size] = np.ascontiguousarray(codes).reshape(-1).view(np.uint8)
    return ir.PackedTensor(pack_fields(fields, bits), _NATIVE[bits], shape=ir.Shape(codes.shape))


def _is_bias(value: ir.Value, channels: int) -> bool:
    tensor = constant(value)
    return tensor is not None and shape_of(tensor) == (channels,)
