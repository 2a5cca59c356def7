"""A model written as a small ``.onnx`` file and one file of weights, a block at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx_ir as ir

from ptq_lab.graph.mapped import fetch, let_go, mapping_of

BLOCK = 2 << 20  # bytes, or codes of half a byte
_SMALL = 1024  # bytes up to which a tensor stays in the model, where shape inference can see it
_ALIGNED = 4096  # where a tensor may start, so that runtimes can map it


class BlockTensor(ir.LazyTensor):
    """A tensor whose bytes are made block by block when it is written, so that they are never there as a whole.

    Parameters
    ----------
    whole : callable
        Returns the tensor, for all who want it at once.
    blocks : callable
        Returns an iterator over its bytes in pieces.
    dtype, shape
        Of the tensor.
    """

    def __init__(
        self,
        whole: Callable[[], ir.TensorProtocol],
        blocks: Callable[[], Iterator[memoryview]],
        *,
        dtype: ir.DataType,
        shape: ir.Shape,
    ) -> None:
        super().__init__(whole, dtype=dtype, shape=shape)
        self.blocks = blocks


def write_outside(model: ir.Model, path: Path, as_bytes: Callable[[ir.Model], bytes]) -> str:
    """Write a model whose weights lie in ``<name>.data`` beside it.

    Weights that lie at the same place of the same file, or are the same array, are written once.

    Parameters
    ----------
    model : onnx_ir.Model
        Not changed.
    path : path
        Written over if it exists, as is the file of weights.
    as_bytes : callable
        Model to the bytes of its file, without the weights.

    Returns
    -------
    str
        SHA-256 of both files, the model's first, as hex: blocks are hashed by another thread while they are written.

    Raises
    ------
    OSError
        If it cannot be written, or external data of the model cannot be read.
    """
    data = path.with_name(f"{path.name}.data")
    outside, tensors = _refer(model, data)
    head = as_bytes(outside)
    path.write_bytes(head)
    total = hashlib.sha256(head)
    with data.open("wb") as stream, ThreadPoolExecutor(1) as aside:
        for place, tensor in tensors:
            gap = bytes(place - stream.tell())
            stream.write(gap)
            total.update(gap)
            for block in _blocks(tensor):
                hashed = aside.submit(total.update, block)
                try:
                    stream.write(block)
                finally:
                    hashed.result()
    return total.hexdigest()


def _refer(model: ir.Model, data: Path) -> tuple[ir.Model, list[tuple[int, ir.TensorProtocol]]]:
    """Return a model that refers to a file of weights, and what lies where in it."""
    outside = model.clone()
    places: dict[object, int] = {}
    tensors: list[tuple[int, ir.TensorProtocol]] = []
    end = 0
    for value in (value for graph in outside.graphs() for value in graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or tensor.dtype == ir.DataType.STRING:
            continue
        if tensor.nbytes <= _SMALL:
            value.const_value = ir.tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=value.name)
            continue
        key = _identity(tensor)
        if key not in places:
            places[key] = -(-end // _ALIGNED) * _ALIGNED
            tensors.append((places[key], tensor))
            end = places[key] + tensor.nbytes
        value.const_value = _referring(value, tensor, data, places[key])
    return outside, tensors


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
    if isinstance(tensor, BlockTensor):
        yield from tensor.blocks()
        return
    made = _evaluated(tensor)
    if isinstance(made, ir.PackedTensor):
        yield made.numpy_packed().reshape(-1).view(np.uint8).data
        return
    array = made.numpy() if isinstance(made, ir.Tensor) else None
    if array is None or mapping_of(array) is None or not array.flags.c_contiguous:
        yield made.tobytes()  # knows how its type is packed
        return
    flat = array.reshape(-1).view(np.uint8)
    for start in range(0, flat.size, BLOCK):
        fetch(flat, start, min(start + BLOCK, flat.size))
        yield flat[start : start + BLOCK].data
        let_go(array)


def _evaluated(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """Return what stands behind a lazy tensor, which is not kept there."""
    if not isinstance(tensor, ir.LazyTensor):
        return tensor
    made = tensor.raw
    return made if isinstance(made, ir.TensorProtocol) else made()


def _file_blocks(stream: BinaryIO, start: int, length: int) -> Iterator[bytes]:
    stream.seek(start)
    while length:
        block = stream.read(min(BLOCK, length))
        if not block:
            raise OSError(f"external data end {length} bytes before the weight does")
        length -= len(block)
        yield block
