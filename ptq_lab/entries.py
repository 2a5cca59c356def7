"""What happens to one tensor or one product: the entries of a plan, as frozen data."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ptq_lab.graph import DynamicLayer
from ptq_lab.numerics import QuantizedWeight, split_width

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
    def channels(self) -> int:
        """How many scales the weight has."""
        return 1 if self.axis is None or self.has_single_step else self.shape[self.axis]

    @property
    def granularity(self) -> str:
        """Per channel or per tensor, in words."""
        if self.has_single_step:
            return "per-tensor, one step"
        return "per-tensor" if self.axis is None else f"per-channel ({self.channels})"

    @property
    def storage(self) -> str:
        """How the codes are packed: an element type, or the byte lanes of each part of the width."""
        if self.bits in NATIVE and not (self.by_row and self.bits == 4):
            return NATIVE[self.bits]
        return "uint8 lanes " + "+".join(str(width) for width in split_width(self.bits))

    @property
    def stored_as(self) -> str:
        """How the codes are stored, in words."""
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
        if self.storage.startswith("uint8 lanes"):
            length = -(-length // 8) * 8
        without = self.symmetric or (self.weight is not None and not self.weight.offset.any())
        per_channel = 4 if without else 8  # a scale, and an offset unless all are zero
        return rows * -(-length * self.bits // 8) + per_channel * self.channels


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
