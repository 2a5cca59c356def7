"""onnxsim. Variants: fold, bc (its bias correction), gptq (its rounding, 4 bits). full8-best: ranges of least error."""

from __future__ import annotations

from adapter import Job, run

METHODS = {"full8-maxmin": "minmax", "full8-kl": "entropy", "full8-percentile": "percentile", "full8-best": "mse"}


def quantize(job: Job) -> str:
    import onnx
    import onnxsim

    job.one_of(("weight8", "weight4", "dynamic8", *METHODS))
    model = onnx.load(job.prepared())
    words = {"weight8": "quantize_weight_only", "weight4": "quantize_weight_only_int4", "dynamic8": "quantize_dynamic"}
    if job.mode in METHODS:
        made = onnxsim.quantize_static(model, calibration_data=job.feeds(), method=METHODS[job.mode])
        said = f"quantize_static method={METHODS[job.mode]}"
    else:
        said = words[job.mode]
        made = getattr(onnxsim, said)(model)
    if "gptq" in job.variant:
        made = onnxsim.apply_gptq(model, made, calibration_data=job.feeds())
        said += ", apply_gptq"
    if "bc" in job.variant:
        made = onnxsim.correct_bias(model, made, calibration_data=job.feeds())
        said += ", correct_bias"
    onnx.save(made, job.out)
    return said


if __name__ == "__main__":
    run(quantize, ("onnxsim", "onnx", "onnxruntime"))
