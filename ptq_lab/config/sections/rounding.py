"""``[ptq_lab.weights]``: the steps that make quantized weights better, one switch each."""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, ClassVar, Literal, get_args

from ptq_lab.config.kinds import Choice, Flag, Real, Whole
from ptq_lab.config.option import OURS, Needs, Option, OptionGroup

RunTimeArithmetic = Literal["float32", "int8"]

_NO_SAMPLES = "there are no samples of your own"


class RoundingOptions(OptionGroup):
    """Which steps are tried to make quantized weights better; what is left out follows from [ptq_lab] effort.

    In full quantization they count at effort=best and for weights of fewer than 8 bits.
    """

    section: ClassVar[str] = "ptq_lab.weights"
    used_with: ClassVar[Needs] = MappingProxyType({"quant_type": ("WEIGHT_QUANT", "FULL_QUANT")})

    search_ranges: Annotated[
        bool | None,
        Option(
            kind=Flag(),
            what="Whether each channel gets the range whose errors cost least, instead of minimum to maximum; "
            "unset: at every effort but fast.",
            when="Switch it off to see what it brings.",
            source=OURS,
            ignored=_NO_SAMPLES,
            example="true",
        ),
    ] = None
    correct_biases: Annotated[
        bool | None,
        Option(
            kind=Flag(),
            what="Whether biases give every output its mean back, layer after layer, with inputs from the layers "
            "quantized before; unset: at every effort but fast.",
            when="Switch it off to see what it brings.",
            source=OURS,
            ignored=_NO_SAMPLES,
            example="true",
        ),
    ] = None
    fit_activations: Annotated[
        bool | None,
        Option(
            kind=Flag(),
            what="Whether gains and biases are fitted to what comes out behind the activation, where that helps; "
            "unset: at every effort but fast.",
            when="Switch it off to see what it brings.",
            source=OURS,
            ignored=f"correct_biases is false, or {_NO_SAMPLES}",
            example="true",
        ),
    ] = None
    gptq: Annotated[
        bool | None,
        Option(
            kind=Flag(),
            what="Whether later weights make up for the rounding of earlier ones; unset: at the best effort, or with "
            "[weight_quant_param] quant_strategy=GPTQ.",
            when="At 6 bits and below.",
            source=OURS,
            ignored=_NO_SAMPLES,
            example="true",
        ),
    ] = None
    descend: Annotated[
        bool | None,
        Option(
            kind=Flag(),
            what="Whether sweeps over single weights go on from there until no other code is better; unset: at the "
            "best effort.",
            when="At 4 bits and below.",
            source=OURS,
            ignored=_NO_SAMPLES,
            example="true",
        ),
    ] = None
    refit_scales: Annotated[
        bool | None,
        Option(
            kind=Flag(),
            what="Whether scales and offsets are fitted to the codes once these are known; unset: at the best effort.",
            when="Switch it off to see what it brings.",
            source=OURS,
            ignored=f"descend is false, or {_NO_SAMPLES}",
            example="true",
        ),
    ] = None
    blend: Annotated[
        float | None,
        Option(
            kind=Real(low=0, high=1),
            what="How far weights are moved to make up for what earlier layers got wrong, 0 to 1, before they are "
            "rounded; unset: at the best effort each layer gets what does best on samples held out, otherwise 0.",
            when="0 with very few samples.",
            source=OURS,
            ignored=f"gptq and descend are false, or {_NO_SAMPLES}",
            example="0.5",
        ),
    ] = None
    offsets: Annotated[
        bool | None,
        Option(
            kind=Flag(),
            what="Whether channels have an offset of 4 bytes beside their scale; unset: yes, but at the best effort "
            "not from 8 bits on.",
            when="Switch it off at 4 bits when the file must be as small as can be.",
            source=OURS,
            ignored=_NO_SAMPLES,
            example="false",
        ),
    ] = None
    positions: Annotated[
        int | None,
        Option(
            kind=Whole(low=64, high=65536),
            what="How many places of a layer's input are looked at, over all samples; a layer with many inputs takes "
            "more, one with many groups less; unset: 2048, at the best effort 4096.",
            when="Raise it for layers with many inputs, if memory and time allow.",
            source=OURS,
            ignored=_NO_SAMPLES,
            example="8192",
        ),
    ] = None
    block_size: Annotated[
        int | None,
        Option(
            kind=Whole(low=16, high=256),
            what="How many inputs of a channel of a MatMul, Gemm or Conv share a scale, at most: 16, 32, 64, 128 or "
            "256; unset: all of them, with dequant_strategy=ON_THE_FLY 32.",
            when="32 to 128 at 4 bits and below for transformers, when a better output is worth 4 bytes per block.",
            source=OURS,
            ignored="per_channel is false, or a weight has 1 bit or more than 8",
            example="32",
        ),
    ] = None
    run_time_arithmetic: Annotated[
        RunTimeArithmetic,
        Option(
            kind=Choice(values=get_args(RunTimeArithmetic)),
            what="What MatMul and Gemm compute in where their weights stay small at run time: float32, or int8, which "
            "also rounds their inputs to 8 bits, block by block.",
            when="int8 when speed counts more than the last digits of the output.",
            source=OURS,
            ignored="dequant_strategy is not ON_THE_FLY",
        ),
    ] = "float32"
