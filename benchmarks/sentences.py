"""Sentence pairs that people have scored for similarity (STS-B), and how well a model's embeddings rank them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from workloads import DATA

NAMES = ("input_ids", "attention_mask", "token_type_ids")

Sentence = dict[str, NDArray[np.int64]]


def sentences(split: str) -> list[Sentence]:
    """Return the sentences of all pairs, first ones first, trimmed to their length."""
    with np.load(DATA / "stsb" / f"{split}.npz") as arrays:
        held = {name: arrays[name] for name in arrays.files}
    found = []
    for side in ("1", "2"):
        for index, mask in enumerate(held[f"attention_mask_{side}"]):
            length = int(mask.sum())
            found.append({name: held[f"{name}_{side}"][index : index + 1, :length].astype(np.int64) for name in NAMES})
    return found


def random_sentence(length: int) -> Sentence:
    """Return one sentence of random words."""
    tokens = np.random.default_rng(0).integers(1000, 20000, (1, length))
    return {"input_ids": tokens, "attention_mask": np.ones_like(tokens), "token_type_ids": np.zeros_like(tokens)}


def spearman(embeddings: NDArray[np.floating]) -> float:
    """Return the rank correlation of sentence similarity with the human scores."""
    with np.load(DATA / "stsb" / "eval.npz") as arrays:
        human = arrays["score"]
    half = len(human)
    similarity = (embeddings[:half] * embeddings[half:]).sum(axis=1)
    return float(np.corrcoef(ranks(similarity), ranks(human))[0, 1])


def ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return ranks; equal values share their mean rank."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[which])
