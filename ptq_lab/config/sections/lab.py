"""``[ptq_lab]`` and ``[ptq_lab.mixed_bit]``: what the original has no word for, where it does not look."""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, ClassVar, Literal, get_args

from ptq_lab.config.kinds import Choice, Flag, Real, Whole
from ptq_lab.config.lists import Names, WholeList
from ptq_lab.config.option import OURS, Needs, Option, OptionGroup

Effort = Literal["fast", "balanced", "best"]
Encoding = Literal["packed", "entropy"]
OwnRangeMethod = Literal["MSE", "L2_4", "PERCENTILE"]
CorrectionMode = Literal["SEQUENTIAL", "LOCAL"]
PreprocessOrder = Literal["original", "resize_first"]
QuantizeOps = Literal["default", "all"]
LabDynamicStrategy = Literal["ALWC", "ACWL", "ACWC"]
DebugQuantiles = Literal["exact", "sampled"]
PerformanceTable = Literal["auto", "off", "full"]


class LabOptions(OptionGroup):
    """How hard to try, how to store the result, and where ptq_lab may differ from the original."""

    section: ClassVar[str] = "ptq_lab"

    effort: Annotated[
        Effort | None,
        Option(
            kind=Choice(values=get_args(Effort)),
            what="How much time is spent on accuracy; unset means balanced with samples, fast without.",
            when="best for the version you ship, fast while you try things out.",
            source=OURS,
            example="fast",
        ),
    ] = None
    encode: Annotated[
        Encoding,
        Option(
            kind=Choice(values=get_args(Encoding)),
            what="How quantized weights are stored: packed bits in a plain ONNX file, or entropy-coded in a container.",
            when="entropy when the size to download counts more than being a plain ONNX file.",
            source=OURS,
        ),
    ] = "packed"
    providers: Annotated[
        tuple[str, ...],
        Option(
            kind=Names(what="execution provider names", may_be_empty=False),
            what="The onnxruntime execution providers used to calibrate and compare.",
            when="When a faster device is installed.",
            source=OURS,
        ),
    ] = ("CPUExecutionProvider",)
    activation_quant_method: Annotated[
        OwnRangeMethod | None,
        Option(
            kind=Choice(values=get_args(OwnRangeMethod)),
            what="A range method for activations that the document does not have: the least squared error, the "
            "least error to the power 2.4, or the central 99.999 %.",
            when="MSE for convolutional networks; never for transformers, whose few large values carry the signal.",
            source=OURS,
            example="MSE",
        ),
    ] = None
    preprocess_order: Annotated[
        PreprocessOrder,
        Option(
            kind=Choice(values=get_args(PreprocessOrder)),
            what="Whether images are normalised before they are resized, as in the original, or after.",
            when="resize_first when the model was trained with a pipeline that resizes 8-bit images.",
            source=OURS,
        ),
    ] = "original"
    antialias: Annotated[
        bool,
        Option(
            kind=Flag(),
            what="Whether shrinking an image averages over all pixels it covers.",
            when="When the model was trained with a pipeline that does, such as Pillow's.",
            source=OURS,
        ),
    ] = False
    mindspore_csv: Annotated[
        bool,
        Option(
            kind=Flag(),
            what="Whether report files have the names and headers of the original's code instead of the document's.",
            when="When scripts made for the original's reports must keep working.",
            source=OURS,
            ignored="there is no [common_quant_param] debug_info_save_path",
        ),
    ] = False
    debug_quantiles: Annotated[
        DebugQuantiles,
        Option(
            kind=Choice(values=get_args(DebugQuantiles)),
            what="Whether the quartiles in report files are exact, or those of every 16th value of an activation; "
            "sampled also leaves out what stands between a layer and its Relu or Clip.",
            when="sampled when there are many samples and a rough picture will do.",
            source=OURS,
            ignored="there is no [common_quant_param] debug_info_save_path",
        ),
    ] = "exact"
    equalize: Annotated[
        bool,
        Option(
            kind=Flag(),
            what="Whether ranges of neighbouring layers are balanced when a layer has one scale.",
            when="Switch it off to see what it brings.",
            source=OURS,
            ignored="a weight has one scale per channel, quant_type is DYNAMIC_QUANT, or weights are quantized with "
            "effort=fast or without samples",
        ),
    ] = True
    bias_correction_mode: Annotated[
        CorrectionMode,
        Option(
            kind=Choice(values=get_args(CorrectionMode)),
            what="Whether a layer's bias makes up for what all quantized layers before it do as well, or, as in the "
            "original, each convolution is corrected as if everything before it were exact.",
            when="LOCAL to compare with the original; it is less accurate.",
            source=OURS,
            ignored="quant_type is not FULL_QUANT, or [full_quant_param] bias_correction is false",
        ),
    ] = "SEQUENTIAL"
    quantize_ops: Annotated[
        QuantizeOps,
        Option(
            kind=Choice(values=get_args(QuantizeOps)),
            what="Whether the operators that gain from it are quantized, or every operator that can be.",
            when="all for teaching and diagnosis; it is often slower and less accurate.",
            source=OURS,
            ignored="quant_type is not FULL_QUANT",
        ),
    ] = "default"
    weight_bits: Annotated[
        int,
        Option(
            kind=Whole(low=2, high=8),
            what="Bits per weight in the file of a model that computes in int8; onnxruntime unpacks them when it loads "
            "the file. Layers with at most 27 weights behind one output keep 8 bits unless [ptq_lab.layer_bits] says "
            "otherwise.",
            when="4 with effort=best and 100 samples or more, to halve the file at the speed of int8.",
            source=OURS,
            used_with={"quant_type": ("FULL_QUANT",)},
        ),
    ] = 8
    dynamic_strategy: Annotated[
        LabDynamicStrategy | None,
        Option(
            kind=Choice(values=get_args(LabDynamicStrategy)),
            what="Overrides [dynamic_quant_param] quant_strategy and adds ACWC: "
            "one scale per activation row and per weight channel.",
            when="ACWC when the cosine of a dynamically quantized model is too low.",
            source=OURS,
            ignored="quant_type is not DYNAMIC_QUANT",
            example="ACWC",
        ),
    ] = None
    performance: Annotated[
        PerformanceTable,
        Option(
            kind=Choice(values=get_args(PerformanceTable)),
            what="Whether size, memory and latency are measured beside the float model's (auto: for DYNAMIC_QUANT "
            "only), and with full beside those of the model in 16-bit floats and with 8-bit weights as well.",
            when="full to choose between the kinds of quantization; off to save the seconds it takes.",
            source=OURS,
        ),
    ] = "auto"

    @property
    def coded(self) -> bool:
        """Whether weights are entropy-coded, in a container."""
        return self.encode == "entropy"


