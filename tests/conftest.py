"""What all tests share: a seeded generator, a way to run a model, and the real models."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from ptq_lab.graph import Model
from tests.models import conv_relu

Outputs = dict[str, NDArray[Any]]
Run = Callable[..., Outputs]

os.environ["PTQ_LAB_CACHE"] = "off"  # processes started by tests too; the tests of the cache have folders of their own

_LEVELS = {
    "off": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


@pytest.fixture
def rng() -> np.random.Generator:
    """The same random numbers in every run."""
    return np.random.default_rng(20240607)


@pytest.fixture(scope="session")
def run() -> Run:
    """Run a model (path, bytes, ModelProto or Model) in onnxruntime at an optimisation level."""
    return _run


def _run(model: Any, feeds: Mapping[str, NDArray[Any]], *, optimize: str = "all") -> Outputs:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = _LEVELS[optimize]
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(_source(model), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def _source(model: Any) -> str | bytes:
    if isinstance(model, onnx.ModelProto):
        return bytes(model.SerializeToString())
    if isinstance(model, Model):
        return str(model.path) if model.path is not None else model.serialize()
    return model if isinstance(model, bytes) else str(model)


def settings(bits: int = 8, **common: Any) -> dict[str, dict[str, Any]]:
    """Return a configuration that quantizes every weight to a width."""
    given: dict[str, Any] = {"quant_type": "WEIGHT_QUANT", "bit_num": bits, "min_quant_weight_channel": 0}
    if bits not in (8, 16):
        given["enable_encode"] = True
    return {"common_quant_param": given | common}


def files(folder: Path) -> list[str]:
    """Return the names of what lies in a folder."""
    return sorted(file.name for file in folder.iterdir())


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    """A model on disk, alone in its folder."""
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "conv.onnx"
    onnx.save(conv_relu().proto, path)
    return path


@pytest.fixture(scope="session")
def models_folder() -> Path:
    """The folder of the real trained models; skips where there is none."""
    beside = Path(__file__).parents[2] / "shared" / "models"
    folder = Path(os.environ.get("PTQ_LAB_MODELS", beside))
    if not folder.is_dir():
        pytest.skip(f"no trained models: {folder} does not exist; set PTQ_LAB_MODELS to their folder")
    return folder
