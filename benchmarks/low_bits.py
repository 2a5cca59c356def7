"""What few bits do to real models: agreement with float32, the task's metric, the file as written, cost.

Weights are shaped by the first 200 calibration samples (256 sentences) and nothing else; evaluation takes the whole
evaluation set, of which no step has seen anything. Every row runs in a process of its own, on one thread for linear
algebra, so that processor time and memory are its own.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from bars import Measured, Table, arguments_parser, parse_widths
from full_quantization import CROP, TF, TORCH, Case, data_of, outputs
from sentences import sentences
from timing import machine_facts
from workloads import MODELS

COLUMNS = {
    "model": 16,
    "bits": 5,
    "effort": 8,
    "cosine": 24,
    "agree": 22,
    "metric": 24,
    "file MB": 20,
    "CPU s": 16,
    "peak MB": 18,
}
MOST_SECONDS, MOST_MEGABYTES = 120.0, 1000.0
IMAGES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "mobilenet_v1_075": ("imagenet", TF | CROP),
    "squeezenet1_1": ("imagenet", TORCH | CROP),
    "resnet20_cifar10": ("cifar10", TORCH),
    "minilm_l6": ("stsb", {}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A model at a width, and the bars for it."""

    model: str
    bits: int
    cosine: float | None = None
    agree: float | None = None
    metric: float | None = None
    size: float | None = None
    mixed: bool = False  # widths by sensitivity, within the size
    half: bool = False  # biases, scales and offsets in 16 bits
    seconds: float = MOST_SECONDS
    effort: str = "best"
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def config(self) -> dict[str, dict[str, Any]]:
        """What the user would write."""
        bits = 0 if self.mixed else self.bits
        common = {"quant_type": "WEIGHT_QUANT", "bit_num": bits, "min_quant_weight_channel": 0}
        budget = {"ptq_lab.mixed_bit": {"target_size_mb": self.size}} if self.mixed else {}
        return {"common_quant_param": common, "ptq_lab": {"effort": self.effort}, **budget, **self.settings}


def row(model: str, bits: int, *bars: Any, **more: Any) -> Row:
    return Row(model=model, bits=bits, **dict(zip(("cosine", "agree", "metric", "size"), bars, strict=False)), **more)


def wider(bits: int) -> dict[str, dict[str, Any]]:
    """Give more bits to the first convolution and to depthwise ones: few weights, on which much depends."""
    return {"ptq_lab.layer_bits": {"conv1": bits, "conv_dw_*": bits}}


SMALL: dict[str, dict[str, Any]] = {"ptq_lab.weights": {"offsets": False}}
M, S, R, L = IMAGES
ROWS = (
    row(M, 8, 0.9993, seconds=8.0, effort="balanced"),
    row(M, 6, 0.990, seconds=8.0, effort="balanced"),
    row(M, 8, 0.9998, None, None, 2.66),
    row(M, 6, 0.998, 0.97),
    row(M, 5, 0.993, 0.95, None, 1.72, half=True),
    row(M, 4, 0.980, None, 0.825, 1.40, settings=wider(8), half=True),
    row(M, 3, 0.935, None, 0.78, 1.08, settings=SMALL | wider(8), half=True),
    row(S, 8, 0.9999),
    row(S, 6, 0.9998),
    row(S, 5, 0.9996),
    row(S, 4, 0.9992, 0.90),
    row(S, 3, 0.997, 0.82),
    row(S, 2),
    row(R, 8, 0.9999),
    row(R, 6, 0.9998),
    row(R, 5, 0.9993),
    row(R, 4, 0.9975),
    row(R, 3, 0.991, 0.955),
    row(R, 2, 0.965, 0.91),
    row(L, 8, 0.9997, None, None, 23.6),
    row(L, 6, 0.999),
    row(L, 5, 0.996),
    row(L, 4, 0.985, None, None, 12.5, mixed=True),
    row(L, 3, 0.955, None, None, 9.7, mixed=True),
    row(L, 2, None, None, 0.86),
)


def main() -> None:
    parser = arguments_parser(__doc__)
    parser.add_argument("--models", help="only these, separated by commas")
    parser.add_argument("--bits", type=parse_widths, help="only these widths, such as 2..4 or 4,8")
    arguments = parser.parse_args()
    if not MODELS.is_dir():
        raise SystemExit(f"{MODELS} is missing; PTQ_LAB_MODELS names another folder")
    facts, table = machine_facts(), Table(COLUMNS, ("model", "bits", "effort"))
    wanted = arguments.models.split(",") if arguments.models else list(IMAGES)
    for chosen in ROWS:
        if chosen.model in wanted and (arguments.bits is None or chosen.bits in arguments.bits):
            table.add(measured(chosen))
    table.finish(arguments, facts)


def measured(chosen: Row) -> dict[str, Any]:
    data, images = IMAGES[chosen.model]
    _, evaluation, judge = data_of(Case(model=chosen.model, data=data, images=images, settings={}))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "q.onnx"
        seconds, megabytes = in_own_process(chosen, path)
        wanted, got = (outputs(opened(each), evaluation) for each in (MODELS / chosen.model / "model.onnx", path))
        size = path.stat().st_size / 1e6
    lengths = np.linalg.norm(wanted, axis=1) * np.linalg.norm(got, axis=1)
    cosine = float(((wanted * got).sum(axis=1) / lengths).mean())
    agree = float((wanted.argmax(axis=1) == got.argmax(axis=1)).mean())
    return {
        "model": chosen.model,
        "bits": chosen.bits,
        "effort": chosen.effort,
        "cosine": Measured(value=cosine, bar=chosen.cosine, at_least=True, form=".5f"),
        "agree": Measured(value=agree, bar=chosen.agree, at_least=True, form=".4f"),
        "metric": Measured(value=judge(got), bar=chosen.metric, at_least=True, form=".4f"),
        "file MB": Measured(value=size, bar=chosen.size, form=".3f"),
        "CPU s": Measured(value=seconds, bar=chosen.seconds, form=".1f"),
        "peak MB": Measured(value=megabytes, bar=MOST_MEGABYTES, form=".0f"),
    }


def opened(path: Path) -> Any:
    from ptq_lab.runtime import open_session

    return open_session(path)


def in_own_process(chosen: Row, path: Path) -> tuple[float, float]:
    """Quantize in a fresh process; return its processor seconds and its peak of memory in megabytes."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(quantized, chosen, path).result()


def quantized(chosen: Row, path: Path) -> tuple[float, float]:
    import ptq_lab

    data, images = IMAGES[chosen.model]
    samples: Any = sentences("calib")[:256]
    if data != "stsb":
        samples = calibration(chosen.model, data, images)
    start = time.process_time()
    ptq_lab.quantize(MODELS / chosen.model / "model.onnx", chosen.config, path, samples=samples, fp16=chosen.half)
    seconds = time.process_time() - start
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def calibration(model: str, data: str, images: dict[str, Any]) -> Any:
    """Return the first 200 calibration samples, read from their files in every pass."""
    from workloads import DATA

    from ptq_lab.calibration import Preprocessing, open_samples
    from ptq_lab.graph import load_model

    inputs = load_model(MODELS / model / "model.onnx").inputs
    return open_samples(DATA / f"{data}-calib", inputs, preprocess=Preprocessing(**images), limit=200)


if __name__ == "__main__":
    main()
