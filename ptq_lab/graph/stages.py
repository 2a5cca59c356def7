"""A graph cut into stages, so that it can be run piece by piece, every node once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from ptq_lab.graph.model import Model

_AGAIN = "DequantizeLinear"  # runs again where it is needed: its codes are four times smaller than its output


@dataclass(frozen=True, slots=True)
class Stage:
    """One piece.

    Attributes
    ----------
    target : str
        The tensor for which the piece is run.
    reads : tuple of str
        Tensors of earlier pieces that it starts from (besides inputs of the model).
    makes : tuple of str
        What it has to give: tensors that later pieces read, and the target, unless an earlier piece made it.
    drops : tuple of str
        Tensors that no later piece reads.
    """

    target: str
    reads: tuple[str, ...]
    makes: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()


def plan_stages(model: Model, targets: Sequence[str]) -> tuple[Stage, ...]:
    """Cut a graph into one piece per target.

    Parameters
    ----------
    model : Model
    targets : sequence of str
        Distinct tensors, in an order in which none is needed to compute an earlier one.

    Examples
    --------
    >>> from onnx import helper
    >>> x, y = (helper.make_tensor_value_info(name, 1, ["n"]) for name in "xy")
    >>> nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Exp", ["a"], ["b"])]
    >>> nodes += [helper.make_node("Add", ["a", "b"], ["y"])]
    >>> from ptq_lab.graph import load_model
    >>> first, second = plan_stages(load_model(helper.make_model(helper.make_graph(nodes, "g", [x], [y]))), ["b", "y"])
    >>> sorted(first.makes), sorted(second.reads), second.makes
    (['a', 'b'], ['a', 'b'], ('y',))
    """
    makers = {value.name or "": node for node in model.graph for value in node.outputs}
    made: dict[str, int] = {}  # tensor of a finished piece -> the piece
    stages = []
    for index, target in enumerate(targets):
        nodes, reads = _piece(target, makers, made)
        made.update({value.name or "": index for node in nodes if node.op_type != _AGAIN for value in node.outputs})
        stages.append(Stage(target, tuple(sorted(reads))))
    kept = {name for stage in stages for name in (*stage.reads, stage.target)}
    last = {name: index for index, stage in enumerate(stages) for name in (*stage.reads, stage.target)}
    return tuple(
        replace(
            stage,
            makes=tuple(sorted(name for name in kept if made.get(name) == index)),
            drops=tuple(sorted(name for name, when in last.items() if when == index)),
        )
        for index, stage in enumerate(stages)
    )


def _piece(target: str, makers: dict[str, ir.Node], made: dict[str, int]) -> tuple[set[ir.Node], set[str]]:
    """Return the nodes between finished pieces and a target, and the finished tensors they read."""
    nodes: set[ir.Node] = set()
    reads: set[str] = set()
    waiting = [target]
    while waiting:
        name = waiting.pop()
        if name in made:
            reads.add(name)
        elif name in makers and makers[name] not in nodes:
            nodes.add(makers[name])
            waiting.extend(_inputs(makers[name]))
    return nodes, reads


def _inputs(node: ir.Node) -> Iterator[str]:
    """Names of what a node reads, in its subgraphs too."""
    for value in node.inputs:
        if value is not None:
            yield value.name or ""
    for attribute in node.attributes.values():
        graphs = [attribute.as_graph()] if attribute.type == ir.AttributeType.GRAPH else ()
        for graph in graphs:
            for inner in graph:
                yield from _inputs(inner)
