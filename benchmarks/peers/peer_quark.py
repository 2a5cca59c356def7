"""AMD Quark for ONNX.

Variants: fold, pc (per channel), bc (bias correction). full8-best: AdaRound.
"""

from __future__ import annotations

import copy
from typing import Any

from adapter import Job, NotOfferedError, Reader, has_convolutions, multiplies_constants, run


def quantize(job: Job) -> str:
    from onnxruntime.quantization import CalibrationDataReader
    from quark.onnx import Config, ModelQuantizer

    class Samples(Reader, CalibrationDataReader):  # type: ignore[misc]
        """The samples, as a reader of the class that Quark asks for."""

    name, config = _config(job)
    if "pc" in job.variant:
        config.per_channel = True
    if "bc" in job.variant:
        config.extra_options["BiasCorrection"] = True
    tool = ModelQuantizer(Config(global_quant_config=config))
    tool.quantize_model(str(job.prepared(17)), str(job.out), Samples(job.feeds()))
    return f"{name}, per_channel={config.per_channel}" + (", BiasCorrection" if "bc" in job.variant else "")


def _config(job: Job) -> tuple[str, Any]:
    from quark.onnx.quantization.config import custom_config

    plain = "INT8_CNN_DEFAULT_CONFIG" if has_convolutions(job.model) else "INT8_TRANSFORMER_DEFAULT_CONFIG"
    names = {
        "weight8": "INT8_CNN_DEFAULT_CONFIG",
        "weight4": "MATMUL_NBITS_CONFIG",
        "dynamic8": "UINT8_DYNAMIC_QUANT_CONFIG",
        "full8-maxmin": plain,
        "full8-percentile": "U8S8_AAWS_CONFIG",
        "full8-best": "U8S8_AAWS_ADAROUND_CONFIG",
    }
    job.one_of(tuple(names))
    if job.mode == "weight4" and not multiplies_constants(job.model):
        raise NotOfferedError("4 bits for MatMul only")
    config = copy.deepcopy(getattr(custom_config, names[job.mode]))
    if job.mode == "weight8":
        config.extra_options["WeightsOnly"] = True
        config.per_channel = True
        return f"{names[job.mode]}, WeightsOnly", config
    if job.mode == "weight4":
        config.extra_options["MatMulNBitsParams"] = {
            **config.extra_options["MatMulNBitsParams"],
            "Bits": 4,
            "GroupSize": 32,
        }
    return names[job.mode], config


if __name__ == "__main__":
    run(quantize, ("amd-quark", "onnx", "onnxruntime", "torch"))
