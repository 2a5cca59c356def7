"""Local bias correction, the original's: every convolution is corrected by itself, as if all before it were exact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ptq_lab.graph import Model
from ptq_lab.graph.placement import Layer
from ptq_lab.graph.qdq import Grid, codes_name
from ptq_lab.graph.segment import cut_open, cut_segment, given_name
from ptq_lab.int8 import apply_int8, grids_of
from ptq_lab.plan import QuantPlan
from ptq_lab.progress import Progress, Step, silent
from ptq_lab.runtime import Feeds, open_session, run_session

_CHANNELS = 1  # axis of a convolution's output
Arrays = Mapping[str, NDArray[Any]]


def correct_biases_locally(
    plan: QuantPlan, model: Model, samples: Sequence[Feeds], *, progress: Progress = silent
) -> QuantPlan:
    """Return the plan with biases that give every integer convolution back the mean of its output.

    Parameters
    ----------
    plan : QuantPlan
        An integer plan with codes. Other layers than Conv keep their biases; a Conv without one starts from zero.
    model : Model
        The float model, BatchNormalization folded.
    samples : sequence of {input name: array}
        Model inputs.

    Raises
    ------
    InferenceError
        If onnxruntime fails.

    Notes
    -----
    Source: the original's code. Both models run in step; every convolution of the quantized one reads what the float
    model computed there, quantized. Per output channel, the difference between the mean of the float output and that
    of the dequantized output, both behind the activation that the kernel absorbs, is averaged over the samples and
    goes into the bias. Here the difference is added before the bias is rounded, not after; no channel has to be left
    alone for its size, because weight scales leave the biases room; and the caller decides how many samples there are,
    where the original takes all.

    It costs one run of each model, and cannot see what earlier layers do to later ones:
    :func:`ptq_lab.search.bias_correction.correct_biases` does.
    """
    assert plan.placement is not None  # an integer plan has one
    layers = [layer for layer in plan.placement.layers if layer.op_type == "Conv"]
    if not layers:
        return plan
    totals = {layer.node: np.zeros(layer.shape[layer.axis]) for layer in layers}
    biases = {**{name: total.astype(np.float32) for name, total in totals.items()}, **plan.biases}
    start = replace(plan, biases=biases)
    for index, (wanted, got) in enumerate(_in_step(start, model, layers, samples)):
        for layer in layers:
            totals[layer.node] += _means(wanted[layer.output]) - _means(got[layer.output])
        progress(Step("correct biases", index + 1, len(samples), f"sample {index + 1}"))
    corrected = {name: (biases[name] + total / len(samples)).astype(np.float32) for name, total in totals.items()}
    return replace(plan, biases={**biases, **corrected})


def _in_step(
    plan: QuantPlan, model: Model, layers: Sequence[Layer], samples: Sequence[Feeds]
) -> Iterator[tuple[Arrays, Arrays]]:
    """Yield per sample what the layers give in float, and what they give in integers from the same inputs."""
    grids = grids_of(plan)
    sources = list(dict.fromkeys(layer.source for layer in layers))
    outputs = list(dict.fromkeys(layer.output for layer in layers))
    made = {value.name or "" for node in model.graph for value in node.outputs}
    inner = sorted(made & {*sources, *outputs})
    floats = open_session(cut_segment(model, [], inner))
    opened = cut_open(apply_int8(model, plan), {codes_name(name): _type_of(grids[name]) for name in sources})
    integers = open_session(cut_segment(opened, [], [codes_name(name) if name in grids else name for name in outputs]))
    reads = {value.name for value in floats.get_inputs()}
    for feeds in samples:
        wanted = {**feeds, **run_session(floats, {name: feeds[name] for name in reads})}
        codes = {given_name(codes_name(name)): _codes(wanted[name], grids[name]) for name in sources}
        got = run_session(integers, codes)
        yield (
            wanted,
            {name: _real(got[codes_name(name)], grids[name]) if name in grids else got[name] for name in outputs},
        )


def _means(values: NDArray[Any]) -> NDArray[np.float64]:
    axes = tuple(axis for axis in range(values.ndim) if axis != _CHANNELS)
    return np.asarray(values.mean(axis=axes, dtype=np.float64))


def _type_of(grid: Grid) -> ir.DataType:
    return ir.DataType.from_numpy(grid.zero_point.dtype)


def _codes(values: NDArray[np.float32], grid: Grid) -> NDArray[Any]:
    """Quantize as QuantizeLinear does."""
    ends = np.iinfo(grid.zero_point.dtype)
    codes = np.clip(np.rint(values / grid.scale) + np.float32(grid.zero_point), ends.min, ends.max)
    return np.asarray(codes.astype(grid.zero_point.dtype))


def _real(codes: NDArray[Any], grid: Grid) -> NDArray[np.float32]:
    return np.asarray((codes.astype(np.float32) - np.float32(grid.zero_point)) * grid.scale)
