"""Tables: matrices of which a model reads some rows, so that only those need decoding."""

from __future__ import annotations

import onnx_ir as ir

from ptq_lab.graph.model import constant, shape_of

LOOKUPS = ("Gather", "Slice")


def looks_up_rows(node: ir.Node) -> bool:
    """Tell whether a node reads rows of its first input, a constant matrix, by position.

    Examples
    --------
    >>> table, rows = ir.Value(name="table", const_value=ir.tensor([[0.5, 1.0]])), ir.Value(name="rows")
    >>> rows.shape = ir.Shape(["n"])
    >>> looks_up_rows(ir.node("Gather", [table, rows])), looks_up_rows(ir.node("Gather", [table, rows], {"axis": 1}))
    (True, False)
    """
    tensor = constant(node.inputs[0]) if node.inputs else None
    if tensor is None or len(shape_of(tensor)) != 2 or node.op_type not in LOOKUPS:
        return False
    if node.op_type == "Gather":
        indices = node.inputs[1]
        return node.attributes.get_int("axis", 0) in (0, -2) and indices is not None and indices.shape is not None
    return _sliced_axes(node) in ((0,), (-2,))


def row_lookups(graph: ir.Graph, holder: ir.Value) -> list[ir.Node]:
    """Return the nodes of a graph, its subgraphs aside, that look up rows of a table, themselves or by an Identity."""
    found = []
    for node, index in holder.uses():
        if node.graph is not graph:
            continue
        if node.op_type == "Identity":
            found += row_lookups(graph, node.outputs[0])
        elif index == 0 and looks_up_rows(node):
            found.append(node)
    return found


def rank_of_lookup(node: ir.Node) -> int:
    """Return how many axes take the place of the table's rows."""
    indices = node.inputs[1]
    assert indices is not None  # looks_up_rows has been asked
    return len(indices.shape or ()) if node.op_type == "Gather" else 1


def _sliced_axes(node: ir.Node) -> tuple[int, ...]:
    """Return the axes that a Slice cuts, as far as the graph says."""
    if len(node.inputs) < 3:  # before opset 10 they were attributes; such a node is left alone
        return ()
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        axes = constant(node.inputs[3])
        return tuple(int(axis) for axis in axes.numpy().reshape(-1)) if axes is not None else ()
    starts = node.inputs[1]
    count = starts.shape[0] if starts is not None and starts.shape is not None else None
    return tuple(range(count)) if isinstance(count, int) else ()
