"""What int8 does to real models: agreement with float32, the task's metric, integer layers, latency, processor time.

Calibration takes the first 100 calibration samples, evaluation the whole evaluation set. One onnxruntime thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from bars import Measured, Table, arguments_parser
from numpy.typing import NDArray
from sentences import random_sentence, sentences, spearman
from timing import in_turn, machine_facts
from workloads import DATA, MODELS

import ptq_lab
from ptq_lab.calibration import Preprocessing, Samples, open_samples
from ptq_lab.evaluation import read_labels
from ptq_lab.graph import load_model
from ptq_lab.runtime import open_session

COLUMNS = {
    "model": 16,
    "settings": 32,
    "cosine": 22,
    "agree": 18,
    "metric": 18,
    "int8": 8,
    "latency": 26,
    "CPU s": 6,
    "file": 10,
}
TF = {"image_to_format": "RGB", "normalize_mean": (127.5,) * 3, "normalize_std": (127.5,) * 3}
TORCH = {
    "image_to_format": "RGB",
    "normalize_mean": (123.675, 116.28, 103.53),
    "normalize_std": (58.395, 57.12, 57.375),
}
CROP = {"center_crop_width": 224, "center_crop_height": 224}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model with settings, and the bars for it."""

    model: str
    data: str
    images: dict[str, Any]
    settings: dict[str, dict[str, Any]]
    cosine: float | None = None
    agree: float | None = None
    latency: float | None = None
    background: int = 0  # classes in front of the labelled ones

    @property
    def words(self) -> str:
        """The settings on one line."""
        given = [f"{key}={value}" for keys in self.settings.values() for key, value in keys.items()]
        return " ".join(given) or "default"


def case(model: str, data: str, images: dict[str, Any], settings: str = "", **bars: Any) -> Case:
    sections: dict[str, dict[str, Any]] = {}
    for item in settings.split():
        name, _, value = item.partition("=")
        section, _, key = name.rpartition(".")
        sections.setdefault(section or "full_quant_param", {})[key] = value
    return Case(model=model, data=data, images=images, settings=sections, **bars)


MOBILENET, SMALL = ("mobilenet_v1_075", "imagenet", TF | CROP), ("mobilenet_v1_025", "imagenet", TF | CROP)
CASES = (
    case(*MOBILENET, cosine=0.998, agree=0.96, latency=0.53),
    case(*MOBILENET, "per_channel=false", latency=0.65),
    case(*MOBILENET, "activation_quant_method=KL", cosine=0.997),
    case(*MOBILENET, "activation_quant_method=REMOVAL_OUTLIER", cosine=0.997),
    case(*MOBILENET, "ptq_lab.weight_bits=4 ptq_lab.effort=best", cosine=0.965, agree=0.85, latency=0.53),
    case(*MOBILENET, "ptq_lab.weight_bits=6 ptq_lab.effort=best"),
    case(*SMALL, cosine=0.9955, background=1),
    case("squeezenet1_1", "imagenet", TORCH | CROP, cosine=0.9997, latency=0.50),
    case("squeezenet1_1", "imagenet", TORCH | CROP, "ptq_lab.activation_quant_method=MSE", cosine=0.9998, latency=0.50),
    case("resnet20_cifar10", "cifar10", TORCH, cosine=0.9993),
    case("dscnn_kws", "kws", {}, cosine=0.999),
    case("minilm_l6", "stsb", {}, cosine=0.998, latency=0.45),
)


def main() -> None:
    parser = arguments_parser(__doc__)
    parser.add_argument("--models", help="only these, separated by commas")
    arguments = parser.parse_args()
    if not MODELS.is_dir():
        raise SystemExit(f"{MODELS} is missing; PTQ_LAB_MODELS names another folder")
    facts, table = machine_facts(), Table(COLUMNS, ("model", "settings"))
    wanted = arguments.models.split(",") if arguments.models else None
    for chosen in CASES:
        if wanted is None or chosen.model in wanted:
            table.add(measured(chosen))
    table.finish(arguments, facts)


def measured(chosen: Case) -> dict[str, Any]:
    path = MODELS / chosen.model / "model.onnx"
    calibration, evaluation, judge = data_of(chosen)
    start = time.process_time()
    config = {"common_quant_param": {"quant_type": "FULL_QUANT"}, **chosen.settings}
    result = ptq_lab.quantize(path, config, samples=calibration)
    seconds = time.process_time() - start
    before, after = open_session(path), open_session(result.model_path)
    wanted, got = outputs(before, evaluation), outputs(after, evaluation)
    lengths = np.linalg.norm(wanted, axis=1) * np.linalg.norm(got, axis=1)
    cosine = float(((wanted * got).sum(axis=1) / lengths).mean())
    agree = float((wanted.argmax(axis=1) == got.argmax(axis=1)).mean())
    feeds = latency_feeds(chosen, evaluation)
    pairs = in_turn(lambda: before.run(None, feeds), lambda: after.run(None, feeds), 41, repeat=True)
    summary = result.report.summary
    return {
        "model": chosen.model,
        "settings": chosen.words,
        "cosine": Measured(value=cosine, bar=chosen.cosine, at_least=True, form=".5f"),
        "agree": Measured(value=agree, bar=chosen.agree, at_least=True, form=".4f"),
        "metric": f"{judge(wanted):.4f} -> {judge(got):.4f}",
        "int8": f"{summary.integer_layers}/{summary.integer_total}",
        "latency": pairs.ratio(chosen.latency),
        "CPU s": f"{seconds:.1f}",
        "file": f"{summary.bytes_after:,}",
    }


def data_of(chosen: Case) -> tuple[Any, Iterable[Any], Callable[[NDArray[Any]], float]]:
    """Return calibration samples, evaluation samples, and what judges their outputs."""
    inputs = load_model(MODELS / chosen.model / "model.onnx").inputs
    if chosen.data == "stsb":
        return sentences("calib")[:100], sentences("eval"), spearman
    options = Preprocessing(**chosen.images)
    calibration = open_samples(DATA / f"{chosen.data}-calib", inputs, preprocess=options, limit=100)
    if chosen.data == "kws":
        with np.load(DATA / "kws-eval" / "eval.npz") as arrays:
            features, classes = arrays["mfcc"], arrays["label"]
        evaluation: Samples = open_samples({inputs[0].name: features}, inputs)
    else:
        folder = DATA / f"{chosen.data}-eval"
        evaluation = open_samples(folder, inputs, preprocess=options)
        known = read_labels(folder / "labels.txt")
        places = (evaluation.place(index) for index in range(len(evaluation)))
        classes = np.array([known[place.rsplit("/", 1)[-1]] for place in places])
    return calibration, evaluation, lambda scores: float((scores.argmax(axis=1) - chosen.background == classes).mean())


def outputs(session: Any, samples: Iterable[Any]) -> NDArray[np.float32]:
    return np.concatenate([np.asarray(session.run(None, dict(feeds))[0]).reshape(1, -1) for feeds in samples])


def latency_feeds(chosen: Case, samples: Iterable[Any]) -> dict[str, NDArray[Any]]:
    if chosen.data != "stsb":
        return dict(next(iter(samples)))
    return random_sentence(128)


if __name__ == "__main__":
    main()
