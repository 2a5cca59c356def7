"""What a container's manifest says, as typed records: read strictly, written with no more than needed."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from ptq_lab.container.archive import MANIFEST
from ptq_lab.errors import ModelError
from ptq_lab.numerics.coding import Layout

FORMAT, VERSION = "ptqz", 1

# Element types of which whole numbers of bytes are stored; the others stay in the skeleton.
PLAIN_TYPES = ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "INT8", "UINT8", "INT16", "UINT16")
CODED_TYPES = ("FLOAT", "FLOAT16", "BFLOAT16")
_MOST_AXES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """Size and checksums of some bytes."""

    size: int
    crc32: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CodesRecord:
    """How a quantized weight is stored.

    Attributes
    ----------
    bits : int
        Width of a code, 1..16.
    axis : int or None
        Channel axis of the scales; ``None``: one scale for the tensor.
    by_row : bool
        A table of which a plain ONNX file decodes only the rows that are looked up.
    layout : Layout
    scale, offset : tuple of int
        Lengths of the sections that hold them, four each; no offset: it is 0 throughout.
    """

    bits: int
    axis: int | None
    by_row: bool
    layout: Layout
    scale: tuple[int, ...]
    offset: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRecord:
    """One tensor outside the skeleton.

    Attributes
    ----------
    name : str
    dtype : str
        Element type in the model, ONNX's name of it.
    shape : tuple of int
    stream : int
        Number of the entry that holds its bytes; tensors with the same bytes share one.
    checks : Checks
        Of that entry.
    codes : CodesRecord or None
        For a quantized weight.
    plain : tuple of int
        For any other tensor: the lengths of its sections, one per byte of the element type.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    stream: int
    checks: Checks
    codes: CodesRecord | None = None
    plain: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """How many elements."""
        return math.prod(self.shape)

    @property
    def channels(self) -> int:
        """How many scales a quantized weight has."""
        axis = self.codes.axis if self.codes is not None else None
        return 1 if axis is None else self.shape[axis]

    @property
    def numpy_type(self) -> np.dtype[Any]:
        """The element type in memory."""
        return ir.DataType[self.dtype].numpy()

    @property
    def nbytes(self) -> int:
        """Bytes of the decoded tensor."""
        return self.count * self.numpy_type.itemsize

    @property
    def entry(self) -> str:
        """The name of the entry that holds its bytes."""
        return entry_name(self.stream)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything that a container says about itself."""

    writer: str
    skeleton: Checks
    tensors: tuple[TensorRecord, ...]


def entry_name(stream: int) -> str:
    """Return the name of the entry that holds a tensor's bytes."""
    return f"tensors/{stream}"


def write_manifest(manifest: Manifest) -> bytes:
    """Return a manifest as JSON text."""
    record = {
        "format": FORMAT,
        "version": VERSION,
        "writer": manifest.writer,
        "skeleton": _checks_dict(manifest.skeleton),
        "tensors": [_tensor_dict(tensor) for tensor in manifest.tensors],
    }
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode()


def read_manifest(text: bytes, label: str) -> Manifest:
    """Read a manifest.

    Raises
    ------
    ModelError
        If it is of a newer format, or says anything that makes no sense; the message names the tensor.
    """
    where = label
    try:
        record = json.loads(text)
        _require(isinstance(record, dict) and record.get("format") == FORMAT, "it is not the manifest of a container")
        version = record["version"]
        _require(type(version) is int and version >= 1, f"version is {version!r}")
        if version > VERSION:
            raise ModelError(
                f"{label}: is written in format version {version}, and this ptq_lab reads versions up to {VERSION}; "
                "install a newer ptq_lab"
            )
        tensors = []
        for index, tensor in enumerate(_list(record["tensors"])):
            where = f"{label}: tensor {index} ({tensor.get('name') if isinstance(tensor, dict) else tensor!r:.80})"
            tensors.append(_read_tensor(tensor))
        where = label
        names = [tensor.name for tensor in tensors]
        _require(len(set(names)) == len(names), "two tensors have the same name")
        _check_shared(tensors)
        return Manifest(
            writer=_text(record["writer"]), skeleton=_read_checks(record["skeleton"]), tensors=tuple(tensors)
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, ModelError):
            raise
        what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise ModelError(f"{where}: {MANIFEST} cannot be used ({what}); the container is damaged") from error


