"""``[common_quant_param]``: what kind of quantization, and of which nodes."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from ptq_lab.config.kinds import Choice, Flag, Whole
from ptq_lab.config.lists import FilePath, Names
from ptq_lab.config.option import ORIGINAL, Option, OptionGroup

QuantType = Literal["WEIGHT_QUANT", "FULL_QUANT", "DYNAMIC_QUANT"]

LARGEST_COUNT = 65535  # the upper end of every count in the document


class CommonOptions(OptionGroup):
    """What kind of quantization is done, with how many bits, and which nodes stay in float."""

    section: ClassVar[str] = "common_quant_param"

    quant_type: Annotated[
        QuantType | None,
        Option(
            kind=Choice(values=get_args(QuantType)),
            what="The kind of quantization: of weights only, of weights and activations with calibration, "
            "or of weights with activations quantized at run time.",
            when="WEIGHT_QUANT for a smaller file, FULL_QUANT for speed on vision models, "
            "DYNAMIC_QUANT for speed on language models without calibration data.",
            example="WEIGHT_QUANT",
        ),
    ] = None
    bit_num: Annotated[
        int,
        Option(
            kind=Whole(low=0, high=16),
            what="Bits per weight; 0 chooses the number for each layer (mixed bits). "
            "FULL_QUANT and DYNAMIC_QUANT take 8 only.",
            when="Below 8 when a quarter of the float32 file is still too large; 0 when layers differ much.",
        ),
    ] = 8
    min_quant_weight_size: Annotated[
        int,
        Option(
            kind=Whole(low=0, high=LARGEST_COUNT),
            what="Only weights with more elements than this are quantized.",
            when="To keep small, sensitive weights in float at little cost in size.",
            used_with={"quant_type": ("WEIGHT_QUANT",)},
        ),
    ] = 0
    min_quant_weight_channel: Annotated[
        int,
        Option(
            kind=Whole(low=0, high=LARGEST_COUNT),
            what="Only weights with more channels than this are quantized.",
            when="Lower it when thin layers hold most of the weights, raise it to spare them.",
            used_with={"quant_type": ("WEIGHT_QUANT",)},
        ),
    ] = 16
    skip_quant_node: Annotated[
        tuple[str, ...],
        Option(
            kind=Names(what="node names, globs, re:expressions or type:Operator"),
            what="Nodes that stay in float, named exactly or by pattern.",
            when="When the report shows a few nodes that cause most of the error.",
            example="conv2d_1,add_8,type:Concat",
        ),
    ] = ()
    debug_info_save_path: Annotated[
        str | None,
        Option(
            kind=FilePath(),
            what="The folder that receives the report files; naming one switches the reports on.",
            when="When accuracy is not good enough and you want to see which layer is to blame.",
            example="./quant_report",
        ),
    ] = None
    enable_encode: Annotated[
        bool,
        Option(
            kind=Flag(),
            what="Whether quantized weights are packed to their exact number of bits in the file.",
            when="Switch it off to store plain 8 or 16 bit integers; other widths need it.",
            used_with={"quant_type": ("WEIGHT_QUANT",)},
        ),
    ] = True
    workspace: Annotated[
        str | None,
        Option(
            kind=FilePath(),
            what="A folder for temporary files of very large models.",
            when="Name one on a disk with room for the codes, or to use as little memory as possible: weights then go "
            "from file to file, as those of models from 1 GiB on do without it.",
            source=ORIGINAL,
            used_with={"quant_type": ("WEIGHT_QUANT",)},
            example="./workspace",
        ),
    ] = None
