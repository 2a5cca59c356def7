"""``[weight_quant_param]`` and ``[mixed_bit_weight_quant_param]``: how weights are quantized."""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, ClassVar, Literal, get_args

from ptq_lab.config.kinds import Choice, Flag, Real, Whole
from ptq_lab.config.option import ORIGINAL, Needs, Option, OptionGroup
from ptq_lab.config.sections.quantization import LARGEST_COUNT

DequantStrategy = Literal["ON_THE_FLY"]
WeightStrategy = Literal["MAX_MIN", "GPTQ"]

_WEIGHTS = MappingProxyType({"quant_type": ("WEIGHT_QUANT",)})


class WeightOptions(OptionGroup):
    """Granularity and rounding of quantized weights, and when they turn back into float."""

    section: ClassVar[str] = "weight_quant_param"
    used_with: ClassVar[Needs] = _WEIGHTS

    dequant_strategy: Annotated[
        DequantStrategy | None,
        Option(
            kind=Choice(values=get_args(DequantStrategy)),
            what="ON_THE_FLY keeps weights small in memory and restores them at every inference; "
            "unset restores them once, when the model is loaded.",
            when="When memory at run time matters more than speed; with 2, 4 or 8 bits.",
            source=ORIGINAL,
            example="ON_THE_FLY",
        ),
    ] = None
    quant_strategy: Annotated[
        WeightStrategy,
        Option(
            kind=Choice(values=get_args(WeightStrategy)),
            what="How codes are chosen: nearest between minimum and maximum, "
            "or GPTQ's rounding that lets later weights make up for earlier ones.",
            when="GPTQ at 4 bits and below, when there are samples.",
            source=ORIGINAL,
        ),
    ] = "MAX_MIN"
    per_channel: Annotated[
        bool,
        Option(
            kind=Flag(),
            what="Whether each channel of a weight has its own scale, or the whole tensor shares one.",
            when="Switch it off only for targets that cannot do more than one scale per tensor.",
            source=ORIGINAL,
        ),
    ] = True
    bias_correction: Annotated[
        bool,
        Option(
            kind=Flag(),
            what="Whether restored weights are corrected to the mean and variance of the original ones.",
            when="Switch it off to see what rounding alone does.",
            source=ORIGINAL,
        ),
    ] = True
    update_mindir: Annotated[
        bool,
        Option(
            kind=Flag(),
            what="Whether an internal MindIR graph is updated after quantization.",
            when="Never needed here.",
            source=ORIGINAL,
            no_effect="there is no MindIR graph",
        ),
    ] = True
    max_segments: Annotated[
        int,
        Option(
            kind=Whole(low=-(2**31), high=2**31 - 1),
            what="Into how many segments an entropy-coded weight is cut for parallel decoding.",
            when="Never needed here.",
            source=ORIGINAL,
            no_effect="weights are decoded by the runtime's own threads",
        ),
    ] = 1


class MixedBitOptions(OptionGroup):
    """How much error mixed bits may cause in each layer, when bit_num is 0."""

    section: ClassVar[str] = "mixed_bit_weight_quant_param"
    used_with: ClassVar[Needs] = MappingProxyType({"quant_type": ("WEIGHT_QUANT",), "bit_num": (0,)})

    init_scale: Annotated[
        float,
        Option(
            kind=Real(low=0, high=1, low_open=True, high_open=True),
            what="The relative error a weight may have: the norm of the error over the norm of the weight.",
            when="Raise it for a smaller file; each doubling saves about one bit per weight.",
            ignored="auto_tune is true, or [ptq_lab.mixed_bit] names a budget",
        ),
    ] = 0.02
    auto_tune: Annotated[
        bool,
        Option(
            kind=Flag(),
            what="Whether the largest error is searched that keeps the cosine similarity "
            "of the model's output at 0.995 or above.",
            when="When you know how good the output must be, not how large the error of a weight may be.",
            ignored="[ptq_lab.mixed_bit] names a budget",
        ),
    ] = False
    use_cv_data: Annotated[
        bool,
        Option(
            kind=Flag(),
            what="Whether auto_tune measures on photographs built into the converter instead of random data.",
            when="Never needed here.",
            source=ORIGINAL,
            no_effect="auto_tune measures on your samples",
        ),
    ] = False
    max_iterations: Annotated[
        int,
        Option(
            kind=Whole(low=40, high=LARGEST_COUNT),
            what="How many settings auto_tune may try.",
            when="Raise it when the search stops before it finds a setting that passes.",
            source=ORIGINAL,
            ignored="auto_tune is false",
        ),
    ] = 40
