"""Running models: the only file that knows onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ptq_lab.errors import InferenceError
from ptq_lab.graph import Model

Feeds = Mapping[str, NDArray[Any]]

CPU = ("CPUExecutionProvider",)
_QUIET = 3  # onnxruntime's log level: errors only


def open_session(
    model: Model | Path | bytes, *, providers: Sequence[str] = CPU, threads: int = 0
) -> onnxruntime.InferenceSession:
    """Load a model into onnxruntime with all its graph optimizations.

    Parameters
    ----------
    model : Model, path or bytes
    providers : sequence of str
        onnxruntime execution providers, best first.
    threads : int
        Threads within one operator; 0 leaves the choice to onnxruntime.

    Raises
    ------
    InferenceError
        If a provider is not available here, or onnxruntime refuses the model.
    """
    available = onnxruntime.get_available_providers()
    missing = [provider for provider in providers if provider not in available]
    if missing:
        raise InferenceError(
            f"[ptq_lab] providers: {', '.join(missing)} is not available here; available: {', '.join(available)}"
        )
    label, source = _source(model)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _QUIET
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(source, options, providers=list(providers))
    except Exception as error:  # its exception classes share no base of their own
        raise InferenceError(f"{label}: onnxruntime {onnxruntime.__version__} refuses it ({_reason(error)})") from error


def run_session(session: onnxruntime.InferenceSession, feeds: Feeds) -> dict[str, NDArray[Any]]:
    """Run a model once.

    Returns
    -------
    dict of str to ndarray
        Outputs by name.

    Raises
    ------
    InferenceError
        If onnxruntime fails.
    """
    names = [output.name for output in session.get_outputs()]
    try:
        outputs = session.run(names, dict(feeds))
    except Exception as error:
        shapes = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in feeds.items())
        raise InferenceError(f"running the model on {shapes} failed ({_reason(error)})") from error
    return dict(zip(names, outputs, strict=True))


def require_same(before: Model, after: Model, feeds: Feeds) -> None:
    """Make sure that two float models compute the same, e.g. after a change of opset.

    Raises
    ------
    InferenceError
        If an output differs by more than 1e-4 of its largest value.
    """
    wanted = run_session(open_session(before), feeds)
    got = run_session(open_session(after), feeds)
    for name, value in wanted.items():
        if not np.issubdtype(value.dtype, np.floating):
            continue
        size = float(np.abs(value).max(initial=0.0))
        error = float(np.abs(value - got[name]).max(initial=0.0))
        if not error <= 1e-4 * size + 1e-6:
            raise InferenceError(
                f"{before.label}: after raising its opset from {before.opset} to {after.opset} the output {name} "
                f"differs by {error:.2g}; use bit_num=8 or 16, or export the model with a newer opset"
            )


def _source(model: Model | Path | bytes) -> tuple[str, str | bytes]:
    if isinstance(model, Path):
        return model.name, str(model)
    if isinstance(model, bytes):
        return "the model", model
    return model.label, str(model.path) if model.path is not None else model.serialize()


def _reason(error: Exception) -> str:
    """Return what onnxruntime says, on one line and without its prefixes."""
    text = " ".join(str(error).split())
    return text.removeprefix("[ONNXRuntimeError] : ").lstrip("0123456789 :")[:300]
