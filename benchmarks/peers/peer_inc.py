"""Intel Neural Compressor 2, the last line with an ONNX back end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from adapter import Feeds, Job, run

ALGORITHMS = {"full8-maxmin": "minmax", "full8-kl": "kl", "full8-percentile": "percentile"}


class Loader:
    """Samples in the form of its data loaders: inputs with a label that nobody reads."""

    batch_size = 1

    def __init__(self, feeds: list[Feeds]) -> None:
        self._feeds = feeds

    def __iter__(self) -> Iterator[tuple[Feeds, int]]:
        return ((feeds, 0) for feeds in self._feeds)

    def __len__(self) -> int:
        return len(self._feeds)


def quantize(job: Job) -> str:
    from neural_compressor import PostTrainingQuantConfig, quantization

    job.one_of(("weight8", "weight4", "dynamic8", *ALGORITHMS))
    feeds = job.feeds()
    given = _given(job, len(feeds))
    made = quantization.fit(str(job.prepared()), PostTrainingQuantConfig(**given), calib_dataloader=Loader(feeds))
    if made is None:
        raise RuntimeError("quantization.fit returned nothing")
    made.save(str(job.out))
    return f"PostTrainingQuantConfig {given}"


def _given(job: Job, count: int) -> dict[str, Any]:
    if job.mode == "dynamic8":
        return {"approach": "dynamic"}
    if job.bits is not None:
        weight = {"bits": job.bits, "group_size": 32, "scheme": "sym", "algorithm": "RTN"}
        return {"approach": "weight_only", "op_type_dict": {".*": {"weight": weight}}}
    kinds = {"activation": {"algorithm": [ALGORITHMS[job.mode]]}, "weight": {"granularity": ["per_channel"]}}
    return {
        "approach": "static",
        "quant_format": "QDQ",
        "calibration_sampling_size": [count],
        "op_type_dict": {".*": kinds},
    }


if __name__ == "__main__":
    run(quantize, ("neural-compressor", "onnx", "onnxruntime"))
