"""Tables whose rows are looked up as codes and decoded afterwards: where the real numbers are, and the whole table.

ptq_lab looks up codes, scales and offsets with the same indices and puts ``Cast -> Mul -> Add`` behind;
onnxruntime.quantization looks up bytes and puts a ``DequantizeLinear`` behind.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ptq_lab.graph.chains import read_chain
from ptq_lab.graph.decode import CODES, OFFSET, SCALE
from ptq_lab.graph.lookups import LOOKUPS
from ptq_lab.graph.model import Model, constant, shape_of
from ptq_lab.graph.operand import Operand
from ptq_lab.graph.operands import read_codes
from ptq_lab.graph.segment import cut_segment

_DECODES = ("Cast", "Mul", "Add", "Sub", "BitShift", "BitwiseAnd", "BitwiseOr", "Reshape", "Slice", "DequantizeLinear")


@dataclass(frozen=True, slots=True, eq=False)
class FoundTable:
    """A table of codes: the lookups and nodes that decode what is found, and what they give in the end.

    Where nothing decodes it, `grid` is scale and zero point as the operator that takes the codes is told them.
    """

    nodes: tuple[ir.Node, ...]
    lookups: tuple[ir.Node, ...]
    result: ir.Value
    grid: tuple[ir.Value, ir.Value] | None = None

    @property
    def axis(self) -> int:
        """Along which axis it is looked up."""
        return self.lookups[0].attributes.get_int("axis", 0) % len(self.stored_shape)

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of what is looked up: of the table, if its codes are not packed."""
        tensor = constant(self.lookups[0].inputs[0])
        assert tensor is not None  # find_table has looked
        return shape_of(tensor)

    @property
    def count(self) -> int:
        """How many places there are to look up, such as rows."""
        return self.stored_shape[self.axis]


def find_table(lookup: ir.Node) -> FoundTable | None:
    """Follow what a lookup of codes finds to where it is decoded; ``None`` if it is no such lookup.

    Notes
    -----
    The decoding ends behind a ``DequantizeLinear``, or behind the multiplication by the scale and the addition of an
    offset that is looked up too, or stored under the name that ptq_lab gives it.
    """
    tensor = constant(lookup.inputs[0]) if lookup.inputs else None
    narrow = tensor is not None and tensor.dtype.bitwidth <= 16 and not tensor.dtype.is_floating_point()
    if lookup.op_type not in LOOKUPS or not narrow or tensor is None or len(shape_of(tensor)) < 2:
        return None
    own = f".{CODES}" in (lookup.inputs[0].name or "") if lookup.inputs[0] is not None else False
    walk = _Walk(lookup)
    value, scaled = lookup.outputs[0], False
    while (reader := _only_reader(value)) is not None and walk.accepts(reader, value):
        other = _other(reader, value)
        if scaled and not (reader.op_type in ("Add", "Sub") and _is(OFFSET, other)):
            break
        walk.take(reader)
        value = reader.outputs[0]
        if reader.op_type == "DequantizeLinear" or scaled:
            break
        scaled = reader.op_type == "Mul" and (_is(SCALE, other) or not (own or _merges(other)))
    if walk.nodes:
        return FoundTable(tuple(walk.nodes), tuple(walk.lookups), value)
    return FoundTable((), (lookup,), value, grid_of_reader(value))


def read_table(model: Model, table: FoundTable) -> Operand | None:
    """Describe a table of codes; its numbers are those that the decoding gives for all rows."""
    codes = table.lookups[0].inputs[0]
    if not table.nodes:
        known = table.grid is not None and codes is not None
        return read_codes(codes, *table.grid, "Gather") if known and codes is not None and table.grid else None
    shape: tuple[int, ...] | None = table.stored_shape
    if table.axis == 0:  # rows may be packed
        columns = table.result.shape[-1] if table.result.shape is not None and len(table.result.shape) else None
        shape = (table.count, columns) if isinstance(columns, int) else None

    def whole() -> Model:
        return _all_rows(model, table)

    wanted = shape or (table.count, -1)
    return read_chain([*table.nodes, *table.lookups], lambda numbers: numbers.reshape(wanted), whole, shape)


def grid_of_reader(value: ir.Value) -> tuple[ir.Value, ir.Value] | None:
    """Return scale and zero point of codes, as an operator on integers that reads them is told: right behind them."""
    for use in value.uses():
        if use.node.op_type.startswith("QLinear") and use.idx + 2 < len(use.node.inputs):
            scale, zero_point = use.node.inputs[use.idx + 1], use.node.inputs[use.idx + 2]
            if scale is not None and zero_point is not None:
                return scale, zero_point
    return None


