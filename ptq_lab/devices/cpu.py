"""CPU: the default. Integers from the first layer to the last wherever onnxruntime has a kernel that fuses."""

from ptq_lab.devices.preset import Preset
from ptq_lab.graph.flow import Flow

_NO_KERNEL = "onnxruntime has no static integer kernel for {}"

CPU = Preset(
    name="CPU",
    toolchain="onnxruntime's CPU provider, which turns the Q/DQ pairs into integer kernels when it loads the file",
    source="measured on onnxruntime 1.32; the original quantizes signed activations and leaves Add and Concat in "
    "float, which would break the chain of integer kernels",
    flow=Flow(
        reasons={
            "ConvTranspose": _NO_KERNEL.format("ConvTranspose"),
            "LSTM": _NO_KERNEL.format("LSTM"),
            "GRU": _NO_KERNEL.format("GRU"),
            "RNN": _NO_KERNEL.format("RNN"),
            "Gather": "looking up anything but rows of a matrix computes nothing in integers",
            "Slice": "cutting out anything but rows of a matrix computes nothing in integers",
        }
    ),
    lookups=True,
    left_float=(
        ("Softmax", "probabilities need finer steps near zero than 8 bits have"),
        ("LayerNormalization", "onnxruntime normalises in float, and codes on the way would cost accuracy for nothing"),
        ("ReduceMean", "onnxruntime has no integer kernel for it that fuses"),
        ("Slice", "it would keep the codes of its input, but is not fused in front of Pad"),
        ("Pad", "it would keep the codes of its input, but is not fused"),
        ("Erf", "GELU has no integer kernel"),
    ),
)
