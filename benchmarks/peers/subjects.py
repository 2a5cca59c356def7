"""The models that all tools quantize, with the arrays to calibrate and to judge them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from full_quantization import CROP, TF, TORCH
from numpy.typing import NDArray
from workloads import DATA, MODELS

from ptq_lab import demo
from ptq_lab.calibration import Preprocessing, open_samples
from ptq_lab.evaluation import read_labels
from ptq_lab.graph import load_model

Arrays = Mapping[str, NDArray[Any]]
LENGTH = 32  # words of a sentence for calibration; most tools want all samples in one shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model on disk, with archives that every adapter reads.

    Attributes
    ----------
    name : str
    kind : {"vision", "language"}
    model, calib, evaluation : Path
        ``evaluation`` holds ``labels``, ``_score`` (of pairs of sentences) or ``_target`` (pictures) besides inputs.
    samples : int
        For calibration.
    data : str
        What was used, in words.
    """

    name: str
    kind: str
    model: Path
    calib: Path
    evaluation: Path
    samples: int
    data: str


TRAINED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mobilenet_v1_075": ("vision", "imagenet", TF | CROP),
    "squeezenet1_1": ("vision", "imagenet", TORCH | CROP),
    "resnet20_cifar10": ("vision", "cifar10", TORCH),
    "minilm_l6": ("language", "stsb", {}),
}
DEMOS = {"digits_cnn": "vision", "digits_transformer": "language", "photo_denoiser": "vision"}


def names() -> list[str]:
    """Return the models that can be measured here: the trained ones if there are any, else the demos."""
    return [name for name in TRAINED if (MODELS / name / "model.onnx").is_file()] or list(DEMOS)


def prepare(name: str, folder: Path, count: int) -> Subject:
    """Write the archives of a model into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if name in DEMOS:
        return _demo(name, folder, count)
    kind, data, options = TRAINED[name]
    model = MODELS / name / "model.onnx"
    made = _sentences(count) if data == "stsb" else _images(model, data, options, count)
    calib, evaluation = folder / f"{name}-calib.npz", folder / f"{name}-eval.npz"
    np.savez(calib, **made[0])
    np.savez(evaluation, **made[1])
    sizes = [len(next(iter(arrays.values()))) for arrays in made]
    words = f"{sizes[0]} samples of {data}-calib, judged on {sizes[1]} of {data}-eval"
    return Subject(name=name, kind=kind, model=model, calib=calib, evaluation=evaluation, samples=sizes[0], data=words)


def _demo(name: str, folder: Path, count: int) -> Subject:
    card, calib = demo.load(name), folder / f"{name}-calib.npz"
    with np.load(card.calib_path) as held:
        some = {key: held[key][:count] for key in held.files}
    np.savez(calib, **some)
    with np.load(card.eval_path) as held:
        judged = {"_target" if key == "target" else key: held[key] for key in held.files}
    evaluation = folder / f"{name}-eval.npz"
    np.savez(evaluation, **judged)
    used, total = (len(next(iter(arrays.values()))) for arrays in (some, judged))
    return Subject(
        name=name,
        kind=DEMOS[name],
        model=card.model_path,
        calib=calib,
        evaluation=evaluation,
        samples=used,
        data=f"embedded demo: {used} calibration samples, judged on {total}",
    )


def _images(model: Path, data: str, options: dict[str, Any], count: int) -> tuple[Arrays, Arrays]:
    inputs = load_model(model).inputs
    opened: Callable[[str], Any] = lambda part: open_samples(  # noqa: E731
        DATA / f"{data}-{part}", inputs, preprocess=Preprocessing(**options)
    )
    name, calib, judged = inputs[0].name, opened("calib"), opened("eval")
    spread = {int(index) for index in np.linspace(0, len(calib) - 1, min(count, len(calib)))}
    chosen = [feeds for index, feeds in enumerate(calib) if index in spread]
    known = read_labels(DATA / f"{data}-eval" / "labels.txt")
    labels = np.array([known[judged.place(index).rsplit("/", 1)[-1]] for index in range(len(judged))])
    stacked = [np.concatenate([feeds[name] for feeds in part]) for part in (chosen, judged)]
    return {name: stacked[0]}, {name: stacked[1], "labels": labels}


def _sentences(count: int) -> tuple[Arrays, Arrays]:
    """Both sentences of each pair: all first ones, then all second ones."""
    keys = ("input_ids", "attention_mask", "token_type_ids")
    parts = []
    for split, pairs, length in (("calib", count // 2, LENGTH), ("eval", None, None)):
        with np.load(DATA / "stsb" / f"{split}.npz") as held:
            sides = {key: [held[f"{key}_{side}"][:pairs, :length] for side in (1, 2)] for key in keys}
            arrays = {key: np.concatenate(both).astype(np.int64) for key, both in sides.items()}
            parts.append(arrays if pairs else arrays | {"_score": held["score"]})
    return parts[0], parts[1]
