"""ASCEND: convolutions and matrix products, everything else in float16 on the device."""

from ptq_lab.devices.preset import Forced, Preset
from ptq_lab.graph.flow import Flow
from ptq_lab.graph.qdq import Form

_ONLY_TWO = "on Ascend only convolutions and matrix products are quantized"

ASCEND = Preset(
    name="ASCEND",
    toolchain="CANN: AMCT's convert_qat_model reads the Q/DQ pairs, then atc compiles for the chip",
    source="the original's operators and symmetric weights; CANN's guide *QAT Model Adaptation to CANN Format*: pairs "
    "on input and weight of Conv, Gemm and MatMul, scales per channel for Conv alone, float biases that lie on the "
    "int32 grid already. The original has scales per channel for matrix products as well",
    flow=Flow(
        layers=("Conv", "Gemm", "MatMul"),
        outputs=(),
        between=(),
        shared_weights=False,
        reasons=dict.fromkeys(("ConvTranspose", "Gather", "Slice", "LSTM", "GRU", "RNN"), _ONLY_TWO),
    ),
    left_float=(
        ("Add", _ONLY_TWO),
        ("Concat", _ONLY_TWO),
        ("MaxPool", _ONLY_TWO),
        ("AveragePool", _ONLY_TWO),
        ("Softmax", _ONLY_TWO),
    ),
    signed=True,
    channel_operators=("Conv",),
    form=Form(biases="rounded", weight_pairs=True, shield=False),
    forced=(
        Forced(
            option="fp16",
            value=False,
            reason="atc chooses float16 itself, and weights and biases rounded for int8 would lose their grid in it",
        ),
    ),
    optimize="ascend_oriented",
    fixed_shapes=True,
)
