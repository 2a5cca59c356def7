"""Trained models: decoded exactly, as small as promised, and still giving answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ptq_lab.calibration import random_samples
from ptq_lab.graph import Model, Rules, apply_plan, find_targets, load_model, save_model
from ptq_lab.numerics import cosine
from ptq_lab.plan import make_plan, round_weights
from tests.conftest import Outputs, Run
from tests.graph.quantized import float_twin

pytestmark = pytest.mark.models

NAMES = ("mobilenet_v1_075", "squeezenet1_1", "dscnn_kws", "resnet20_cifar10", "minilm_l6")
WIDTHS = (1, 4, 5, 8, 11, 16)
PER_LAYER = 1536  # bytes of nodes, names and shapes
FIXED = 4096  # the constants that all layers share


@pytest.fixture(scope="module", params=NAMES)
def original(request: pytest.FixtureRequest, models_folder: Path) -> Model:
    """A trained model, one at a time."""
    path = models_folder / request.param / "model.onnx"
    if not path.is_file():
        pytest.skip(f"{path} does not exist")
    return load_model(path)


@pytest.fixture(scope="module")
def feeds(original: Model) -> dict[str, NDArray[Any]]:
    """One seeded input; masks and token kinds are all ones and zeros."""
    shapes = {spec.name: spec.fixed(other=16) for spec in original.inputs}
    found = dict(next(iter(random_samples(original.inputs, input_shape=shapes))))
    for name in found:
        if "mask" in name:
            found[name] = np.ones_like(found[name])
        elif found[name].dtype == np.int64:
            found[name] = np.random.default_rng(1).integers(0, 2 if "type" in name else 30_000, found[name].shape)
    return found


@pytest.fixture(scope="module")
def wanted(original: Model, feeds: dict[str, NDArray[Any]], run: Run) -> Outputs:
    """What the float model answers."""
    return run(original, feeds)


@pytest.mark.parametrize("bits", WIDTHS)
def test_a_trained_model_decodes_exactly_and_is_as_small_as_promised(
    original: Model, bits: int, feeds: dict[str, NDArray[Any]], wanted: Outputs, tmp_path: Path, run: Run
) -> None:
    found = find_targets(original, Rules())
    plan = round_weights(make_plan(found, bits=bits), original.weight)
    assert len(plan.entries) >= 5
    result = save_model(apply_plan(original, plan), tmp_path / "q.onnx")
    got = run(result, feeds)
    twin = run(float_twin(original, plan).SerializeToString(), feeds)
    for name, value in twin.items():
        assert np.array_equal(got[name], value), f"{name} differs by {np.abs(got[name] - value).max()}"
        assert np.isfinite(got[name]).all()
    before = sum(entry.bytes_before for entry in plan.entries)
    channels = sum(entry.channels for entry in plan.entries)
    rest = original.size - before
    assert result.size <= before * bits / 32 + rest + 8 * channels + PER_LAYER * len(plan.entries) + FIXED
    if bits >= 8:
        name = next(iter(wanted))
        assert cosine(wanted[name], got[name]) >= {8: 0.99, 11: 0.9995, 16: 0.999999}[bits]


def test_every_large_weight_of_a_trained_model_is_quantized_or_has_its_reason(original: Model) -> None:
    found = find_targets(original, Rules())
    told = {target.tensor for target in found.targets} | {skip.tensor for skip in found.skips}
    for name, value in original.graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and len(tensor.shape) >= 2 and tensor.size >= 4096:
            assert name in told
    quantized = sum(target.bytes for target in found.targets)
    assert quantized >= 0.9 * sum(skip.bytes for skip in found.skips) + 0.5 * original.size
