"""Compares one file with its float model in plain onnxruntime; a process of its own, as a file may end the process.

The last line is ``JUDGED`` with a JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from adapter import JUDGED_MARK, Feeds, read_feeds
from numpy.typing import NDArray

LATENCY_FEEDS = 32
SHORTEST = 0.02  # seconds of one reading

Array = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--model", "--data", "--file"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--float-outputs", type=Path, required=True, help=".npy, written if it is missing")
    parser.add_argument("--turns", type=int, default=8, help="readings of each of the two, in turn")
    parser.add_argument("--latency-only", action="store_true")
    asked = parser.parse_args()
    feeds = [trimmed(each) for each in read_feeds(asked.data, asked.model)]
    before, found = session(asked.model), {}
    if not asked.float_outputs.exists():
        np.save(asked.float_outputs, outputs(before, feeds))
    try:
        after = session(asked.file)
        got = outputs(after, feeds[: 1 if asked.latency_only else None])
    except Exception as error:  # whatever onnxruntime has against the file
        print(f"\n{JUDGED_MARK}{json.dumps({'error': f'{type(error).__name__}: {error}'})}", flush=True)
        return
    if not asked.latency_only:
        found = accuracy(np.load(asked.float_outputs), got, asked.data)
    found["turns"] = in_turn(before, after, feeds[:LATENCY_FEEDS], asked.turns)
    print(f"\n{JUDGED_MARK}{json.dumps(found)}", flush=True)


def session(path: Path) -> Any:
    """One thread, as latencies are compared."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def trimmed(feeds: Feeds) -> Feeds:
    """Cut the padding off a sentence."""
    mask = feeds.get("attention_mask")
    if mask is None:
        return feeds
    return {name: array[:, : max(1, int(mask.sum()))] for name, array in feeds.items()}


def outputs(model: Any, feeds: list[Feeds]) -> Array:
    """Return the first output of every sample, shape (samples, ...)."""
    name = model.get_outputs()[0].name
    return np.concatenate([np.asarray(model.run([name], each)[0], np.float64) for each in feeds])


def accuracy(wanted: Array, got: Array, data: Path) -> dict[str, Any]:
    flat = [each.reshape(len(each), -1) for each in (wanted, got)]
    cosines = _cosines(*flat)
    found: dict[str, Any] = {
        "evaluated": len(cosines),
        "cosine": float(cosines.mean()),
        "cosine_p1": float(np.percentile(cosines, 1)),
        "cosine_min": float(cosines.min()),
    }
    with np.load(data) as held:
        if "labels" in held.files:
            tops = [each.argmax(axis=1) for each in flat]
            right = [float((top == held["labels"]).mean()) for top in tops]
            found |= {"metric_name": "top-1", "metric_float": right[0], "metric": right[1]}
            found["agreement"] = float((tops[0] == tops[1]).mean())
        if "_score" in held.files:
            ranked = [_rank_correlation(each, held["_score"]) for each in flat]
            found |= {"metric_name": "Spearman", "metric_float": ranked[0], "metric": ranked[1]}
        if "_target" in held.files:
            noise = [_psnr(each, held["_target"]) for each in (wanted, got)]
            found |= {"metric_name": "PSNR dB", "metric_float": noise[0], "metric": noise[1]}
    return found


def in_turn(before: Any, after: Any, feeds: list[Feeds], turns: int) -> list[tuple[float, float]]:
    """Time the float model and the file in turn, the order swapped every time; return pairs of seconds per run."""
    repeats = max(1, math.ceil(SHORTEST / max(1e-6, min(_reading(before, feeds, 2), _reading(after, feeds, 2)))))
    pairs = []
    for turn in range(turns):
        some = [feeds[(turn * repeats + index) % len(feeds)] for index in range(repeats)]
        if turn % 2:
            second, first = _reading(after, some, repeats), _reading(before, some, repeats)
        else:
            first, second = _reading(before, some, repeats), _reading(after, some, repeats)
        pairs.append((first, second))
    return pairs


def _reading(model: Any, feeds: list[Feeds], repeats: int) -> float:
    start = time.perf_counter()
    for index in range(repeats):
        model.run(None, feeds[index % len(feeds)])
    return (time.perf_counter() - start) / repeats


def _cosines(wanted: Array, got: Array) -> Array:
    lengths = np.linalg.norm(wanted, axis=1) * np.linalg.norm(got, axis=1)
    products = (wanted * got).sum(axis=1)
    return np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)


def _rank_correlation(embeddings: Array, score: Array) -> float:
    half = len(embeddings) // 2
    return float(np.corrcoef(_ranks(_cosines(embeddings[:half], embeddings[half:])), _ranks(score))[0, 1])


def _ranks(values: Array) -> Array:
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[which])


def _psnr(pictures: Array, target: Array) -> float:
    squared = np.square(np.clip(pictures, 0, 1) - target).reshape(len(target), -1).mean(axis=1)
    return float((-10 * np.log10(squared)).mean())


if __name__ == "__main__":
    main()
