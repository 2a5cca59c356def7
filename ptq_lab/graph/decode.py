"""Nodes that turn stored codes back into float weights.

Everything ends in ``Cast -> Mul (scale) -> Add (offset)``. onnxruntime folds the whole chain once, when it
loads the model, and then runs exactly the float kernels it would have run anyway. ``DequantizeLinear`` is
not used: onnxruntime keeps it and decodes on every run, or turns the MatMul behind it into int8 arithmetic.

Packed widths are unpacked to bytes whose *top* bits hold the code, so that a reinterpreting cast gives the
sign for free; the power of two this leaves is taken out of the scale, which is exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ptq_lab.graph.block_shapes import Blocks
from ptq_lab.graph.external import BLOCK, BlockTensor
from ptq_lab.graph.lookups import rank_of_lookup
from ptq_lab.graph.mapped import fetch, let_go, mapping_of
from ptq_lab.numerics import QuantizedWeight, pack_lanes, split_width
from ptq_lab.numerics.affine import along_axis
from ptq_lab.numerics.blocked import is_half
from ptq_lab.numerics.packing import pack_nibbles, padded_length

CODES, SCALE, OFFSET = "codes", "scale", "offset"


class GraphWriter:
    """Adds nodes in front of one place of a graph, with short names that nothing else uses."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._constants: dict[tuple[str, bytes], ir.Value] = {}
        nodes = list(graph.all_nodes())  # those of subgraphs too: an inner name may hide no outer one
        self._taken = {node.name for node in nodes} | {value.name for node in nodes for value in node.outputs}
        for scope in (graph, *graph.subgraphs()):
            self._taken |= {value.name for value in scope.inputs} | set(scope.initializers)
        self._count = 0
        self.before: ir.Node | None = None

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, Any] | None = None,
        *,
        domain: str = "",
    ) -> ir.Value:
        """Add a node of one output and return that output."""
        return self.nodes(op_type, inputs, attributes, outputs=1, domain=domain)[0]

    def nodes(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, Any] | None = None,
        *,
        outputs: int,
        domain: str = "",
    ) -> tuple[ir.Value, ...]:
        """Add a node of several outputs and return them."""
        node = ir.node(op_type, inputs, attributes or {}, domain=domain, num_outputs=outputs, name=self._fresh())
        for index, output in enumerate(node.outputs):
            output.name = node.name if index == 0 else self._fresh()
        if self.before is None:
            self._graph.append(node)
        else:
            self._graph.insert_before(self.before, node)
        return tuple(node.outputs)

    def weight(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        """Store a tensor under (a free variant of) `name`."""
        while name in self._taken:
            name += "_"
        return self._register(name, tensor)

    def constant(self, array: NDArray[Any]) -> ir.Value:
        """Store a small array, once for all decoders of the graph."""
        key = (f"{array.dtype}{array.shape}", array.tobytes())
        if key not in self._constants:
            self._constants[key] = self._register(self._fresh("k"), ir.tensor(array))
        return self._constants[key]

    def _register(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        self._taken.add(name)
        tensor.name = name
        value = ir.Value(name=name, const_value=tensor)
        self._graph.register_initializer(value)
        return value

    def _fresh(self, prefix: str = "q") -> str:
        while (name := f"{prefix}{self._count}") in self._taken:
            self._count += 1
        self._count += 1
        self._taken.add(name)
        return name


class StoredCodes:
    """The initializers of the codes of one weight, and the ways to unpack them."""

    def __init__(self, writer: GraphWriter, name: str, weight: QuantizedWeight, *, by_row: bool = False) -> None:
        self._writer = writer
        self._blocks = Blocks(weight) if weight.block else None
        weight = weight if self._blocks is None else self._blocks.stored
        self._shape = weight.codes.shape
        self._bits = weight.bits
        self._rows = self._shape[0] if by_row else 1
        self._length = weight.codes.size // self._rows
        self._packed = weight.bits not in (8, 16) and (by_row or weight.bits != 4)
        self._codes = self._store_codes(name, weight)
        self._top = 2.0 ** ((8 if weight.bits < 8 else 16) - weight.bits) if self._packed else 1.0

    @property
    def codes(self) -> ir.Value:
        """The codes, of a width that needs no unpacking."""
        assert not self._packed  # asked for codes that an integer operator takes as they are
        return self._codes[0]

    def as_bytes(self) -> ir.Value:
        """Return the whole of codes of at most 8 bits as int8, each as the number it is."""
        if self._bits == 8:
            return self._codes[0]
        if not self._packed:
            return self._writer.node("Cast", [self._codes[0]], {"to": ir.DataType.INT8})
        # A kernel that adds pairs of products in 16 bits overflows with large codes, so they leave the top of the byte.
        values = self._cast(self._unpack(self._codes, [self._rows], self._shape))
        small = self._writer.node("Mul", [values, self._writer.constant(np.array(1.0 / self._top, np.float32))])
        return self._writer.node("Cast", [small], {"to": ir.DataType.INT8})

    def _store_codes(self, name: str, weight: QuantizedWeight) -> list[ir.Value]:
        if not self._packed:
            return [self._writer.weight(f"{name}.{CODES}", _native(weight, self._shape))]
        widths = split_width(weight.bits)
        suffixes = [""] if len(widths) == 1 else [str(width) for width in widths]
        lanes = _lazy_lanes if mapping_of(weight.codes) is not None else _lanes
        tensors = lanes(weight.codes.reshape(self._rows, -1), weight.bits)
        return [
            self._writer.weight(f"{name}.{CODES}{suffix}", tensor)
            for suffix, tensor in zip(suffixes, tensors, strict=True)
        ]

    def _unpack(self, parts: Sequence[ir.Value], lead: list[int], shape: Sequence[int]) -> ir.Value:
        """Return codes of the given shape, at the top of an int8 (above 8 bits: of a word, as float32)."""
        write = self._writer
        widths = split_width(self._bits)
        length = padded_length(self._length)
        padded = [*lead, length]
        unfolded = shape if len(widths) == 1 and length == self._length else padded  # nothing to merge or trim
        merged, above = None, 0
        for width, part in zip(widths, parts, strict=True):
            if width == 8:
                continue
            field = self._reshape(self._unfold(part, width, above), unfolded)
            merged = field if merged is None else write.node("BitwiseOr", [merged, field])
            above += width
        assert merged is not None  # every packed width has a part below 8 bits
        if widths[0] == 8:
            high = write.node("Cast", [parts[0]], {"to": ir.DataType.FLOAT})
            high = write.node("Mul", [high, write.constant(np.array(256.0, np.float32))])
            merged = write.node("Add", [high, write.node("Cast", [merged], {"to": ir.DataType.FLOAT})])
        else:
            merged = write.node("Cast", [merged], {"to": ir.DataType.INT8})
        trimmed = self._trim(merged, length)
        has_shape = unfolded is shape or [*lead, self._length] == list(shape)
        return trimmed if has_shape else self._reshape(trimmed, shape)

    def _reshape(self, values: ir.Value, shape: Sequence[int]) -> ir.Value:
        return self._writer.node("Reshape", [values, self._writer.constant(np.array(shape, np.int64))])

    def _unfold(self, part: ir.Value, width: int, above: int) -> ir.Value:
        """Return (..., lanes, bytes) whose bytes hold each code's field, `above` bits under the top."""
        write = self._writer
        shifts = np.array([[8 - width * (lane + 1)] for lane in range(8 // width)], np.uint8)
        field = write.node("BitShift", [part, write.constant(shifts)], {"direction": "LEFT"})
        mask = np.array((0xFF << (8 - width)) & 0xFF, np.uint8)
        field = write.node("BitwiseAnd", [field, write.constant(mask)])
        if above:
            field = write.node("BitShift", [field, write.constant(np.array(above, np.uint8))], {"direction": "RIGHT"})
        return field

    def _trim(self, values: ir.Value, length: int) -> ir.Value:
        if length == self._length:
            return values
        write = self._writer
        start, end, axis = (write.constant(np.array([number], np.int64)) for number in (0, self._length, -1))
        return write.node("Slice", [values, start, end, axis])

    def _cast(self, values: ir.Value) -> ir.Value:
        if self._packed and self._bits > 8:
            return values
        return self._writer.node("Cast", [values], {"to": ir.DataType.FLOAT})


class StoredWeight(StoredCodes):
    """The initializers of one quantized weight, and the ways to decode them."""

    def __init__(self, writer: GraphWriter, name: str, weight: QuantizedWeight, *, by_row: bool) -> None:
        super().__init__(writer, name, weight, by_row=by_row)
        weight = weight if self._blocks is None else self._blocks.stored
        self._per_row = by_row and weight.axis == 0
        self._gain = 1.0 if self._blocks is None else 1.0 / self._top  # 16-bit floats could not take it in
        self._half = self._blocks is not None and is_half(weight.scale)
        self._scale = self._store_scale(f"{name}.{SCALE}", weight)
        offset = weight.offset if weight.offset.any() else None  # symmetric codes have none
        self._offset = None if offset is None else self._store_numbers(f"{name}.{OFFSET}", offset, weight.axis)
        let_go(mapping_of(weight.scale))  # reading it brings in the pages around it

    def decode(self) -> ir.Value:
        """Return the whole weight as float32."""
        values = self._unpack(self._codes, [self._rows], self._shape) if self._packed else self._codes[0]
        decoded = self._scaled(self._cast(values), self._scale, self._offset)
        return decoded if self._blocks is None else self._blocks.join(self._writer, decoded)

    def decode_rows(self, lookup: ir.Node) -> ir.Value:
        """Return the rows that a node looks up, as float32."""
        rank = rank_of_lookup(lookup)
        found = [self._look_up(part, lookup) for part in self._codes]
        values = self._unpack(found, [0] * rank, (*[0] * rank, self._length)) if self._packed else found[0]
        scale, offset = self._scale, self._offset
        if self._per_row:
            scale = self._look_up(scale, lookup)
            offset = None if offset is None else self._look_up(offset, lookup)
        return self._scaled(self._cast(values), scale, offset)

    def _store_scale(self, name: str, weight: QuantizedWeight) -> ir.Value:
        if self._blocks is None:
            # As it is where it can be: of a streamed model it lies in a file, and a copy would not.
            scale = weight.scale if self._top == 1.0 else weight.scale / np.float32(self._top)
            return self._store_numbers(name, scale, weight.axis)
        return self._writer.weight(name, ir.tensor(weight.scale.astype(np.float16) if self._half else weight.scale))

    def _store_numbers(self, name: str, numbers: NDArray[np.float32], axis: int | None) -> ir.Value:
        if self._blocks is not None:
            return self._writer.weight(name, ir.tensor(numbers))
        return self._writer.weight(name, ir.tensor(along_axis(numbers, len(self._shape), axis)))

    def _look_up(self, table: ir.Value, lookup: ir.Node) -> ir.Value:
        inputs = [table, *lookup.inputs[1:]]
        if lookup.op_type == "Slice":  # packed codes have an axis more, so that the rows may not be counted from behind
            inputs[3:4] = [self._writer.constant(np.array([0], np.int64))]
        return self._writer.node(lookup.op_type, inputs, dict(lookup.attributes))

    def _scaled(self, values: ir.Value, scale: ir.Value, offset: ir.Value | None) -> ir.Value:
        if self._half:
            scale = self._writer.node("Cast", [scale], {"to": ir.DataType.FLOAT})
        if self._gain != 1.0:
            scale = self._writer.node("Mul", [scale, self._writer.constant(np.array(self._gain, np.float32))])
        product = self._writer.node("Mul", [values, scale])
        return product if offset is None else self._writer.node("Add", [product, offset])


def _native(weight: QuantizedWeight, shape: tuple[int, ...]) -> ir.TensorProtocol:
    if weight.bits != 4:
        return ir.tensor(weight.codes)
    codes = np.asarray(weight.codes, np.int8)
    if mapping_of(codes) is None:
        return _nibbles(codes, shape)
    whole, blocks = partial(_nibbles, codes, shape), partial(_nibble_blocks, codes)
    return BlockTensor(whole, blocks, dtype=ir.DataType.INT4, shape=ir.Shape(shape))


def _nibbles(codes: NDArray[np.int8], shape: tuple[int, ...]) -> ir.PackedTensor[Any]:
    packed = ir.PackedTensor(pack_nibbles(codes), ir.DataType.INT4, shape=ir.Shape(shape))
    let_go(codes)
    return packed


def _nibble_blocks(codes: NDArray[np.int8]) -> Iterator[memoryview]:
    flat = codes.reshape(-1)
    for start in range(0, flat.size, BLOCK):
        end = min(start + BLOCK, flat.size)
        fetch(flat, start, end)
        packed = pack_nibbles(flat[start:end])
        let_go(flat)
        yield packed.data


def _lanes(codes: NDArray[Any], bits: int) -> list[ir.TensorProtocol]:
    """Return codes, one row after the other, as the byte lanes of each part of the width."""
    rows, parts = len(codes), pack_lanes(codes, bits)
    let_go(codes)
    # (rows, 1, bytes): lanes unfold along the middle axis; whole bytes need no unfolding
    return [
        ir.tensor(part.view(np.int8) if width == 8 else part.reshape(rows, 1, -1))
        for width, part in zip(split_width(bits), parts, strict=True)
    ]


def _lazy_lanes(codes: NDArray[Any], bits: int) -> list[ir.TensorProtocol]:
    """Return the same as :func:`_lanes`, packed anew whenever somebody asks, for codes that lie in a file."""
    rows, eighth = len(codes), padded_length(codes.shape[1]) // 8

    def part(index: int) -> ir.TensorProtocol:
        return _lanes(codes, bits)[index]

    return [
        ir.LazyTensor(
            partial(part, index),
            dtype=ir.DataType.INT8 if width == 8 else ir.DataType.UINT8,
            shape=ir.Shape((rows, 8 * eighth) if width == 8 else (rows, 1, width * eighth)),
        )
        for index, width in enumerate(split_width(bits))
    ]
