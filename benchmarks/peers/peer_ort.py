"""onnxruntime.quantization. Variants of weightN: b32 (blocks of 32, integer products), gather (tables too)."""

from __future__ import annotations

from pathlib import Path

from adapter import Job, NotOfferedError, Reader, multiplies_constants, run


def quantize(job: Job) -> str:
    if job.bits is not None:
        return _weights(job)
    from onnxruntime.quantization import QuantType, quantize_dynamic

    prepared, how = _preprocessed(job)
    if job.mode == "dynamic8":
        quantize_dynamic(prepared, job.out, weight_type=QuantType.QInt8, per_channel=True)
        return f"quantize_dynamic, int8 weights per channel, {how}"
    return _static(job, prepared, how)


def _static(job: Job, prepared: Path, how: str) -> str:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    methods = {"full8-maxmin": "MinMax", "full8-kl": "Entropy", "full8-percentile": "Percentile"}
    job.one_of([*methods, "dynamic8"])
    quantize_static(
        prepared,
        job.out,
        Reader(job.feeds()),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod[methods[job.mode]],
    )
    return f"quantize_static, QDQ, uint8 activations, int8 weights per channel, {methods[job.mode]}, {how}"


def _weights(job: Job) -> str:
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    if job.bits not in (4, 8) or not multiplies_constants(job.model):
        raise NotOfferedError("4 or 8 bits for MatMul and Gather only")
    prepared, how = _preprocessed(job)
    operators = ("MatMul", "Gather") if "gather" in job.variant else ("MatMul",)
    blocks = {"block_size": 32, "is_symmetric": True, "accuracy_level": 4} if "b32" in job.variant else {}
    config = DefaultWeightOnlyQuantConfig(bits=job.bits, op_types_to_quantize=operators, **blocks)
    tool = MatMulNBitsQuantizer(onnx.load(prepared), algo_config=config)
    tool.process()
    tool.model.save_model_to_file(str(job.out), False)
    given = ", ".join(f"{key}={value}" for key, value in blocks.items()) or "defaults"
    return f"MatMulNBitsQuantizer, {job.bits} bits, {'+'.join(operators)}, {given}, {how}"


def _preprocessed(job: Job) -> tuple[Path, str]:
    """Do what onnxruntime's guide asks for first; symbolic shapes where they can be inferred.

    Its 4- and 8-bit weights want opset 21, and it changes the number of the opset without changing the nodes.
    """
    from onnxruntime.quantization.shape_inference import quant_pre_process

    source, goal = job.prepared(13 if job.bits is None else 21), job.folder / "preprocessed.onnx"
    try:
        quant_pre_process(source, goal, skip_symbolic_shape=False)
    except Exception as error:
        quant_pre_process(source, goal, skip_symbolic_shape=True)
        return goal, f"quant_pre_process without symbolic shapes ({type(error).__name__})"
    return goal, "quant_pre_process"


if __name__ == "__main__":
    run(quantize, ("onnxruntime", "onnx"))
