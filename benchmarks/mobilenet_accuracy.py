"""What quantized weights do to a real classifier: MobileNetV1 0.75, without any data for quantizing.

Every image of the evaluation set goes through the original and the quantized model: how often they name the same
class, how alike their scores are, and the top-1 accuracy of both.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from bars import Cell, Measured, Table, arguments_parser, parse_widths
from numpy.typing import NDArray
from timing import machine_facts
from workloads import DATA, Workload, find_workloads

import ptq_lab
from ptq_lab import demo
from ptq_lab.graph import Model, load_model
from ptq_lab.numerics import cosine
from ptq_lab.runtime import open_session, run_session

Scores = NDArray[np.float32]

BITS_OF_THE_BARS = 8
SAME_BAR, COSINE_BAR = 0.965, 0.997
COLUMNS = {"model": 16, "bits": 4, "same class": 20, "mean cosine": 22, "top-1 before": 12, "top-1 after": 11}


def main() -> None:
    parser = arguments_parser(__doc__)
    parser.add_argument("--bits", type=parse_widths, default=(8,), help="widths, e.g. 8 or 4..8 (default 8)")
    parser.add_argument("--images", type=int, help="only the first so many")
    arguments = parser.parse_args()
    facts, table = machine_facts(), Table(COLUMNS, ("model", "bits"))
    workload = find_workloads(None)[0]  # the mobilenet, or the demo in its place
    original = load_model(workload.path)
    images, labels = labelled(workload, arguments.images)
    before = scores(original, images)
    for bits in arguments.bits:
        config = {
            "common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": bits, "min_quant_weight_channel": 0},
        }
        result = ptq_lab.quantize(original, config)  # its file lives as long as the result
        after = scores(result.model, images)
        judged = bits == BITS_OF_THE_BARS and workload.name == "mobilenet_v1_075"
        table.add({"model": workload.name, "bits": bits} | compared(before, after, labels, judged))
    table.finish(arguments, facts)


def labelled(workload: Workload, count: int | None) -> tuple[ptq_lab.calibration.Samples, NDArray[np.int64]]:
    """Return the evaluation samples and their classes."""
    if workload.name != "mobilenet_v1_075":
        card = demo.load(workload.name)
        with np.load(card.eval_path) as arrays:
            labels = np.asarray(arrays["labels"], np.int64)
        inputs = load_model(card.model_path).inputs
        return ptq_lab.calibration.open_samples(card.eval_path, inputs, limit=count), labels[:count]
    lines = (DATA / "imagenet-eval" / "labels.txt").read_text(encoding="utf-8").splitlines()
    classes = dict(line.split()[:2] for line in lines if line.strip())
    samples = workload.samples(count)
    names = (Path(samples.place(index)).name for index in range(len(samples)))
    return samples, np.array([int(classes[name]) for name in names])


def scores(model: Model, images: ptq_lab.calibration.Samples) -> Scores:
    """Return the class scores of every image; shape (images, classes)."""
    session = open_session(model)
    return np.concatenate([next(iter(run_session(session, feeds).values())) for feeds in images])


def compared(before: Scores, after: Scores, labels: NDArray[np.int64], judged: bool) -> dict[str, Cell]:
    """Return the measured part of a row."""
    first, second = before.argmax(axis=1), after.argmax(axis=1)
    alike = np.mean([cosine(left, right) for left, right in zip(before, after, strict=True)])
    same_bar, cosine_bar = (SAME_BAR, COSINE_BAR) if judged else (None, None)
    return {
        "same class": Measured(value=float(np.mean(first == second)), bar=same_bar, at_least=True, form=".4f"),
        "mean cosine": Measured(value=float(alike), bar=cosine_bar, at_least=True, form=".5f"),
        "top-1 before": Measured(value=float(np.mean(first == labels)), form=".4f"),
        "top-1 after": Measured(value=float(np.mean(second == labels)), form=".4f"),
    }


if __name__ == "__main__":
    main()
