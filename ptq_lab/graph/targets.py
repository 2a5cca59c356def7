"""Which weights can be quantized, and for each of the others the reason why not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ptq_lab.errors import Problem
from ptq_lab.graph.lookups import LOOKUPS, looks_up_rows
from ptq_lab.graph.model import Model, constant, float32, is_float, shape_of
from ptq_lab.graph.operators import OPERATORS, Operator
from ptq_lab.graph.skip import match_nodes

_WORTH_NAMING = 1024  # elements from which a constant of an unknown operator is listed
_FOLDING_LIMIT = 1 << 28  # float32 elements; onnxruntime folds no constant larger than 1 GiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the configuration says about the choice of weights.

    Attributes
    ----------
    min_size : int
        Only weights with more elements than this (``min_quant_weight_size``).
    min_channels : int
        Only weights with more channels than this (``min_quant_weight_channel``).
    skip : tuple of str
        Patterns of nodes to leave alone (``skip_quant_node``).
    """

    min_size: int = 0
    min_channels: int = 16
    skip: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A weight that will be quantized.

    Attributes
    ----------
    tensor : str
        Name of the weight.
    nodes : tuple of str
        The nodes of known operators that use it, in the order of the graph.
    op_type : str
        Operator of the first of them.
    shape : tuple of int
    axis : int
        Axis of the output channels.
    bytes : int
        As stored in the original.
    by_row : bool
        Whether it is a table whose rows are looked up, so that only the rows used need decoding.
    """

    tensor: str
    nodes: tuple[str, ...]
    op_type: str
    shape: tuple[int, ...]
    axis: int
    bytes: int
    by_row: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """A weight that stays float.

    Attributes
    ----------
    node, op_type, tensor, shape, bytes
        As in :class:`Target`; the first node only.
    reason : str
        Why, with the numbers that decided.
    setting : str
        The setting that did it, in a few words, or empty if nothing the user wrote did.
    """

    node: str
    op_type: str
    tensor: str
    shape: tuple[int, ...]
    bytes: int
    reason: str
    setting: str = ""


@dataclass(frozen=True, slots=True)
class Targets:
    """Everything found: what will be quantized, what will not, and patterns that matched nothing."""

    targets: tuple[Target, ...]
    skips: tuple[Skip, ...]
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class _Use:
    """One node using one constant as its weight."""

    node: ir.Node
    axis: int


def find_targets(model: Model, rules: Rules) -> Targets:
    """Find the weights that the rules allow to quantize.

    Returns
    -------
    Targets
        In the order of the graph; a weight shared by several nodes appears once.
    """
    matches = match_nodes(rules.skip, ((node.name or "", node.op_type) for node in model.graph))
    uses, skips = _collect(model.graph)
    targets: list[Target] = []
    for value, users in uses.items():
        found = _decide(value, users, rules, matches.nodes)
        if isinstance(found, Target):
            targets.append(found)
        else:
            skips.append(found)
    order = {node.name: index for index, node in enumerate(model.graph)}
    skips.sort(key=lambda skip: (order.get(skip.node, len(order)), skip.tensor))
    return Targets(tuple(targets), tuple(skips), matches.unmatched)


def weight_of(value: ir.Value) -> tuple[ir.Value, tuple[int, ...] | None]:
    """Return the value that holds the constant behind a weight input, and the Transpose in between, if any."""
    node = value.producer()
    if node is not None and node.op_type == "Identity" and constant(value) is not None:
        source = node.inputs[0]
        assert source is not None  # an Identity always has its input
        return weight_of(source)
    if node is not None and node.op_type == "Transpose" and node.inputs[0] is not None:
        source, before = weight_of(node.inputs[0])
        tensor = constant(source)
        if tensor is not None and before is None:
            rank = len(shape_of(tensor))
            return source, tuple(node.attributes.get_ints("perm", tuple(reversed(range(rank)))))
    return value, None


def _collect(graph: ir.Graph) -> tuple[dict[ir.Value, list[_Use]], list[Skip]]:
    uses: dict[ir.Value, list[_Use]] = {}
    skips: list[Skip] = []
    listed: set[ir.Value] = set()
    for node in graph:
        operator = _operator(node)
        if operator is None:
            skips.extend(_unknown(node, listed))
            continue
        for index in operator.weights:
            value = node.inputs[index] if index < len(node.inputs) else None
            if value is None:
                continue
            holder, order = weight_of(value)
            tensor = constant(holder)
            if tensor is None:
                if operator.always:
                    skips.append(_skip(node, value.name, (), 0, _why_not_constant(value)))
            elif is_float(tensor) or tensor.dtype == ir.DataType.DOUBLE:
                shape = shape_of(tensor)
                seen = tuple(shape[axis] for axis in order) if order else shape
                axis = operator.axis(node, index, seen) if len(shape) > 1 else 0
                uses.setdefault(holder, []).append(_Use(node, order[axis] if order else axis))
    return uses, skips


def _decide(value: ir.Value, users: list[_Use], rules: Rules, skipped: dict[str, str]) -> Target | Skip:
    tensor = constant(value)
    assert tensor is not None  # _collect keeps constants only
    shape, node, axis = shape_of(tensor), users[0].node, users[0].axis
    lookups = [use for use in users if use.node.op_type in LOOKUPS]
    by_row = bool(lookups) and all(looks_up_rows(use.node) for use in lookups)
    rows_only = by_row and len(lookups) == len(users)
    refusal = _asked_to_skip(users, skipped) or _unfit(value, tensor, rows_only) or _below_limit(shape, axis, rules)
    if refusal is not None:
        return _skip(node, value.name, shape, tensor.nbytes, *refusal)
    return Target(
        tensor=value.name or "",
        nodes=tuple(dict.fromkeys(use.node.name or "" for use in users)),
        op_type=node.op_type,
        shape=shape,
        axis=axis,
        bytes=tensor.nbytes,
        by_row=by_row,
    )


_Refusal = tuple[str, str]  # the reason, and the setting that did it if one did


def _asked_to_skip(users: list[_Use], skipped: dict[str, str]) -> _Refusal | None:
    for use in users:
        if use.node.name in skipped:
            setting = f"skip_quant_node={skipped[use.node.name]}"
            also = "" if use is users[0] else f" for {use.node.name}, which shares it"
            return setting + also, setting
    return None


def _unfit(value: ir.Value, tensor: ir.TensorProtocol, rows_only: bool) -> _Refusal | None:
    shape = shape_of(tensor)
    if tensor.dtype == ir.DataType.DOUBLE:
        return "float64 weights are not quantized", ""
    if len(shape) < 2:
        return f"a weight needs two axes or more, this one has {len(shape)}", ""
    if value.is_graph_output():
        return "it is an output of the model as well", ""
    if 0 in shape:
        return "it is empty", ""
    if any(use.node.op_type == "Slice" for use in value.uses()) and not np.isfinite(float32(tensor)).all():
        return "it holds infinite values, as masks do", ""
    if math.prod(shape) > _FOLDING_LIMIT and not rows_only:
        return "larger than 1 GiB, which onnxruntime does not fold: it would be decoded on every run", ""
    return None


def _below_limit(shape: tuple[int, ...], axis: int, rules: Rules) -> _Refusal | None:
    if math.prod(shape) <= rules.min_size:
        limit = f"min_quant_weight_size={rules.min_size}"
        return f"{math.prod(shape)} elements are not more than {limit}", limit
    if shape[axis] <= rules.min_channels:
        limit = f"min_quant_weight_channel={rules.min_channels}"
        return f"{shape[axis]} channels are not more than {limit}", limit
    return None


def _why_not_constant(value: ir.Value) -> str:
    producer = value.producer()
    if value.is_graph_input():
        return "it is an input of the model"
    if producer is not None and producer.op_type == "DequantizeLinear":
        return "it is quantized already"
    return f"it is computed by {producer.op_type} at run time" if producer is not None else "it is not a constant"


def _unknown(node: ir.Node, listed: set[ir.Value]) -> Iterator[Skip]:
    """List the large constants of an operator that has no row in the table, and what lies in subgraphs."""
    for value in node.inputs:
        tensor = constant(value)
        if value is None or tensor is None or value in listed or _serves_known(value, node.graph):
            continue
        if _is_large(tensor):
            listed.add(value)
            reason = f"{node.op_type} is not an operator whose weights are known"
            yield _skip(node, value.name, shape_of(tensor), tensor.nbytes, reason)
    for attribute in node.attributes.values():
        if isinstance(attribute, ir.Attr) and attribute.type == ir.AttributeType.GRAPH:
            for inner in attribute.as_graph():
                yield from _inside(inner, node, listed)


def _inside(inner: ir.Node, outer: ir.Node, listed: set[ir.Value]) -> Iterator[Skip]:
    operator = _operator(inner)
    for index in operator.weights if operator else ():
        value = inner.inputs[index] if index < len(inner.inputs) else None
        tensor = constant(value)
        if value is None or tensor is None or value in listed or _serves_known(value, outer.graph):
            continue
        if is_float(tensor) and len(shape_of(tensor)) > 1:
            listed.add(value)
            reason = f"it is used inside the subgraph of {outer.name} ({outer.op_type})"
            yield Skip(
                node=inner.name or outer.name or "",
                op_type=inner.op_type,
                tensor=value.name or "",
                shape=shape_of(tensor),
                bytes=tensor.nbytes,
                reason=reason,
            )


def _is_large(tensor: ir.TensorProtocol) -> bool:
    return is_float(tensor) and len(shape_of(tensor)) > 1 and tensor.size >= _WORTH_NAMING


def _serves_known(value: ir.Value, graph: ir.Graph | ir.Function | None) -> bool:
    """Tell whether an operator of the table uses a value in this graph, so that it is decided on there."""
    return any(
        use.node.graph is graph and (_operator(use.node) is not None or use.node.op_type in ("Transpose", "Identity"))
        for use in value.uses()
    )


def _operator(node: ir.Node) -> Operator | None:
    if node.domain not in ("", "ai.onnx") or (node.op_type == "Slice" and not looks_up_rows(node)):
        return None
    return OPERATORS.get(node.op_type)


def _skip(node: ir.Node, tensor: str | None, shape: tuple[int, ...], size: int, reason: str, setting: str = "") -> Skip:
    return Skip(
        node=node.name or "",
        op_type=node.op_type,
        tensor=tensor or "",
        shape=shape,
        bytes=size,
        reason=reason,
        setting=setting,
    )
