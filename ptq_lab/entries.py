"""What happens to one tensor or one product: the entries of a plan, as frozen data."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ptq_lab.graph import DynamicLayer
from ptq_lab.graph.on_the_fly import DECODING, PRODUCT
from ptq_lab.numerics import BLOCKED_WIDTHS, QuantizedWeight, equal_blocks, split_width
from ptq_lab.numerics.blocked import is_half

BLOCK_BITS = range(2, 9)  # widths whose channels may be divided into blocks
NATIVE = {4: "int4", 8: "int8", 16: "int16"}  # widths that an ONNX element type holds as they are


@dataclass(frozen=True, slots=True, kw_only=True)
class Coding:
    """What an entropy coder finds in the codes of one weight.

    Attributes
    ----------
    entropy : float
        Bits per code, order 0: what no coder that looks at one code at a time can go below.
    levels : int
        How many different codes there are.
    step : float or None
        Distance of two levels in real units, before corrections, where the weight has one step that was chosen by the
        error it makes; ``None`` where the width was given and the grids follow from it.
    """

    entropy: float
    levels: int
    step: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorPlan:
    """What happens to one weight.

    Attributes
    ----------
    tensor : str
        Name of the weight.
    nodes : tuple of str
        The nodes that use it; the first one gives it its place in reports.
    op_type : str
        Operator of the first node.
    shape : tuple of int
    bits : int
        Width of a code when packed, 1..16.
    axis : int or None
        Channel axis; ``None``: one scale for the tensor.
    channel_axis : int
        Axis of the output channels, whatever `axis` is.
    correct : bool
        Give every channel back its mean and spread.
    symmetric : bool
        Codes around a zero point of 0, for integer kernels, instead of a free offset.
    by_row : bool
        A table of which only the rows looked up are decoded.
    bytes_before : int
        As stored in the original.
    block : int
        At most how many inputs of a channel share a scale; 0: all of them.
    on_the_fly : str
        Operator that is to take the codes on every run, so that they stay small in memory; empty where they become
        float when the model is loaded, or row by row.
    int8_activations : bool
        Whether that operator may compute in 8-bit integers.
    coding : Coding or None
        What entropy coding makes of the codes; ``None`` where they are packed.
    weight : QuantizedWeight or None
        Codes and scales, once :func:`round_weights` or a search has found them; not compared, not in JSON.
    """

    tensor: str
    nodes: tuple[str, ...]
    op_type: str
    shape: tuple[int, ...]
    bits: int
    axis: int | None
    channel_axis: int
    correct: bool = True
    symmetric: bool = False
    by_row: bool = False
    bytes_before: int
    block: int = 0
    on_the_fly: str = ""
    int8_activations: bool = False
    coding: Coding | None = None
    weight: QuantizedWeight | None = field(default=None, compare=False, repr=False)

    @property
    def node(self) -> str:
        """The first node that uses the weight."""
        return self.nodes[0]

    @property
    def has_single_step(self) -> bool:
        """Whether one step, chosen by its error, stands for the whole tensor."""
        return self.coding is not None and self.coding.step is not None

    @property
    def decoder(self) -> str:
        """The operator that takes the codes on every run; empty where there is none for the width."""
        return self.on_the_fly if self.bits in BLOCKED_WIDTHS else ""

    @property
    def block_length(self) -> int:
        """How many inputs of a channel share a scale; 0: all of them."""
        if self.block == 0 or self.axis is None or self.bits not in BLOCK_BITS or self.coding is not None:
            return 0
        if self.decoder == PRODUCT:  # which wants powers of two
            return self.block
        inputs = math.prod(self.shape) // max(1, self.shape[self.channel_axis])
        return equal_blocks(inputs, self.block) if inputs > self.block else 0

    @property
    def has_means(self) -> bool:
        """Whether channels in blocks get their mean back, by an offset, which not every operator can add."""
        return self.correct and self.decoder != PRODUCT

    @property
    def channels(self) -> int:
        """How many scales the weight has."""
        if self.axis is None or self.has_single_step:
            return 1
        return self.shape[self.axis] * self._blocks

    @property
    def _blocks(self) -> int:
        """How many blocks a channel has."""
        length, inputs = self.block_length, math.prod(self.shape) // max(1, self.shape[self.channel_axis])
        return -(-inputs // length) if length else 1

    @property
    def granularity(self) -> str:
        """Per channel or per tensor, in words."""
        if self.has_single_step:
            return "per-tensor, one step"
        if self.block_length:
            return f"blocks of {self.block_length} ({self.channels})"
        return "per-tensor" if self.axis is None else f"per-channel ({self.channels})"

    @property
    def storage(self) -> str:
        """How the codes are packed: an element type, the byte lanes of each part of the width, or an operator's own."""
        if self.decoder:
            return PRODUCT if self.decoder == PRODUCT else f"int{self.bits}"
        if self.bits in NATIVE and not (self.by_row and self.bits == 4):
            return NATIVE[self.bits]
        return "uint8 lanes " + "+".join(str(width) for width in split_width(self.bits))

    @property
    def stored_as(self) -> str:
        """How the codes are stored, in words."""
        if self.decoder:
            return f"{PRODUCT}, symmetric" if self.decoder == PRODUCT else f"{self.storage} {DECODING}"
        return self.storage if self.coding is None else f"coded, {self.coding.entropy:.2f} bits"

    @property
    def bytes_after(self) -> int:
        """Bytes of codes, scales and offsets: packed, or at the entropy of the codes."""
        if self.coding is None:
            return self.packed_bytes
        return math.ceil(self.coding.entropy * math.prod(self.shape) / 8) + 8 * self.channels

    @property
    def packed_bytes(self) -> int:
        """Bytes of packed codes, scales and offsets."""
        rows, length = (self.shape[0], self.shape[1]) if self.by_row else (1, math.prod(self.shape))
        if self.block_length:
            length = self.channels * self.block_length  # the last block of a channel is filled up
        if self.storage.startswith("uint8 lanes"):
            length = -(-length // 8) * 8
        without = self.symmetric or (self.weight is not None and not self.weight.offset.any())
        if self.block_length and self.weight is None:
            without = not self.has_means
        offsets = 0 if without else self.channels // self._blocks  # none if all are zero; one for all blocks
        return rows * -(-length * self.bits // 8) + self._scale_bytes * self.channels + 4 * offsets

    @property
    def _scale_bytes(self) -> int:
        """Bytes of a scale: those of blocks are 16-bit floats where these hold them and nobody wants other ones."""
        if not self.block_length or self.decoder:
            return 4
        return 2 if self.weight is None or is_half(self.weight.scale) else 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationPlan:
    """The grid of one activation tensor.

    Attributes
    ----------
    tensor, node : str
        Its name, and the node that makes it (empty for an input of the model).
    low, high : float
        The range that the codes cover, in real units.
    method : str
        How the range was found.
    scale : float
        Real units per step, a float32 number.
    zero_point : int
        The code that means 0.0.
    signed : bool
        int8 codes instead of uint8.
    """

    tensor: str
    node: str
    low: float
    high: float
    method: str
    scale: float
    zero_point: int
    signed: bool = False


@dataclass(frozen=True, slots=True)
class DynamicPlan:
    """What is computed in integers with activations quantized at run time.

    Attributes
    ----------
    strategy : str
        How finely operands are divided, e.g. ``"ALWC"``.
    layers : tuple of DynamicLayer
        The products, in the order of the graph.
    """

    strategy: str
    layers: tuple[DynamicLayer, ...]


__all__ = ["NATIVE", "ActivationPlan", "Coding", "DynamicPlan", "TensorPlan"]
