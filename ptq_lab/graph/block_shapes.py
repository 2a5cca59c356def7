"""Weights in blocks as a graph holds them: with an axis more, along which each block's scale is the same."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ptq_lab.numerics import QuantizedWeight

if TYPE_CHECKING:
    from ptq_lab.graph.decode import GraphWriter


class Blocks:
    """The shapes of one weight: ``(channels, blocks, length)``, or ``(blocks, length, channels)`` if they come last.

    The last block of a channel is filled up with zeros where it is shorter than the others.
    """

    def __init__(self, weight: QuantizedWeight) -> None:
        self._shape = weight.codes.shape
        self._channels, self._count = weight.scale.shape
        self._length, self._in_front = weight.block, weight.axis == 0
        self._inputs = weight.codes.size // self._channels
        scale, offset = (self._beside(numbers) for numbers in (weight.scale, weight.offset))
        self.stored = replace(weight, codes=self._cut(weight.codes), scale=scale, offset=offset)

    def join(self, write: GraphWriter, values: ir.Value) -> ir.Value:
        """Return values that lie in blocks as the weight lies."""
        if self._count * self._length != self._inputs:
            joined = [self._channels, -1] if self._in_front else [-1, self._channels]
            values = write.node("Reshape", [values, write.constant(np.array(joined, np.int64))])
            ends = (0, self._inputs, int(self._in_front))
            values = write.node("Slice", [values, *(write.constant(np.array([end], np.int64)) for end in ends)])
            if list(self._shape) == (
                [self._channels, self._inputs] if self._in_front else [self._inputs, self._channels]
            ):
                return values
        return write.node("Reshape", [values, write.constant(np.array(self._shape, np.int64))])

    def _cut(self, codes: NDArray[Any]) -> NDArray[Any]:
        rest = self._count * self._length - self._inputs
        if self._in_front:
            padded = np.pad(codes.reshape(self._channels, -1), ((0, 0), (0, rest)))
            return padded.reshape(self._channels, self._count, self._length)
        padded = np.pad(codes.reshape(-1, self._channels), ((0, rest), (0, 0)))
        return padded.reshape(self._count, self._length, self._channels)

    def _beside(self, numbers: NDArray[np.float32]) -> NDArray[np.float32]:
        """Arrange a number per block so that it is broadcast along the block."""
        return numbers[:, :, None] if self._in_front else np.ascontiguousarray(numbers.T)[:, None, :]


__all__ = ["Blocks"]