def _check_shared(tensors: list[TensorRecord]) -> None:
    """Make sure that streams are numbered without gaps and that all who share one agree on it."""
    seen: dict[int, TensorRecord] = {}
    for tensor in tensors:
        first = seen.setdefault(tensor.stream, tensor)
        _require(first.checks == tensor.checks, f"{tensor.name} and {first.name} disagree about {tensor.entry}")
        _require(tensor.stream < len(seen), f"stream {tensor.stream} of {tensor.name} is out of turn")


def _read_tensor(record: Any) -> TensorRecord:
    _require(isinstance(record, dict), "it is no object")
    shape = tuple(_number(size) for size in _list(record["shape"]))
    _require(len(shape) <= _MOST_AXES, f"it has {len(shape)} axes")
    coded = "codes" in record
    dtype = _text(record.get("dtype", "FLOAT"))
    _require(dtype in (CODED_TYPES if coded else PLAIN_TYPES), f"dtype is {dtype!r:.40}")
    tensor = TensorRecord(
        name=_text(record["name"]),
        dtype=dtype,
        shape=shape,
        stream=_number(record["stream"]),
        checks=_read_checks(record),
        codes=_read_codes(record, shape) if coded else None,
        plain=() if coded else _lengths(record["plain"]),
    )
    used = _used(tensor)
    _require(used == tensor.checks.size, f"its sections have {used} bytes, its stream {tensor.checks.size}")
    return tensor


def _read_codes(record: dict[str, Any], shape: tuple[int, ...]) -> CodesRecord:
    bits, axis = _number(record["bits"]), record.get("axis")
    _require(1 <= bits <= 16, f"bits is {bits}")
    _require(axis is None or (type(axis) is int and 0 <= axis < len(shape)), f"axis is {axis!r:.40}")
    by_row = record.get("by_row", False)
    _require(by_row is False or (by_row is True and len(shape) == 2), f"by_row is {by_row!r:.40}")
    _require(isinstance(record["codes"], dict), "codes is no object")
    return CodesRecord(
        bits=bits,
        axis=axis,
        by_row=by_row,
        layout=Layout.from_dict(record["codes"]),
        scale=_lengths(record["scale"]),
        offset=_lengths(record.get("offset", [])),
    )


def _used(tensor: TensorRecord) -> int:
    """Return how many bytes the sections of a tensor have in all."""
    if tensor.codes is None:
        return sum(tensor.plain)
    return sum(tensor.codes.scale) + sum(tensor.codes.offset) + sum(tensor.codes.layout.sections)


def _tensor_dict(tensor: TensorRecord) -> dict[str, Any]:
    record: dict[str, Any] = {"name": tensor.name, "shape": list(tensor.shape), "stream": tensor.stream}
    record |= _checks_dict(tensor.checks)
    if tensor.dtype != "FLOAT":
        record["dtype"] = tensor.dtype
    if tensor.codes is None:
        return {**record, "plain": list(tensor.plain)}
    codes = tensor.codes
    record |= {"bits": codes.bits, "codes": codes.layout.to_dict(), "scale": list(codes.scale)}
    optional = {"axis": codes.axis, "by_row": codes.by_row or None, "offset": list(codes.offset) or None}
    return record | {key: value for key, value in optional.items() if value is not None}


def _checks_dict(checks: Checks) -> dict[str, Any]:
    return {"size": checks.size, "crc32": checks.crc32, "sha256": checks.sha256}


def _read_checks(record: dict[str, Any]) -> Checks:
    return Checks(size=_number(record["size"]), crc32=_number(record["crc32"]), sha256=_text(record["sha256"]))


def _lengths(value: object) -> tuple[int, ...]:
    return tuple(_number(length) for length in _list(value))


def _list(value: Any) -> list[Any]:
    _require(isinstance(value, list), f"{value!r:.40} is no list")
    return list(value)


def _text(value: Any) -> str:
    _require(isinstance(value, str), f"{value!r:.40} is no text")
    return str(value)


def _number(value: Any) -> int:
    _require(type(value) is int and 0 <= value < 1 << 63, f"{value!r:.40} is no whole number of 0 or more")
    return int(value)


def _require(met: bool, otherwise: str) -> None:
    if not met:
        raise ValueError(otherwise)
