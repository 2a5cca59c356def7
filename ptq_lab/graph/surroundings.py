"""Which layers a layer reads from, straight through everything that is no layer: the shape of a model without names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ptq_lab.graph.found_layers import FoundLayer, FoundModel

_TELL_SIZES = ("Shape", "Size", "NonZero")
_TABLE_OF_OPERAND = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")

Edge = tuple[int, int]  # role of the operand, and which layer it comes from; inputs of the model count down from -1


@dataclass(frozen=True, slots=True, eq=False)
class Surroundings:
    """What lies around every layer.

    Attributes
    ----------
    before : tuple of tuple of (int, int)
        For each layer the role of an operand and the index of a layer, or ``-1 - i`` for input i of the model.
    after : tuple of tuple of (int, int)
        The same the other way round: the layer that reads, and in which role.
    ends : frozenset of (int, int)
        Output of the model, and the layer that it comes from.
    """

    before: tuple[tuple[Edge, ...], ...]
    after: tuple[tuple[Edge, ...], ...]
    ends: frozenset[Edge]

    @classmethod
    def of(cls, found: FoundModel) -> Surroundings:
        """Walk through a model once, in its order."""
        reached = _reached(found)
        before = []
        for layer in found.layers:
            found_edges = {
                (role, index) for role, value in enumerate(layer.sources) for index in reached.get(value, frozenset())
            }
            before.append(tuple(sorted(found_edges)))
        after: list[list[Edge]] = [[] for _ in found.layers]
        for reader, edges in enumerate(before):
            for role, index in edges:
                if index >= 0:
                    after[index].append((role, reader))
        ends = {
            (number, index)
            for number, value in enumerate(found.model.graph.outputs)
            for index in reached.get(value, frozenset())
        }
        return cls(tuple(before), tuple(map(tuple, after)), frozenset(ends))


def _reached(found: FoundModel) -> dict[ir.Value, frozenset[int]]:
    """Return for every value the layers and inputs that lie directly before it."""
    made: dict[ir.Value, int] = {layer.result: index for index, layer in enumerate(found.layers)}
    inside: dict[ir.Node, int] = {layer.node: index for index, layer in enumerate(found.layers)}
    reached = {value: frozenset({-1 - index}) for index, value in enumerate(found.model.graph.inputs)}
    for node in found.model.graph:
        if node.op_type in _TELL_SIZES:
            continue
        inputs = node.inputs[:1] if node.op_type in _TABLE_OF_OPERAND else node.inputs
        behind = frozenset().union(*(reached.get(value, frozenset()) for value in inputs if value is not None))
        for index, value in enumerate(node.outputs):
            if node in inside:
                reached[value] = frozenset({inside[node]})
            elif value in made:
                reached[value] = frozenset({made[value]})
            elif index == 0 or node.op_type != "DynamicQuantizeLinear":  # its scale is no activation
                reached[value] = behind
    return reached


def paint(
    layers: Sequence[FoundLayer],
    around: Surroundings,
    known: Mapping[int, str],
    *,
    rounds: int,
    shapes: bool,
) -> list[str]:
    """Give layers with equal surroundings, up to a distance, equal colours.

    Parameters
    ----------
    layers : sequence of FoundLayer
    around : Surroundings
    known : mapping of int to str
        Colours of layers that are paired already, by index; those of no other layer.
    rounds : int
        How many layers far to look.
    shapes : bool
        Layers with weights of different shapes are different.

    Notes
    -----
    The refinement of Weisfeiler and Leman ("A reduction of a graph to a canonical form", 1968), on a graph whose edges
    carry the role of an operand.
    """
    ends = {index: f"end {number}" for number, index in sorted(around.ends)}
    first = [f"{layer.kind} {_shapes(layer) if shapes else ''} {ends.get(i, '')}" for i, layer in enumerate(layers)]
    colours = [known.get(index, colour) for index, colour in enumerate(first)]
    for _ in range(rounds):
        names: dict[tuple[object, ...], str] = {}
        seen = [
            (
                colour,
                tuple(sorted((role, _colour(colours, index)) for role, index in around.before[place])),
                tuple(sorted((role, colours[index]) for role, index in around.after[place])),
            )
            for place, colour in enumerate(colours)
        ]
        for key in seen:
            names.setdefault(key, str(hash(key)))
        colours = [known.get(index, names[key]) for index, key in enumerate(seen)]
    return colours


def _colour(colours: Sequence[str], index: int) -> str:
    return colours[index] if index >= 0 else f"input {-1 - index}"


def _shapes(layer: FoundLayer) -> str:
    return str([(role, operand.shape) for role, operand in sorted(layer.operands.items())])
