"""Names without what tools add to them, so that a tensor or node is recognised in a file that another tool wrote."""

from __future__ import annotations

import re

import onnx_ir as ir

# What is added behind a name, and by whom; the longer ones first, since the first that fits is taken off.
SUFFIXES = (
    r"_QuantizeLinear_Output(?:_\d+)?",  # onnxruntime.quantization, Q/DQ
    r"_DequantizeLinear_Output(?:_\d+)?",
    r"_DequantizeLinear",
    r"_QuantizeLinear",
    r"_output_quantized(?:_cast)?(?:_output)?",  # onnxruntime.quantization, dynamic
    r"_quant_output_scale_mul",
    r"quant_scaled_output",
    r"_MatMul_output",
    r"_bias_add",
    r"_Transposed",  # a Gemm turned into a MatMul
    r"_MatMul",
    r"_quantized",  # onnxruntime.quantization and Neural Compressor
    r"_dequantized?",
    r"_quant",
    r"_matmul_Q\d",  # onnxruntime's MatMulNBits quantizer
    r"_DQ_Q\d(?:_output)?(?:_transposed)?",
    r"_G?Q\d(?:G\d+)?",
    r"_pre_reshape",
    r"_cast_(?:in|out)put\d*",
    r"_(?:fp16|float16|int8|uint8|fp32)",
    r"_token_\d+",  # onnxruntime's optimizers
    r"_nchwc",
    r"_nhwc",
    r"\.(?:codes\d?|half|float)_*",  # ptq_lab
)
PREFIXES = (
    r"ConvBnFusion_W_",  # onnxruntime's optimizers
    r"ConvMulFusion_W_",
    r"fused ",
    r"(?:Dequantize|Quantize)Linear_",  # NNCF
    r"InsertedPrecisionFreeCast_",
)
_BEHIND = re.compile(rf"^(.+?)(?:{'|'.join(SUFFIXES)})$", re.DOTALL)
_BEFORE = re.compile(rf"^(?:{'|'.join(PREFIXES)})(.+)$", re.DOTALL)
_NUMBER = re.compile(r"\d+")


def plain_name(name: str) -> str:
    """Return a name without what quantizers and optimizers add to it.

    Examples
    --------
    >>> [plain_name(name) for name in ("conv1_quant", "fc_DequantizeLinear_Output", "ConvBnFusion_W_k")]
    ['conv1', 'fc', 'k']
    """
    while (found := _BEHIND.match(name) or _BEFORE.match(name)) is not None:
        name = found.group(1)
    return name


def telling_name(name: str | None) -> str:
    """Return a name, or nothing if it is a mere number, as exporters give them: another export counts otherwise.

    Examples
    --------
    >>> telling_name("683"), telling_name("fc1")
    ('', 'fc1')
    """
    return "" if name is None or _NUMBER.fullmatch(name) else name


def given_names(graph: ir.Graph) -> dict[ir.Node, str]:
    """Return the names of the nodes that have one of their own, and not their operator and place.

    `load_model` names nodes without a name after their operator and place, and in another file the same place is
    another node.
    """
    names = {}
    for index, node in enumerate(graph):
        name = telling_name(node.name)
        if name and name.rstrip("_") != f"{node.op_type}_{index}":
            names[node] = name
    return names
