"""Activations of any model that carry codes: on which grid, who makes them and who reads them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ptq_lab.graph.forms import INTEGER_RESULTS, form_of, operand
from ptq_lab.graph.found_layers import FoundModel
from ptq_lab.graph.model import constant, float32


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundGrid:
    """A tensor on a fixed grid.

    Attributes
    ----------
    tensor, node : str
        Its name, and the node that makes it; empty for an input of the model.
    scale : float
        Real units per step.
    zero_point : int
    dtype : str
        Of the codes.
    readers : tuple of str
        Nodes that read it.
    """

    tensor: str
    node: str
    scale: float
    zero_point: int
    dtype: str
    readers: tuple[str, ...]

    @property
    def span(self) -> tuple[float, float]:
        """Smallest and largest number on the grid.

        Examples
        --------
        >>> FoundGrid(tensor="x", node="", scale=0.5, zero_point=0, dtype="uint8", readers=()).span
        (0.0, 127.5)
        """
        limits = np.iinfo(self.dtype)
        low, high = ((int(limit) - self.zero_point) * self.scale for limit in (limits.min, limits.max))
        return low, high


def find_grids(found: FoundModel) -> tuple[FoundGrid, ...]:
    """Return the activations that are rounded to a grid that is known before the model runs, in the order of the graph.

    One scale for the whole tensor; grids of 8 and 16 bits.
    """
    grids: dict[tuple[str, float, int], FoundGrid] = {}
    for node in found.model.graph:
        if not node.outputs or node.outputs[0] in found.constants:
            continue
        for grid in _grids_at(node):
            grids.setdefault((grid.tensor, grid.scale, grid.zero_point), grid)
    return tuple(grids.values())


def _grids_at(node: ir.Node) -> Iterator[FoundGrid]:
    form = form_of(node)
    if node.op_type == "QuantizeLinear" and node.inputs[0] is not None:
        yield from _grid(node.inputs[0], node.outputs[0], operand(node, 1), operand(node, 2))
    elif form is not None and form.result is not None:
        slot = form.result
        yield from _grid(node.outputs[0], node.outputs[0], operand(node, slot.scale), operand(node, slot.zero_point))
    elif node.op_type in INTEGER_RESULTS:
        scale, zero = INTEGER_RESULTS[node.op_type]
        yield from _grid(node.outputs[0], node.outputs[0], operand(node, scale), operand(node, zero))


def _grid(value: ir.Value, codes: ir.Value, scale: ir.Value | None, zero_point: ir.Value | None) -> Iterator[FoundGrid]:
    step, zero = constant(scale), constant(zero_point)
    if step is None or step.size != 1 or (zero_point is not None and zero is None):
        return
    dtype = zero.dtype if zero is not None else ir.DataType.UINT8
    if dtype.name not in ("UINT8", "INT8", "UINT16", "INT16"):
        return
    maker = value.producer()
    yield FoundGrid(
        tensor=value.name or "",
        node=(maker.name or "") if maker is not None else "",
        scale=float(float32(step).reshape(())),
        zero_point=int(zero.numpy().reshape(())) if zero is not None else 0,
        dtype=dtype.name.lower(),
        readers=tuple(dict.fromkeys(_readers(codes))),
    )


def _readers(codes: ir.Value) -> Iterator[str]:
    for use in codes.uses():
        if use.node.op_type == "DequantizeLinear":
            yield from (each.node.name or "" for each in use.node.outputs[0].uses())
        else:
            yield use.node.name or ""
