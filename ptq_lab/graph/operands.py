"""The weight of a layer in whatever form a tool has stored it: which form that is, and how to read it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ptq_lab.graph.blocks import gather_blocks, matmul_blocks
from ptq_lab.graph.chains import makers_of, read_chain
from ptq_lab.graph.forms import Constants, Form, Slot, operand
from ptq_lab.graph.model import Model, constant, float32, is_float, shape_of
from ptq_lab.graph.operand import KEPT, Numbers, Operand, granularity, is_middle
from ptq_lab.graph.segment import cut_segment
from ptq_lab.graph.sums import scaled_sums
from ptq_lab.graph.targets import weight_of

_RECURRENT = ("LSTM", "GRU", "RNN")


def read_operand(model: Model, node: ir.Node, form: Form, role: int, constants: Constants) -> Operand | None:
    """Return a constant operand of a layer, ``None`` if it is none or not understood."""
    slot = form.slots[role]
    value = operand(node, slot.index)
    if value is None or value not in constants:
        return None
    layout = partial(_same_for_all, node, form, role)
    if node.op_type == "MatMulNBits":
        return _of_blocks(node, "MatMulNBits", partial(matmul_blocks, node))
    if node.op_type == "GatherBlockQuantized":
        return _of_blocks(node, "GatherBlockQuantized", partial(gather_blocks, node))
    if slot.codes:
        return _of_codes(model, node, form, role, value, layout)
    tensor = constant(value)
    if tensor is not None:
        return _of_floats(value, tensor, layout, node, form, role) if is_float(tensor) else None
    shape = _turned(value, node, form, role)
    return read_chain(list(makers_of(value)), layout, lambda: cut_segment(model, [], [value.name or ""]), shape)


def _of_floats(
    value: ir.Value,
    tensor: ir.TensorProtocol,
    layout: Callable[[Numbers], Numbers],
    node: ir.Node,
    form: Form,
    role: int,
) -> Operand:
    return Operand(
        tensor=weight_of(value)[0].name or "",
        shape=_turned(value, node, form, role),
        stored_shape=shape_of(tensor),
        storage=KEPT.get(tensor.dtype, tensor.dtype.name.lower()),
        bytes=tensor.nbytes,
        _numbers=lambda: float32(tensor),
        _layout=layout,
    )


def _of_blocks(node: ir.Node, storage: str, read: Callable[[], Numbers | None]) -> Operand | None:
    values = [operand(node, index) for index in (1, 2, 3)] if storage == "MatMulNBits" else [
        operand(node, index) for index in (0, 2, 3)
    ]  # fmt: skip
    tensors = [constant(value) for value in values]
    codes, scale = tensors[0], tensors[1]
    if codes is None or scale is None or values[0] is None:
        return None
    found = read()
    if found is None:
        return None
    bits = node.attributes.get_int("bits", 4) if codes.dtype == ir.DataType.UINT8 else codes.dtype.bitwidth
    symmetric = values[2] is None
    return Operand(
        tensor=values[0].name or "",
        shape=found.shape,
        bits=bits,
        storage=f"{storage}, {'symmetric' if symmetric else 'asymmetric'}",
        granularity=granularity(scale.size, node.attributes.get_int("block_size", 32)),
        symmetric=symmetric,
        bytes=sum(tensor.nbytes for tensor in tensors if tensor is not None),
        _numbers=lambda: _found(read()),
    )


def _found(numbers: Numbers | None) -> Numbers:
    assert numbers is not None  # it was read once already
    return numbers


def read_codes(holder: ir.Value, scale: ir.Value | None, zero_point: ir.Value | None, storage: str) -> Operand | None:
    """Describe codes whose constant scale and zero point for all of them are known."""
    codes, factor, zero = constant(holder), constant(scale), constant(zero_point)
    if codes is None or factor is None or factor.size != 1 or (zero_point is not None and zero is None):
        return None
    middle = np.float32(0.0 if zero is None else float(zero.numpy().reshape(())))
    symmetric = is_middle(zero, codes.dtype)
    return Operand(
        tensor=holder.name or "",
        shape=shape_of(codes),
        bits=codes.dtype.bitwidth,
        storage=f"{codes.dtype.name.lower()} {storage}, {'symmetric' if symmetric else 'asymmetric'}",
        granularity=granularity(1),
        symmetric=symmetric,
        bytes=codes.nbytes + factor.nbytes + (zero.nbytes if zero is not None else 0),
        _numbers=lambda: np.asarray(
            (codes.numpy().astype(np.float32) - middle) * float32(factor).reshape(()), np.float32
        ),
    )


def _of_codes(
    model: Model, node: ir.Node, form: Form, role: int, value: ir.Value, layout: Callable[[Numbers], Numbers]
) -> Operand | None:
    slot = form.slots[role]
    source, order = _behind_transpose(value)
    stored = constant(source)
    dtype, shape = (stored.dtype, shape_of(stored)) if stored is not None else (value.dtype, _fixed(value))
    if dtype is None or shape is None:
        return None
    shape = tuple(shape[axis] for axis in order) if order is not None and stored is not None else shape
    axis = _scale_axis(node, form, role, len(shape))
    scale, zero = _scale_of(node, slot, shape[axis]), constant(operand(node, slot.zero_point))
    if scale is None or (operand(node, slot.zero_point) is not None and zero is None):
        return None
    symmetric = is_middle(zero, dtype)

    def real(codes: Numbers) -> Numbers:
        steps = codes if zero is None else codes - _along(zero.numpy().astype(np.float32), codes.ndim, axis)
        return layout(np.asarray(steps * _along(scale, codes.ndim, axis), np.float32))

    def codes() -> Numbers:
        assert stored is not None  # asked for these only if they are stored
        return (stored.numpy() if order is None else stored.numpy().transpose(order)).astype(np.float32)

    before = [constant(each) for maker in makers_of(value) for each in maker.inputs[:1]] if stored is None else [stored]
    return Operand(
        tensor=(source.name if source is not None else value.name) or "",
        shape=_canonical_shape(shape, node, form, role),
        bits=dtype.bitwidth,
        storage=f"{dtype.name.lower()} {node.op_type}, {'symmetric' if symmetric else 'asymmetric'}",
        granularity=granularity(scale.size),
        symmetric=symmetric,
        bytes=sum(each.nbytes for each in (*before, zero) if each is not None) + scale.nbytes,
        _numbers=codes if stored is not None else None,
        _chain=(lambda: cut_segment(model, [], [value.name or ""])) if stored is None else None,
        _layout=real,
    )


def _scale_of(node: ir.Node, slot: Slot, columns: int) -> Numbers | None:
    if slot.scale is not None:
        tensor = constant(operand(node, slot.scale))
        return float32(tensor) if tensor is not None else None
    scaled = scaled_sums(node)
    return scaled.scale(columns) if scaled is not None else None


def _behind_transpose(value: ir.Value) -> tuple[ir.Value | None, tuple[int, ...] | None]:
    node = value.producer()
    if node is None or node.op_type != "Transpose":
        return value, None
    source = node.inputs[0]
    tensor = constant(source)
    rank = len(shape_of(tensor)) if tensor is not None else 0
    return source, tuple(node.attributes.get_ints("perm", tuple(reversed(range(rank)))))


def _along(numbers: NDArray[np.float32], rank: int, axis: int) -> NDArray[np.float32]:
    if numbers.size == 1:
        return numbers.reshape(())
    shape = [1] * rank
    shape[axis] = -1
    return numbers.reshape(shape) if numbers.ndim < 2 else numbers.reshape(numbers.shape[0], 1, -1)


def _scale_axis(node: ir.Node, form: Form, role: int, rank: int) -> int:
    """Return the axis of a weight along which an operator has a scale each."""
    if form.kind in ("Conv", *_RECURRENT):  # of those the directions lie there
        return 0
    if form.kind != "MatMul":
        return rank - 1
    turned = _turns(node, form, role)
    return rank - 1 if turned == (role == 0) else max(0, rank - 2)


def _turns(node: ir.Node, form: Form, role: int) -> bool:
    name = ("transA", "transB")[min(role, 1)]
    return form.kind == "MatMul" and node.attributes.get_int(name, 0) != 0


def _same_for_all(node: ir.Node, form: Form, role: int, numbers: Numbers) -> Numbers:
    """Return a weight in the layout that all forms of its kind share: a matrix as a MatMul takes it, times alpha."""
    if node.op_type == "DynamicQuantizeLSTM":
        return numbers.swapaxes(1, 2)
    turned = numbers.swapaxes(-1, -2) if _turns(node, form, role) else numbers
    gain = node.attributes.get_float("alpha", 1.0) if form.kind == "MatMul" else 1.0
    return turned if gain == 1.0 else turned * np.float32(gain)


def _turned(value: ir.Value, node: ir.Node, form: Form, role: int) -> tuple[int, ...] | None:
    tensor = constant(value)
    if tensor is not None:
        return _canonical_shape(shape_of(tensor), node, form, role)
    sizes = _fixed(value)
    return _canonical_shape(sizes, node, form, role) if sizes is not None else None


def _fixed(value: ir.Value) -> tuple[int, ...] | None:
    """Return a shape of which every size is known."""
    sizes = [size for size in value.shape if isinstance(size, int)] if value.shape is not None else None
    return tuple(sizes) if sizes is not None and value.shape is not None and len(sizes) == len(value.shape) else None


def _canonical_shape(shape: tuple[int, ...], node: ir.Node, form: Form, role: int) -> tuple[int, ...]:
    swap = len(shape) > 1 and (_turns(node, form, role) or node.op_type == "DynamicQuantizeLSTM")
    return (*shape[:-2], shape[-1], shape[-2]) if swap else shape
