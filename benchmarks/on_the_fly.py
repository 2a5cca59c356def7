"""Weights that stay small at run time, and blocks with a scale each: memory, latency, agreement, file.

The first table is about ``dequant_strategy=ON_THE_FLY``. Memory is what a model adds to a process of its own, right
after loading and after one run; latency is measured on one thread; both are ratios to float32, latency also to the
same codes in the ordinary form, which become float at load. ``off by`` is the largest difference to that form,
relative to the largest output. The second table is about ``block_size`` in the ordinary form: agreement with float32
on samples, and the file. Weights are rounded without samples, unless another effort is asked for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from bars import Measured, Table, arguments_parser
from sentences import random_sentence, sentences
from timing import in_turn, machine_facts
from workloads import DATA, find_workloads

import ptq_lab
from ptq_lab.graph import Model, apply_plan, load_model, raise_opset, required_opset, save_model
from ptq_lab.plan import QuantPlan
from ptq_lab.report.performance import Memory, memory_of
from ptq_lab.runtime import Feeds, open_session

COLUMNS = {
    "model": 16,
    "bits": 4,
    "block": 5,
    "computes in": 11,
    "loaded": 22,
    "after a run": 11,
    "latency": 16,
    "of folded": 16,
    "off by": 18,
    "file MB": 7,
}
AGREEMENT = {"model": 16, "bits": 4, "block": 5, "effort": 8, "cosine": 7, "agree": 5, "file MB": 7, "bits/weight": 11}
NAMES = ("minilm_l6", "mobilenet_v1_075", "squeezenet1_1")
LOADED, EXACT = 0.4, 1e-5  # of float32's memory, for the transformer; of the largest output
WORDS, SAMPLES, SENTENCES, IMAGES = 128, 100, 256, 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model, and how its weights are stored."""

    model: str
    bits: int
    block: int = 0
    int8: bool = False


FLY = (
    *(Case(model="minilm_l6", bits=8, block=block) for block in (32, 64, 128)),
    Case(model="minilm_l6", bits=8, block=32, int8=True),
    Case(model="minilm_l6", bits=4, block=32),
    Case(model="minilm_l6", bits=4, block=32, int8=True),
    Case(model="minilm_l6", bits=2, block=32),
    *(Case(model=name, bits=bits) for name in NAMES[1:] for bits in (8, 4)),
)
BLOCKS = tuple(
    Case(model=name, bits=bits, block=block)
    for name in NAMES
    for bits, block in ((4, 0), (4, 128), (4, 64), (4, 32), (5, 0))
)


def main() -> None:
    parser = arguments_parser(__doc__)
    parser.add_argument("--models", default=",".join(NAMES), help="names, with commas (default %(default)s)")
    parser.add_argument("--pairs", type=int, default=21, help="inferences in turn (default %(default)s)")
    parser.add_argument("--processes", type=int, default=3, help="per memory (default %(default)s)")
    parser.add_argument("--effort", default="fast", help="of the second table (default %(default)s)")
    parser.add_argument("--only", choices=("memory", "blocks"), help="one of the two tables")
    arguments = parser.parse_args()
    known = {each.name: each.path for each in find_workloads(arguments.models)}
    if not set(NAMES) & set(known):
        raise SystemExit("the trained models are missing; PTQ_LAB_MODELS names another folder")
    facts, table = machine_facts(), Table(COLUMNS, ("model", "bits", "block"))
    with tempfile.TemporaryDirectory() as folder:
        for case in FLY if arguments.only != "blocks" else ():
            if case.model in known:
                path = known[case.model]
                table.add(stays_small(case, path, Path(folder), pairs=arguments.pairs, processes=arguments.processes))
        agreement = Table(AGREEMENT, ("model", "bits", "block"))
        for case in BLOCKS if arguments.only != "memory" else ():
            if case.model in known:
                agreement.add(agrees(case, known[case.model], Path(folder) / "q.onnx", arguments.effort))
    table.rows += agreement.rows
    table.finish(arguments, facts)


