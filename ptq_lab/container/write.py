"""A float model and a plan with codes in, a container out: tensor by tensor, equal bytes for equal input."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ptq_lab import __version__
from ptq_lab.container.archive import MANIFEST, SKELETON, ArchiveWriter
from ptq_lab.container.records import (
    PLAIN_TYPES,
    Checks,
    CodesRecord,
    Manifest,
    TensorRecord,
    entry_name,
    write_manifest,
)
from ptq_lab.errors import OutputError, PlanError
from ptq_lab.graph import Model, raise_opset, required_opset
from ptq_lab.graph.model import constants, shape_of
from ptq_lab.graph.slots import empty_slot, model_bytes
from ptq_lab.numerics import QuantizedWeight
from ptq_lab.numerics.coding import encode_array, encode_codes
from ptq_lab.plan import QuantPlan, TensorPlan
from ptq_lab.progress import Progress, Step, silent

_LARGE = 1 << 20  # bytes from which a tensor leaves the skeleton, so that no part of a file is large
_GAIN = 512  # bytes that a smaller tensor has to gain by leaving it: its entry and its record cost as much
_WORTH_A_TRY = 4096  # bytes


def write_container(
    model: Model,
    plan: QuantPlan,
    path: Path,
    *,
    metadata: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> dict[str, int]:
    """Write a model into a container, its quantized weights as entropy-coded codes.

    Parameters
    ----------
    model : Model
        The float model; not changed.
    plan : QuantPlan
        Weights only, every entry with its codes: what :func:`~ptq_lab.graph.apply_plan` takes.
    path : Path
        Written in place; callers who may not leave half a file give a draft.
    metadata : mapping of str to str, optional
        Joins the model's own ``metadata_props``.
    progress : Progress
        Told once per tensor.

    Returns
    -------
    dict of str to int
        Bytes that each quantized weight takes in the file: its codes, scales and offsets.

    Raises
    ------
    PlanError
        If an entry has no codes or names a tensor that the model does not have, or the plan is for integer arithmetic.
    ModelError
        If a plain ONNX file of these widths needs a newer opset, and the model's cannot be raised.
    OutputError
        If the file cannot be written.

    Notes
    -----
    The model is stored at the opset that a plain file would need, so that both compute with the same operators.
    """
    if plan.placement is not None or plan.dynamic is not None:
        raise PlanError("a plan for integer arithmetic has no weights to decode; write a plain model, and pack that")
    raised = raise_opset(model, required_opset(plan))
    skeleton = raised if raised is not model else model.clone()
    skeleton.ir_model.metadata_props.update(metadata or {})
    try:
        with ArchiveWriter(path) as archive:
            return _write(skeleton, plan, archive, progress)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})", path=path) from error


def _write(skeleton: Model, plan: QuantPlan, archive: ArchiveWriter, progress: Progress) -> dict[str, int]:
    streams = _Streams(archive)
    graph, records = skeleton.graph, []
    holders = constants(graph)
    for index, entry in enumerate(plan.entries):
        holder = holders.get(entry.tensor)
        if holder is None:
            raise PlanError(f"the model has no weight named {entry.tensor}", tensor=entry.tensor)
        if entry.weight is None:
            raise PlanError(f"{entry.tensor}: has no codes yet; run round_weights first", tensor=entry.tensor)
        slot = empty_slot(graph, holder, entry.tensor)
        records.append(_coded(slot, entry, entry.weight, streams))
        progress(Step("pack", index + 1, len(plan.entries), entry.tensor))
    for value, sections in _plain_tensors(graph, {entry.tensor for entry in plan.entries}):
        stream, checks = streams.add(b"".join(sections))
        slot = empty_slot(graph, value, value.name or "")
        records.append(_record(slot, stream, checks, plain=tuple(map(len, sections))))
    data = model_bytes(skeleton)
    archive.deflate(SKELETON, data)
    manifest = Manifest(writer=f"ptq_lab {__version__}", skeleton=checks_of(data), tensors=tuple(records))
    archive.deflate(MANIFEST, write_manifest(manifest))
    return {record.name: record.checks.size for record in records[: len(plan.entries)]}


class _Streams:
    """The entries that hold tensors; equal bytes are stored once."""

    def __init__(self, archive: ArchiveWriter) -> None:
        self._archive = archive
        self._known: dict[str, int] = {}

    def add(self, data: bytes) -> tuple[int, Checks]:
        """Store bytes unless they are stored already; return the number of their entry."""
        checks = checks_of(data)
        if checks.sha256 not in self._known:
            self._known[checks.sha256] = len(self._known)
            self._archive.store(entry_name(self._known[checks.sha256]), data)
        return self._known[checks.sha256], checks


def checks_of(data: bytes) -> Checks:
    """Return size and checksums of some bytes."""
    return Checks(size=len(data), crc32=zlib.crc32(data), sha256=hashlib.sha256(data).hexdigest())


def _coded(slot: ir.Value, entry: TensorPlan, weight: QuantizedWeight, streams: _Streams) -> TensorRecord:
    coded = encode_codes(weight.codes)
    scale = encode_array(weight.scale)
    offset = encode_array(weight.offset) if weight.offset.any() else ()
    stream, checks = streams.add(b"".join((*scale, *offset, coded.data)))
    codes = CodesRecord(
        bits=weight.bits,
        axis=weight.axis,
        by_row=entry.by_row,
        layout=coded.layout,
        scale=tuple(map(len, scale)),
        offset=tuple(map(len, offset)),
    )
    return _record(slot, stream, checks, codes=codes)


def _record(
    slot: ir.Value, stream: int, checks: Checks, *, codes: CodesRecord | None = None, plain: tuple[int, ...] = ()
) -> TensorRecord:
    tensor = slot.const_value
    assert tensor is not None  # an empty slot has a type and a shape
    return TensorRecord(
        name=slot.name or "",
        dtype=tensor.dtype.name,
        shape=shape_of(tensor),
        stream=stream,
        checks=checks,
        codes=codes,
        plain=plain,
    )


def _plain_tensors(graph: ir.Graph, coded: set[str]) -> Iterator[tuple[ir.Value, tuple[bytes, ...]]]:
    """Yield the tensors that are better stored outside the skeleton, with their sections."""
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if name in coded or tensor is None or tensor.dtype.name not in PLAIN_TYPES or tensor.nbytes < _WORTH_A_TRY:
            continue
        if not value.uses() or value.is_graph_input() or value.is_graph_output():
            continue  # onnxruntime takes no value for what no node reads
        sections = encode_array(np.asarray(tensor.numpy()))
        if tensor.nbytes >= _LARGE or sum(map(len, sections)) + _GAIN < len(zlib.compress(tensor.tobytes(), 9)):
            yield value, sections
