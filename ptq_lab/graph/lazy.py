"""Large ONNX files read without their weights, which are fetched from the file whenever somebody asks for one.

An ONNX file is one protobuf message, so a weight's bytes stand at a known place of it. They are left out of what
protobuf parses, and read again at each use: nothing is held twice, and a weight nobody asks for is never read.
"""

from __future__ import annotations

import math
import mmap
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

LARGE_FILE = 16 << 20  # bytes from which it pays
_LARGE_TENSOR = 1 << 16
_TYPES = {
    kind: np.dtype(kind.numpy()).newbyteorder("<")
    for kind in (
        ir.DataType.FLOAT,
        ir.DataType.FLOAT16,
        ir.DataType.DOUBLE,
        ir.DataType.INT8,
        ir.DataType.UINT8,
        ir.DataType.INT32,
        ir.DataType.INT64,
    )
}

_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9  # field numbers in ModelProto, GraphProto, TensorProto
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of a message: its number, where it starts, and where its payload and the field itself end."""

    number: int
    wire: int
    start: int
    payload: int
    end: int


class WeightFile:
    """An open model file that weights are read from; renaming or replacing the file does not disturb it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def read(self, start: int, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> ir.TensorProtocol:
        """Return the tensor whose bytes start at a place of the file."""
        size = math.prod(shape) * dtype.itemsize
        with self._lock:
            self._stream.seek(start)
            data = self._stream.read(size)
        if len(data) != size:
            raise OSError("the model file has become shorter since it was opened")
        return ir.tensor(np.frombuffer(data, dtype).reshape(shape))


def read_without_weights(path: Path) -> tuple[onnx.ModelProto, dict[str, ir.LazyTensor]]:
    """Read a model file, leaving its large weights in the file.

    Returns
    -------
    model : onnx.ModelProto
        Its large initializers have no data.
    weights : dict of str to LazyTensor
        Those initializers by name; each use reads the file.

    Raises
    ------
    DecodeError
        If the file is no whole ONNX model.
    OSError
        If it cannot be read.
    """
    stream = path.open("rb")
    weights = WeightFile(stream)
    found: dict[str, ir.LazyTensor] = {}
    with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        parts = []
        for field in _fields(data, 0, len(data)):
            if field.number == _GRAPH and field.wire == _BYTES:
                graph = _graph_without_weights(data, field, weights, found)
                parts += [_header(_GRAPH, len(graph)), graph]
            else:
                parts.append(data[field.start : field.end])
    return onnx.load_model_from_string(b"".join(parts)), found


def _graph_without_weights(data: mmap.mmap, graph: _Field, file: WeightFile, found: dict[str, ir.LazyTensor]) -> bytes:
    parts = []
    for field in _fields(data, graph.payload, graph.end):
        emptied = None
        if field.number == _INITIALIZER and field.end - field.payload >= _LARGE_TENSOR:
            emptied = _without_data(data, field, file, found)
        parts += [data[field.start : field.end]] if emptied is None else [_header(_INITIALIZER, len(emptied)), emptied]
    return b"".join(parts)


def _without_data(data: mmap.mmap, tensor: _Field, file: WeightFile, found: dict[str, ir.LazyTensor]) -> bytes | None:
    """Return a tensor without its bytes, which are noted in `found`; ``None`` if it has to be parsed as it is."""
    raw, rest = None, []
    for field in _fields(data, tensor.payload, tensor.end):
        if field.number == _RAW_DATA:
            raw = field
        else:
            rest.append(data[field.start : field.end])
    if raw is None:
        return None
    emptied = b"".join(rest)
    proto = onnx.TensorProto.FromString(emptied)
    dtype = _TYPES.get(ir.DataType(proto.data_type))
    shape = tuple(proto.dims)
    if dtype is None or not proto.name or proto.name in found or proto.external_data:
        return None
    if math.prod(shape) * dtype.itemsize != raw.end - raw.payload:
        return None  # onnx-ir says what is wrong with it
    found[proto.name] = ir.LazyTensor(
        partial(file.read, raw.payload, dtype, shape),
        dtype=ir.DataType(proto.data_type),
        shape=ir.Shape(shape),
        name=proto.name,
        doc_string=proto.doc_string or None,
    )
    return emptied


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[_Field]:
    """Yield the fields of the message that lies between two places."""
    while start < end:
        tag, payload = _varint(data, start, end)
        wire = tag & 7
        if wire == _BYTES:
            length, payload = _varint(data, payload, end)
            stop = payload + length
        elif wire == _VARINT:
            _, stop = _varint(data, payload, end)
        elif wire in (_FIXED32, _FIXED64):
            stop = payload + (4 if wire == _FIXED32 else 8)
        else:
            raise DecodeError(f"byte {start}: no field starts like this")
        if stop > end:
            raise DecodeError(f"byte {start}: a field of {stop - payload} bytes is cut short")
        yield _Field(tag >> 3, wire, start, payload, stop)
        start = stop


def _varint(data: mmap.mmap, start: int, end: int) -> tuple[int, int]:
    """Return a number of variable length and where it ends."""
    value = 0
    for index in range(10):
        if start + index >= end:
            raise DecodeError(f"byte {start}: a number is cut short")
        byte = data[start + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, start + index + 1
    raise DecodeError(f"byte {start}: a number has more than ten bytes")


def _header(number: int, length: int) -> bytes:
    """Return the start of a field that holds bytes."""
    out = [number << 3 | _BYTES]
    while True:
        out.append(length & 0x7F | (0x80 if length > 0x7F else 0))
        length >>= 7
        if not length:
            return bytes(out)
