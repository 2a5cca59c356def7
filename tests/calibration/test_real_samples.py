"""Real models score on real data what they are known to score, so reading and preprocessing are right."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptq_lab.calibration import Preprocessing, open_samples
from ptq_lab.evaluation import open_metric
from ptq_lab.graph.tensors import TensorSpec

pytestmark = pytest.mark.models

MODELS = Path(os.environ.get("PTQ_LAB_MODELS") or Path(__file__).parents[3] / "shared" / "models")
DATA = MODELS.parent / "data"
TYPES = {"tensor(float)": "float32", "tensor(int64)": "int64"}

TENSORFLOW = Preprocessing(
    image_to_format="RGB",
    normalize_mean=(127.5,) * 3,
    normalize_std=(127.5,) * 3,
    center_crop_width=224,
    center_crop_height=224,
)
IMAGENET = Preprocessing(
    image_to_format="RGB",
    normalize_mean=(123.675, 116.28, 103.53),
    normalize_std=(58.395, 57.12, 57.375),
    center_crop_width=224,
    center_crop_height=224,
)
CIFAR = Preprocessing(
    image_to_format="RGB",
    normalize_mean=(123.675, 116.28, 103.53),
    normalize_std=(58.395, 57.12, 57.375),
)


def open_model(name: str) -> tuple[Any, list[TensorSpec]]:
    onnxruntime = pytest.importorskip("onnxruntime")
    files = sorted((MODELS / name).glob("*.onnx"))
    if not files:
        pytest.skip(f"{MODELS / name} holds no model; set PTQ_LAB_MODELS")
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is missing")
    session = onnxruntime.InferenceSession(str(files[0]), providers=["CPUExecutionProvider"])
    inputs = [
        TensorSpec(
            name=value.name,
            dtype=np.dtype(TYPES[value.type]),
            shape=tuple(size if size is not None else "?" for size in value.shape),
        )
        for value in session.get_inputs()
    ]
    return session, inputs


@pytest.mark.parametrize(
    ("model", "data", "options", "expected"),
    [
        ("mobilenet_v1_075", "imagenet-eval", TENSORFLOW, 0.8575),
        ("squeezenet1_1", "imagenet-eval", IMAGENET, 0.6175),
        ("resnet20_cifar10", "cifar10-eval", CIFAR, 0.807),
    ],
)
def test_image_classifiers_reach_their_known_top1(
    model: str, data: str, options: Preprocessing, expected: float
) -> None:
    session, inputs = open_model(model)

    metric = open_metric(DATA / data, inputs, preprocess=options)

    assert metric.score(session) == pytest.approx(expected, abs=0.0026)  # one image of 400 may flip


def test_keyword_features_out_of_memory_and_out_of_raw_buffers_are_recognised() -> None:
    session, inputs = open_model("dscnn_kws")
    with np.load(DATA / "kws-eval" / "eval.npz") as content:
        features, labels = content["mfcc"], content["label"]

    samples = open_samples({"image": features}, inputs)
    hits = [int(session.run(None, sample)[0].argmax()) == label for sample, label in zip(samples, labels, strict=True)]

    assert np.mean(hits) == pytest.approx(0.9183, abs=0.001)
    assert open_metric(DATA / "kws-calib", inputs).score(session) > 0.88


def test_grey_pictures_give_the_known_psnr_of_super_resolution() -> None:
    session, inputs = open_model("super_resolution_x3")
    grey = Preprocessing(image_to_format="GRAY", normalize_mean=(0,), normalize_std=(255,))

    small = open_samples(DATA / "sr-eval" / "lr", inputs, preprocess=grey)
    large = open_samples(DATA / "sr-eval" / "hr", inputs, preprocess=grey)
    ratios = []
    for feeds, wanted in zip(small, large, strict=True):
        error = np.clip(session.run(None, feeds)[0], 0, 1) - wanted["luma"]
        ratios.append(-10 * np.log10((error[..., 6:-6, 6:-6] ** 2).mean()))

    assert np.mean(ratios) == pytest.approx(25.69, abs=0.01)


def test_token_ids_of_a_text_encoder_are_widened_to_its_element_type() -> None:
    session, inputs = open_model("minilm_l6")
    with np.load(DATA / "stsb" / "calib.npz") as content:
        arrays = {spec.name: content[f"{spec.name}_1"][:4] for spec in inputs}

    for sample in open_samples(arrays, inputs):
        (embedding,) = session.run(None, sample)
        assert embedding.shape == (1, 384)
        assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-4)
