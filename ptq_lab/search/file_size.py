"""How large the file of a plan will be, without rounding a weight or writing the file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from ptq_lab.graph import Model, apply_plan, raise_opset, required_opset
from ptq_lab.graph.model import constants
from ptq_lab.numerics import quantize_weight
from ptq_lab.plan import QuantPlan, TensorPlan

_SHAPE_CONSTANT = 64  # bytes of the constants that unpacking to one shape takes; weights of that shape share them


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSizes:
    """What a file holds besides codes, scales and offsets.

    Attributes
    ----------
    rest : mapping of int to int
        Bytes of everything but the weights, by the opset that storage needs.
    decoding : mapping of int to int
        Bytes of the nodes and names that decode one weight, by width; an average over the weights.
    """

    rest: Mapping[int, int]
    decoding: Mapping[int, int]


def measure_file_sizes(model: Model, plan: QuantPlan, widths: Sequence[int]) -> FileSizes:
    """Write the model without its weights, once per width.

    Parameters
    ----------
    model : Model
        The float model.
    plan : QuantPlan
        Its entries say which weights.
    widths : sequence of int
        That may be asked for.

    Raises
    ------
    ModelError
        If the opset has to be raised for one of the widths and cannot be.
    """
    opsets = sorted({required_opset(plan.with_bits(bits)) for bits in widths})
    raised = {opset: raise_opset(model, opset) for opset in opsets}
    bare = {opset: _without_weights(each, plan) for opset, each in raised.items()}
    shapes = _SHAPE_CONSTANT * len({entry.shape for entry in plan.entries})
    sizes = {opset: len(each.serialize()) for opset, each in bare.items()}
    tiny = replace(plan, entries=tuple(_tiny(entry) for entry in plan.entries))
    decoding = {}
    for bits in widths:
        entries = tuple(_filled(entry, bits) for entry in tiny.entries)
        written = len(apply_plan(bare[opsets[-1]], replace(tiny, entries=entries)).serialize())
        added = written - sizes[opsets[-1]] - sum(entry.bytes_after for entry in entries)
        decoding[bits] = math.ceil(added / max(1, len(entries)))
    rest = {opset: size + shapes for opset, size in sizes.items()}
    return FileSizes(rest=rest, decoding=decoding)


def _without_weights(model: Model, plan: QuantPlan) -> Model:
    """Return a copy with one number in the place of each weight; it is written, never run."""
    copy = model.clone()
    holders = constants(copy.graph)
    for entry in plan.entries:
        holder = holders[entry.tensor]
        number = ir.tensor(np.ones((1,) * len(entry.shape), np.float32), name=entry.tensor)
        producer = holder.producer()
        if producer is None:
            holder.const_value = number
        else:
            producer.attributes["value"] = ir.AttrTensor("value", number)
    return copy


def _tiny(entry: TensorPlan) -> TensorPlan:
    return replace(entry, shape=(1,) * len(entry.shape))


def _filled(entry: TensorPlan, bits: int) -> TensorPlan:
    weight = quantize_weight(np.ones(entry.shape, np.float32), bits=bits, axis=entry.axis, correct=entry.correct)
    # An offset that is zero would not be stored; those of real weights are not.
    return replace(entry, bits=bits, weight=replace(weight, offset=np.ones_like(weight.offset)))
