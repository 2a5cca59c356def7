"""NVGPU: TensorRT with explicit quantization. Q/DQ on what weighted layers and residual sums read, nothing behind."""

from ptq_lab.devices.preset import Preset
from ptq_lab.graph.flow import Flow
from ptq_lab.graph.qdq import Form

_RECURRENT = "TensorRT takes no Q/DQ pairs on the weights of recurrent layers"

NVGPU = Preset(
    name="NVGPU",
    toolchain="TensorRT (trtexec or the builder's ONNX parser), explicit quantization",
    source="NVIDIA's guide to explicit quantization: zero point 0 everywhere, activations per tensor, weights per "
    "output channel, float biases, a pair on the shortcut of a residual sum so that it fuses with the convolution. "
    "The original keeps weights float, attaches symmetric grids only, and therefore has no bias correction; here "
    "biases stay float and may be corrected",
    flow=Flow(
        layers=("Conv", "ConvTranspose", "Gemm", "MatMul"),
        outputs=(),
        between=(),
        residuals=("Add",),
        reasons={
            "Gather": "looking up rows computes nothing",
            "Slice": "cutting rows out computes nothing",
            "LSTM": _RECURRENT,
            "GRU": _RECURRENT,
            "RNN": _RECURRENT,
        },
    ),
    left_float=(
        ("MaxPool", "TensorRT moves the pair of the next layer in front of it by itself"),
        ("Concat", "TensorRT moves the pair behind it to all its inputs, which gives them one scale"),
        ("GlobalAveragePool", "a pair in front of it gains little time and costs accuracy"),
        ("Softmax", "TensorRT has no int8 kernel for it"),
        ("LayerNormalization", "TensorRT normalises in float"),
    ),
    signed=True,
    symmetric=True,
    channel_operators=("Conv", "ConvTranspose", "Gemm", "MatMul"),
    form=Form(biases="float", shield=False),
)
