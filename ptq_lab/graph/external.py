"""A model written as a small ``.onnx`` file and one file of weights, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx_ir as ir

from ptq_lab.graph.mapped import let_go, mapping_of

BLOCK = 8 << 20  # bytes
_SMALL = 1024  # bytes up to which a tensor stays in the model, where shape inference can see it
_ALIGNED = 4096  # where a tensor may start, so that runtimes can map it


def with_external_weights(model: ir.Model, data: Path) -> ir.Model:
    """Write the weights of a model into a file, and return a model that refers to it.

    Weights that lie at the same place of the same file, or are the same array, are written once.

    Parameters
    ----------
    model : onnx_ir.Model
        Not changed.
    data : path
        Written over if it exists.

    Raises
    ------
    OSError
        If it cannot be written, or external data of the model cannot be read.
    """
    outside = model.clone()
    places: dict[object, int] = {}
    with data.open("wb") as stream:
        for value in (value for graph in outside.graphs() for value in graph.initializers.values()):
            tensor = value.const_value
            if tensor is None or tensor.dtype == ir.DataType.STRING:
                continue
            if tensor.nbytes <= _SMALL:
                value.const_value = ir.tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=value.name)
                continue
            key = _identity(tensor)
            if key not in places:
                stream.write(bytes(-stream.tell() % _ALIGNED))
                places[key] = stream.tell()
                for block in _blocks(tensor):
                    stream.write(block)
            value.const_value = _referring(value, tensor, data, places[key])
    return outside


def _referring(value: ir.Value, tensor: ir.TensorProtocol, data: Path, place: int) -> ir.ExternalTensor:
    return ir.ExternalTensor(
        data.name,
        place,
        tensor.nbytes,
        tensor.dtype,
        shape=ir.Shape([int(size) for size in tensor.shape.numpy()]),
        name=value.name or "",
        base_dir=data.parent,
    )


def _identity(tensor: ir.TensorProtocol) -> object:
    """Return what two tensors share that are the same bytes."""
    if isinstance(tensor, ir.ExternalTensor):
        return (str(tensor.path), tensor.offset or 0, tensor.nbytes)
    raw = tensor.raw if isinstance(tensor, ir.Tensor) else tensor
    return id(raw)


def _blocks(tensor: ir.TensorProtocol) -> Iterator[memoryview | bytes]:
    """Yield the bytes of a tensor in pieces; nothing of it stays in memory behind them."""
    if isinstance(tensor, ir.ExternalTensor):
        with Path(tensor.path).open("rb") as stream:
            yield from _file_blocks(stream, tensor.offset or 0, tensor.nbytes)
        return
    packed = tensor.raw if isinstance(tensor, ir.LazyTensor) else tensor
    if isinstance(packed, ir.PackedTensor):
        yield packed.numpy_packed().reshape(-1).view(np.uint8).data
        return
    array = tensor.numpy() if isinstance(tensor, ir.Tensor) else None
    if array is None or mapping_of(array) is None or not array.flags.c_contiguous:
        yield tensor.tobytes()  # knows how its type is packed
        return
    flat = array.reshape(-1).view(np.uint8)
    for start in range(0, flat.size, BLOCK):
        yield flat[start : start + BLOCK].data
        let_go(array)


def _file_blocks(stream: BinaryIO, start: int, length: int) -> Iterator[bytes]:
    stream.seek(start)
    while length:
        block = stream.read(min(BLOCK, length))
        if not block:
            raise OSError(f"external data end {length} bytes before the weight does")
        length -= len(block)
        yield block
