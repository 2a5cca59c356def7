"""Weights that nodes decode: Q/DQ pairs, casts, codes packed into the bits of bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir

from ptq_lab.graph.forms import operand
from ptq_lab.graph.model import Model, constant, is_float, shape_of
from ptq_lab.graph.operand import KEPT, Numbers, Operand, granularity, is_middle
from ptq_lab.numerics.packing import padded_length

_UNPACKS = ("BitShift", "BitwiseAnd")


def read_chain(
    nodes: list[ir.Node],
    layout: Callable[[Numbers], Numbers],
    chain: Callable[[], Model],
    shape: tuple[int, ...] | None,
) -> Operand | None:
    """Describe a weight that nodes decode: Q/DQ pairs, casts, packed codes.

    Parameters
    ----------
    nodes : list of onnx_ir.Node
        All of them.
    layout : callable
        Turns what they make into the layout that all forms of the layer share.
    chain : callable
        Gives a model without inputs that makes the weight.
    shape : tuple of int or None
        Of the weight, if it is known.
    """
    stored = _stored(nodes)
    if not stored:
        return None
    tensors = [tensor for _, tensor in stored]
    total = sum(tensor.nbytes for tensor in tensors)
    codes = [(name, tensor) for name, tensor in stored if _holds_codes(tensor, nodes, name)]
    pair = next((node for node in nodes if node.op_type == "QuantizeLinear"), None)
    reader = next((node for node in nodes if node.op_type == "DequantizeLinear"), None)
    if not codes and pair is None:
        name, tensor = max(stored, key=lambda item: item[1].nbytes)
        kind = KEPT.get(tensor.dtype, tensor.dtype.name.lower())
        return Operand(tensor=name, shape=shape, storage=kind, bytes=total, _chain=chain, _layout=layout)
    if reader is not None and (codes or pair is not None):
        return _of_pair(reader, codes, stored, chain, layout, shape)
    name, bits, storage = _packed(codes, shape)
    scale = max((tensor for _, tensor in stored if is_float(tensor)), key=lambda tensor: tensor.size, default=None)
    scales = scale.size if scale is not None else 1
    divided = scale is not None and sum(size > 1 for size in shape_of(scale)) > 1  # beside the channels, their blocks
    offset = any(_adds_offset(node) for node in nodes)
    return Operand(
        tensor=name,
        shape=shape,
        bits=bits,
        storage=f"{storage}, {'asymmetric' if offset else 'symmetric'}",
        granularity=granularity(scales, _block_length(shape, scales) if divided else 0),
        symmetric=not offset,
        bytes=total,
        _chain=chain,
        _layout=layout,
    )


def _of_pair(
    reader: ir.Node,
    codes: list[tuple[str, ir.TensorProtocol]],
    stored: list[tuple[str, ir.TensorProtocol]],
    chain: Callable[[], Model],
    layout: Callable[[Numbers], Numbers],
    shape: tuple[int, ...] | None,
) -> Operand:
    scale, zero = constant(operand(reader, 1)), constant(operand(reader, 2))
    scales, block = scale.size if scale is not None else 1, reader.attributes.get_int("block_size", 0)
    if codes:
        name, tensor = max(codes, key=lambda item: item[1].nbytes)
        kind, dtype = f"{tensor.dtype.name.lower()} Q/DQ", tensor.dtype
    else:  # floats behind a pair: rounded while the model is loaded
        name, tensor = max(stored, key=lambda item: item[1].nbytes)
        kind = f"{KEPT.get(tensor.dtype, 'float')} behind Q/DQ"
        dtype = zero.dtype if zero is not None else ir.DataType.UINT8
    symmetric = is_middle(zero, dtype) and not (zero is None and dtype.name.startswith("UINT"))
    sizes = shape_of(tensor)
    whole = block and block >= sizes[reader.attributes.get_int("axis", 1) % len(sizes)]
    if not block and shape is not None and scales > 1 and scales not in shape:  # a row of codes for every block
        block = _block_length(shape, scales)
    return Operand(
        tensor=name,
        shape=shape,
        bits=dtype.bitwidth,
        storage=f"{kind}, {'symmetric' if symmetric else 'asymmetric'}",
        granularity=granularity(scales, 0 if whole else block),
        symmetric=symmetric,
        bytes=sum(each.nbytes for _, each in stored),
        _chain=chain,
        _layout=layout,
    )


def _block_length(shape: tuple[int, ...] | None, scales: int) -> int:
    """Return how many weights share a scale; of the last block of a channel it may be fewer."""
    return -(-int(np.prod(shape)) // scales) if shape is not None else 0


def makers_of(value: ir.Value) -> Iterator[ir.Node]:
    """Yield the nodes that a constant comes out of, the last one first, each once."""
    waiting, seen = [value], set()
    while waiting:
        node = waiting.pop(0).producer()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting += [each for each in node.inputs if each is not None]


def _stored(nodes: list[ir.Node]) -> list[tuple[str, ir.TensorProtocol]]:
    """Return the tensors that are stored for these nodes, by name, without the sizes and shifts of the decoding."""
    found: dict[str, ir.TensorProtocol] = {}
    for node in nodes:
        for index, value in enumerate(node.inputs):
            tensor = constant(value)
            if value is None or tensor is None or (node.op_type in _UNPACKS and index == 1):
                continue
            if tensor.dtype not in (ir.DataType.INT64, ir.DataType.BOOL):
                found[value.name or ""] = tensor
    return list(found.items())


def _holds_codes(tensor: ir.TensorProtocol, nodes: list[ir.Node], name: str) -> bool:
    zero_points = {
        value.name for node in nodes if node.op_type == "DequantizeLinear" for value in node.inputs[2:3] if value
    }
    narrow = tensor.dtype.bitwidth <= 16 and not is_float(tensor)
    return narrow and name not in zero_points


def _packed(codes: list[tuple[str, ir.TensorProtocol]], shape: tuple[int, ...] | None) -> tuple[str, int, str]:
    """Return name, bits and storage of codes that no operator takes as they are."""
    name, first = max(codes, key=lambda item: item[1].nbytes)
    if shape is None or (len(codes) == 1 and first.dtype != ir.DataType.UINT8):
        return name, sum(tensor.dtype.bitwidth for _, tensor in codes), first.dtype.name.lower()
    widths = sorted((_lane_width(tensor, shape) for _, tensor in codes), reverse=True)
    return name, sum(widths), f"uint8 lanes {'+'.join(map(str, widths))}"


def _lane_width(tensor: ir.TensorProtocol, shape: tuple[int, ...]) -> int:
    """Return how many bits of every code a packed part holds: lanes are padded row by row, or as a whole."""
    rows = shape_of(tensor)[0] if len(shape_of(tensor)) > 1 else 1
    elements = max(1, int(np.prod(shape)) // max(1, rows))
    return max(1, round(tensor.size // rows * 8 / padded_length(elements)))


def _adds_offset(node: ir.Node) -> bool:
    """Tell whether a node adds something stored, rather than parts of the codes to each other."""
    if node.op_type not in ("Add", "Sub"):
        return False
    makers = [value.producer() for value in node.inputs if value is not None]
    looked_up = any(maker is not None and maker.op_type in ("Gather", "Slice") for maker in makers)
    return looked_up or any(constant(value) is not None for value in node.inputs)
