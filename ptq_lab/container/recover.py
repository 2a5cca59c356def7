"""A quantized model read back: the float model it was written from, without its weights, and the plan with their codes.

Nothing is guessed. From the codes found, the nodes that decode them are built once more, and only if the model holds
exactly those nodes with exactly those constants are they taken out; what is anything else stays as it is.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ptq_lab.errors import ModelError
from ptq_lab.graph import Model
from ptq_lab.graph.decode import CODES, OFFSET, SCALE, GraphWriter, StoredWeight
from ptq_lab.graph.lookups import LOOKUPS
from ptq_lab.graph.model import constant, constants, shape_of
from ptq_lab.graph.rewrite import take_place
from ptq_lab.numerics import QuantizedWeight, decoded_by, dequantize_weight, split_width, unpack_lanes
from ptq_lab.plan import QuantPlan, TensorPlan

_log = logging.getLogger(__name__)

_PLAN = "ptq_lab.plan"
_HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_CODES = (
    ir.DataType.INT4,
    ir.DataType.UINT4,
    ir.DataType.INT8,
    ir.DataType.UINT8,
    ir.DataType.INT16,
    ir.DataType.UINT16,
)
_LONGEST = 64  # nodes behind a look-up that are searched for the end of the decoding
_FRESH = re.compile(r"q\d+")  # what nodes are called that the original does not have
_CLASHES = 4  # underscores that a name may have got because it was taken


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """The initializers of one quantized weight."""

    name: str
    bits: int
    parts: tuple[ir.Value, ...]
    scale: NDArray[np.float32]
    offset: NDArray[np.float32] | None

    @property
    def packed(self) -> bool:
        """Whether the codes stand in lanes."""
        return self.parts[0].dtype == ir.DataType.UINT8 or len(self.parts) > 1


def recover_plan(model: Model) -> tuple[Model, QuantPlan]:
    """Undo :func:`~ptq_lab.graph.apply_plan`.

    Parameters
    ----------
    model : Model
        Quantized; ptq_lab leaves the widths in its metadata. Not changed.

    Returns
    -------
    model : Model
        Its weights are decoded when somebody asks for one.
    plan : QuantPlan
        With the codes of every weight that is decoded to float by nodes of ours; integer arithmetic keeps its own, as
        does what other tools have quantized.

    Raises
    ------
    ModelError
        If the model is not quantized.
    """
    recovered = model.clone()
    graph = recovered.graph
    entries = []
    for name, bits in _widths(model).items():
        found = _find(graph, name, bits)
        entry = _recover(graph, found) if found is not None else None
        if entry is not None:
            entries.append(entry)
        else:
            _log.info("%s: is not decoded to float by nodes of ours; stays as it is", name)
    return recovered, QuantPlan(tuple(entries))


def _widths(model: Model) -> dict[str, int]:
    text = model.ir_model.metadata_props.get(_PLAN)
    if text is None:
        if not _holds_codes(model):
            what = "is a float model, and a container is for quantized ones: it would hardly be smaller"
            raise ModelError(f"{model.label}: {what}; quantize it with [ptq_lab] encode=entropy, which writes one")
        _log.info("%s: was quantized by another tool; its codes stay as they are", model.label)
        return {}
    try:
        return {str(name): int(numbers[0]) for name, numbers in json.loads(text).items()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelError(f"{model.label}: {_PLAN} in its metadata is not what ptq_lab writes ({error})") from error


def _holds_codes(model: Model) -> bool:
    """Tell whether a model has tensors of small integers: those of weights, and not one number for all of them."""
    tensors = (value.const_value for value in constants(model.graph).values())
    return any(each is not None and each.dtype in _CODES and each.size > 1 for each in tensors)


def _find(graph: ir.Graph, name: str, bits: int) -> _Found | None:
    """Find the codes, scale and offset of a weight by their names."""
    if not 1 <= bits <= 16:
        return None
    native = _initializer(graph, f"{name}.{CODES}")
    lanes = [f"{name}.{CODES}{width if len(split_width(bits)) > 1 else ''}" for width in split_width(bits)]
    parts = [native] if native is not None else [_initializer(graph, lane) for lane in lanes]
    scale, offset = (_initializer(graph, f"{name}.{number}") for number in (SCALE, OFFSET))
    if scale is None or any(part is None for part in parts):
        return None
    found = _Found(
        name=name,
        bits=bits,
        parts=tuple(part for part in parts if part is not None),
        scale=_array(scale),
        offset=None if offset is None else _array(offset),
    )
    fits = not found.packed or all(len(_sizes(part)) > 1 for part in found.parts)  # lanes are matrices at least
    return found if fits else None


def _initializer(graph: ir.Graph, name: str) -> ir.Value | None:
    """Return the initializer of a name, or of the name with underscores, which it gets where the name is taken."""
    names = (name + "_" * count for count in reversed(range(_CLASHES + 1)))
    return next((graph.initializers[each] for each in names if each in graph.initializers), None)


def _recover(graph: ir.Graph, found: _Found) -> TensorPlan | None:
    """Put the float weight back where its codes are decoded; ``None`` if something else is done with them."""
    lookups = [use.node for use in found.parts[0].uses() if use.node.op_type in LOOKUPS and use.idx == 0]
    whole = _decoded(graph, found.name)
    for shape in _shapes(found, whole):
        try:
            weight = _weight(found, shape)
        except ValueError:  # codes or scales of another shape than ours would have
            continue
        ends = list(_ends(found, weight, lookups, whole))
        if not ends or any(end is None for _, end in ends):
            continue
        decoded = [(lookup, end) for lookup, end in ends if end is not None]
        slot = _slot(found.name, weight, _type_of(decoded[0][1]))
        nodes = [_put_back(graph, slot, lookup, end) for lookup, end in decoded]
        graph.register_initializer(slot)
        return _entry(slot, weight, nodes, by_row=bool(lookups))
    return None


def _ends(
    found: _Found, weight: QuantizedWeight, lookups: list[ir.Node], whole: ir.Value | None
) -> Iterator[tuple[ir.Node | None, ir.Value | None]]:
    """Yield each look-up of codes with the value that holds its decoded rows, and the whole decoded weight."""
    by_row = bool(lookups)
    for lookup in lookups:
        candidates = list(_behind(lookup))
        yield lookup, _first_same(candidates, found, weight, by_row, lookup)
    if whole is not None:
        yield None, _first_same([whole], found, weight, by_row, None)


def _first_same(
    candidates: list[ir.Value], found: _Found, weight: QuantizedWeight, by_row: bool, lookup: ir.Node | None
) -> ir.Value | None:
    """Return the value that is computed just as our own nodes would compute it."""
    scratch = ir.Graph([], [], nodes=[])
    writer = GraphWriter(scratch)
    stored = StoredWeight(writer, found.name, weight, by_row=by_row)
    wanted = stored.decode() if lookup is None else stored.decode_rows(lookup)
    try:
        if lookup is None:
            return next((value for value in candidates if _same(_before_cast(value), wanted)), None)
        return next((_behind_cast(value) for value in candidates if _same(value, wanted)), None)
    finally:
        for node in reversed(list(scratch)):  # they read values of the model
            scratch.remove(node, safe=True)


def _same(actual: ir.Value | None, wanted: ir.Value | None) -> bool:
    """Tell whether two values are computed by the same operators from the same constants and inputs."""
    if actual is wanted:
        return True
    if actual is None or wanted is None:
        return False
    if wanted.const_value is not None:
        return actual.const_value is not None and _same_tensor(actual.const_value, wanted.const_value)
    left, right = actual.producer(), wanted.producer()
    if left is None or right is None or (left.op_type, left.domain) != (right.op_type, right.domain):
        return False
    if len(left.inputs) != len(right.inputs) or actual.index() != wanted.index():
        return False
    if {name: str(item.value) for name, item in left.attributes.items() if isinstance(item, ir.Attr)} != {
        name: str(item.value) for name, item in right.attributes.items() if isinstance(item, ir.Attr)
    }:
        return False
    return all(_same(*pair) for pair in zip(left.inputs, right.inputs, strict=True))


def _same_tensor(left: ir.TensorProtocol, right: ir.TensorProtocol) -> bool:
    return left.dtype == right.dtype and shape_of(left) == shape_of(right) and left.tobytes() == right.tobytes()


def _before_cast(value: ir.Value) -> ir.Value | None:
    """Look through the Cast that gives a decoded weight the original's 16-bit type."""
    maker = value.producer()
    if maker is None or maker.op_type != "Cast" or maker.attributes.get_int("to", 0) not in _HALVES:
        return value
    return maker.inputs[0]


