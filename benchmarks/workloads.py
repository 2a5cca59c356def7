"""The models that are measured, with real samples; the embedded demos where the trained models are missing."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq_lab import demo
from ptq_lab.calibration import Preprocessing, Samples, open_samples
from ptq_lab.graph import load_model

Feeds = dict[str, NDArray[Any]]

os.environ["PTQ_LAB_CACHE"] = "off"  # what is measured has to be done, in processes started from here too

_REPOSITORY = Path(__file__).resolve().parents[1]
MODELS = Path(os.environ.get("PTQ_LAB_MODELS") or _REPOSITORY.parent / "shared" / "models").resolve()
DATA = MODELS.parent / "data"

_TF_PIXELS = {"normalize_mean": (127.5,) * 3, "normalize_std": (127.5,) * 3}
_TORCH_PIXELS = {"normalize_mean": (123.675, 116.28, 103.53), "normalize_std": (58.395, 57.12, 57.375)}
_CROP_224 = {"center_crop_width": 224, "center_crop_height": 224}


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A model and the inputs it is run on.

    Attributes
    ----------
    name : str
    path : Path
        The float model.
    source : callable
        Returns what `open_samples` takes.
    preprocess : Preprocessing
        How images become arrays.
    shape : mapping of str to sizes
        Sizes of dynamic axes that the samples do not tell.
    """

    name: str
    path: Path
    source: Callable[[], Any]
    preprocess: Preprocessing = field(default_factory=Preprocessing)
    layout: Any = None

    def samples(self, count: int | None = None) -> Samples:
        """Open the first samples, batch 1 each; all of them without a count."""
        inputs = load_model(self.path).inputs
        return open_samples(
            self.source(), inputs, preprocess=self.preprocess, limit=count, input_data_format=self.layout
        )

    @property
    def feeds(self) -> Feeds:
        """One sample, as the latency is measured on."""
        return dict(next(iter(self.samples(1))))


def find_workloads(names: str | None) -> tuple[Workload, ...]:
    """Return the named workloads (comma-separated; all without names), and say so if they are only the demos."""
    known = _trained() if MODELS.is_dir() else _demos()
    if not MODELS.is_dir():
        print(f"No trained models ({MODELS} is missing; PTQ_LAB_MODELS names another folder).")
        print("Measured instead: the embedded demos. They are small, so ratios of times say little.\n")
    wanted = names.split(",") if names else list(known)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise SystemExit(f"--models: there is no {', '.join(unknown)}; there are {', '.join(known)}")
    return tuple(known[name] for name in wanted)


def _trained() -> dict[str, Workload]:
    return {
        name: Workload(name=name, path=MODELS / name / "model.onnx", source=source, preprocess=images, layout=layout)
        for name, source, images, layout in (
            ("mobilenet_v1_075", lambda: DATA / "imagenet-eval", _images(**_TF_PIXELS, **_CROP_224), None),
            ("squeezenet1_1", lambda: DATA / "imagenet-eval", _images(**_TORCH_PIXELS, **_CROP_224), None),
            ("minilm_l6", _sentences, Preprocessing(), None),
            ("dscnn_kws", lambda: DATA / "kws-calib", Preprocessing(), "NCHW"),
            ("resnet20_cifar10", lambda: DATA / "cifar10-eval", _images(**_TORCH_PIXELS), None),
        )
    }


def _demos() -> dict[str, Workload]:
    return {name: _demo(demo.load(name)) for name in demo.NAMES}


def _demo(card: demo.Demo) -> Workload:
    return Workload(name=card.name, path=card.model_path, source=lambda: card.calib_path)


def _images(**options: Any) -> Preprocessing:
    return Preprocessing(image_to_format="RGB", **options)


def _sentences() -> Mapping[str, NDArray[np.int64]]:
    """Both sentences of each pair, one behind the other: 128 tokens."""
    with np.load(DATA / "stsb" / "eval.npz") as arrays:
        return {
            name: np.concatenate([arrays[f"{name}_1"], arrays[f"{name}_2"]], axis=1).astype(np.int64)
            for name in ("input_ids", "attention_mask", "token_type_ids")
        }
