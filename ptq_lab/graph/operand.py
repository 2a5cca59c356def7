"""A constant operand of a layer, however it is stored: what is to be known about it, and its numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ptq_lab.graph.model import Model

Numbers = NDArray[np.float32]
Run = Callable[[Model], Numbers]

KEPT = {ir.DataType.FLOAT: "float32", ir.DataType.FLOAT16: "float16", ir.DataType.BFLOAT16: "bfloat16"}
"""What floats are called in reports."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Operand:
    """A constant operand of a layer.

    Attributes
    ----------
    tensor : str
        Name of what is stored: codes, or floats.
    shape : tuple of int or None
        As all forms of its layer would take it, unless nothing tells.
    stored_shape : tuple of int or None
        As it is stored, if that differs.
    bits : int or None
        Of a code; ``None`` for floats.
    storage : str
        How it is stored, e.g. ``"int8 Q/DQ, symmetric"``.
    granularity : str
        As in the rows of a report; empty for floats.
    symmetric : bool or None
        Whether zero is the middle code everywhere; ``None`` for floats.
    bytes : int
        Of codes, scales, zero points and offsets.
    """

    tensor: str
    shape: tuple[int, ...] | None
    stored_shape: tuple[int, ...] | None = None
    bits: int | None = None
    storage: str
    granularity: str = ""
    symmetric: bool | None = None
    bytes: int
    _numbers: Callable[[], Numbers] | None = None
    _chain: Callable[[], Model] | None = None
    _layout: Callable[[Numbers], Numbers] = np.asarray

    def values(self, run: Run) -> Numbers | None:
        """Return the real numbers that the layer computes with, in the layout that all forms of it share.

        Parameters
        ----------
        run : callable, Model -> ndarray
            Runs a model that has no inputs, for weights that nodes decode.
        """
        if self._numbers is not None:
            found = self._numbers()
        elif self._chain is not None:
            found = run(self._chain())
        else:
            return None
        return self._layout(np.asarray(found, np.float32))


def granularity(scales: int, block: int = 0) -> str:
    """Return how finely a weight is divided, as the rows of reports say it.

    Examples
    --------
    >>> granularity(1), granularity(64), granularity(640, 32)
    ('per-tensor', 'per-channel (64)', 'blocks of 32 (640)')
    """
    if block:
        return f"blocks of {block} ({scales})"
    return "per-tensor" if scales == 1 else f"per-channel ({scales})"


def is_middle(zero: ir.TensorProtocol | None, dtype: ir.DataType) -> bool:
    """Tell whether all zero points are the middle of their codes, so that the grid is symmetric."""
    if zero is None:
        return True
    middle = 1 << (dtype.bitwidth - 1) if dtype.name.startswith("UINT") else 0
    return bool(np.all(zero.numpy().astype(np.int64) == middle))
