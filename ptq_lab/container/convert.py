"""Containers to plain ONNX files and back, without loss."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ptq_lab.container.archive import is_container
from ptq_lab.container.read import Container
from ptq_lab.container.recover import recover_plan
from ptq_lab.container.write import write_container
from ptq_lab.errors import ModelError
from ptq_lab.graph import Model, apply_plan, load_model
from ptq_lab.output import place_output
from ptq_lab.progress import Progress, silent


def unpack(path: str | os.PathLike[str], output: str | os.PathLike[str]) -> Path:
    """Write the plain ONNX file of a container.

    Parameters
    ----------
    path : path
        A ``.ptqz`` container.
    output : path
        ``.onnx`` is added if it has no suffix. The file appears whole or not at all.

    Returns
    -------
    Path
        The file written: what quantizing the same weights into a plain file writes.

    Raises
    ------
    ModelError
        If the container is missing, damaged, or of a newer format.
    OutputError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile, ptq_lab
    >>> options = {"common_quant_param": {"quant_type": "WEIGHT_QUANT", "min_quant_weight_channel": 0}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     digits = ptq_lab.demo.load("digits_cnn")
    ...     plain = ptq_lab.quantize(digits.model_path, options, f"{folder}/q.onnx").model_path
    ...     again = unpack(pack(plain, f"{folder}/q.ptqz"), f"{folder}/again.onnx")
    ...     again.read_bytes() == plain.read_bytes()
    True
    """
    with Container(path) as container:
        place = place_output(os.fspath(output), replace(container.model(), path=container.path))
        with place.draft(apply_plan(*container.quantized())):
            return place.path


def pack(path: str | os.PathLike[str], output: str | os.PathLike[str], *, progress: Progress = silent) -> Path:
    """Write the container of a quantized model.

    Parameters
    ----------
    path : path
        A plain ONNX file. Weights that ptq_lab made it decode to float are stored by their codes; all other tensors,
        such as those of integer arithmetic and whatever other tools have quantized, are compressed without loss.
    output : path
        ``.ptqz`` is added if it has no suffix. The file appears whole or not at all.
    progress : Progress
        Told once per tensor.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    ModelError
        If the file is missing, is no ONNX model, or is not quantized.
    OutputError
        If the container cannot be written.
    """
    if is_container(path):
        raise ModelError(f"{path}: is a container already")
    model = load_model(path)
    place = place_output(os.fspath(output), model, suffix=".ptqz")
    with place.draft_file() as file:
        pack_model(model, file, progress=progress)
    return place.path


def pack_model(model: Model, path: Path, *, progress: Progress = silent) -> dict[str, int]:
    """Write the container of a model that is in memory, in place.

    Parameters
    ----------
    model : Model
        Quantized.
    path : Path
        Callers who may not leave half a file give a draft.
    progress : Progress
        Told once per tensor.

    Returns
    -------
    dict of str to int
        Bytes that each quantized weight takes in the file.
    """
    recovered, plan = recover_plan(model)
    return write_container(recovered, plan, path, progress=progress)
