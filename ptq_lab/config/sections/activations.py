"""``[full_quant_param]``, ``[dynamic_quant_param]``, ``[transform_quant_param]``: quantized activations."""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, ClassVar, Literal, get_args

from ptq_lab.config.kinds import Choice, Flag, Real
from ptq_lab.config.option import ORIGINAL, Needs, Option, OptionGroup

ActivationMethod = Literal["MAX_MIN", "KL", "REMOVAL_OUTLIER"]
TargetDevice = Literal["CPU", "KIRIN", "NVGPU", "DSP", "ASCEND"]
DynamicStrategy = Literal["ALWC", "ACWL"]
ExportPrecision = Literal["QUANT", "FLOAT32"]


class FullOptions(OptionGroup):
    """How activations are calibrated, and for which device."""

    section: ClassVar[str] = "full_quant_param"
    used_with: ClassVar[Needs] = MappingProxyType({"quant_type": ("FULL_QUANT",)})

    activation_quant_method: Annotated[
        ActivationMethod,
        Option(
            kind=Choice(
                values=get_args(ActivationMethod),
                aliases={"RemovalOutlier": "REMOVAL_OUTLIER"},
            ),
            what="How the range of an activation is chosen from what the samples produced: all of it, "
            "the cut with the smallest Kullback-Leibler divergence, or the central 99.98 %.",
            when="MAX_MIN when samples are like real input; KL or REMOVAL_OUTLIER when they are noisy.",
        ),
    ] = "MAX_MIN"
    bias_correction: Annotated[
        bool,
        Option(
            kind=Flag(),
            what="Whether biases absorb the mean error that quantization leaves in each channel.",
            when="Leave it on; switch it off to see what it brings.",
            ignored="target_device is KIRIN, which forces it off",
        ),
    ] = True
    per_channel: Annotated[
        bool,
        Option(
            kind=Flag(),
            what="Whether each output channel of a weight has its own scale, or the layer shares one.",
            when="Switch it off for hardware that supports one scale per layer only.",
        ),
    ] = True
    target_device: Annotated[
        TargetDevice,
        Option(
            kind=Choice(values=get_args(TargetDevice)),
            what="The hardware whose rules decide which operators are quantized, and how.",
            when="When the model will run on one of these devices; leave it out for any CPU.",
        ),
    ] = "CPU"
    smooth_alpha: Annotated[
        float,
        Option(
            kind=Real(),
            what="How much of the difficulty moves from activations into weights when both are rescaled: "
            "0 none, 1 all.",
            when="For transformers whose activations have a few very large channels.",
            source=ORIGINAL,
            ignored="it is not between 0 and 1",
        ),
    ] = 0.5
    enable_smooth_shift: Annotated[
        bool,
        Option(
            kind=Flag(),
            what="Whether rescaling also centres each channel of an activation.",
            when="When channels are far from zero on one side.",
            source=ORIGINAL,
            implemented=False,
            instead="leave it out; smooth_alpha rescales without centring",
        ),
    ] = False


class DynamicOptions(OptionGroup):
    """How finely dynamic quantization divides activations and weights."""

    section: ClassVar[str] = "dynamic_quant_param"
    used_with: ClassVar[Needs] = MappingProxyType({"quant_type": ("DYNAMIC_QUANT",)})

    quant_strategy: Annotated[
        DynamicStrategy,
        Option(
            kind=Choice(values=get_args(DynamicStrategy), elsewhere={"ACWC": "[ptq_lab] dynamic_strategy"}),
            what="ALWC: one scale per activation, one per weight channel. "
            "ACWL: one scale per activation row, one per weight.",
            when="ACWL when the rows of an activation differ a lot in size.",
        ),
    ] = "ALWC"


class TransformOptions(OptionGroup):
    """What becomes of models that already hold fake-quantization nodes."""

    section: ClassVar[str] = "transform_quant_param"

    export_precision_mode: Annotated[
        ExportPrecision,
        Option(
            kind=Choice(values=get_args(ExportPrecision)),
            what="Whether a model trained with fake quantization is exported quantized or in float.",
            when="FLOAT32 to get the float model back.",
            source=ORIGINAL,
            ignored="the model holds no fake-quantization nodes",
            implemented=False,
        ),
    ] = "QUANT"
