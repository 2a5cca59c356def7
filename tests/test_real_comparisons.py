"""Trained models as other tools quantize them: every layer found, every weight read, every layer alone nearly exact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ptq_lab
from ptq_lab.calibration import random_samples
from ptq_lab.graph import load_model
from ptq_lab.graph.found_layers import FoundModel
from ptq_lab.graph.matching import match_layers
from ptq_lab.report.tables import Report
from tests.foreign import TOOLS, Feeds, anonymous, blocks, peek, stored

pytestmark = pytest.mark.models


@dataclass(frozen=True)
class Known:
    """How many layers and weights a trained model has."""

    layers: int
    weights: int


MODELS = {
    "mobilenet_v1_075": Known(28, 28),
    "squeezenet1_1": Known(26, 26),
    "resnet20_cifar10": Known(20, 20),
    "minilm_l6": Known(51, 39),  # 12 products of activations have no weight
}
Tool = Callable[[Path, Path, Sequence[Feeds]], Path]


def ours(settings: dict[str, Any], source: Path, target: Path, samples: Sequence[Feeds]) -> Path:
    return ptq_lab.quantize(source, settings, target, samples=samples).model_path


def weights(bits: int) -> dict[str, Any]:
    return {"common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": bits, "min_quant_weight_channel": 0}}


PLAIN: dict[str, Any] = {"effort": "fast", "equalize": False}
WAYS: dict[str, tuple[Tool, tuple[str, ...], float]] = {  # tool, models it can take, lowest cosine of a layer alone
    "QDQ per channel": (TOOLS["QDQ per channel"], tuple(MODELS), 0.99),
    "QDQ per tensor": (TOOLS["QDQ per tensor"], tuple(MODELS), 0.97),
    "QOperator": (TOOLS["QOperator"], tuple(MODELS), 0.99),
    "dynamic uint8": (TOOLS["dynamic uint8"], tuple(MODELS), 0.97),
    "float16": (TOOLS["float16 inside"], ("squeezenet1_1", "resnet20_cifar10", "minilm_l6"), 0.9999),
    "optimized": (TOOLS["optimized"], ("mobilenet_v1_075", "resnet20_cifar10"), 0.99999),
    "MatMulNBits": (lambda source, target, samples: blocks(source, target, symmetric=False), ("minilm_l6",), 0.98),
    "blocked QDQ": (lambda source, target, samples: blocks(source, target, form="QDQ"), ("minilm_l6",), 0.98),
    "ptq_lab 5 bits": (partial(ours, weights(5)), tuple(MODELS), 0.98),
    "ptq_lab int8": (
        partial(ours, {"common_quant_param": {"quant_type": "FULL_QUANT"}, "ptq_lab": PLAIN}),
        ("mobilenet_v1_075", "squeezenet1_1", "resnet20_cifar10"),
        0.99,
    ),
    "ptq_lab dynamic": (
        partial(ours, {"common_quant_param": {"quant_type": "DYNAMIC_QUANT"}, "ptq_lab": {"effort": "fast"}}),
        ("minilm_l6",),
        0.98,
    ),
}
CASES = [(model, way) for way, (_, models, _) in WAYS.items() for model in models]


def feeds_of(source: Path, count: int = 2) -> list[Feeds]:
    """Return seeded inputs; tokens are words, and everything is attended to."""
    found = [dict(each) for each in random_samples(load_model(source).inputs, count=count)]
    for index, each in enumerate(found):
        for name, array in each.items():
            if "mask" in name:
                each[name] = np.ones_like(array)
            elif name == "input_ids":
                each[name] = np.random.default_rng(index).integers(1000, 20_000, array.shape)
    return found


@pytest.fixture(scope="module", params=CASES, ids=lambda case: " ".join(case))
def compared(
    request: pytest.FixtureRequest, models_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str, Path, Path, Report]:
    """A trained model, what a tool has made of it, and the report of both."""
    model, way = request.param
    source = models_folder / model / "model.onnx"
    if not source.is_file():
        pytest.skip(f"{source} does not exist")
    samples = feeds_of(source)
    target = WAYS[way][0](source, tmp_path_factory.mktemp("tool") / "q.onnx", samples)
    return model, way, source, target, ptq_lab.compare(source, target, samples=samples)


Case = tuple[str, str, Path, Path, Report]


def test_every_layer_of_a_trained_model_has_its_partner_and_every_weight_its_error(compared: Case) -> None:
    model, way, _, _, report = compared
    known = MODELS[model]
    assert len(report.pairs) == known.layers
    assert all(row.how and row.node and row.other_node for row in report.pairs)
    assert len(report.layers) == known.weights
    for row in report.layers:
        assert row.relative_error is not None, (row.node, row.reason)
        assert row.relative_error < 0.45
        assert (row.bits is None) == row.storage.startswith(("float", "bfloat")), row
    if way.startswith("ptq_lab 5"):
        assert {row.bits for row in report.layers} == {5}
    assert not [note for note in report.summary.notes if "could not" in note]


def test_every_layer_alone_is_nearly_exact_so_that_the_same_things_are_compared(compared: Case) -> None:
    model, way, _, _, report = compared
    lookups = 3 if model == "minilm_l6" else 0
    assert len(report.errors) == MODELS[model].layers - lookups
    for row in report.errors:
        assert row.isolated_cosine is not None, row
        assert row.accumulated_cosine is not None, row
        assert row.isolated_cosine > WAYS[way][2], row
    first = report.errors[0]
    assert first.accumulated_cosine == pytest.approx(first.isolated_cosine, abs=0.01)


def test_a_trained_model_without_names_is_matched_in_the_same_way(compared: Case) -> None:
    _, _, source, target, report = compared
    original = FoundModel.read(load_model(source))
    named, nameless = FoundModel.read(load_model(target)), FoundModel.read(load_model(anonymous(target)))
    without = match_layers(original, nameless)
    place = {layer.name: index for index, layer in enumerate(named.layers)}
    places = {layer.name: index for index, layer in enumerate(nameless.layers)}
    truth = {row.node: place[row.other_node] for row in report.pairs}
    found = {pair.first.name: places[pair.second.name] for pair in without.pairs}
    assert {name: found[name] for name in found} == {name: truth[name] for name in found}
    assert len(found) >= len(truth) - 3  # ptq_lab's own tables are recognised by the names it gives


def test_weights_of_a_trained_model_are_off_by_what_its_codes_say(models_folder: Path, tmp_path: Path) -> None:
    source = models_folder / "squeezenet1_1" / "model.onnx"
    samples = feeds_of(source, 1)
    target = TOOLS["QOperator"](source, tmp_path / "q.onnx", samples)
    floats, codes = stored(source), stored(target)
    for row in ptq_lab.compare(source, target, samples=samples).layers:
        weight, scale = floats[row.tensor].astype(np.float64), codes[f"{row.tensor}_scale"].astype(np.float64)
        real = codes[f"{row.tensor}_quantized"] * scale.reshape(-1, 1, 1, 1)
        assert row.relative_error == pytest.approx(np.linalg.norm(weight - real) / np.linalg.norm(weight), rel=1e-5)


def test_the_error_along_a_trained_model_is_that_of_its_tensors(models_folder: Path, tmp_path: Path) -> None:
    source = models_folder / "mobilenet_v1_075" / "model.onnx"
    samples = feeds_of(source, 1)
    target = TOOLS["dynamic uint8"](source, tmp_path / "q.onnx", samples)
    report = ptq_lab.compare(source, target, samples=samples)
    tensors = [row.tensor for row in report.errors]
    wanted, got = (peek(path, tensors, samples[0]) for path in (source, target))  # the tool keeps their names
    for row in report.errors:
        x, y = (each[row.tensor].astype(np.float64).ravel() for each in (wanted, got))
        assert row.accumulated_cosine == pytest.approx(x @ y / np.sqrt((x @ x) * (y @ y)), abs=1e-3)
