"""A model whose weights are handed in when it is loaded, or when it runs, instead of standing in the file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

import onnx_ir as ir

from ptq_lab.graph.model import Model, constant, constants, shape_of

NOWHERE = "handed-in"  # the file that the weights claim to be in; nobody opens it
_PRODUCTS = ("MatMul", "Gemm")


@dataclass(frozen=True, slots=True)
class Switch:
    """Two inputs: whether another weight is given, and that weight."""

    given: str
    weight: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """A model that lacks some of its weights.

    Attributes
    ----------
    source : bytes
        The model, as a file.
    loaded : frozenset of str
        Weights that are handed in when the model is loaded.
    fed : frozenset of str
        Weights that are inputs, given at every run.
    switches : mapping of str to Switch
        Weights that are handed in when the model is loaded, and that an input can overrule in a run.
    """

    source: bytes
    loaded: frozenset[str] = frozenset()
    fed: frozenset[str] = frozenset()
    switches: Mapping[str, Switch] = field(default_factory=dict)


def open_slots(model: Model, tensors: Sequence[str], *, as_inputs: bool) -> Slots:
    """Return a model that lacks some of its weights.

    Parameters
    ----------
    model : Model
        Not changed.
    tensors : sequence of str
        Names of constants of the main graph.
    as_inputs : bool
        They can be given at every run; otherwise only when the model is loaded.

    Notes
    -----
    What is handed in when loading are initializers that claim to be in another file, which onnxruntime takes from its
    caller. A product whose weight is an input packs it anew in every run, which takes as long as the product itself
    when there are few rows; so a product stands in an ``If`` twice, with the weight packed once and with the input.
    """
    copy = model.clone()
    graph, holders = copy.graph, constants(copy.graph)
    switched = {name for name in tensors if as_inputs and _can_switch(graph, holders[name])}
    fed = frozenset(tensors) - switched if as_inputs else frozenset()
    names = _free_names(graph)
    switches = {}
    for name in tensors:
        slot = _open(graph, holders[name], name, fed=name in fed)
        if name in switched:
            switches[name] = _switch(graph, slot, names)
    return Slots(source=model_bytes(copy), loaded=frozenset(tensors) - fed, fed=fed, switches=switches)


def model_bytes(model: Model) -> bytes:
    """Return a model as a file whose empty slots stay empty."""
    return bytes(ir.to_proto(model.ir_model).SerializeToString(deterministic=True))


def empty_tensor(name: str, dtype: ir.DataType, shape: Sequence[int]) -> ir.ExternalTensor:
    """Return a tensor that claims to be in another file."""
    size = math.prod(shape) * dtype.itemsize
    return ir.ExternalTensor(NOWHERE, 0, int(size), dtype, shape=ir.Shape(shape), name=name, base_dir="")


def empty_slot(graph: ir.Graph, holder: ir.Value, name: str) -> ir.Value:
    """Let an initializer that claims to be in another file take a constant's place, name, and position."""
    tensor = constant(holder)
    assert tensor is not None  # constants() returns nothing else
    empty = empty_tensor(name, tensor.dtype, shape_of(tensor))
    if holder.producer() is None:
        holder.const_value = empty
        return holder
    slot = _replaced(graph, holder, name)
    slot.const_value = empty
    graph.register_initializer(slot)
    return slot


def _open(graph: ir.Graph, holder: ir.Value, name: str, *, fed: bool) -> ir.Value:
    """Put an empty slot in the place of a constant."""
    if not fed:
        return empty_slot(graph, holder, name)
    slot = _replaced(graph, holder, name)
    graph.inputs.append(slot)
    return slot


def _replaced(graph: ir.Graph, holder: ir.Value, name: str) -> ir.Value:
    """Put a value without a source in the place of a constant."""
    tensor = constant(holder)
    assert tensor is not None  # constants() returns nothing else
    slot = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(shape_of(tensor)))
    producer = holder.producer()
    holder.replace_all_uses_with(slot, replace_graph_outputs=True)
    if producer is None:
        del graph.initializers[name]
    else:
        graph.remove(producer, safe=True)
    return slot


def _can_switch(graph: ir.Graph, weight: ir.Value) -> bool:
    """Tell whether all that a weight does is to be the right side of products in the main graph."""
    uses = weight.uses()
    products = (use.idx == 1 and use.node.op_type in _PRODUCTS and not use.node.domain for use in uses)
    inside = (use.node.graph is graph for use in uses)
    return bool(uses) and not weight.is_graph_output() and all(products) and all(inside)


def _switch(graph: ir.Graph, weight: ir.Value, names: Iterator[str]) -> Switch:
    """Let two more inputs of the model overrule a weight in every product it is part of."""
    given = ir.Value(name=next(names), type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape(()))
    other = ir.Value(name=next(names), type=weight.type, shape=weight.shape)
    graph.inputs.extend((given, other))
    for product in [use.node for use in weight.uses()]:
        branches = {"then_branch": _branch(product, other, names), "else_branch": _branch(product, weight, names)}
        chosen = ir.node("If", [given], branches, name=product.name)
        output, result = product.outputs[0], chosen.outputs[0]
        result.type, result.shape = output.type, output.shape
        graph.insert_before(product, chosen)
        output.replace_all_uses_with(result, replace_graph_outputs=True)
        result.name, output.name = output.name, None
        graph.remove(product, safe=True)
    return Switch(str(given.name), str(other.name))


def _branch(product: ir.Node, weight: ir.Value, names: Iterator[str]) -> ir.Graph:
    """Return a graph of one product."""
    inputs = [product.inputs[0], weight, *product.inputs[2:]]
    copy = ir.Node("", product.op_type, inputs, list(product.attributes.values()), name=next(names))
    result = copy.outputs[0]
    result.name, result.type = next(names), weight.type
    return ir.Graph([], [result], nodes=[copy], name=next(names))


def _free_names(graph: ir.Graph) -> Iterator[str]:
    """Return names, without end, that nothing in a graph has."""
    taken = {value.name for node in graph.all_nodes() for value in (*node.inputs, *node.outputs) if value}
    taken |= {value.name for value in (*graph.inputs, *graph.initializers.values())}
    return (name for name in (f"slot{index}" for index in count()) if name not in taken)
