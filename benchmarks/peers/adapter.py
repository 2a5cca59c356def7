"""What the adapters share: their command line, their inputs, and the line that each prints at its end.

An adapter runs in the environment of its tool, so this file imports the standard library, numpy and onnx alone, and
onnxruntime where BatchNormalization is to be folded. An adapter is a script ``peer_<tool>.py`` called as

    --model M.onnx --calib C.npz --calib-size 100 --out Q.onnx --mode weight8 --variant fold

and its last line is ``PEER_RESULT`` with a JSON object: ``mode``, ``ok``, and ``notes``, ``versions``, ``quantize_s``
if it worked, ``unsupported`` or ``error`` with the reason if not.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

MODES = re.compile(r"weight([1-9]|1[0-6])|full8-(maxmin|kl|percentile|best)|dynamic8")
NO_INPUTS = ("labels", "label", "y")  # arrays of an archive that no model reads; so are those that begin with _
RESULT_MARK = "PEER_RESULT "
JUDGED_MARK = "JUDGED "

Feeds = dict[str, Any]


class NotOfferedError(Exception):
    """The tool has no such mode, or none for this kind of model."""


@dataclass(frozen=True)
class Job:
    """What is asked of an adapter.

    Attributes
    ----------
    model, calib, out : Path
        The float model, the calibration samples (.npz, first axis = samples) or None, and the file to write.
    size : int
        How many samples to use.
    mode : str
    variant : frozenset of str
        Switches of this adapter, written with dashes between them.
    folder : Path
        For files in between.
    """

    model: Path
    calib: Path | None
    out: Path
    size: int
    mode: str
    variant: frozenset[str]
    folder: Path

    @property
    def bits(self) -> int | None:
        """Bits per weight if only weights are quantized."""
        return int(self.mode[6:]) if self.mode.startswith("weight") else None

    def feeds(self) -> list[Feeds]:
        """Return the calibration samples, batch 1 each."""
        if self.calib is None:
            raise ValueError(f"{self.mode} of this tool needs --calib")
        return read_feeds(self.calib, self.model, self.size)

    def prepared(self, opset: int = 13) -> Path:
        """Return the model in at least this opset, with BatchNormalization folded if the variant says ``fold``."""
        path = _folded(self.model, self.folder) if "fold" in self.variant else self.model
        return _raised(path, self.folder, opset)

    def one_of(self, modes: Sequence[str]) -> None:
        """Refuse any other mode."""
        if self.mode not in modes:
            raise NotOfferedError(f"offers {', '.join(modes)} here")


class Reader:
    """Samples one by one, in the way that onnxruntime's calibration and its descendants ask for them."""

    def __init__(self, feeds: Sequence[Feeds]) -> None:
        self._feeds = feeds
        self.rewind()

    def rewind(self) -> None:
        """Begin again."""
        self._rest = iter(self._feeds)

    def get_next(self) -> Feeds | None:
        """Return the next sample, or None behind the last one."""
        return next(self._rest, None)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Go through some of them only."""
        self._rest = iter(self._feeds[start_index:end_index])

    def __len__(self) -> int:
        return len(self._feeds)

    def __iter__(self) -> Iterator[Feeds]:
        return iter(self._feeds)


def run(quantize: Callable[[Job], str], packages: Sequence[str]) -> None:
    """Do what the command line asks for, print the result line, and end the process.

    Parameters
    ----------
    quantize : callable
        Writes the file of a `Job` and returns the settings in words.
    packages : sequence of str
        Whose versions are reported.
    """
    asked = _arguments()
    result: dict[str, Any] = {"mode": asked.mode, "ok": False}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.unlink(missing_ok=True)
    start = time.perf_counter()
    try:
        with _job(asked) as job:
            result["notes"] = quantize(job)
        result["ok"] = asked.out.is_file()
        if not result["ok"]:
            result["error"] = "no file was written"
    except NotOfferedError as reason:
        result["unsupported"] = str(reason)
    except BaseException as error:
        traceback.print_exc()
        result["error"] = f"{type(error).__name__}: {str(error)[:300]}"
    result["quantize_s"] = round(time.perf_counter() - start, 3)
    result["versions"] = _versions(packages)
    print(f"\n{RESULT_MARK}{json.dumps(result)}", flush=True)
    sys.stderr.flush()
    os._exit(0 if result["ok"] else 3)  # threads that a tool leaves behind may hang at the usual end


def read_feeds(path: Path, model: Path, limit: int | None = None) -> list[Feeds]:
    """Return samples of an archive as inputs of a model, batch 1 each, in the types that it wants."""
    import onnx

    wanted = _inputs(onnx.load(model, load_external_data=False))
    with np.load(path) as archive:
        names = [name for name in archive.files if not name.startswith("_") and name not in NO_INPUTS]
        if len(wanted) == 1 and next(iter(wanted)) not in names:
            arrays = {next(iter(wanted)): archive[names[0]]}
        else:
            arrays = {name: archive[name] for name in wanted}
    count = min(len(array) for array in arrays.values())
    count = count if limit is None else min(count, limit)
    typed = {name: array[:count].astype(wanted[name], copy=False) for name, array in arrays.items()}
    return [{name: array[index : index + 1] for name, array in typed.items()} for index in range(count)]


def has_convolutions(path: Path) -> bool:
    """Tell a vision model from a language model."""
    import onnx

    return any(node.op_type == "Conv" for node in onnx.load(path, load_external_data=False).graph.node)


def multiplies_constants(path: Path) -> bool:
    """Whether a MatMul reads a constant weight: all that most weight-only quantizers look for."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    constant = {tensor.name for tensor in graph.initializer}
    return any(node.op_type == "MatMul" and constant.intersection(node.input) for node in graph.node)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--calib", type=Path)
    parser.add_argument("--calib-size", type=int, default=100)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--mode", required=True)
    parser.add_argument("--variant", default="")
    asked = parser.parse_args()
    if not MODES.fullmatch(asked.mode):
        parser.error(f"--mode {asked.mode}: wanted is {MODES.pattern}")
    return asked


