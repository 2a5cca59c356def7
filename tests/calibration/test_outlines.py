"""The coarse histograms of the report: what they count, over which bins, and from which samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ptq_lab.calibration import Samples, collect_statistics, open_samples
from ptq_lab.calibration.outlines import BINS, FEW, outline_activations, outline_from
from ptq_lab.graph import Model, load_model
from ptq_lab.numerics import TensorStatistics, count_values
from ptq_lab.progress import Step
from tests import models
from tests.models import node

COUNT = 12


@pytest.fixture(scope="module")
def model() -> Model:
    nodes = [node("Mul", ["x", "half"], ["m"]), node("Relu", ["m"], ["r"])]
    return load_model(models.model(nodes, {"x": (1, 400)}, ["r"], {"half": np.array([0.5], np.float32)}))


@pytest.fixture(scope="module")
def arrays() -> list[NDArray[np.float32]]:
    random = np.random.default_rng(3)
    return [random.laplace(0.2, 1, (1, 400)).astype(np.float32) for _ in range(COUNT)]


@pytest.fixture(scope="module")
def samples(model: Model, arrays: list[NDArray[np.float32]]) -> Samples:
    return open_samples([{"x": array} for array in arrays], model.inputs)


def expected(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.int64]:
    return np.histogram(values[values != 0], BINS, (low, high))[0]


def test_extremes_alone_are_filled_in_from_the_first_samples(
    model: Model, samples: Samples, arrays: list[NDArray[np.float32]]
) -> None:
    seen = collect_statistics(model, ["x", "r"], samples)
    steps: list[Step] = []
    outlines = outline_activations(model, seen, samples, progress=steps.append)
    few = np.concatenate(arrays[:FEW])
    assert [step.done for step in steps] == list(range(1, FEW + 1))
    for name, values in {"x": few, "r": np.maximum(few * np.float32(0.5), 0)}.items():
        assert outlines[name].samples == FEW
        wanted = expected(values, seen[name].low, seen[name].high)
        assert sum(outlines[name].counts) == wanted.sum()
        assert np.abs(np.cumsum(outlines[name].counts) - np.cumsum(wanted)).max() <= 2  # float32 at the edges of bins


def test_what_calibration_counted_is_folded_and_nothing_is_run_again(
    model: Model, samples: Samples, arrays: list[NDArray[np.float32]]
) -> None:
    seen = collect_statistics(model, ["x", "r"], samples, methods=["MSE"])
    steps: list[Step] = []
    outlines = outline_activations(model, seen, samples, progress=steps.append)
    assert not steps
    everything = np.concatenate(arrays)
    assert {outline.samples for outline in outlines.values()} == {COUNT}
    wanted = expected(everything, seen["x"].low, seen["x"].high)
    assert sum(outlines["x"].counts) == everything.size
    assert np.abs(np.cumsum(outlines["x"].counts) - np.cumsum(wanted)).max() < 0.03 * everything.size


def test_magnitudes_serve_a_tensor_without_negative_values_only(model: Model, samples: Samples) -> None:
    seen = collect_statistics(model, ["x", "r"], samples, methods=["KL"])
    outlines = outline_activations(model, seen, samples)
    assert (outlines["x"].samples, outlines["r"].samples) == (FEW, COUNT)
    assert list(outlines) == ["x", "r"]


@given(st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=50))
def test_folding_keeps_every_value_that_is_not_zero(values: list[float]) -> None:
    array = np.array(values, np.float32)
    low, high = float(array.min()), float(array.max())
    histogram = count_values(array, min(low, 0.0), max(high, 0.0))
    outline = outline_from(TensorStatistics(low=low, high=high, count=len(values), rounds=1, histogram=histogram))
    assert outline is not None
    assert len(outline.counts) == BINS
    assert sum(outline.counts) == (histogram.counts.sum() if high > low else 0)


def test_a_constant_tensor_has_an_empty_outline(model: Model) -> None:
    constant: Any = open_samples([{"x": np.full((1, 400), -1.0, np.float32)}] * 2, model.inputs)
    outlines = outline_activations(model, collect_statistics(model, ["r"], constant), constant)
    assert outlines["r"].counts == (0,) * BINS


@pytest.mark.models
def test_on_a_trained_model_both_ways_of_counting_agree(models_folder: Path) -> None:
    mobilenet = load_model(models_folder / "mobilenet_v1_025" / "model.onnx")
    tensors = [node.outputs[0].name or "" for node in mobilenet.graph if node.op_type == "Clip"]
    random = np.random.default_rng(5)
    images = [{mobilenet.inputs[0].name: random.uniform(-1, 1, mobilenet.inputs[0].fixed())} for _ in range(3)]
    samples = open_samples(images, mobilenet.inputs)
    run_again = outline_activations(mobilenet, collect_statistics(mobilenet, tensors, samples), samples)
    folded = outline_activations(mobilenet, collect_statistics(mobilenet, tensors, samples, methods=["MSE"]), samples)
    assert len(tensors) > 20
    for name in tensors:
        one, other = (np.cumsum(each[name].counts) for each in (run_again, folded))
        assert one[-1] == other[-1] > 0
        assert np.abs(one - other).max() <= 2e-3 * one[-1] + 2  # values at the edges of bins
