"""Rules of weights in blocks, and of those that stay small at run time: what goes together, and what does not."""

from __future__ import annotations

from ptq_lab.config.finding import Key
from ptq_lab.config.row import TYPE, Row, given, is_, is_not, set_, unset

_COMMON, _WEIGHT, _OWN = "common_quant_param", "weight_quant_param", "ptq_lab.weights"
_BITS: Key = (_COMMON, "bit_num")
_STRATEGY: Key = (_WEIGHT, "dequant_strategy")
_PER_CHANNEL: Key = (_WEIGHT, "per_channel")
_ENCODE: Key = ("ptq_lab", "encode")
_SIZE: Key = (_OWN, "block_size")
_ARITHMETIC: Key = (_OWN, "run_time_arithmetic")
_WEIGHTS = is_(TYPE, "WEIGHT_QUANT")
_ON_THE_FLY = (_WEIGHTS, is_(_STRATEGY, "ON_THE_FLY"))
_BLOCKS = (_WEIGHTS, set_(_SIZE))
_DIVIDED = tuple(range(2, 9))  # widths whose channels may be divided

BLOCK_RULES = (
    Row(
        level="error",
        section=_COMMON,
        key="bit_num",
        message="{dequant_strategy} needs 2, 4 or 8 bits, not {bit_num}",
        hint="choose one of these, or leave dequant_strategy out",
        when=(*_ON_THE_FLY, is_not(_BITS, 2, 4, 8)),
    ),
    Row(
        level="error",
        section=_WEIGHT,
        key="dequant_strategy",
        message="{dequant_strategy} writes plain ONNX files, not containers: it cannot go with encode={encode}",
        hint="write encode=packed, or leave dequant_strategy out",
        when=(*_ON_THE_FLY, is_(_ENCODE, "entropy")),
    ),
    Row(
        level="error",
        section=_WEIGHT,
        key="per_channel",
        message="false does not go with {dequant_strategy}, which has a scale for every block",
        hint="leave one of the two out",
        when=(*_ON_THE_FLY, is_(_PER_CHANNEL, False)),
    ),
    Row(
        level="error",
        section=_OWN,
        key="block_size",
        message="{block_size} is not one of 16, 32, 64, 128, 256",
        when=(*_BLOCKS, is_not(_SIZE, 16, 32, 64, 128, 256)),
    ),
    Row(
        level="error",
        section=_OWN,
        key="block_size",
        message="{dequant_strategy} takes blocks of 32, 64 or 128, not {block_size}",
        when=(*_ON_THE_FLY, is_(_SIZE, 16, 256)),
    ),
    Row(
        level="error",
        section=_OWN,
        key="block_size",
        message="mixed bits have one scale per channel, not blocks of {block_size}",
        hint="write a bit_num from 2 to 8, or leave block_size out",
        when=(*_BLOCKS, is_(_BITS, 0), unset(_STRATEGY)),
    ),
    Row(
        level="error",
        section=_OWN,
        key="block_size",
        message="containers have one scale per channel, not blocks of {block_size}",
        hint="write encode=packed, or leave block_size out",
        when=(*_BLOCKS, is_(_ENCODE, "entropy"), unset(_STRATEGY)),
    ),
    Row(
        level="warning",
        section=_OWN,
        key="block_size",
        message="not used, because per_channel is false",
        when=(*_BLOCKS, is_(_PER_CHANNEL, False), unset(_STRATEGY)),
    ),
    Row(
        level="warning",
        section=_OWN,
        key="block_size",
        message="not used at {bit_num} bits; blocks are for 2 to 8",
        when=(*_BLOCKS, is_not(_BITS, 0, *_DIVIDED), unset(_STRATEGY)),
    ),
    Row(
        level="note",
        section=_OWN,
        key="run_time_arithmetic",
        message="not used, because dequant_strategy is not ON_THE_FLY",
        when=(_WEIGHTS, unset(_STRATEGY), given(_ARITHMETIC)),
    ),
)