def _behind_cast(value: ir.Value) -> ir.Value:
    """Return the same rows in the original's 16-bit type, if the Cast behind them is ours: then it has their name."""
    maker, users = value.producer(), [use.node for use in value.uses()]
    ours = maker is not None and _FRESH.fullmatch(maker.name or "") is not None
    if ours and len(users) == 1 and _before_cast(users[0].outputs[0]) is value:
        return users[0].outputs[0]
    return value


def _type_of(value: ir.Value) -> ir.DataType:
    maker = value.producer()
    cast = maker is not None and maker.op_type == "Cast"
    return ir.DataType(maker.attributes.get_int("to", 1)) if maker is not None and cast else ir.DataType.FLOAT


def _behind(lookup: ir.Node) -> Iterator[ir.Value]:
    """Yield what is computed from a look-up, nearest first, as far as decoding can reach."""
    waiting, seen = [lookup.outputs[0]], 0
    found: dict[int, ir.Value] = {}
    while waiting and seen < _LONGEST:
        value = waiting.pop(0)
        seen += 1
        for use in value.uses():
            for output in use.node.outputs:
                if id(output) not in found:
                    found[id(output)] = output
                    waiting.append(output)
    yield from found.values()


def _decoded(graph: ir.Graph, name: str) -> ir.Value | None:
    for node in graph:
        for value in node.outputs:
            if value.name == name:
                return value
    return None


