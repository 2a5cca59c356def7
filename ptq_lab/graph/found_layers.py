"""The layers of any model, whoever wrote it: what they are called, what they compute with, where their results are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from ptq_lab.graph.forms import Constants, Form, Slot, form_of, operand
from ptq_lab.graph.found_lookups import FoundTable, find_table, read_table
from ptq_lab.graph.lookups import LOOKUPS, looks_up_rows
from ptq_lab.graph.model import Model, constant
from ptq_lab.graph.operand import Operand
from ptq_lab.graph.operands import read_operand
from ptq_lab.graph.sums import scaled_sums
from ptq_lab.graph.tool_names import given_names

_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FoundLayer:
    """A layer in one of its forms.

    Attributes
    ----------
    node : onnx_ir.Node
        What computes it; of a table that is decoded after the lookup, the lookup.
    name : str
        Its name in the file.
    given : str
        The same, or empty if the file gives it none.
    form : Form
    operands : mapping of int to Operand
        Its constant operands, by role.
    sources : tuple of onnx_ir.Value
        The others, in the order of their roles.
    result : onnx_ir.Value
        What it gives: real numbers, or codes on `grid`.
    grid : Slot or None
        At which inputs of `node` scale and zero point of the result are.
    """

    node: ir.Node
    name: str
    given: str
    form: Form
    operands: Mapping[int, Operand]
    sources: tuple[ir.Value, ...]
    result: ir.Value
    grid: Slot | None = None

    @property
    def kind(self) -> str:
        """What all forms of it share."""
        return self.form.kind

    @property
    def op_type(self) -> str:
        """Its operator in the file."""
        return self.node.op_type

    def __repr__(self) -> str:
        return f"FoundLayer({self.name!r}, {self.op_type})"


@dataclass(frozen=True, slots=True, eq=False)
class FoundModel:
    """A model with its layers.

    Attributes
    ----------
    model : Model
        A copy with element types and shapes as far as they can be inferred.
    layers : tuple of FoundLayer
        In the order of the graph; those of subgraphs are not among them.
    constants : Constants
    """

    model: Model
    layers: tuple[FoundLayer, ...]
    constants: Constants

    @classmethod
    def read(cls, model: Model) -> FoundModel:
        """Find the layers of a model, which is not changed.

        Examples
        --------
        >>> from ptq_lab import demo
        >>> from ptq_lab.graph import load_model
        >>> found = FoundModel.read(load_model(demo.load("digits_cnn").model_path))
        >>> [layer.kind for layer in found.layers][-2:]
        ['Conv', 'MatMul']
        """
        typed = model.clone()
        ShapeInferencePass()(typed.ir_model)
        constants = Constants.of(typed.graph)
        return cls(typed, tuple(_layers(typed, constants)), constants)


def _layers(model: Model, constants: Constants) -> Iterator[FoundLayer]:
    names = given_names(model.graph)
    taken: set[ir.Node] = set()  # lookups of scales and offsets
    for node in model.graph:
        form = form_of(node)
        if form is None or node in taken or not node.outputs or node.outputs[0] in constants:
            continue
        if node.op_type in LOOKUPS:
            table = find_table(node)
            if table is not None:
                taken.update(table.lookups)
                yield _of_table(model, node, form, table, names)
                continue
            if not _looks_up_floats(node, constants):
                continue
        yield _layer(model, node, form, constants, names)


def _layer(model: Model, node: ir.Node, form: Form, constants: Constants, names: Mapping[ir.Node, str]) -> FoundLayer:
    read = {role: read_operand(model, node, form, role, constants) for role in form.weights}
    values = [operand(node, slot.index) for slot in form.slots]
    scaled = scaled_sums(node) if form.sums else None
    has_grid = form.result is not None and constant(operand(node, form.result.scale)) is not None
    return FoundLayer(
        node=node,
        name=node.name or "",
        given=names.get(node, ""),
        form=form,
        operands={role: found for role, found in read.items() if found is not None},
        sources=tuple(value for value in values if value is not None and value not in constants),
        result=scaled.value if scaled is not None else node.outputs[0],
        grid=form.result if has_grid else None,
    )


def _of_table(model: Model, node: ir.Node, form: Form, table: FoundTable, names: Mapping[ir.Node, str]) -> FoundLayer:
    found, last = read_table(model, table), table.result.producer()
    indices = node.inputs[1]
    return FoundLayer(
        node=node,
        name=(last.name if last is not None else node.name) or "",
        given=names.get(last, "") if last is not None else "",
        form=form,
        operands={0: found} if found is not None else {},
        sources=(indices,) if indices is not None else (),
        result=table.result,
    )


def _looks_up_floats(node: ir.Node, constants: Constants) -> bool:
    """Tell whether a node looks up rows of a constant matrix of real numbers, however that is made."""
    table = node.inputs[0]
    if table is None or table not in constants:
        return False
    tensor = constant(table)
    dtype = tensor.dtype if tensor is not None else table.dtype
    rank = len(tensor.shape) if tensor is not None else len(table.shape or ())
    if dtype not in _FLOATS or rank < 2:
        return False
    return looks_up_rows(node) if node.op_type == "Slice" else True
