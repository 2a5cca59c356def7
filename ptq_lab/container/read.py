"""A container opened: its tensors decoded one at a time, each checked before anything is made of it."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from ptq_lab.container.archive import MANIFEST, SKELETON, Archive
from ptq_lab.container.records import CodesRecord, TensorRecord, read_manifest
from ptq_lab.container.skeleton import read_skeleton
from ptq_lab.errors import ModelError
from ptq_lab.graph import Model, load_model
from ptq_lab.graph.slots import empty_tensor
from ptq_lab.numerics import QuantizedWeight, decoded_by, dequantize_weight
from ptq_lab.numerics.coding import decode_array, decode_codes
from ptq_lab.plan import QuantPlan, TensorPlan

_FLOAT32 = np.dtype(np.float32)
_MOST_GROWTH = 2048  # bytes of a model that one byte of a file may stand for; constant weights alone come near
_SMALL = 64 << 20  # bytes of a model that every file may stand for


class Container:
    """A model whose weights are entropy-coded.

    Attributes
    ----------
    path : Path
    manifest : Manifest
    skeleton : bytes
        The float model as an ONNX file without the tensors that the manifest lists; they are initializers there that
        claim to lie in a file ``handed-in``.

    Raises
    ------
    ModelError
        If the file is missing, is no container, is damaged, or is of a newer format.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self._archive = Archive(self.path)
        except OSError as error:
            raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
        try:
            self.manifest = read_manifest(self._archive.inflate(MANIFEST), self.label)
            self._check_entries()
            self.skeleton = self._archive.inflate(SKELETON)
            self._proto = self._read_skeleton()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def label(self) -> str:
        """What to call it in messages."""
        return self.path.name

    def close(self) -> None:
        """Let go of the file; what was decoded stays."""
        self._archive.close()

    def weight(self, tensor: TensorRecord) -> QuantizedWeight:
        """Return codes and scales of a quantized weight: all that decoding needs, without their history.

        Raises
        ------
        ModelError
            If its bytes are not the ones that were written.
        """
        assert tensor.codes is not None  # asked for the weights among the tensors
        try:
            return _read_weight(tensor, tensor.codes, self._checked(tensor))
        except ValueError as error:
            raise self._about(tensor, error) from error

    def array(self, tensor: TensorRecord) -> NDArray[Any]:
        """Return a tensor as it is in the model: a weight decoded, anything else as it was.

        Raises
        ------
        ModelError
            If its bytes are not the ones that were written.
        """
        if tensor.codes is not None:
            return dequantize_weight(self.weight(tensor)).astype(tensor.numpy_type, copy=False)
        try:
            sections = _Sections(self._checked(tensor)).take(tensor.plain)
            return decode_array(sections, tensor.numpy_type, tensor.count).reshape(tensor.shape)
        except ValueError as error:
            raise self._about(tensor, error) from error

    def model(self) -> Model:
        """Return the float model; a tensor is decoded whenever somebody asks for it, as long as this is open."""
        model = self._emptied()
        for tensor in self.manifest.tensors:
            model.graph.initializers[tensor.name].const_value = self._lazy(tensor)
        return model

    def quantized(self) -> tuple[Model, QuantPlan]:
        """Return the float model without its weights, and the plan with their codes: what ``apply_plan`` takes.

        Raises
        ------
        ModelError
            If the bytes of a weight are not the ones that were written.
        """
        model, entries = self._emptied(), []
        for tensor in self.manifest.tensors:
            value = model.graph.initializers[tensor.name]
            value.const_value = self._lazy(tensor)
            if tensor.codes is not None:
                entries.append(_entry(tensor, tensor.codes, value, self.weight(tensor)))
        return model, QuantPlan(tuple(entries))

    def slotted(self) -> Model:
        """Return the float model as the skeleton has it: its tensors are empty initializers."""
        model = self._emptied()
        for tensor in self.manifest.tensors:
            model.graph.initializers[tensor.name].const_value = empty_tensor(
                tensor.name, ir.DataType[tensor.dtype], tensor.shape
            )
        return model

    def _emptied(self) -> Model:
        return Model(load_model(self._proto).ir_model, self.label)

    def _lazy(self, tensor: TensorRecord) -> ir.LazyTensor:
        dtype = ir.DataType[tensor.dtype]

        def decoded() -> ir.TensorProtocol:
            return ir.Tensor(self.array(tensor), dtype, name=tensor.name)

        return ir.LazyTensor(decoded, dtype=dtype, shape=ir.Shape(tensor.shape), name=tensor.name)

    def _checked(self, tensor: TensorRecord) -> bytes:
        data = self._archive.read(tensor.entry)
        if zlib.crc32(data) != tensor.checks.crc32:
            raise ValueError("its checksum is wrong")
        if hashlib.sha256(data).hexdigest() != tensor.checks.sha256:
            raise ValueError("its SHA-256 is wrong")
        return data

    def _about(self, tensor: TensorRecord, error: ValueError) -> ModelError:
        if isinstance(error, ModelError):
            return error
        return self._archive.damaged(f"the tensor {tensor.name} cannot be decoded: {error}", tensor=tensor.name)

    def _check_entries(self) -> None:
        """Make sure that the entries are those of the manifest, and that it promises no more than they can hold."""
        tensors = self.manifest.tensors
        wanted = {MANIFEST, SKELETON, *(tensor.entry for tensor in tensors)}
        if stray := sorted(self._archive.names - wanted):
            raise self._archive.damaged(f"{stray[0]} belongs to no tensor")
        for tensor in tensors:
            size = self._archive.stored_size(tensor.entry)
            if size != tensor.checks.size:
                what = f"the tensor {tensor.name} has {size} bytes and not {tensor.checks.size}"
                raise self._archive.damaged(what, tensor=tensor.name)
        total, limit = sum(tensor.nbytes for tensor in tensors), _MOST_GROWTH * self._archive.size + _SMALL
        if total > limit:
            what = f"it claims to hold {total:,} bytes of tensors, and {limit:,} is the most for a file of its size"
            raise self._archive.damaged(what)

    def _read_skeleton(self) -> onnx.ModelProto:
        checks = self.manifest.skeleton
        if len(self.skeleton) != checks.size or hashlib.sha256(self.skeleton).hexdigest() != checks.sha256:
            raise self._archive.damaged(f"{SKELETON} is not the one that the manifest describes")
        try:
            return read_skeleton(self.skeleton, {tensor.name: tensor for tensor in self.manifest.tensors})
        except ValueError as error:
            raise self._archive.damaged(f"{SKELETON} cannot be used: {error}") from error


