"""Arrays in, arrays out: the arithmetic of quantization, and the room one teaches from.

Owns numpy and nothing else: no files, no names of tensors, no logging, no randomness of its own.
Read it in this order: `affine` (the grid), `weights` (codes for a whole tensor, with its corrections), `step` (one step
for the tensor), `packing` (k bits per code), `entropy` (what a code is worth), `similarity` (what was lost); for
activations `histogram` (what was seen), `ranges` (the range to quantize over), `kl` and `shrink` (how two of its
methods find it).
"""

from ptq_lab.numerics.affine import (
    QuantParams,
    QuantSpec,
    choose_params,
    dequantize_array,
    quantize_array,
)
from ptq_lab.numerics.blocked import BLOCKED_WIDTHS, equal_blocks, pack_blocks, quantize_blocks
from ptq_lab.numerics.dequantize import dequantize_weight
from ptq_lab.numerics.histogram import Histogram, count_magnitudes, count_values
from ptq_lab.numerics.kl import kl_threshold
from ptq_lab.numerics.loss import weight_error
from ptq_lab.numerics.packing import pack_bits, pack_lanes, split_width, unpack_bits, unpack_lanes
from ptq_lab.numerics.ranges import METHODS, NEEDS, TensorStatistics, choose_range
from ptq_lab.numerics.similarity import cosine, relative_error, sqnr_db
from ptq_lab.numerics.step import find_step, quantize_step
from ptq_lab.numerics.weights import (
    QuantizedWeight,
    RoundedWeight,
    decoded_by,
    quantize_symmetric,
    quantize_weight,
    round_weight,
)

__all__ = [
    "BLOCKED_WIDTHS",
    "METHODS",
    "NEEDS",
    "Histogram",
    "QuantParams",
    "QuantSpec",
    "QuantizedWeight",
    "RoundedWeight",
    "TensorStatistics",
    "choose_params",
    "choose_range",
    "cosine",
    "count_magnitudes",
    "count_values",
    "decoded_by",
    "dequantize_array",
    "dequantize_weight",
    "equal_blocks",
    "find_step",
    "kl_threshold",
    "pack_bits",
    "pack_blocks",
    "pack_lanes",
    "quantize_array",
    "quantize_blocks",
    "quantize_step",
    "quantize_symmetric",
    "quantize_weight",
    "relative_error",
    "round_weight",
    "split_width",
    "sqnr_db",
    "unpack_bits",
    "unpack_lanes",
    "weight_error",
]
