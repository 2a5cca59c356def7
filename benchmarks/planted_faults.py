"""Faults planted in real models and their data, and whether the right cause is among the first two of the diagnosis.

Every case takes one model, one fault and a place drawn at random. A fault is either in the model (one channel of one
layer 50 times larger; a layer of 2 bits), in the samples (one pixel of one sample 100 times the largest value), or in
their preprocessing (channels swapped; pixels not divided by 255). Where nothing is planted, none of these causes may
be named first.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from bars import Cell, Measured, Table, arguments_parser
from onnx import numpy_helper
from timing import machine_facts
from workloads import DATA, Feeds, Workload, find_workloads

import ptq_lab
from ptq_lab.explanation import Explanation, explain
from ptq_lab.graph import Rules, find_targets, load_model
from ptq_lab.report.diagnosis import Cause

CALIBRATION, EVALUATED = 48, 64
FIRST = 2  # causes among which the right one has to be
BAR = 0.9
LOUD = 0.05  # harm of a cause from which it is a false alarm where nothing was planted
NOTHING = Cause(kind="nothing", nodes=(), evidence="", harm=0.0)
COLUMNS = {"model": 17, "fault": 30, "place": 44, "found": 15, "causes": 60}
PLACES = 4  # layers drawn per fault that has a place


@dataclass(frozen=True, slots=True)
class Bench:
    """A model with samples to calibrate on, others that an evaluation uses, and layers to spoil."""

    name: str
    model: onnx.ModelProto
    calibration: Sequence[Feeds]
    swapped: Sequence[Feeds]
    evaluated: Sequence[Feeds]
    layers: Sequence[tuple[str, str, int]]  # node, weight, channel axis


@dataclass(frozen=True, slots=True)
class Case:
    """What was planted where, and what a diagnosis should say.

    Attributes
    ----------
    fault, place : str
    right : callable
        Kind and nodes of a cause: is it the one?
    explanation : Explanation
    """

    fault: str
    place: str
    right: Callable[[str, Sequence[str]], bool]
    explanation: Explanation

    @property
    def found(self) -> bool:
        """Whether the right cause is among the first."""
        first = self.explanation.causes[:FIRST] or (NOTHING,)
        return any(self.right(cause.kind, cause.nodes) for cause in first)


def main() -> None:
    parser = arguments_parser(__doc__)
    names = "mobilenet_v1_075,squeezenet1_1,resnet20_cifar10"
    parser.add_argument("--models", default=names, help="comma-separated (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the places (default %(default)s)")
    arguments = parser.parse_args()
    facts, table = machine_facts(), Table(COLUMNS, ("model", "fault", "place"))
    found: list[bool] = []
    for workload in find_workloads(arguments.models):
        bench = open_bench(workload)
        for case in plant(bench, np.random.default_rng(arguments.seed)):
            found.append(case.found)
            causes = "; ".join(cause.kind for cause in case.explanation.causes[:FIRST])
            row: dict[str, Cell] = {"model": bench.name, "fault": case.fault, "place": case.place}
            table.add({**row, "found": "yes" if case.found else "NO", "causes": causes})
    share = Measured(value=float(np.mean(found)), bar=BAR, at_least=True)
    table.add({"model": "all", "fault": f"{sum(found)} of {len(found)} found", "found": share})
    table.finish(arguments, facts)


def open_bench(workload: Workload) -> Bench:
    """Return a model with its samples and the layers that can be spoilt: those of at least 16 channels."""
    model = load_model(workload.path)
    targets = find_targets(model, Rules()).targets
    layers = [(each.nodes[0], each.tensor, each.axis) for each in targets if each.op_type == "Conv"]
    calibration = "cifar10-calib" if "cifar" in workload.name else "imagenet-calib"
    pictures = replace(workload, source=lambda: DATA / calibration)
    turned = replace(pictures, preprocess=replace(workload.preprocess, image_to_format="BGR"))
    return Bench(
        workload.name,
        onnx.load(workload.path),
        list(pictures.samples(CALIBRATION)),
        list(turned.samples(CALIBRATION)),
        list(workload.samples(EVALUATED)),
        layers,
    )


def plant(bench: Bench, generator: np.random.Generator) -> Iterator[Case]:
    """Yield every fault of one model, quantized and explained."""
    for index in generator.choice(len(bench.layers), PLACES, replace=False):
        yield large_channel(bench, *bench.layers[index], generator)
    for index in generator.choice(len(bench.layers), PLACES, replace=False):
        yield few_bits(bench, bench.layers[index][0])
    for _ in range(PLACES // 2):
        yield outlier(bench, generator)
    yield swapped(bench)
    yield not_divided(bench)
    yield nothing(bench, "WEIGHT_QUANT")
    yield nothing(bench, "FULL_QUANT")


def large_channel(bench: Bench, node: str, tensor: str, axis: int, generator: np.random.Generator) -> Case:
    """Make the weights of one channel 50 times larger, and give the layer one scale."""
    model = onnx.ModelProto()
    model.CopyFrom(bench.model)
    holder = next(each for each in model.graph.initializer if each.name == tensor)
    weight = np.moveaxis(numpy_helper.to_array(holder).copy(), axis, 0)
    channel = int(generator.integers(len(weight)))
    weight[channel] *= 50
    holder.CopyFrom(numpy_helper.from_array(np.moveaxis(weight, 0, axis).copy(), tensor))
    config = {
        "common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": 8},
        "weight_quant_param": {"per_channel": False},
    }

    def right(kind: str, nodes: Sequence[str]) -> bool:
        return kind.startswith("per-tensor weight ranges") and node in nodes[:2]

    return Case("a channel 50 times larger", f"{node}[{channel}]", right, explained(bench, config, model=model))


def few_bits(bench: Bench, node: str) -> Case:
    """Give one layer 2 bits and all others 8."""
    config = {"common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": 8}, "ptq_lab.layer_bits": {node: 2}}

    def right(kind: str, nodes: Sequence[str]) -> bool:
        return kind == "too few bits" and node in nodes

    return Case("a layer of 2 bits", node, right, explained(bench, config))


def outlier(bench: Bench, generator: np.random.Generator) -> Case:
    """Put one huge value into one calibration sample."""
    samples = [dict(feeds) for feeds in bench.calibration]
    ((name, values),) = samples[int(generator.integers(len(samples)))].items()
    place = tuple(int(generator.integers(size)) for size in values.shape)
    spoilt = values.copy()
    spoilt[place] = 100 * np.abs(values).max()
    samples[-1][name] = spoilt

    def right(kind: str, nodes: Sequence[str]) -> bool:
        return kind == "activation range stretched by outliers" and name in nodes

    config = {"common_quant_param": {"quant_type": "FULL_QUANT"}}
    return Case("one huge value in a sample", f"{name}{list(place)}", right, explained(bench, config, samples))


def swapped(bench: Bench) -> Case:
    """Calibrate on BGR pictures, evaluate on RGB."""
    config = {"common_quant_param": {"quant_type": "FULL_QUANT"}}

    def right(kind: str, nodes: Sequence[str]) -> bool:
        return kind.startswith("channels in another order")

    return Case("channels swapped", "calibration samples", right, explained(bench, config, bench.swapped))


def not_divided(bench: Bench) -> Case:
    """Calibrate on pictures whose pixels were not divided by 255."""
    samples = [{name: values * np.float32(255) for name, values in feeds.items()} for feeds in bench.calibration]
    config = {"common_quant_param": {"quant_type": "FULL_QUANT"}}

    def right(kind: str, nodes: Sequence[str]) -> bool:
        return kind == "calibration does not look like evaluation"

    return Case("pixels off by 255", "calibration samples", right, explained(bench, config, samples))


def nothing(bench: Bench, quant_type: str) -> Case:
    """Plant nothing: what the diagnosis says first is at most something small."""
    explanation = explained(bench, {"common_quant_param": {"quant_type": quant_type, "bit_num": 8}})
    loud = [cause.kind for cause in explanation.causes if cause.harm > LOUD]

    def right(kind: str, nodes: Sequence[str]) -> bool:
        return not loud

    return Case("nothing", quant_type, right, explanation)


def explained(
    bench: Bench,
    config: Mapping[str, Any],
    samples: Sequence[Feeds] | None = None,
    *,
    model: onnx.ModelProto | None = None,
) -> Explanation:
    """Quantize and explain."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "q.onnx"
        given = bench.calibration if samples is None else samples
        result = ptq_lab.quantize(model or bench.model, config, output, samples=given)
        return explain(result, evaluated=bench.evaluated)


if __name__ == "__main__":
    main()
