"""The weights of two models side by side, as rows: how the second stores them, and how far its numbers are off."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptq_lab.errors import InferenceError
from ptq_lab.graph import Model, fold_batchnorm
from ptq_lab.graph.found_layers import FoundLayer, FoundModel
from ptq_lab.graph.matching import Matching, Pair
from ptq_lab.graph.operand import Operand
from ptq_lab.graph.points import has_norm
from ptq_lab.numerics.rescaling import Rescaling, find_rescaling
from ptq_lab.numerics.similarity import power_of
from ptq_lab.progress import Progress, Step, silent
from ptq_lab.report.rows import LayerRow
from ptq_lab.report.tables import Table
from ptq_lab.runtime import open_session, run_session

Floats = NDArray[np.float32]

UNMATCHED = "no layer of the second model was found for it"
UNREAD = "how the second model stores it was not understood"
OTHER_SHAPE = "the second model has a weight of another shape there"
FOLDED = "only one of the models has its BatchNormalization folded into it, and it cannot be folded for the other"
SAME = "the same numbers"
RESCALED = "its channels were rescaled before it was quantized; the error is that of the rescaled weight"


@dataclass(frozen=True, slots=True)
class WeightRows:
    """The weights of two models.

    Attributes
    ----------
    rows : Table of LayerRow
    other_inputs, other_outputs : frozenset of str
        Layers of the first model whose input or output channels are rescaled in the second, so that its activations
        there are in other units.
    """

    rows: Table[LayerRow]
    other_inputs: frozenset[str]
    other_outputs: frozenset[str]


def weight_rows(
    first: FoundModel, second: FoundModel, matching: Matching, *, progress: Progress = silent
) -> WeightRows:
    """Return one row per weight of the first model, in the order of the graph.

    Parameters
    ----------
    first, second : FoundModel
    matching : Matching
        Their layers.
    progress : Progress
        Told once per layer.

    Notes
    -----
    The error is that of the numbers with which the second model computes against those of the first. Where only one of
    the two has BatchNormalization folded into its weights, it is folded for the other as well, exactly; where channels
    were rescaled by smoothing or equalisation, the weight of the first model is rescaled as well.
    """
    partners = {pair.first: pair for pair in matching.pairs}
    weights = _Weights(first, second)
    rows: dict[str, LayerRow] = {}
    for index, layer in enumerate(first.layers):
        for role, operand in layer.operands.items():
            if operand.tensor not in rows:  # a weight that several layers share has one row
                pair = partners.get(layer)
                rows[operand.tensor] = _row(layer, operand, pair, role, weights)
        progress(Step("weights", index + 1, len(first.layers), layer.name))
    return WeightRows(Table(LayerRow, rows.values()), frozenset(weights.inputs), frozenset(weights.outputs))


def _row(layer: FoundLayer, before: Operand, pair: Pair | None, role: int, weights: _Weights) -> LayerRow:
    after = pair.second.operands.get(role) if pair is not None else None
    if pair is None or after is None:
        return _kept(layer, before, "-", 0, UNREAD if pair is not None else UNMATCHED)
    try:
        values = weights.of(pair, role)
    except InferenceError as fault:
        return _described(layer, before, after, None, f"{UNREAD} ({fault})")
    if values is None:
        return _described(layer, before, after, None, FOLDED)
    wanted, got = values
    if wanted is None or got is None:
        return _described(layer, before, after, None, UNREAD)
    if wanted.shape != got.shape:
        if wanted.size != got.size:
            return _described(layer, before, after, None, OTHER_SHAPE)
        got = got.reshape(wanted.shape)
    rescaling = _rescaling(layer, role, wanted, got)
    if rescaling is None:
        return _described(layer, before, after, _relative_error(wanted, got), "")
    weights.note(layer, rescaling)
    restored = _as_outputs(layer, role, rescaling(_as_outputs(layer, role, wanted)))
    return _described(layer, before, after, _relative_error(restored, got), RESCALED)


def _rescaling(layer: FoundLayer, role: int, wanted: Floats, got: Floats) -> Rescaling | None:
    if layer.kind not in ("Conv", "MatMul") or (layer.kind == "MatMul" and wanted.ndim != 2):
        return None
    groups = layer.node.attributes.get_int("group", 1)
    return find_rescaling(_as_outputs(layer, role, wanted), _as_outputs(layer, role, got), groups=groups)


def _as_outputs(layer: FoundLayer, role: int, weight: Floats) -> Floats:
    """Return a weight with its output channels in front; done twice, it is as before."""
    return weight.T if layer.kind == "MatMul" and role == 1 else weight


def _described(layer: FoundLayer, before: Operand, after: Operand, error: float | None, why: str) -> LayerRow:
    reason = why if after.bits is not None else _why_float(after, error, why)
    return LayerRow(
        node=layer.name,
        op_type=layer.op_type,
        tensor=before.tensor,
        shape=before.stored_shape or before.shape or (),
        bits=after.bits,
        granularity=after.granularity,
        storage=after.storage,
        bytes_before=before.bytes,
        bytes_after=after.bytes,
        relative_error=error,
        sqnr_db=None if error is None else (-20.0 * math.log10(error) if error else math.inf),
        reason=reason,
    )


def _why_float(after: Operand, error: float | None, why: str) -> str:
    if why:
        return f"stored as {after.storage}; {why}"
    return f"stored as {after.storage}, {SAME if error == 0.0 else 'other numbers'}"


def _kept(layer: FoundLayer, before: Operand, storage: str, size: int, reason: str) -> LayerRow:
    return LayerRow(
        node=layer.name,
        op_type=layer.op_type,
        tensor=before.tensor,
        shape=before.stored_shape or before.shape or (),
        bits=None,
        granularity="",
        storage=storage,
        bytes_before=before.bytes,
        bytes_after=size,
        reason=reason,
    )


def _relative_error(wanted: Floats, got: Floats) -> float:
    """Return ``||wanted - got|| / ||wanted||``; the norm of the error itself where the weight is zero."""
    signal, noise = power_of(wanted), power_of(got - wanted)
    return math.sqrt(noise / signal) if noise and signal else math.sqrt(noise)


@dataclass(slots=True)
class _Weights:
    """Numbers of both models, with BatchNormalization folded where only the other model has it folded."""

    first: FoundModel
    second: FoundModel
    inputs: set[str]
    outputs: set[str]
    _folded: dict[int, Mapping[str, FoundLayer]]

    def __init__(self, first: FoundModel, second: FoundModel) -> None:
        self.first, self.second = first, second
        self.inputs, self.outputs = set(), set()
        self._folded = {}

    def note(self, layer: FoundLayer, rescaling: Rescaling) -> None:
        """Remember whose activations are in other units."""
        if rescaling.changes_inputs:
            self.inputs.add(layer.name)
        if rescaling.changes_outputs:
            self.outputs.add(layer.name)

    def of(self, pair: Pair, role: int) -> tuple[Floats | None, Floats | None] | None:
        """Return both weights; ``None`` if folding would be needed and cannot be done."""
        layers = [pair.first, pair.second]
        norms = [has_norm(pair.first, self.first.constants), has_norm(pair.second, self.second.constants)]
        if norms[0] != norms[1]:
            side = norms.index(True)
            layer = self._fold(side).get(layers[side].name)
            if layer is None or role not in layer.operands:
                return None
            layers[side] = layer
        first, second = (layer.operands[role].values(_run) for layer in layers)
        return first, second

    def _fold(self, side: int) -> Mapping[str, FoundLayer]:
        """Return the layers of a model with everything folded that can be, those without a BatchNormalization left."""
        if side not in self._folded:
            found = FoundModel.read(fold_batchnorm((self.first, self.second)[side].model))
            layers = (layer for layer in found.layers if not has_norm(layer, found.constants))
            self._folded[side] = {layer.name: layer for layer in layers}
        return self._folded[side]


def _run(model: Model) -> Floats:
    """Run a model without inputs, node by node."""
    return np.asarray(next(iter(run_session(open_session(model, fuse=False), {}).values())), np.float32)
