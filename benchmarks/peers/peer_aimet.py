"""AIMET for ONNX: a simulation with encodings, exported as QDQ.

Variants: fold, cle (equalization), enh (ranges by error), which full8-best has too.
"""

from __future__ import annotations

from typing import Any

from adapter import Job, run


def quantize(job: Job) -> str:
    import aimet_onnx
    import onnx
    from aimet_onnx.common.defs import QuantScheme

    job.one_of(("weight8", "weight4", "full8-maxmin", "full8-percentile", "full8-best"))
    model = onnx.shape_inference.infer_shapes(onnx.load(job.prepared(21 if job.bits == 4 else 13)))
    if "cle" in job.variant:
        from aimet_onnx.cross_layer_equalization import equalize_model

        equalize_model(model)
    scheme = QuantScheme.min_max
    if "enh" in job.variant or job.mode == "full8-best":
        scheme = QuantScheme.post_training_tf_enhanced
    if job.mode == "full8-percentile":
        scheme = QuantScheme.post_training_percentile
    width = aimet_onnx.int4 if job.bits == 4 else aimet_onnx.int8
    simulation = aimet_onnx.QuantizationSimModel(
        model, param_type=width, activation_type=aimet_onnx.int8, quant_scheme=scheme
    )
    if job.bits is not None:
        _float_activations(simulation)
    simulation.compute_encodings(job.feeds())
    exported = simulation.to_onnx_qdq(prequantize_constants=True, export_int32_bias=job.bits is None)
    onnx.save(exported, job.out)
    activations = "float activations" if job.bits is not None else "int8 activations"
    return f"QuantizationSimModel {scheme.name}, {job.bits or 8}-bit weights, {activations}"


def _float_activations(simulation: Any) -> None:
    for name in simulation.activation_names:
        if name in simulation.qc_quantize_op_dict:
            simulation.qc_quantize_op_dict[name].enabled = False


if __name__ == "__main__":
    run(quantize, ("aimet-onnx", "onnx", "onnxruntime", "torch"))
