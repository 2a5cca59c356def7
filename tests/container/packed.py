"""Containers for tests: written from tiny models, read back whole, and rewritten with something wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ptq_lab.container import Container, write_container
from ptq_lab.container.archive import MANIFEST, SKELETON, Archive, ArchiveWriter
from ptq_lab.graph import Model, apply_plan, load_model, save_model
from ptq_lab.plan import QuantPlan
from tests.graph.quantized import plan_of

Arrays = list[NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The same quantized model as a plain file and as a container."""

    original: Model
    plan: QuantPlan
    plain: Path
    container: Path


def both(proto: onnx.ModelProto, folder: Path, bits: int, **how: Any) -> Pair:
    """Quantize a model and write it both ways."""
    model = load_model(proto)
    return write_both(model, plan_of(model, bits, **how), folder)


def write_both(model: Model, plan: QuantPlan, folder: Path) -> Pair:
    """Write a plan both ways, with the metadata that a run leaves."""
    metadata = {"ptq_lab.plan": json.dumps({entry.tensor: [entry.bits, entry.channels] for entry in plan.entries})}
    quantized = apply_plan(model, plan)
    quantized.ir_model.metadata_props.update(metadata)
    plain = save_model(quantized, folder / "plain.onnx").path
    assert plain is not None  # it was just written
    write_container(model, plan, folder / "packed.ptqz", metadata=metadata)
    return Pair(original=model, plan=plan, plain=plain, container=folder / "packed.ptqz")


def read_everything(path: Path) -> dict[str, NDArray[Any]]:
    """Decode every tensor of a container."""
    with Container(path) as container:
        return {tensor.name: container.array(tensor) for tensor in container.manifest.tensors}


def rewritten(path: Path, change: Callable[[dict[str, Any], dict[str, bytes]], None]) -> Path:
    """Write a container again, well-formed outside, after a change of its manifest and its other entries."""
    archive = Archive(path)
    entries = {name: archive.read(name) for name in sorted(archive.names - {MANIFEST, SKELETON})}
    entries[SKELETON] = archive.inflate(SKELETON)
    manifest = json.loads(archive.inflate(MANIFEST))
    archive.close()
    change(manifest, entries)
    target = path.with_name("rewritten.ptqz")
    with ArchiveWriter(target) as writer:
        for name, data in entries.items():
            (writer.deflate if name == SKELETON else writer.store)(name, data)
        writer.deflate(MANIFEST, json.dumps(manifest).encode())
    return target


def largest_difference(left: Arrays, right: Arrays) -> float:
    """Return how far two models' outputs are apart."""
    assert [array.shape for array in left] == [array.shape for array in right]
    return max(
        float(np.abs(a.astype(float) - b.astype(float)).max(initial=0.0)) for a, b in zip(left, right, strict=True)
    )
