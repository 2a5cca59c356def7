"""Containers and plain models alike as onnxruntime sessions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ptq_lab.container.archive import is_container
from ptq_lab.container.halves import is_half_table, widen_tables
from ptq_lab.container.read import Container
from ptq_lab.container.records import TensorRecord
from ptq_lab.errors import ModelError
from ptq_lab.graph.slots import model_bytes
from ptq_lab.numerics import dequantize_weight
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
    ['logits']
    """
    chosen = session_options(options)
    file = Path(path)
    if not file.is_file():
        what = "is a folder, and a model is a file" if file.is_dir() else "no such file"
        raise ModelError(f"{file}: {what}")
    if not is_container(file):
        return open_filled(file, {}, chosen, label=file.name)
    with Container(file) as container:
        source, contents = container.skeleton, {tensor.name: tensor for tensor in container.manifest.tensors}
        wide: dict[str, TensorRecord] = {}
        if tables := [tensor for tensor in container.manifest.tensors if is_half_table(tensor)]:
            model = container.slotted()
            wide = widen_tables(model, tables)
            source = model_bytes(model)
            contents = {name: tensor for name, tensor in contents.items() if name in model.graph.initializers}
        arrays = decode_all(container, contents, wide)
        return open_filled(source, arrays, chosen, label=container.label)


def decode_all(
    container: Container, contents: Mapping[str, TensorRecord], wide: Mapping[str, TensorRecord]
) -> dict[str, NDArray[Any]]:
    """Decode tensors on a few threads.

    Parameters
    ----------
    container : Container
    contents : mapping of str to TensorRecord
        Slots and the tensors that fill them.
    wide : mapping of str to TensorRecord
        The same, for weights that are wanted as float32 whatever their type in the model.

    Returns
    -------
    dict of str to ndarray
        By slot.

    Raises
    ------
    ModelError
        If the bytes of a tensor are not the ones that were written.
    """
    work = [(slot, partial(container.array, tensor), tensor.count) for slot, tensor in contents.items()]
    work += [(slot, partial(_float32, container, tensor), tensor.count) for slot, tensor in wide.items()]
    work.sort(key=lambda item: -item[2])  # the longest first
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        arrays = pool.map(lambda item: item[1](), work)
        return {slot: array for (slot, _, _), array in zip(work, arrays, strict=True)}


def _float32(container: Container, tensor: TensorRecord) -> NDArray[Any]:
    return dequantize_weight(container.weight(tensor))