@contextmanager
def _job(asked: argparse.Namespace) -> Iterator[Job]:
    with TemporaryDirectory() as folder:
        yield Job(
            model=asked.model,
            calib=asked.calib,
            out=asked.out,
            size=asked.calib_size,
            mode=asked.mode,
            variant=frozenset(filter(None, asked.variant.split("-"))),
            folder=Path(folder),
        )


def _inputs(model: Any) -> dict[str, Any]:
    import onnx

    constant = {tensor.name for tensor in model.graph.initializer}
    return {
        value.name: onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        for value in model.graph.input
        if value.name not in constant
    }


def _folded(path: Path, folder: Path) -> Path:
    """Let onnxruntime fold constants and BatchNormalization, and nothing that only it can run."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / "folded.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    model = onnx.load(options.optimized_model_filepath)
    _drop_unused_domains(model)
    onnx.save(model, folder / "folded.onnx")
    return folder / "folded.onnx"


def _raised(path: Path, folder: Path, opset: int) -> Path:
    import onnx
    from onnx import version_converter

    model = onnx.load(path)
    if next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")) >= opset:
        return path
    raised = version_converter.convert_version(model, opset)
    raised.ir_version = max(raised.ir_version, 10 if opset >= 21 else 8)
    constant = {tensor.name for tensor in raised.graph.initializer}
    for value in [value for value in raised.graph.input if value.name in constant]:
        raised.graph.input.remove(value)
    _drop_unused_domains(raised)
    goal = folder / f"opset{opset}.onnx"
    onnx.save(raised, goal)
    return goal


def _drop_unused_domains(model: Any) -> None:
    used = {"", "ai.onnx", *(node.domain for node in model.graph.node)}
    for entry in [entry for entry in model.opset_import if entry.domain not in used]:
        model.opset_import.remove(entry)


def _versions(packages: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