class _Sections:
    """Bytes cut into sections one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self._start = memoryview(data), 0

    def take(self, lengths: Sequence[int]) -> tuple[memoryview, ...]:
        """Return the next sections."""
        taken = []
        for length in lengths:
            taken.append(self._data[self._start : self._start + length])
            self._start += length
        return tuple(taken)

    def rest(self) -> memoryview:
        """Return what is left."""
        return self._data[self._start :]


def _read_weight(tensor: TensorRecord, codes: CodesRecord, data: bytes) -> QuantizedWeight:
    sections, shape = _Sections(data), () if codes.axis is None else (-1,)
    scale = decode_array(sections.take(codes.scale), _FLOAT32, tensor.channels).reshape(shape)
    offset = None
    if codes.offset:
        offset = decode_array(sections.take(codes.offset), _FLOAT32, tensor.channels).reshape(shape)
    flat = decode_codes(codes.layout, sections.rest(), tensor.count, bits=codes.bits)
    return decoded_by(flat.reshape(tensor.shape), bits=codes.bits, axis=codes.axis, scale=scale, offset=offset)


def _entry(tensor: TensorRecord, codes: CodesRecord, value: ir.Value, weight: QuantizedWeight) -> TensorPlan:
    users = tuple(dict.fromkeys(use.node for use in value.uses()))
    return TensorPlan(
        tensor=tensor.name,
        nodes=tuple(node.name or "" for node in users) or (tensor.name,),
        op_type=users[0].op_type if users else "",
        shape=tensor.shape,
        bits=codes.bits,
        axis=codes.axis,
        channel_axis=codes.axis or 0,
        by_row=codes.by_row,
        bytes_before=tensor.nbytes,
        weight=weight,
    )
