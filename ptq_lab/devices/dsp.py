"""DSP: every operator in integers, one scale per layer except for convolutions."""

from ptq_lab.devices.preset import Preset
from ptq_lab.graph.flow import Flow
from ptq_lab.graph.qdq import Form

DSP = Preset(
    name="DSP",
    toolchain="Hexagon-like processors through importers of Q/DQ models, such as the QNN provider of onnxruntime",
    source="the original's preset: all operators, asymmetric activations, scales per channel for convolutions only, "
    "other weights per tensor and asymmetric. It writes int8; these processors compute in uint8, so codes and zero "
    "points are written 128 higher, which are the same numbers",
    flow=Flow(
        layers=("Conv", "ConvTranspose", "Gemm", "MatMul"),
        everything=True,
        reasons=dict.fromkeys(
            ("LSTM", "GRU", "RNN"), "the states inside a recurrent operator cannot carry codes in ONNX's format"
        ),
    ),
    left_float=(("Pow", "its exponent stays a float constant: a rounded one turns negative numbers into NaN"),),
    channel_operators=("Conv", "ConvTranspose"),
    symmetric_tensors=False,
    form=Form(unsigned_tensors=True, shield=False),
)
