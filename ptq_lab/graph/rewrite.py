"""A plan and a model in, a quantized model out: floats replaced by codes and their decoding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from ptq_lab.errors import PlanError
from ptq_lab.graph.biases import set_bias
from ptq_lab.graph.decode import GraphWriter, StoredWeight
from ptq_lab.graph.lookups import row_lookups
from ptq_lab.graph.model import Model, constant, constants
from ptq_lab.graph.on_the_fly import DECODING, DOMAIN, PRODUCT, RELEASES, decode_every_run, write_products
from ptq_lab.graph.opset import onnxruntime_for, raise_opset

if TYPE_CHECKING:  # the plan is built from this room's targets, so it lies above
    from ptq_lab.plan import QuantPlan, TensorPlan

_NATIVE_OPSET = 7  # Cast from int8 and int16, Mul and Add that broadcast
_LANES_OPSET = 18  # BitwiseAnd, BitwiseOr
_DECODING_OPSET = 13  # DequantizeLinear with a scale for each channel
_INT4_OPSET = 21  # Cast from int4
_INT2_OPSET = 25  # DequantizeLinear from int2
_OPSETS = {"int4": _INT4_OPSET, "int2": _INT2_OPSET}
_INT4_ONNXRUNTIME = "1.23"  # first release with a kernel for it (tried: 1.18, 1.20 and 1.22 have none)


def required_opset(plan: QuantPlan) -> int:
    """Return the lowest opset whose operators can decode what the plan stores."""
    return max((_opset_of(entry) for entry in plan.entries), default=1)


def required_onnxruntime(plan: QuantPlan, opset: int) -> str:
    """Return the oldest onnxruntime release that runs what the plan stores in a model of this opset."""
    releases = [onnxruntime_for(opset)]
    if any(entry.storage == "int4" for entry in plan.entries):
        releases.append(_INT4_ONNXRUNTIME)
    releases += [RELEASES[entry.bits] for entry in plan.entries if entry.decoder == PRODUCT]
    return max(releases, key=lambda release: tuple(map(int, release.split("."))))


def apply_plan(model: Model, plan: QuantPlan) -> Model:
    """Write a plan into a model.

    Parameters
    ----------
    model : Model
        Not changed.
    plan : QuantPlan
        Every entry with its codes (after :func:`~ptq_lab.plan.round_weights`).

    Returns
    -------
    Model
        At the model's opset, or the one the storage needs. Node and tensor names stay; each decoded weight
        carries the name of the float weight it replaces.

    Raises
    ------
    PlanError
        If an entry has no codes or names a tensor that the model does not have.
    ModelError
        If the opset has to be raised and cannot be.
    """
    raised = raise_opset(model, required_opset(plan))
    quantized = raised if raised is not model else model.clone()
    graph = quantized.graph
    _set_biases(graph, plan)
    writer = GraphWriter(graph)
    holders = constants(graph)
    for entry in plan.entries:
        holder = holders.get(entry.tensor)
        if holder is None:
            raise PlanError(f"the model has no weight named {entry.tensor}", tensor=entry.tensor)
        if entry.weight is None:
            raise PlanError(f"{entry.tensor}: has no codes yet; run round_weights first", tensor=entry.tensor)
        _replace(graph, writer, holder, entry)
    if any(entry.decoder == PRODUCT for entry in plan.entries):
        quantized.ir_model.opset_imports.setdefault(DOMAIN, 1)
    return quantized


def _set_biases(graph: ir.Graph, plan: QuantPlan) -> None:
    """Write the biases that were found for layers; weights must still be what they were."""
    nodes = {node.name: node for node in graph}
    for name, bias in plan.biases.items():
        if name not in nodes:
            raise PlanError(f"the model has no node named {name}, for which the plan has a bias")
        set_bias(graph, nodes[name], bias)


def _opset_of(entry: TensorPlan) -> int:
    if entry.storage in _OPSETS:
        return _OPSETS[entry.storage]
    if entry.decoder == DECODING:
        return _DECODING_OPSET
    return _LANES_OPSET if entry.storage.startswith("uint8") else _NATIVE_OPSET


def _replace(graph: ir.Graph, writer: GraphWriter, holder: ir.Value, entry: TensorPlan) -> None:
    assert entry.weight is not None  # checked by the caller
    original = constant(holder)
    assert original is not None  # constants() returns nothing else
    name, producer = holder.name or "", holder.producer()
    lookups = row_lookups(graph, holder) if entry.by_row else []
    if producer is None:
        del graph.initializers[name]
    if entry.decoder == PRODUCT:
        for node, product in write_products(writer, holder, entry.weight, int8=entry.int8_activations):
            take_place(graph, node, product)
    elif entry.decoder == DECODING:
        writer.before = _first(graph)
        _put_instead(holder, decode_every_run(writer, name, entry.weight))
    else:
        stored = StoredWeight(writer, name, entry.weight, by_row=entry.by_row)
        for node in lookups:
            replace_lookup(graph, writer, node, stored, original.dtype)
        if holder.uses():
            replace_whole(graph, writer, holder, stored, original.dtype)
    if producer is not None:
        graph.remove(producer, safe=True)


def replace_lookup(
    graph: ir.Graph, writer: GraphWriter, node: ir.Node, stored: StoredWeight, dtype: ir.DataType
) -> None:
    """Let a node look up codes, and decode only the rows it finds."""
    writer.before = node
    take_place(graph, node, _as_type(writer, stored.decode_rows(node), dtype))


def replace_whole(
    graph: ir.Graph, writer: GraphWriter, holder: ir.Value, stored: StoredWeight, dtype: ir.DataType
) -> None:
    """Give all who read a weight, subgraphs too, the whole of it decoded, under its name."""
    writer.before = _first(graph)
    _put_instead(holder, _as_type(writer, stored.decode(), dtype))


def _put_instead(holder: ir.Value, decoded: ir.Value) -> None:
    """Give all who read a weight a computed value, under its name."""
    name = holder.name
    holder.const_value = None  # the caller's model shares it, and it would lose its name as well
    holder.name, decoded.name = None, name
    holder.replace_all_uses_with(decoded)


def take_place(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """Put a value in the place of a node's output; the value's own node takes over both names."""
    output, producer = node.outputs[0], value.producer()
    assert producer is not None  # what replaces a node is computed
    value.shape, value.type = output.shape, output.type
    name, output.name = output.name, None
    output.replace_all_uses_with(value, replace_graph_outputs=True)
    value.name = name
    graph.remove(node, safe=True)
    producer.name = node.name


def _as_type(writer: GraphWriter, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    return value if dtype == ir.DataType.FLOAT else writer.node("Cast", [value], {"to": dtype})


def _first(graph: ir.Graph) -> ir.Node | None:
    return next(iter(graph), None)
