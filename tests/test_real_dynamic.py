"""A trained transformer with activations quantized at run time: as near and as small as promised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from ptq_lab.graph import Model, load_model, save_model
from ptq_lab.numerics import cosine
from ptq_lab.runtime import optimized_model
from tests.graph.products import multiplied

pytestmark = pytest.mark.models

SENTENCES = 200
COSINE = {"ALWC": 0.9936, "ACWL": 0.965, "ACWC": 0.9965}
MEGABYTES = 23.5
FLOAT_FUSIONS = ["GeluFusionL1", "GeluFusionL2", "BiasGeluFusion", "SkipLayerNormFusion", "MatMulScaleFusion"]

Feeds = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def original(models_folder: Path) -> Model:
    path = models_folder / "minilm_l6" / "model.onnx"
    if not path.is_file():
        pytest.skip(f"{path} does not exist")
    return load_model(path)


@pytest.fixture(scope="module")
def sentences(models_folder: Path) -> list[Feeds]:
    """The first sentences of the evaluation set, each without its padding."""
    path = models_folder.parent / "data" / "stsb" / "eval.npz"
    if not path.is_file():
        pytest.skip(f"{path} does not exist")
    names = ("input_ids", "attention_mask", "token_type_ids")
    with np.load(path) as archive:
        padded = {name: archive[f"{name}_1"][:SENTENCES].astype(np.int64) for name in names}
    lengths = padded["attention_mask"].sum(axis=1)
    return [{name: padded[name][i : i + 1, :length] for name in names} for i, length in enumerate(lengths)]


@pytest.fixture(scope="module")
def wanted(original: Model, sentences: list[Feeds]) -> list[NDArray[Any]]:
    """What the float model answers."""
    return answers(original, sentences)


@pytest.fixture(scope="module", params=COSINE)
def quantized(request: pytest.FixtureRequest, original: Model, tmp_path_factory: pytest.TempPathFactory) -> Model:
    result, _ = multiplied(original, request.param)
    return save_model(result, tmp_path_factory.mktemp(request.param) / f"{request.param}.onnx")


def answers(
    model: Model, sentences: list[Feeds], without: list[str] | None = None, level: str = "ENABLE_ALL"
) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{level}")
    providers = ["CPUExecutionProvider"]
    more = {"disabled_optimizers": without} if without else {}
    session = onnxruntime.InferenceSession(str(model.path), options, providers, **more)
    return [session.run(None, feeds)[0] for feeds in sentences]


def test_embeddings_stay_near_and_the_file_is_small(
    quantized: Model, sentences: list[Feeds], wanted: list[NDArray[Any]]
) -> None:
    assert quantized.path is not None
    strategy = quantized.path.stem
    got = answers(quantized, sentences)
    assert np.mean([cosine(one, other) for one, other in zip(got, wanted, strict=True)]) >= COSINE[strategy]
    assert quantized.size <= MEGABYTES * 1e6


def test_the_fusions_of_integer_products_change_no_embedding(quantized: Model, sentences: list[Feeds]) -> None:
    """The fusions of float operators are left out: their last digits tip single codes, and those move an embedding.

    A change of the normalisation weights by one in ten million does the same without any fusion.
    """
    few = sentences[:40]
    fused = answers(quantized, few, FLOAT_FUSIONS)
    plain = answers(quantized, few, level="DISABLE_ALL")
    for one, other in zip(fused, plain, strict=True):
        assert np.abs(one - other).max() <= 1e-3 * np.abs(other).max()


def test_every_product_with_a_weight_runs_in_integers(quantized: Model) -> None:
    ops = [node.op_type for node in optimized_model(quantized).graph]
    assert sum(op in ("DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat") for op in ops) >= 36
    assert quantized.path is not None
    assert ops.count("MatMul") + ops.count("FusedMatMul") == (0 if quantized.path.stem == "ALWC" else 12)
