"""Weight scales chosen by what they do to a layer's output, not by the largest weight.

Each output channel of a weight has one free number, its scale. A little larger or smaller, and all its weights round
differently; among some sixty scales there is one whose roundings happen to cancel on what the layer really reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ptq_lab.graph import Model, Placement
from ptq_lab.graph.placement import Layer
from ptq_lab.graph.qdq import safe_weight_scale
from ptq_lab.graph.segment import cut_segment
from ptq_lab.graph.window import window_of
from ptq_lab.numerics import QuantizedWeight, dequantize_weight, quantize_symmetric
from ptq_lab.numerics.windows import window_rows
from ptq_lab.plan import QuantPlan, TensorPlan
from ptq_lab.progress import Progress, Step, silent
from ptq_lab.runtime import Feeds, open_session, run_session

FACTORS = np.linspace(0.95, 1.25, 61)  # of the scale that just reaches the largest weight
POSITIONS = 64  # of a convolution, per sample
LARGEST = 2304  # inputs of one output; what more of them get wrong averages out by itself
_LAYERS = ("Conv", "Gemm", "MatMul")

Covariances = Mapping[str, NDArray[np.float32]]


def measure_covariances(
    model: Model, placement: Placement, samples: Sequence[Feeds], *, progress: Progress = silent
) -> dict[str, NDArray[np.float32]]:
    """Return by layer node how the numbers that one output is made of vary together, in the float model.

    Parameters
    ----------
    model : Model
        Float, BatchNormalization folded.
    placement : Placement
    samples : sequence of {input name: array}
        Model inputs.

    Returns
    -------
    dict of str to ndarray, shape (groups, K, K)
        With K inputs of one output. Layers with more than `LARGEST`, or other than Conv, Gemm and MatMul, are left out.

    Raises
    ------
    InferenceError
        If onnxruntime fails.
    """
    nodes = {node.name or "": node for node in model.graph}
    layers = [layer for layer in placement.layers if layer.op_type in _LAYERS and _inputs(layer) <= LARGEST]
    inner = sorted({layer.source for layer in layers} - {spec.name for spec in model.inputs})
    session = open_session(cut_segment(model, [], inner)) if inner else None
    reads = [value.name for value in session.get_inputs()] if session else []
    sums: dict[str, _Sums] = {}
    for index, feeds in enumerate(samples):
        seen = {**feeds, **(run_session(session, {name: feeds[name] for name in reads}) if session else {})}
        for key, layer in {_key(layer): layer for layer in layers}.items():
            sums.setdefault(key, _Sums()).add(_rows(layer, nodes[layer.node], seen[layer.source]))
        progress(Step("measure weights' inputs", index + 1, len(samples), f"sample {index + 1}"))
    found = {key: each.covariance for key, each in sums.items()}
    return {layer.node: found[_key(layer)] for layer in layers}


def search_weight_scales(plan: QuantPlan, model: Model, covariances: Covariances) -> QuantPlan:
    """Return the plan with weights rounded on the scales that change the outputs of their layers least.

    Parameters
    ----------
    plan : QuantPlan
        An integer plan with codes.
    model : Model
        The float model, BatchNormalization folded.
    covariances : mapping
        From :func:`measure_covariances`; layers that are not in it, and asymmetric weights, keep their codes.

    Notes
    -----
    With d the rounding error of the weights behind one output and C the covariance of what they are multiplied with,
    the output's error has the variance ``d C d``; its mean is the business of bias correction. Of all `FACTORS` times
    the usual scale the one with the smallest variance is taken, per output channel or per tensor. The usual scale
    is among them, so no layer gets worse on what was measured.
    """
    assert plan.placement is not None  # an integer plan has one
    grids = {activation.tensor: activation.scale for activation in plan.activations}
    entries = []
    for entry, layer in zip(plan.entries, plan.placement.layers, strict=True):
        if layer.node in covariances and entry.symmetric:
            bias = plan.biases.get(layer.node)
            values = model.weight(layer.weight)
            entry = replace(entry, weight=_best(entry, layer, values, covariances[layer.node], bias, grids))
        entries.append(entry)
    return replace(plan, entries=tuple(entries))


@dataclass(slots=True)
class _Sums:
    """Running first and second moments of rows."""

    products: NDArray[np.float32] | float = 0.0
    rows: NDArray[np.float64] | float = 0.0
    count: int = 0

    def add(self, rows: NDArray[np.float32]) -> None:
        self.products = self.products + rows.transpose(0, 2, 1) @ rows
        self.rows = self.rows + rows.sum(axis=1, dtype=np.float64)
        self.count += rows.shape[1]

    @property
    def covariance(self) -> NDArray[np.float32]:
        mean = np.asarray(self.rows) / self.count
        squares = mean[:, :, None] * mean[:, None, :]
        return np.asarray(np.asarray(self.products) / self.count - squares, np.float32)


def _inputs(layer: Layer) -> int:
    """Return how many numbers one output is made of."""
    return int(np.prod(layer.shape)) // layer.shape[layer.axis]


def _key(layer: Layer) -> str:
    return layer.node if layer.op_type == "Conv" else f"{layer.source} as rows"


def _rows(layer: Layer, node: ir.Node, values: NDArray[np.float32]) -> NDArray[np.float32]:
    if layer.op_type == "Conv":
        return window_rows(values, window_of(node, layer.shape, values.shape[2:]), POSITIONS)
    return values.reshape(1, -1, values.shape[-1])


def _best(
    entry: TensorPlan,
    layer: Layer,
    values: NDArray[np.float32],
    covariance: NDArray[np.float32],
    bias: NDArray[np.float32] | None,
    grids: Mapping[str, float],
) -> QuantizedWeight:
    """Return the codes of one weight with the scales that serve its outputs best."""
    usual = quantize_symmetric(values, axis=entry.axis)
    smallest = safe_weight_scale(np.zeros_like(usual.scale), bias, grids[layer.source])
    least = np.full(usual.scale.shape, np.inf)
    chosen = np.ones(usual.scale.shape, np.float32)
    for factor in FACTORS[np.argsort(np.abs(FACTORS - 1.0), kind="stable")]:  # the usual one wins where all are equal
        factors = np.full(usual.scale.shape, factor, np.float32)
        weight = quantize_symmetric(values, axis=entry.axis, smallest=smallest, factor=factors)
        errors = _variances(dequantize_weight(weight) - values, layer.axis, covariance)
        errors = errors if usual.scale.ndim else errors.sum()
        better = errors < least
        chosen, least = np.where(better, factors, chosen), np.where(better, errors, least)
    return quantize_symmetric(values, axis=entry.axis, smallest=smallest, factor=chosen)


def _variances(error: NDArray[np.float32], axis: int, covariance: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the variance that errors of a weight bring to each output channel."""
    groups, size, _ = covariance.shape
    rows = np.moveaxis(error, axis, 0).reshape(groups, -1, size)
    return np.asarray(((rows @ covariance).astype(np.float64) * rows).sum(axis=2).reshape(-1))
