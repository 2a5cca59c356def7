"""Sequential bias correction: every layer gets back the mean that quantization took from its output.

The mean of a layer's output in the float model is compared with its mean in the quantized model, whose earlier
layers are corrected already, and the difference goes into the bias: the layer's own, or for a MatMul the constant
that is added behind it. No output has to be computed for that: the mean of a linear layer follows from the mean of
what its kernel sees (`numerics.windows`). The quantized model is run once, in pieces (`graph.stages`): each ends
where the next layer reads, and starts from what earlier pieces left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ptq_lab.graph import Model
from ptq_lab.graph.added_bias import added_bias, set_added_bias
from ptq_lab.graph.placement import Layer, Placement
from ptq_lab.graph.qdq import Grid, bias_codes, bias_name, codes_name, insert_qdq
from ptq_lab.graph.segment import cut_segment
from ptq_lab.graph.stages import Stage, plan_stages
from ptq_lab.graph.window import window_of
from ptq_lab.int8 import grids_of, weights_of
from ptq_lab.numerics import QuantizedWeight, dequantize_weight
from ptq_lab.numerics.windows import output_means, window_sums
from ptq_lab.plan import QuantPlan
from ptq_lab.progress import Progress, Step, silent
from ptq_lab.runtime import Feeds, open_session, run_session

Bias = NDArray[np.float32]


def correct_biases(
    plan: QuantPlan, model: Model, samples: Sequence[Feeds], *, progress: Progress = silent
) -> QuantPlan:
    """Return the plan with biases that give every integer layer back the mean of its output.

    Parameters
    ----------
    plan : QuantPlan
        An integer plan with codes. A Conv or Gemm without a bias starts from zero; a MatMul takes part if an Add of
        its own puts a constant on.
    model : Model
        The float model, BatchNormalization folded.
    samples : sequence of {input name: array}
        Model inputs; 32 are enough for a mean.

    Raises
    ------
    InferenceError
        If onnxruntime fails.

    Notes
    -----
    Source: Nagel et al. 2019, *Data-Free Quantization Through Weight Equalization and Bias Correction*, section 4.2,
    with measured instead of derived means. MindSpore Lite corrects each layer by itself, on float inputs, see
    `ptq_lab.search.local_correction`.
    """
    assert plan.placement is not None  # an integer plan has one
    nodes = {node.name or "": node for node in model.graph}
    first = _first_biases(plan.placement, nodes)
    biases = {**first, **plan.biases}
    layers = [layer for layer in plan.placement.layers if layer.node in first]
    wanted = _float_means(model, layers, nodes, samples)
    weights = weights_of(plan)
    prefix = _Prefix.of(insert_qdq(model, plan.placement, grids_of(plan), weights, biases), plan, samples)
    done = 0
    for source in prefix.walk(list(dict.fromkeys(layer.source for layer in layers))):
        readers = [layer for layer in layers if layer.source == source]
        seen = _measure(readers, nodes, ({source: values} for values in prefix.values(source)))
        for layer in readers:
            weight, key = weights[layer.node], _key(layer)
            target = wanted[key].through(_rows(layer, model.weight(layer.weight)))
            got = seen[key].through(_rows(layer, dequantize_weight(weight)))
            biases[layer.node] = (biases[layer.node] + target - got).astype(np.float32)
            prefix.set_bias(layer, weight, biases[layer.node])
            done += 1
            progress(Step("correct biases", done, len(layers), layer.node))
    return replace(plan, biases=biases)


def _first_biases(placement: Placement, nodes: Mapping[str, ir.Node]) -> dict[str, Bias]:
    """Return a bias for every layer that can take one; plans know those that Conv and Gemm have.

    A MatMul takes one through the Add behind it, unless codes stand between the two.
    """
    coded = {place.tensor for place in placement.places}
    biases = {}
    for layer in placement.layers:
        bias: Bias | None = np.zeros(layer.shape[layer.axis], np.float32)
        if layer.op_type == "MatMul":
            product = nodes[layer.node].outputs[0].name
            bias = None if product in coded else added_bias(nodes[layer.node])
        if bias is not None:
            biases[layer.node] = bias
    return biases


@dataclass(slots=True)
class _Means:
    """Running mean of what a layer's kernel sees."""

    layer: Layer
    node: ir.Node
    sums: NDArray[np.float64] | float = 0.0
    count: int = 0

    def add(self, values: NDArray[np.float32]) -> None:
        if self.layer.op_type == "Conv":
            sums, count = window_sums(values, window_of(self.node, self.layer.shape, values.shape[2:]))
        else:
            rows = values.reshape(-1, values.shape[-1])
            sums, count = rows.sum(axis=0, dtype=np.float64), rows.shape[0]
        self.sums = self.sums + sums
        self.count += count

    def through(self, weight: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the mean output of a weight, output channels in front, without its bias."""
        groups = self.node.attributes.get_int("group", 1)
        return output_means(weight, np.asarray(self.sums) / self.count, groups)


def _key(layer: Layer) -> str:
    """Return what a mean depends on: a Conv has a window of its own, all MatMul of a tensor see the same."""
    return layer.node if layer.op_type == "Conv" else layer.source


def _measure(
    layers: Sequence[Layer], nodes: Mapping[str, ir.Node], runs: Iterator[Mapping[str, NDArray[np.float32]]]
) -> dict[str, _Means]:
    """Average over runs, each of which gives the tensors that the layers read."""
    means = {_key(layer): _Means(layer, nodes[layer.node]) for layer in layers}
    for values in runs:
        for mean in means.values():
            mean.add(values[mean.layer.source])
    return means


def _float_means(
    model: Model, layers: Sequence[Layer], nodes: Mapping[str, ir.Node], samples: Sequence[Feeds]
) -> dict[str, _Means]:
    inputs = {spec.name for spec in model.inputs}
    inner = sorted({layer.source for layer in layers} - inputs)
    session = open_session(cut_segment(model, [], inner)) if inner else None
    reads = [value.name for value in session.get_inputs()] if session else []

    def runs() -> Iterator[Mapping[str, NDArray[np.float32]]]:
        for feeds in samples:
            yield {**feeds, **run_session(session, {name: feeds[name] for name in reads})} if session else feeds

    return _measure(layers, nodes, runs())


@dataclass(slots=True)
class _Prefix:
    """The quantized model, run for every sample up to the layer whose turn it is."""

    model: Model
    nodes: Mapping[str, ir.Node]
    grids: Mapping[str, Grid]
    samples: Sequence[Feeds]
    known: list[dict[str, NDArray[Any]]] = field(default_factory=list)

    @classmethod
    def of(cls, model: Model, plan: QuantPlan, samples: Sequence[Feeds]) -> _Prefix:
        nodes = {node.name or "": node for node in model.graph}
        return cls(model, nodes, grids_of(plan), samples, [{} for _ in samples])

    def walk(self, sources: Sequence[str]) -> Iterator[str]:
        """Yield one tensor after the other, its codes known; biases may be set in between."""
        stages = plan_stages(self.model, [codes_name(source) for source in sources])
        for source, stage in zip(sources, stages, strict=True):
            if stage.makes:
                self._compute(stage)
            yield source
            for known in self.known:
                for name in stage.drops:
                    del known[name]

    def values(self, source: str) -> Iterator[NDArray[np.float32]]:
        """Yield what the layers behind a tensor read, dequantized, per sample."""
        grid, name = self.grids[source], codes_name(source)
        zero = np.float32(grid.zero_point)
        for known in self.known:
            yield (known[name].astype(np.float32) - zero) * grid.scale

    def set_bias(self, layer: Layer, weight: QuantizedWeight, bias: Bias) -> None:
        if layer.op_type == "MatMul":
            set_added_bias(self.model.graph, self.nodes[layer.node], bias)
            return
        codes, _ = bias_codes(bias, float(self.grids[layer.source].scale), weight.scale)
        name = codes_name(bias_name(layer))
        self.model.graph.initializers[name].const_value = ir.tensor(codes, name=name)

    def _compute(self, stage: Stage) -> None:
        segment = cut_segment(self.model, stage.reads, stage.makes)
        for value in segment.graph.inputs:
            if value.name in stage.reads:  # not every graph states all its types, but arrays have one
                value.type = ir.TensorType(ir.DataType.from_numpy(self.known[0][value.name].dtype))
        session = open_session(segment)
        reads = [value.name or "" for value in segment.graph.inputs]
        for feeds, known in zip(self.samples, self.known, strict=True):
            known.update(run_session(session, {read: known[read] if read in known else feeds[read] for read in reads}))


def _rows(layer: Layer, weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a weight with its output channels in front."""
    return weight if layer.axis == 0 else np.moveaxis(weight, layer.axis, 0)
