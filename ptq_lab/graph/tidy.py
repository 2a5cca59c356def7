"""Graphs as they come from files: what is damaged is refused, what old or careless writers did is put right."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from ptq_lab.errors import ModelError


def check_sources(model: ir.Model, label: str) -> None:
    """Refuse a graph in which a node reads what nothing gives.

    Raises
    ------
    ModelError
    """
    for node in model.graph.all_nodes():
        for value in node.inputs:
            known = value is None or value.producer() or value.is_graph_input() or value.is_initializer()
            if value is not None and not known:
                raise ModelError(
                    f"{label}: the graph is damaged (the {node.op_type} node {node.name or 'without a name'} takes "
                    f"{value.name}, which nothing gives)",
                    node=node.name or "",
                )


def put_in_order(model: ir.Model, label: str) -> None:
    """Sort nodes that stand before what they read: converters append Casts at the end, and onnxruntime allows it."""
    seen: set[ir.Node] = set()
    for node in model.graph:
        makers = (value.producer() for value in _read_by(node) if value is not None)
        if any(maker is not None and maker.graph is model.graph and maker not in seen for maker in makers):
            try:
                model.graph.sort()
            except ValueError as error:
                raise ModelError(
                    f"{label}: the graph is damaged ({first_line(error)})", node=node.name or ""
                ) from error
            return
        seen.add(node)


def _read_by(node: ir.Node) -> Iterator[ir.Value | None]:
    """Yield what a node reads, by itself and inside its subgraphs."""
    yield from node.inputs
    for attribute in node.attributes.values():
        if isinstance(attribute, ir.Attr) and attribute.type == ir.AttributeType.GRAPH:
            for inner in attribute.as_graph():
                yield from _read_by(inner)


def drop_default_inputs(model: ir.Model) -> None:
    """Before IR version 4 every weight had to be listed as an input too; that never meant it may change."""
    if model.ir_version >= 4:
        return
    for value in [value for value in model.graph.inputs if value.const_value is not None]:
        model.graph.inputs.remove(value)
    model.ir_version = 4


def share_twins(model: ir.Model) -> None:
    """Make one weight of those that are the same bytes of the same external file, so that it is stored once."""
    seen: dict[object, ir.Value] = {}
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if not isinstance(tensor, ir.ExternalTensor) or value.is_graph_input() or value.is_graph_output():
            continue
        place = (str(tensor.location), tensor.offset or 0, tensor.length, tensor.dtype, tuple(tensor.shape.numpy()))
        first = seen.setdefault(place, value)
        if first is not value:
            value.replace_all_uses_with(first)
            del model.graph.initializers[name]


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