def stays_small(case: Case, path: Path, folder: Path, *, pairs: int, processes: int) -> dict[str, Any]:
    """Measure a model whose weights stay codes, beside float32 and the same codes in the ordinary form."""
    original = load_model(path)
    result = ptq_lab.quantize(path, _config(case, on_the_fly=True), folder / "q.onnx")
    folded = save_model(_folded(original, result.plan), folder / "folded.onnx")
    ours, feeds = load_model(folder / "q.onnx"), _one(case.model)
    memory = [_memory([original, ours], feeds) for _ in range(processes)]
    sessions = [open_session(model) for model in (original, ours, folded)]
    times = [in_turn(_runner(sessions[k], feeds), _runner(sessions[1], feeds), pairs, repeat=True) for k in (0, 2)]
    got, wanted = (sessions[index].run(None, feeds)[0] for index in (1, 2))
    off = float(np.abs(got - wanted).max() / np.abs(wanted).max())
    bar = LOADED if case.model == "minilm_l6" and not case.int8 else None
    return {
        "model": case.model,
        "bits": case.bits,
        "block": case.block or "-",
        "computes in": "int8" if case.int8 else "float32",
        "loaded": Measured(value=median(b.loaded / a.loaded for a, b in memory), bar=bar, form=".3f"),
        "after a run": Measured(value=median(b.run / a.run for a, b in memory), form=".3f"),
        "latency": times[0].ratio(None),
        "of folded": times[1].ratio(None),
        "off by": Measured(value=off, bar=None if case.int8 else EXACT, form=".1e"),
        "file MB": Measured(value=ours.size / 1e6, form=".2f"),
    }


def agrees(case: Case, path: Path, output: Path, effort: str) -> dict[str, Any]:
    """Measure how near a model with blocks in the ordinary form is to float32."""
    config = _config(case, on_the_fly=False) | {"ptq_lab": {"performance": "off", "effort": effort}}
    result = ptq_lab.quantize(path, config, output, samples=None if effort == "fast" else _calibration(case.model))
    before, after = (open_session(load_model(each)) for each in (path, output))
    cosines, same = [], []
    for feeds in _evaluation(case.model):
        wanted, got = (session.run(None, feeds)[0].reshape(-1) for session in (before, after))
        cosines.append(float(wanted @ got / (np.linalg.norm(wanted) * np.linalg.norm(got))))
        same.append(bool(wanted.argmax() == got.argmax()))
    stored = sum(entry.bytes_after for entry in result.plan.entries)
    numbers = sum(int(np.prod(entry.shape)) for entry in result.plan.entries)
    return {
        "model": case.model,
        "bits": case.bits,
        "block": case.block or "-",
        "effort": effort,
        "cosine": Measured(value=float(np.mean(cosines)), form=".4f"),
        "agree": Measured(value=float(np.mean(same))),
        "file MB": Measured(value=output.stat().st_size / 1e6, form=".2f"),
        "bits/weight": Measured(value=8 * stored / numbers, form=".2f"),
    }


def _config(case: Case, *, on_the_fly: bool) -> dict[str, dict[str, object]]:
    config: dict[str, dict[str, object]] = {
        "common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": case.bits},
        "ptq_lab": {"performance": "off"},
        "ptq_lab.weights": {"block_size": case.block} if case.block else {},
    }
    if on_the_fly:
        config["weight_quant_param"] = {"dequant_strategy": "ON_THE_FLY"}
        config["ptq_lab.weights"]["run_time_arithmetic"] = "int8" if case.int8 else "float32"
    return config


def _folded(original: Model, plan: QuantPlan) -> Model:
    entries = tuple(replace(entry, on_the_fly="") for entry in plan.entries)
    ordinary = replace(plan, entries=entries)
    return apply_plan(raise_opset(original, required_opset(ordinary)), ordinary)


def _runner(session: Any, feeds: Feeds) -> Callable[[], object]:
    return lambda: session.run(None, feeds)


def _memory(models: Sequence[Model], feeds: Feeds) -> tuple[Memory, Memory]:
    first, second = memory_of(models, feeds)
    if first is None or second is None:
        raise SystemExit("this system does not tell how much memory a process holds")
    return first, second


def _one(name: str) -> Mapping[str, Any]:
    return random_sentence(WORDS) if name == "minilm_l6" else find_workloads(name)[0].feeds


def _evaluation(name: str) -> Iterator[Mapping[str, Any]]:
    if name == "minilm_l6":
        yield from sentences("eval")[:SAMPLES]
    else:
        yield from find_workloads(name)[0].samples(SAMPLES)


def _calibration(name: str) -> list[Mapping[str, Any]]:
    if name == "minilm_l6":
        return list(sentences("calib")[:SENTENCES])
    images = replace(find_workloads(name)[0], source=lambda: DATA / "imagenet-calib")
    return [dict(feeds) for feeds in images.samples(IMAGES)]


if __name__ == "__main__":
    main()
