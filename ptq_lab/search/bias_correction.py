"""Sequential bias correction: every layer gets back the mean that quantization took from its output.

The mean of a layer's output in the float model is compared with its mean in the quantized model, whose earlier
layers are corrected already, and the difference goes into the bias. No output has to be computed for that: the
mean of a linear layer follows from the mean of what its kernel sees (`numerics.windows`). The quantized model
is run once, in pieces: each piece starts from codes that are known and ends where the next layer reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ptq_lab.graph import Model
from ptq_lab.graph.placement import Layer
from ptq_lab.graph.qdq import Grid, bias_codes, bias_name, codes_name, insert_qdq
from ptq_lab.graph.segment import cut_segment, segment_sources
from ptq_lab.graph.window import window_of
from ptq_lab.int8 import grids_of, weights_of
from ptq_lab.numerics import QuantizedWeight, dequantize_weight
from ptq_lab.numerics.windows import Window, output_means, window_sums
from ptq_lab.plan import QuantPlan
from ptq_lab.progress import Progress, Step, silent
from ptq_lab.runtime import Feeds, open_session, run_session

Bias = NDArray[np.float32]
CORRECTABLE = ("Conv", "Gemm")  # a MatMul has no bias of its own


def correct_biases(
    plan: QuantPlan, model: Model, samples: Sequence[Feeds], *, progress: Progress = silent
) -> QuantPlan:
    """Return the plan with biases that give every integer layer back the mean of its output.

    Parameters
    ----------
    plan : QuantPlan
        An integer plan with codes; layers without a bias start from zero.
    model : Model
        The float model, BatchNormalization folded.
    samples : sequence of {input name: array}
        Model inputs; 32 are enough for a mean.

    Notes
    -----
    Source: Nagel et al. 2019, *Data-Free Quantization Through Weight Equalization and Bias Correction*, section 4.2,
    with measured instead of derived means. MindSpore Lite corrects each layer by itself, on float inputs.
    """
    assert plan.placement is not None  # an integer plan has one
    layers = [layer for layer in plan.placement.layers if layer.op_type in CORRECTABLE]
    if not layers:
        return plan
    zeros = {layer.node: np.zeros(layer.shape[layer.axis], np.float32) for layer in layers}
    biases = {**zeros, **plan.biases}
    grids, weights = grids_of(plan), weights_of(plan)
    quantized = insert_qdq(model, plan.placement, grids, weights, biases)
    wanted = _float_means(model, layers, samples)
    prefix = _Prefix(quantized, grids, samples, [codes_name(layer.source) for layer in layers])
    for index, layer in enumerate(layers):
        seen = _Means(_window(model, layer))
        for values in prefix.values(layer.source, index):
            seen.add(values)
        weight = weights[layer.node]
        got = output_means(_rows(layer, dequantize_weight(weight)), seen.mean, seen.groups)
        target = output_means(_rows(layer, model.weight(layer.weight)), wanted[layer.node].mean, seen.groups)
        biases[layer.node] = (biases[layer.node] + target - got).astype(np.float32)
        prefix.set_bias(layer, weight, biases[layer.node])
        progress(Step("correct biases", index + 1, len(layers), layer.node))
    return replace(plan, biases=biases)


@dataclass(slots=True)
class _Means:
    """Running mean of what a layer's kernel sees."""

    window: Window | None
    sums: NDArray[np.float64] | float = 0.0
    count: int = 0

    @property
    def groups(self) -> int:
        return self.window.groups if self.window else 1

    @property
    def mean(self) -> NDArray[np.float64]:
        return np.asarray(self.sums) / self.count

    def add(self, values: NDArray[np.float32]) -> None:
        if self.window is None:
            rows = values.reshape(-1, values.shape[-1])
            sums, count = rows.sum(axis=0, dtype=np.float64), rows.shape[0]
        else:
            sums, count = window_sums(values, self.window)
        self.sums = self.sums + sums
        self.count += count


@dataclass(slots=True)
class _Prefix:
    """The quantized model up to a layer, for every sample, as codes."""

    model: Model
    grids: Mapping[str, Grid]
    samples: Sequence[Feeds]
    order: list[str]  # codes that each layer reads
    known: list[dict[str, NDArray[Any]]] = field(default_factory=list)

    def values(self, source: str, index: int) -> list[NDArray[np.float32]]:
        """Return what layer `index` reads, dequantized, per sample."""
        name = codes_name(source)
        if not self.known:
            self.known = [{} for _ in self.samples]
        if name not in self.known[0]:
            self._compute(name)
        grid = self.grids[source]
        zero = np.float32(grid.zero_point)
        values = [(known[name].astype(np.float32) - zero) * grid.scale for known in self.known]
        self._forget(index)
        return values

    def set_bias(self, layer: Layer, weight: QuantizedWeight, bias: Bias) -> None:
        codes, _ = bias_codes(bias, float(self.grids[layer.source].scale), weight.scale)
        name = codes_name(bias_name(layer))
        self.model.graph.initializers[name].const_value = ir.tensor(codes, name=name)

    def _compute(self, name: str) -> None:
        segment = cut_segment(self.model, list(self.known[0]), [name])
        session = open_session(segment)
        reads = [value.name or "" for value in segment.graph.inputs]
        for feeds, known in zip(self.samples, self.known, strict=True):
            given = {read: known[read] if read in known else feeds[read] for read in reads}
            known.update(run_session(session, given))

    def _forget(self, index: int) -> None:
        """Drop codes that no later layer reads, directly or on the way to its own."""
        later = set(self.order[index + 1 :])
        held = set(self.known[0])
        needed = (later & held).union(
            *(segment_sources(self.model, held, name) for name in later - held)  # what their pieces start from
        )
        for known in self.known:
            for name in held - needed:
                del known[name]


def _float_means(model: Model, layers: Sequence[Layer], samples: Sequence[Feeds]) -> dict[str, _Means]:
    inputs = {spec.name for spec in model.inputs}
    sources = sorted({layer.source for layer in layers})
    session = open_session(cut_segment(model, [], [name for name in sources if name not in inputs]))
    means = {layer.node: _Means(_window(model, layer)) for layer in layers}
    for feeds in samples:
        given = {value.name: feeds[value.name] for value in session.get_inputs()}
        values = {**feeds, **run_session(session, given)}
        for layer in layers:
            means[layer.node].add(values[layer.source])
    return means


def _window(model: Model, layer: Layer) -> Window | None:
    if layer.op_type != "Conv":
        return None
    node = next(node for node in model.graph if node.name == layer.node)
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    size = [length if isinstance(length, int) else 0 for length in (shape or ())][2:]
    return window_of(node, layer.shape, size)


def _rows(layer: Layer, weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a weight with its output channels in front."""
    return weight if layer.axis == 0 else np.moveaxis(weight, layer.axis, 0)
