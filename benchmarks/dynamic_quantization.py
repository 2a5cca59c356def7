"""What run-time quantization does to a sentence encoder: agreement, the task's metric, size, speed, memory, cost.

Every strategy is quantized without samples, as it is meant to be; ALWC and ACWC also with 64 calibration sentences,
which smooth what the products read. The peer is ``onnxruntime.quantization.quantize_dynamic`` with int8 weights.
Latency is measured on one thread. One line per measurement; a line with a bar says whether it is met.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
from bars import Measured, Table, arguments_parser
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic
from process_cost import run as run_process
from sentences import Sentence, random_sentence, sentences, spearman
from timing import in_turn, machine_facts
from workloads import MODELS

import ptq_lab
from ptq_lab.runtime import open_session

COLUMNS = {"model": 26, "what": 50, "measured": 40}
MODEL = MODELS / "minilm_l6" / "model.onnx"
CALIBRATION, PLAIN, SHORT, LONG = 64, 32, 16, 128  # sentences, sentences, words, words
FILE, MEMORY, PEAK, SECONDS, DIFFERENCE = 23.5, 0.55, 2.5, 2.5, 1e-3
QUANTIZE = (
    "import sys, ptq_lab; ptq_lab.quantize(sys.argv[1], {'common_quant_param': {'quant_type': 'DYNAMIC_QUANT'}, "
    "'ptq_lab': {'dynamic_strategy': sys.argv[3]}}, sys.argv[2])"
)
# As ptq_lab.probe, which prints the growth only; the session is alive when the whole is read.
PROBE = """
import sys, numpy, onnxruntime
from ptq_lab.probe import resident_bytes
feeds = dict(numpy.load(sys.argv[2]))
options = onnxruntime.SessionOptions()
options.log_severity_level, options.intra_op_num_threads = 4, 1
before = resident_bytes()
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
session.run(None, feeds)
after = resident_bytes()
print(after - before, after)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A strategy, and its bars."""

    strategy: str
    calibrated: bool = False
    spearman: float | None = None
    cosine: float | None = None
    short: float | None = None
    peer: float | None = None

    @property
    def words(self) -> str:
        """How the model is called in the table."""
        return f"{self.strategy}{f', {CALIBRATION} sentences' if self.calibrated else ''}"


ALWC = Case(strategy="ALWC", spearman=87.0, cosine=0.9936, short=0.60, peer=1.05)
CASES = (
    ALWC,
    Case(strategy="ACWL"),
    Case(strategy="ACWC"),
    replace(ALWC, calibrated=True),
    Case(strategy="ACWC", calibrated=True),
)
LATENCY = 0.50  # of float32's, at 128 words, for every strategy


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The float model, what was measured of it, and the table that lines are added to.

    Attributes
    ----------
    table : Table
    folder : Path
        Holds ``feeds.npz`` and the models that are written.
    sentences : sequence of Sentence
        What the models are judged on.
    embeddings : ndarray, shape (sentences, width)
    growth, whole : float
        Bytes that the float model adds to a process, and bytes of that process.
    pairs, processes : int
        How often is measured.
    """

    table: Table
    folder: Path
    sentences: Sequence[Sentence]
    embeddings: NDArray[np.float32]
    growth: float
    whole: float
    pairs: int
    processes: int

    def add(self, model: str, what: str, measured: Measured) -> None:
        """Add one line."""
        self.table.add({"model": model, "what": what, "measured": measured})

    def judge(self, name: str, path: Path, case: Case | None = None, least: float | None = None) -> float:
        """Add what is measured of every quantized model, and return its cosine; without a case there are no bars."""
        got = embed(path, self.sentences)
        cosine = float(cosines(self.embeddings, got).mean())
        self.add(name, "mean cosine", Measured(value=cosine, bar=least, at_least=True, form=".5f"))
        bar = case.spearman if case else None
        self.add(name, "Spearman", Measured(value=100 * spearman(got), bar=bar, at_least=True))
        bar = FILE if case else None
        self.add(name, "file, MB", Measured(value=path.stat().st_size / 1e6, bar=bar, form=".3f"))
        self.latency(name, "float32's", (MODEL, path), LONG, LATENCY if case else None)
        self.latency(name, "float32's", (MODEL, path), SHORT, case.short if case else None)
        growth, whole = resident(path, self.folder, self.processes)
        bar = MEMORY if case else None
        self.add(name, "memory of float32's, whole process", Measured(value=whole / self.whole, bar=bar))
        self.add(name, "memory of float32's, growth", Measured(value=growth / self.growth))
        differences = plain_differences(path, self.sentences[:PLAIN])
        bar = DIFFERENCE if case else None
        what = "optimized against not"
        self.add(name, f"{what}, largest of {PLAIN}", Measured(value=float(differences.max()), bar=bar, form=".1e"))
        self.add(name, f"{what}, median", Measured(value=float(np.median(differences)), form=".1e"))
        return cosine

    def latency(self, name: str, whose: str, paths: tuple[Path, Path], words: int, bar: float | None) -> None:
        """Add how long one inference of the second model takes relative to the first."""
        feeds, (before, after) = random_sentence(words), map(open_session, paths)
        pairs = self.pairs if words == LONG else 4 * self.pairs
        times = in_turn(lambda: before.run(None, feeds), lambda: after.run(None, feeds), pairs, repeat=True)
        self.add(name, f"latency of {whose}, {words} words", times.ratio(bar))


