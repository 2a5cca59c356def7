"""Trained models in containers: near the entropy of their codes, and the same answers as the plain file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ptq_lab.calibration import random_samples
from ptq_lab.container import load_session, pack, unpack, write_container
from ptq_lab.graph import Model, Rules, apply_plan, find_targets, load_model, save_model
from ptq_lab.numerics.coding import entropy_bytes
from ptq_lab.plan import make_plan, round_weights
from tests.container.packed import largest_difference

pytestmark = pytest.mark.models

NAMES = ("mobilenet_v1_075", "minilm_l6", "dscnn_kws")
FIXED, PER_LAYER = 2048, 410  # bytes


@pytest.fixture(scope="module", params=NAMES)
def original(request: pytest.FixtureRequest, models_folder: Path) -> Model:
    """A trained model, one at a time."""
    path = models_folder / request.param / "model.onnx"
    if not path.is_file():
        pytest.skip(f"{path} does not exist")
    return load_model(path)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_trained_model_is_near_its_entropy_and_answers_the_same(original: Model, bits: int, tmp_path: Path) -> None:
    plan = round_weights(make_plan(find_targets(original, Rules()), bits=bits), original.weight)
    metadata = {"ptq_lab.plan": json.dumps({entry.tensor: [entry.bits, entry.channels] for entry in plan.entries})}
    quantized = apply_plan(original, plan)
    quantized.ir_model.metadata_props.update(metadata)
    plain, container = tmp_path / "plain.onnx", tmp_path / "packed.ptqz"
    save_model(quantized, plain)
    write_container(original, plan, container, metadata=metadata)

    entropy = sum(entropy_bytes(entry.weight.codes) for entry in plan.entries if entry.weight is not None)
    scales = sum(8 * entry.channels for entry in plan.entries)
    rest = original.size - sum(entry.bytes_before for entry in plan.entries)
    share = 1.10 if bits == 2 else 1.03
    small = 1.0 if original.size > 1 << 20 else 1.02  # tables of code lengths weigh on small layers
    assert container.stat().st_size <= small * share * entropy + scales + rest + FIXED + PER_LAYER * len(plan.entries)

    shapes = {spec.name: spec.fixed(other=16) for spec in original.inputs}
    feeds = dict(next(iter(random_samples(original.inputs, input_shape=shapes))))
    feeds = {name: np.abs(array) % 2 if array.dtype == np.int64 else array for name, array in feeds.items()}
    wanted = load_session(plain, intra_op_num_threads=1).run(None, feeds)
    assert all(np.isfinite(array).all() for array in wanted)
    assert largest_difference(wanted, load_session(container, intra_op_num_threads=1).run(None, feeds)) == 0.0
    assert unpack(container, tmp_path / "again.onnx").read_bytes() == plain.read_bytes()
    if bits == 3:
        again = pack(plain, tmp_path / "again.ptqz")
        unpacked = load_session(unpack(again, tmp_path / "again.onnx"), intra_op_num_threads=1)
        assert largest_difference(wanted, unpacked.run(None, feeds)) == 0.0
        assert again.stat().st_size <= container.stat().st_size * 1.001
