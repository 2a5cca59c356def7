"""Containers and plain models alike as onnxruntime sessions."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ptq_lab.container.archive import is_container
from ptq_lab.container.read import Container
from ptq_lab.errors import ModelError
from ptq_lab.runtime import open_filled, session_options

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_MOST_THREADS = 4  # zlib lets go of the interpreter; more than this, and memory is what they wait for


def load_session(path: str | os.PathLike[str], **options: Any) -> InferenceSession:
    """Open a container or a plain ONNX file in onnxruntime.

    Parameters
    ----------
    path : path
        A ``.ptqz`` container, or any ``.onnx`` file; told apart by their content.
    **options
        ``providers`` (default: the CPU), ``provider_options``, ``sess_options`` (a finished ``SessionOptions``), or
        any attribute of onnxruntime's ``SessionOptions`` by name, e.g. ``intra_op_num_threads=1``.

    Returns
    -------
    onnxruntime.InferenceSession
        An ordinary session. The weights of a container are decoded once, into float32, and run as fast as in a
        float model; the outputs are those of the plain file that :func:`unpack` writes, bit for bit.

    Raises
    ------
    ModelError
        If the file is missing, is neither, or is damaged; the message names the tensor.
    InferenceError
        If an option is not known, or onnxruntime refuses the model.

    Examples
    --------
    >>> from ptq_lab import demo
    >>> session = load_session(demo.load("digits_cnn").model_path, intra_op_num_threads=1)
    >>> [output.name for output in session.get_outputs()]
    ['scores']
    """
    chosen = session_options(options)
    file = Path(path)
    if not file.is_file():
        what = "is a folder, and a model is a file" if file.is_dir() else "no such file"
        raise ModelError(f"{file}: {what}")
    if not is_container(file):
        return open_filled(file, {}, chosen, label=file.name)
    with Container(file) as container:
        return open_filled(container.skeleton, decode_all(container), chosen, label=container.label)


def decode_all(container: Container) -> dict[str, NDArray[Any]]:
    """Return every tensor of a container by name, decoded on a few threads.

    Raises
    ------
    ModelError
        If the bytes of one are not the ones that were written.
    """
    tensors = sorted(container.manifest.tensors, key=lambda tensor: -tensor.count)  # the longest work first
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        decoded = pool.map(container.array, tensors)
        return {tensor.name: array for tensor, array in zip(tensors, decoded, strict=True)}
