"""Layers that two models of the same function have in common, and one of the two opened between them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from ptq_lab.graph.model import Model, constant
from ptq_lab.graph.segment import cut_open, cut_segment, given_name


@dataclass(frozen=True, slots=True)
class WatchedLayer:
    """A layer: the float tensors it reads, and the one it makes."""

    node: str
    op_type: str
    sources: tuple[str, ...]
    output: str


def watched_layers(original: Model, quantized: Model, nodes: Collection[str]) -> Iterator[WatchedLayer]:
    """Yield those of some nodes whose inputs and output are tensors of both models, in the order of the graph."""
    there = {value.name for node in quantized.graph for value in node.outputs}
    there |= {value.name for value in quantized.graph.inputs}
    for node in original.graph:
        if node.name not in nodes or not node.outputs:
            continue
        sources = [value for value in node.inputs if value is not None and constant(value) is None and _is_float(value)]
        names = tuple(value.name or "" for value in sources)
        if node.outputs[0].name in there and all(name in there for name in names):
            yield WatchedLayer(node.name or "", node.op_type, names, node.outputs[0].name or "")


def made_inside(model: Model, tensors: Collection[str]) -> list[str]:
    """Return those of some tensors that nodes make, and that are no inputs."""
    made = {value.name for node in model.graph for value in node.outputs}
    return [tensor for tensor in tensors if tensor in made]


def layers_alone(model: Model, sources: Collection[str], outputs: Collection[str]) -> tuple[Model, dict[str, str]]:
    """Return a model whose layers read float tensors that are handed in, and what those inputs are called."""
    opened = cut_open(model, dict.fromkeys(sources, ir.DataType.FLOAT))
    return cut_segment(opened, [], list(outputs)), {source: given_name(source) for source in sources}


def _is_float(value: ir.Value) -> bool:
    return value.dtype in (None, ir.DataType.FLOAT)
