"""KIRIN: convolutions and fully connected layers with unsigned activations; everything else is left to the device."""

from ptq_lab.devices.preset import Forced, Preset
from ptq_lab.graph.flow import Flow
from ptq_lab.graph.qdq import Form

_NOT_IN_SET = "the original marks convolutions and fully connected layers only on Kirin"

KIRIN = Preset(
    name="KIRIN",
    toolchain="MindSpore Lite's Kirin back end and other importers that take grids from Q/DQ pairs around a layer",
    source="the original's preset: uint8 activations, convolutions per channel and symmetric, fully connected layers "
    "per tensor and asymmetric, int32 bias; MatMul with a constant weight is a fully connected layer there",
    flow=Flow(
        layers=("Conv", "Gemm", "MatMul"),
        outputs=("Conv", "Gemm", "MatMul"),
        between=(),
        reasons=dict.fromkeys(("ConvTranspose", "Gather", "Slice", "LSTM", "GRU", "RNN"), _NOT_IN_SET),
    ),
    left_float=(
        ("Add", _NOT_IN_SET),
        ("Concat", _NOT_IN_SET),
        ("MaxPool", _NOT_IN_SET),
        ("GlobalAveragePool", _NOT_IN_SET),
        ("Softmax", _NOT_IN_SET),
    ),
    channel_operators=("Conv",),
    symmetric_tensors=False,
    form=Form(shield=False),
    forced=(
        Forced(
            option="bias_correction",
            value=False,
            reason="MindSpore Lite has no bias correction for Kirin, so it is switched off",
        ),
    ),
)
