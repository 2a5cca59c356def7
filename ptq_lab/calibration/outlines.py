"""How the values of every activation are spread, coarsely, for the report to draw.

What calibration counted is folded into a few bins. Where it counted nothing (``MAX_MIN`` needs extremes only) or not
enough (``KL`` counts magnitudes, and a tensor may hold both signs), a few samples are run once more: a picture needs no
more of them, and a second sweep over all would cost as much as the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq_lab.calibration.samples import Samples
from ptq_lab.calibration.sweep import Sweep, run_sweep
from ptq_lab.graph import Model, observe
from ptq_lab.numerics import Histogram, TensorStatistics, count_values
from ptq_lab.progress import Progress, Step, silent
from ptq_lab.runtime import CPU

BINS = 64
FEW = 8
"""Samples that are run once more, the first ones."""

STAGE = "outline"


@dataclass(frozen=True, slots=True)
class Outline:
    """Counts in equal bins from the smallest to the largest value that calibration saw of a tensor.

    Attributes
    ----------
    counts : tuple of int
        `BINS` numbers; exact zeros are left out, which quantization does not change.
    samples : int
        How many samples were counted, from the first on.
    """

    counts: tuple[int, ...]
    samples: int


@dataclass(frozen=True, slots=True)
class _Bins:
    """Counts one tensor of one sample; can be pickled."""

    low: float
    high: float

    def __call__(self, _index: int, outputs: Sequence[NDArray[Any]]) -> Histogram:
        return count_values(outputs[0], self.low, self.high, bins=BINS)


def outline_activations(
    model: Model,
    statistics: Mapping[str, TensorStatistics],
    samples: Samples,
    *,
    providers: Sequence[str] = CPU,
    progress: Progress = silent,
) -> dict[str, Outline]:
    """Return the outline of every tensor, from its statistics or else from the first `FEW` samples.

    Parameters
    ----------
    model : Model
        The float model whose tensors the statistics are about.
    statistics : mapping of str to TensorStatistics
    samples : Samples
        What was calibrated on.
    providers : sequence of str
        onnxruntime execution providers.
    progress : callable
        Told about every sample that is run.

    Raises
    ------
    InferenceError
        If onnxruntime fails.
    SampleError
        If a sample cannot be read.

    Examples
    --------
    >>> from onnx import helper
    >>> from ptq_lab.calibration import open_samples
    >>> from ptq_lab.graph import load_model
    >>> x, y = (helper.make_tensor_value_info(name, 1, ["n", 2]) for name in "xy")
    >>> graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    >>> opset = [helper.make_opsetid("", 17)]
    >>> model = load_model(helper.make_model(graph, opset_imports=opset, ir_version=8))
    >>> samples = open_samples([{"x": [-1, 2]}, {"x": [3, 4]}], model.inputs)
    >>> seen = {"y": TensorStatistics(low=0.0, high=4.0, count=4, rounds=2)}
    >>> outline = outline_activations(model, seen, samples)["y"]
    >>> outline.samples, [(place, count) for place, count in enumerate(outline.counts) if count]
    (2, [(32, 1), (48, 1), (63, 1)])
    """
    found = {name: outline for name, seen in statistics.items() if (outline := outline_from(seen)) is not None}
    missing = {name: seen for name, seen in statistics.items() if name not in found}
    if missing:
        found |= _count(model, missing, samples.take(FEW), providers, progress)
    return {name: found[name] for name in statistics}


def outline_from(statistics: TensorStatistics) -> Outline | None:
    """Fold what calibration counted, ``None`` if that does not tell how signed values are spread.

    Examples
    --------
    >>> outline_from(TensorStatistics(low=-1.0, high=3.0, count=8, rounds=2)) is None
    True
    >>> seen = TensorStatistics(low=0.0, high=4.0, count=8, rounds=2, absolute=np.ones(128, np.int64))
    >>> set(outline_from(seen).counts)
    {2}
    """
    low, high = statistics.low, statistics.high
    if statistics.histogram is not None:
        centers, counts = statistics.histogram.centers, statistics.histogram.counts
    elif statistics.absolute is not None and low >= 0.0:
        counts = statistics.absolute
        centers = (np.arange(len(counts)) + 0.5) * statistics.limit / len(counts)
    else:
        return None
    folded = np.zeros(BINS, np.int64)
    if high > low:
        places = np.clip((centers - low) * (BINS / (high - low)), 0, BINS - 1).astype(np.intp)
        np.add.at(folded, places, counts)
    return Outline(tuple(folded.tolist()), statistics.rounds)


def _count(
    model: Model,
    statistics: Mapping[str, TensorStatistics],
    samples: Samples,
    providers: Sequence[str],
    progress: Progress,
) -> dict[str, Outline]:
    observed, outputs = observe(model, list(statistics))
    gauges = {name: _Bins(seen.low, seen.high) for name, seen in statistics.items()}
    sweep = Sweep(model=observed.serialize(), outputs=outputs, gauges=gauges, providers=tuple(providers), threads=1)
    done = 0

    def tick(count: int, place: str) -> None:
        nonlocal done
        done += count
        progress(Step(STAGE, done, len(samples), place))

    counted = run_sweep(sweep, samples, executor=None, tick=tick)
    return {name: Outline(tuple(histogram.counts.tolist()), len(samples)) for name, histogram in counted.items()}
