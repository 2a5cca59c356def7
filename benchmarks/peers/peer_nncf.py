"""NNCF.

Variants: fold; of weightN also sym, g32 (groups of 32), se (scale estimation). full8-best: accurate bias correction.
"""

from __future__ import annotations

from typing import Any

from adapter import Job, has_convolutions, run


def quantize(job: Job) -> str:
    import nncf
    import onnx

    job.one_of(("weight8", "weight4", "full8-maxmin", "full8-best"))
    model = onnx.load(job.prepared(21 if job.bits == 4 else 13))
    if job.bits is not None:
        compressed, words = _compressed(job, model)
        onnx.save(compressed, job.out)
        return words
    given: dict[str, Any] = {"subset_size": job.size}
    if job.mode == "full8-best":
        given["fast_bias_correction"] = False
    if not has_convolutions(job.model):
        given["model_type"] = nncf.ModelType.TRANSFORMER
    onnx.save(nncf.quantize(model, nncf.Dataset(job.feeds()), **given), job.out)
    return "quantize " + _words(given)


def _compressed(job: Job, model: Any) -> tuple[Any, str]:
    import nncf

    modes = nncf.CompressWeightsMode
    mode = modes.INT4_SYM if job.bits == 4 else modes.INT8_SYM if "sym" in job.variant else modes.INT8_ASYM
    given: dict[str, Any] = {"mode": mode}
    if "g32" in job.variant:
        given["group_size"] = 32
    if "se" in job.variant:
        given |= {"scale_estimation": True, "dataset": nncf.Dataset(job.feeds())}
    words = _words({key: value for key, value in given.items() if key != "dataset"})
    return nncf.compress_weights(model, **given), f"compress_weights {words}"


def _words(given: dict[str, Any]) -> str:
    return " ".join(f"{key}={getattr(value, 'name', value)}" for key, value in given.items())


if __name__ == "__main__":
    run(quantize, ("nncf", "onnx", "onnxruntime", "torch"))
