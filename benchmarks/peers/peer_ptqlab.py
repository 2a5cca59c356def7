"""ptq_lab.

Variants: the effort (fast takes no samples; balanced; best); of weightN also mixed (widths by sensitivity, with that
average); of dynamic8 samples (smoothing with them) and acwc (a scale per row and per channel).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ["PTQ_LAB_CACHE"] = "off"  # what is measured has to be done
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a clone that is not installed works too

from adapter import Job, NotOfferedError, run

EFFORTS = ("fast", "balanced", "best")
METHODS = {
    "full8-maxmin": "MAX_MIN",
    "full8-best": "MAX_MIN",
    "full8-kl": "KL",
    "full8-percentile": "PERCENTILE",
}

Config = dict[str, dict[str, Any]]


def quantize(job: Job) -> str:
    import ptq_lab

    config = settings(job)
    needs = not (job.mode == "dynamic8" and "samples" not in job.variant) and "fast" not in job.variant
    ptq_lab.quantize(job.model, config, job.out, samples=job.feeds() if needs else None)
    words = [f"{key}={value}" for keys in config.values() for key, value in keys.items()]
    return " ".join(words) if needs else " ".join([*words, "(no samples)"])


def settings(job: Job) -> Config:
    """Return what a user would write."""
    efforts = [effort for effort in EFFORTS if effort in job.variant]
    ours: dict[str, Any] = {"effort": efforts[0]} if efforts else {}
    if job.bits is not None:
        return _weights(job, ours)
    if job.mode == "dynamic8":
        strategy = {"dynamic_strategy": "ACWC"} if "acwc" in job.variant else {}
        return _config("DYNAMIC_QUANT", 8, ours | strategy)
    if job.mode == "full8-best":
        ours = {"effort": "best"}
    full = _config("FULL_QUANT", 8, ours)
    if METHODS[job.mode] == "PERCENTILE":  # ours alone, so it has its place among our options
        full["ptq_lab"] = {**full.get("ptq_lab", {}), "activation_quant_method": "PERCENTILE"}
        return full
    return {**full, "full_quant_param": {"activation_quant_method": METHODS[job.mode]}}


def _weights(job: Job, ours: dict[str, Any]) -> Config:
    if "mixed" not in job.variant:
        return _config("WEIGHT_QUANT", job.bits, ours)
    if "fast" in job.variant:
        raise NotOfferedError("widths by sensitivity need samples")
    return {**_config("WEIGHT_QUANT", 0, ours), "ptq_lab.mixed_bit": {"average_bits": job.bits}}


def _config(kind: str, bits: int | None, ours: dict[str, Any]) -> Config:
    common: dict[str, Any] = {"quant_type": kind, "bit_num": bits}
    if kind == "WEIGHT_QUANT":
        common["min_quant_weight_channel"] = 0
    return {"common_quant_param": common} | ({"ptq_lab": ours} if ours else {})


if __name__ == "__main__":
    run(quantize, ("ptq-lab", "numpy", "onnx", "onnxruntime"))