def _all_rows(model: Model, table: FoundTable) -> Model:
    """Return a model without inputs that looks up every row once."""
    copy = model.clone()
    nodes = {node.name: node for node in copy.graph}
    for name in [lookup.name for lookup in table.lookups]:
        node = nodes[name]
        if node.op_type == "Slice":
            numbers = {1: np.array([0]), 2: np.array([table.count]), 4: np.array([1])}
        else:
            numbers = {1: np.arange(table.count).reshape([1] * (_rank(node) - 1) + [-1])}
        for index in (index for index in numbers if index < len(node.inputs)):
            node.replace_input_with(index, _stored(copy.graph, f"{name}.every.{index}", numbers[index]))
    for node in table.nodes:
        for value in nodes[node.name].outputs:
            value.shape = None  # of as many rows as were looked up before
    if _rank(table.lookups[0]) == 0:
        _add_axis(copy.graph, [nodes[node.name] for node in table.nodes])
    return cut_segment(copy, [], [table.result.name or ""])


def _rank(lookup: ir.Node) -> int:
    """Return how many axes the indices have, 1 if that is not known; a Slice gives rows along one axis."""
    indices = lookup.inputs[1]
    known = lookup.op_type == "Gather" and indices is not None and indices.shape is not None
    return len(indices.shape) if known and indices is not None and indices.shape is not None else 1


def _add_axis(graph: ir.Graph, nodes: list[ir.Node]) -> None:
    """Let the decoding of a single row, which has no axis for rows, decode many."""
    for node in nodes:
        sizes = constant(node.inputs[1]) if node.op_type == "Reshape" else None
        if sizes is not None:
            wanted = np.concatenate([[0], sizes.numpy().reshape(-1)])
            node.replace_input_with(1, _stored(graph, f"{node.name}.every", wanted))


def _stored(graph: ir.Graph, name: str, numbers: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> ir.Value:
    value = ir.Value(name=name, const_value=ir.tensor(numbers.astype(np.int64), name=name))
    graph.register_initializer(value)
    return value


class _Walk:
    """The nodes of one decoding, as far as they were followed."""

    def __init__(self, lookup: ir.Node) -> None:
        self._lookup = lookup
        self.nodes: list[ir.Node] = []
        self.lookups: list[ir.Node] = [lookup]

    def accepts(self, node: ir.Node, value: ir.Value) -> bool:
        """Tell whether a node decodes: it does something simple with this value, constants and the same rows."""
        return node.op_type in _DECODES and all(
            each is None or each is value or self._belongs(each) for each in node.inputs
        )

    def take(self, node: ir.Node) -> None:
        self.nodes.append(node)
        for value in node.inputs:
            self._take_makers(value)

    def _take_makers(self, value: ir.Value | None) -> None:
        node = value.producer() if value is not None else None
        if value is None or node is None or constant(value) is not None or node in (*self.nodes, *self.lookups):
            return
        if self._same_rows(node):
            self.lookups.append(node)
            return
        self.nodes.append(node)
        for each in node.inputs:
            self._take_makers(each)

    def _belongs(self, value: ir.Value) -> bool:
        node = value.producer()
        if constant(value) is not None or (node is not None and self._same_rows(node)):
            return True
        inputs = [each for each in node.inputs if each is not None] if node is not None else []
        return node is not None and node.op_type in _DECODES and bool(inputs) and all(map(self._belongs, inputs))

    def _same_rows(self, node: ir.Node) -> bool:
        same = node.op_type == self._lookup.op_type and constant(node.inputs[0]) is not None
        return same and list(node.inputs)[1:3] == list(self._lookup.inputs)[1:3]


def _is(part: str, value: ir.Value | None) -> bool:
    """Tell whether a value is scale or offset: by the name it was stored under, or because it is looked up."""
    node = value.producer() if value is not None else None
    if node is not None and node.op_type in LOOKUPS:
        return True
    return value is not None and f".{part}" in (value.name or "")


def _merges(value: ir.Value | None) -> bool:
    """Tell whether a factor moves the upper half of a word to its place, and is no scale."""
    tensor = constant(value)
    return tensor is not None and tensor.size == 1 and float(tensor.numpy().reshape(())) == 256.0


def _other(node: ir.Node, value: ir.Value) -> ir.Value | None:
    return next((each for each in node.inputs if each is not None and each is not value), None)


def _only_reader(value: ir.Value) -> ir.Node | None:
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None