def _shapes(found: _Found, whole: ir.Value | None) -> Iterator[tuple[int, ...]]:
    """Yield the shapes that a weight may have: that of native codes, or what fits the lanes."""
    if not found.packed:
        yield _sizes(found.parts[0])
    elif whole is not None:
        yield from _reshaped(whole)
    else:  # a table: packing has rounded its rows up
        rows, *_, length = _sizes(found.parts[-1])
        padded = length * 8 // split_width(found.bits)[-1]
        yield from ((rows, padded - missing) for missing in range(min(8, padded)))


def _reshaped(end: ir.Value) -> Iterator[tuple[int, ...]]:
    """Yield the shape that unpacked lanes get: the last Reshape, whose last axis a Slice may have cut behind it."""
    cut, waiting, seen = None, [end], 0
    while waiting and seen < _LONGEST:
        maker = waiting.pop(0).producer()
        seen += 1
        if maker is None:
            continue
        if maker.op_type == "Slice" and len(maker.inputs) > 2 and cut is None:
            cut = constant(maker.inputs[2])
        sizes = constant(maker.inputs[1]) if maker.op_type == "Reshape" else None
        if sizes is not None:
            shape = [int(size) for size in sizes.numpy().reshape(-1)]
            yield tuple(shape if cut is None else [*shape[:-1], int(cut.numpy().reshape(-1)[0])])
            return
        waiting += [value for value in maker.inputs if value is not None]


def _weight(found: _Found, shape: tuple[int, ...]) -> QuantizedWeight:
    codes = _codes(found, shape)
    axis = next((index for index, size in enumerate(found.scale.shape) if size > 1), None)
    if axis is None and found.scale.ndim:  # one channel: any axis of size 1 means the same
        axis = next((index for index, size in enumerate(shape) if size == 1), None)
    top = 2.0 ** ((8 if found.bits < 8 else 16) - found.bits) if found.packed else 1.0
    numbers = (-1,) if axis is not None else ()
    scale = found.scale.reshape(numbers) * np.float32(top)  # a power of two: exact
    offset = None if found.offset is None else found.offset.reshape(numbers)
    return decoded_by(codes, bits=found.bits, axis=axis, scale=scale, offset=offset)