class BudgetOptions(OptionGroup):
    """What mixed bits may cost or must reach; every budget that is given has to hold."""

    section: ClassVar[str] = "ptq_lab.mixed_bit"
    used_with: ClassVar[Needs] = MappingProxyType({"quant_type": ("WEIGHT_QUANT",)})

    target_size_mb: Annotated[
        float | None,
        Option(
            kind=Real(low=0, low_open=True),
            what="The largest file, in megabytes of 1 000 000 bytes.",
            when="When the file must fit somewhere.",
            source=OURS,
            ignored="bit_num is not 0",
            example="5",
        ),
    ] = None
    average_bits: Annotated[
        float | None,
        Option(
            kind=Real(low=1, high=16),
            what="The largest number of bits per quantized weight, averaged over all of them.",
            when="When you compare methods at equal size.",
            source=OURS,
            ignored="bit_num is not 0",
            example="4",
        ),
    ] = None
    compression_ratio: Annotated[
        float | None,
        Option(
            kind=Real(low=1, low_open=True),
            what="How many times smaller than the float file the result must be.",
            when="When the goal is given as a factor.",
            source=OURS,
            ignored="bit_num is not 0",
            example="6",
        ),
    ] = None
    min_cosine: Annotated[
        float | None,
        Option(
            kind=Real(low=0, high=1, low_open=True),
            what="The smallest cosine similarity of the output to the float model's.",
            when="When quality is fixed and size is what you want to know.",
            source=OURS,
            ignored="bit_num is not 0",
            example="0.99",
        ),
    ] = None
    max_metric_drop: Annotated[
        float | None,
        Option(
            kind=Real(low=0),
            what="How much the metric may fall below the float model's, in the metric's own unit.",
            when="When you can evaluate the model and know what you may lose.",
            source=OURS,
            ignored="bit_num is not 0, or nothing evaluates the model",
            example="0.01",
        ),
    ] = None
    time_limit_s: Annotated[
        float | None,
        Option(
            kind=Real(low=0, low_open=True),
            what="When the search stops and keeps the best it has found, in seconds.",
            when="When the model is large and a good answer soon beats the best one later.",
            source=OURS,
            ignored="bit_num is not 0",
            example="60",
        ),
    ] = None
    bits: Annotated[
        tuple[int, ...],
        Option(
            kind=WholeList(each=Whole(low=1, high=16)),
            what="The numbers of bits a layer may get.",
            when="To leave out widths that your target stores badly.",
            source=OURS,
            ignored="bit_num is not 0",
        ),
    ] = (2, 3, 4, 5, 6, 7, 8)
