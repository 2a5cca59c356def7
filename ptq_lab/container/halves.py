"""float16 tables in a session: decoded to float32 and cut to 16 bits behind the look-up, as in a plain file.

onnxruntime computes float16 operators in float32 and takes out the pair of casts between a decoded row and such an
operator, so a plain file keeps more digits of a row than a float16 table has. A table of float32 with a Cast behind
each look-up gives onnxruntime the same casts to take out, and so the same outputs.
"""

from __future__ import annotations

import onnx_ir as ir

from ptq_lab.container.records import TensorRecord
from ptq_lab.graph import Model
from ptq_lab.graph.decode import GraphWriter
from ptq_lab.graph.lookups import row_lookups
from ptq_lab.graph.rewrite import take_place
from ptq_lab.graph.slots import empty_tensor


def is_half_table(tensor: TensorRecord) -> bool:
    """Tell whether a tensor is a float16 table whose rows are looked up as codes."""
    return tensor.codes is not None and tensor.codes.by_row and tensor.dtype == "FLOAT16"


def widen_tables(model: Model, tensors: list[TensorRecord]) -> dict[str, TensorRecord]:
    """Let look-ups read float32 tables.

    Parameters
    ----------
    model : Model
        With a slot per table; it is changed.
    tensors : list of TensorRecord
        The tables.

    Returns
    -------
    dict of str to TensorRecord
        The tables by the names of their new slots. The old slots stay only where somebody reads a whole table.
    """
    graph, wide = model.graph, {}
    writer = GraphWriter(graph)
    for tensor in tensors:
        holder = graph.initializers[tensor.name]
        slot = writer.weight(f"{tensor.name}.wide", empty_tensor(tensor.name, ir.DataType.FLOAT, tensor.shape))
        for node in row_lookups(graph, holder):
            writer.before = node
            rows = writer.node(node.op_type, [slot, *node.inputs[1:]], dict(node.attributes))
            take_place(graph, node, writer.node("Cast", [rows], {"to": ir.DataType.FLOAT16}))
        wide[slot.name or ""] = tensor
        if not holder.uses():
            del graph.initializers[tensor.name]
    return wide
