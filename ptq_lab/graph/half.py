"""`--fp16=on`: what stays float is stored in 16 bits and widened when the model is loaded."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ptq_lab.graph.decode import CODES, OFFSET, SCALE, GraphWriter
from ptq_lab.graph.mapped import map_external
from ptq_lab.graph.model import Model, float32

_WORTH_IT = 128  # elements; below this the Cast node takes more bytes than it saves


@dataclass(frozen=True, slots=True)
class Halved:
    """What storing floats in 16 bits did.

    Attributes
    ----------
    tensors, bytes_saved : int
    worst_relative_error : float
        Largest ``||w - half(w)|| / ||w||`` of a tensor.
    kept : tuple of str
        Tensors with values that 16 bits cannot hold; they stayed as they were.
    """

    tensors: int
    bytes_saved: int
    worst_relative_error: float
    kept: tuple[str, ...]

    def __str__(self) -> str:
        kept = f"; {len(self.kept)} do not fit into 16 bits and stayed float32" if self.kept else ""
        return (
            f"fp16: {self.tensors} tensors that stay float are stored in 16 bits, {self.bytes_saved:,} bytes less, "
            f"relative error at most {self.worst_relative_error:.1e}{kept}"
        )


def store_half(model: Model, *, keep: Collection[str] = ()) -> tuple[Model, Halved]:
    """Return a copy whose float32 constants are stored as float16, followed by a Cast that is folded at load.

    Parameters
    ----------
    model : Model
    keep : collection of str
        Constants that stay as they are, e.g. weights that codes will take the place of.

    Scales and offsets of quantized weights stay float32: they are few, and every weight depends on them.
    """
    halved = model.clone()
    graph = halved.graph
    writer = GraphWriter(graph)
    coded = {name.rpartition(f".{CODES}")[0] for name in graph.initializers if f".{CODES}" in name}
    numbers = {f"{name}.{number}" for name in coded for number in (SCALE, OFFSET)}
    saved, worst, kept, count = 0, 0.0, [], 0
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or name in numbers or name in keep or not _worth_halving(value):
            continue
        array = map_external(tensor) if isinstance(tensor, ir.ExternalTensor) else float32(tensor)
        half = _halved(array)
        if not np.isfinite(half).all():
            kept.append(name)
            continue
        error = np.linalg.norm(half.astype(np.float32) - array) / max(float(np.linalg.norm(array)), 1e-30)
        del graph.initializers[name]
        writer.before = next(iter(graph), None)
        stored = _read_again(tensor) if isinstance(tensor, ir.ExternalTensor) else ir.tensor(half)
        widened = writer.node("Cast", [writer.weight(f"{name}.half", stored)], {"to": ir.DataType.FLOAT})
        value.const_value = None  # the caller's model shares it, and it would lose its name as well
        value.name, widened.name = None, name
        value.replace_all_uses_with(widened)
        saved, worst, count = saved + half.nbytes, max(worst, float(error)), count + 1
    return halved, Halved(count, saved, worst, tuple(kept))


def _halved(array: NDArray[np.float32]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        return array.astype(np.float16)


def _read_again(tensor: ir.ExternalTensor) -> ir.LazyTensor:
    """Return external data in 16 bits, made anew from the file whenever somebody asks, so that none of it is held."""

    def half() -> ir.TensorProtocol:
        return ir.tensor(_halved(map_external(tensor)))

    return ir.LazyTensor(half, dtype=ir.DataType.FLOAT16, shape=ir.Shape(tensor.shape.numpy()))


def _worth_halving(value: ir.Value) -> bool:
    tensor = value.const_value
    if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.size < _WORTH_IT:
        return False
    return not (value.is_graph_input() or value.is_graph_output())