def main() -> None:
    parser = arguments_parser(__doc__)
    parser.add_argument("--pairs", type=int, default=41, help="inferences of a long sentence (default %(default)s)")
    parser.add_argument("--processes", type=int, default=5, help="per memory and cost (default %(default)s)")
    arguments = parser.parse_args()
    if not MODEL.is_file():
        raise SystemExit(f"{MODEL} is missing; PTQ_LAB_MODELS names another folder")
    facts, table = machine_facts(), Table(COLUMNS, ("model", "what"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "feeds.npz", allow_pickle=False, **random_sentence(LONG))
        known = sentences("eval")
        growth, whole = resident(MODEL, folder, arguments.processes)
        comparison = Comparison(
            table=table,
            folder=folder,
            sentences=known,
            embeddings=embed(MODEL, known),
            growth=growth,
            whole=whole,
            pairs=arguments.pairs,
            processes=arguments.processes,
        )
        compare_all(comparison)
    table.finish(arguments, facts)


def compare_all(comparison: Comparison) -> None:
    """Add every line."""
    comparison.add("float32", "Spearman", Measured(value=100 * spearman(comparison.embeddings)))
    peer = comparison.folder / "peer.onnx"
    logging.disable(logging.WARNING)  # it advises to prepare the model; what it quantizes is the same model
    quantize_dynamic(MODEL, peer, weight_type=QuantType.QInt8)
    logging.disable(logging.NOTSET)
    comparison.judge("onnxruntime, QInt8", peer)
    reached: dict[bool, float] = {}
    for case in CASES:
        path = quantized(case, comparison.folder / "quantized.onnx")
        least = reached[case.calibrated] if case.strategy == "ACWC" else case.cosine  # ACWC against ALWC
        cosine = comparison.judge(case.words, path, case, least)
        reached.setdefault(case.calibrated, cosine)  # that of ALWC, which comes first
        comparison.latency(case.words, "the peer's", (peer, path), LONG, case.peer)
    process_cost(comparison)


def quantized(case: Case, path: Path) -> Path:
    """Write the model of a case."""
    lab = {"dynamic_strategy": case.strategy, "performance": "off"}
    config = {"common_quant_param": {"quant_type": "DYNAMIC_QUANT"}, "ptq_lab": lab}
    ptq_lab.quantize(MODEL, config, path, samples=sentences("calib")[:CALIBRATION] if case.calibrated else None)
    return path


def process_cost(comparison: Comparison) -> None:
    """Add what a process costs that quantizes with ALWC, those that it starts to measure memory included."""
    name, command = "ALWC, whole process", ["-c", QUANTIZE, str(MODEL), str(comparison.folder / "cost.onnx"), "ALWC"]
    run_process(command)
    costs = [run_process(command) for _ in range(comparison.processes)]
    low, middle, high = np.percentile([cost.processor for cost in costs], [25, 50, 75])
    seconds = Measured(value=float(middle), low=float(low), high=float(high), bar=SECONDS)
    comparison.add(name, "processor seconds, with children", seconds)
    peak = max(cost.peak for cost in costs) / MODEL.stat().st_size
    comparison.add(name, "peak memory of the model's size", Measured(value=peak, bar=PEAK))


def resident(path: Path, folder: Path, processes: int) -> tuple[float, float]:
    """Return by how many bytes a process grows that loads a model and runs it once, and how many it then holds."""
    command = [sys.executable, "-c", PROBE, str(path), str(folder / "feeds.npz")]
    found = [
        [int(word) for word in subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()]
        for _ in range(processes)
    ]
    return median(growth for growth, _ in found), median(whole for _, whole in found)


def plain_differences(path: Path, samples: Sequence[Sentence]) -> NDArray[np.float32]:
    """Return by how much onnxruntime's optimizations change each sample, relative to the largest value of all."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    wanted = np.concatenate([plain.run(None, dict(feeds))[0] for feeds in samples])
    return np.asarray(np.abs(embed(path, samples) - wanted).max(axis=1) / np.abs(wanted).max())


def embed(path: Path, samples: Sequence[Sentence]) -> NDArray[np.float32]:
    session = open_session(path)
    return np.concatenate([np.asarray(session.run(None, dict(feeds))[0]) for feeds in samples])


def cosines(wanted: NDArray[np.float32], got: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(wanted, axis=1) * np.linalg.norm(got, axis=1)
    return np.asarray((wanted * got).sum(axis=1) / lengths)


if __name__ == "__main__":
    main()