def _codes(found: _Found, shape: tuple[int, ...]) -> NDArray[Any]:
    dtype = np.int8 if found.bits <= 8 else np.int16
    if not found.packed:
        return _array(found.parts[0]).astype(dtype, copy=False)
    rows = _sizes(found.parts[0])[0]
    parts = tuple(_array(part).view(np.uint8).reshape(rows, -1) for part in found.parts)
    count = int(np.prod(shape, dtype=np.int64)) // max(1, rows)
    return unpack_lanes(parts, found.bits, count).astype(dtype, copy=False).reshape(shape)


def _slot(name: str, weight: QuantizedWeight, dtype: ir.DataType) -> ir.Value:
    """Return an initializer that is decoded when somebody asks for it."""

    def decoded() -> ir.TensorProtocol:
        return ir.Tensor(dequantize_weight(weight).astype(dtype.numpy()), dtype, name=name)

    shape = ir.Shape(weight.codes.shape)
    tensor = ir.LazyTensor(decoded, dtype=dtype, shape=shape, name=name)
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=shape, const_value=tensor)


def _put_back(graph: ir.Graph, slot: ir.Value, lookup: ir.Node | None, end: ir.Value) -> list[ir.Node]:
    """Let a weight, or a look-up of its rows, take the place of decoded codes; return who uses the weight now."""
    last = end.producer()
    assert last is not None  # decoding ends in a node
    if lookup is None:
        users = [use.node for use in end.uses()]
        name, end.name = end.name, None
        end.replace_all_uses_with(slot, replace_graph_outputs=True)
        slot.name = name
    else:
        writer = GraphWriter(graph)
        writer.before = last
        rows = writer.node(lookup.op_type, [slot, *lookup.inputs[1:]], dict(lookup.attributes))
        before = list(last.inputs)
        take_place(graph, last, rows)
        maker = rows.producer()
        users = [maker] if maker is not None else []
        for value in before:
            _drop(graph, value)
        return users
    _drop(graph, end)
    return users


def _drop(graph: ir.Graph, value: ir.Value | None) -> None:
    """Take out what computes a value, as far as nobody else needs it."""
    if value is None or value.uses() or value.is_graph_output() or value.is_graph_input():
        return
    maker = value.producer()
    if maker is None:
        if graph.initializers.get(value.name or "") is value:
            del graph.initializers[value.name or ""]
        return
    if maker.graph is not graph or any(output.uses() or output.is_graph_output() for output in maker.outputs):
        return
    inputs = list(maker.inputs)
    graph.remove(maker, safe=True)
    for each in inputs:
        _drop(graph, each)


def _entry(slot: ir.Value, weight: QuantizedWeight, nodes: list[list[ir.Node]], *, by_row: bool) -> TensorPlan:
    users = list(dict.fromkeys(node for some in nodes for node in some))
    tensor = slot.const_value
    assert tensor is not None  # it was made with one
    return TensorPlan(
        tensor=slot.name or "",
        nodes=tuple(node.name or "" for node in users) or (slot.name or "",),
        op_type=users[0].op_type if users else "",
        shape=tuple(weight.codes.shape),
        bits=weight.bits,
        axis=weight.axis,
        channel_axis=weight.axis or 0,
        by_row=by_row,
        bytes_before=tensor.nbytes,
        weight=weight,
    )


def _sizes(value: ir.Value) -> tuple[int, ...]:
    tensor = value.const_value
    assert tensor is not None  # an initializer
    return shape_of(tensor)


def _array(value: ir.Value) -> NDArray[Any]:
    tensor = value.const_value
    assert tensor is not None  # an initializer
    return np.asarray(tensor.numpy())
