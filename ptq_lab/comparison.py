"""`compare`: two models of the same function, whoever wrote them, measured against each other."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ptq_lab.calibration import Samples, open_samples, random_samples
from ptq_lab.clock import Clock
from ptq_lab.config import QuantConfig, load_config
from ptq_lab.errors import ConfigError, InferenceError, SampleError
from ptq_lab.evaluation import open_metric
from ptq_lab.flags import InputShape, check_values, parse_input_shape
from ptq_lab.graph import Model, load_model
from ptq_lab.graph.found_layers import FoundModel
from ptq_lab.graph.kernels import count_layers
from ptq_lab.graph.matching import Matching, match_layers
from ptq_lab.graph.ports import Aligned, align_ports
from ptq_lab.inputs import Layout, reading_of
from ptq_lab.numerics import cosine
from ptq_lab.progress import Progress, silent
from ptq_lab.report.compare import measure
from ptq_lab.report.depth import measure_depth
from ptq_lab.report.execution import latencies
from ptq_lab.report.rows import ErrorRow
from ptq_lab.report.tables import Report, Table
from ptq_lab.report.text import format_shape
from ptq_lab.report.two_models import Compared, report_two_models
from ptq_lab.report.weight_rows import WeightRows, weight_rows
from ptq_lab.runtime import Feeds, Sessions, open_session, optimized_model, run_session

DEPTH_SAMPLES = 8  # on which layers are compared
FUSION_SAMPLES = 4  # on which fused kernels are compared with the file's nodes
SAME_COSINE = 0.999

_NOTHING_SAID = {"common_quant_param": {"quant_type": "WEIGHT_QUANT"}}  # a configuration has to quantize something

Source = str | os.PathLike[str] | onnx.ModelProto | Model
Settings = str | Path | Mapping[str, Mapping[str, object]] | QuantConfig


def compare(
    a: Source,
    b: Source,
    *,
    samples: Any = None,
    evaluate: Any = None,
    config: Settings | None = None,
    progress: Progress | None = None,
    input_shape: InputShape | None = None,
    input_data_format: Layout | None = None,
) -> Report:
    """Compare two models of the same inputs: usually a float one, and what any tool has made of it.

    Parameters
    ----------
    a, b : path, onnx.ModelProto or Model
        Neither is changed. What is found is said about `b`, measured against `a`.
    samples : folder, .npz, mapping or iterable, optional
        What both are run on; seeded random inputs if there are none.
    evaluate : callable, .npz or folder, optional
        The task metric, measured of both; higher is better.
    config : INI text, path, dict of dicts, or QuantConfig, optional
        Its ``[data_preprocess_param]`` says how image files become inputs. Without it, that of the configuration which
        ptq_lab has stored in `b` or `a`, if it has.
    progress : callable, optional
        Told about every step.
    input_shape : mapping or "name:1,3,224,224", optional
        Sizes for dynamic axes.
    input_data_format : {"NHWC", "NCHW"}, optional
        Layout of ``.bin`` samples.

    Returns
    -------
    Report
        Like that of a run: a row per weight with bits, granularity and error; ``report.errors`` with the error of every
        layer alone and after all before it; ``report.pairs`` with which layer is which and what told so.

    Raises
    ------
    ConfigError, ModelError, SampleError, InferenceError
        The input's fault, in one message.

    Examples
    --------
    >>> from ptq_lab import demo, quantize
    >>> digits = demo.load("digits_cnn")
    >>> result = quantize(digits.model_path, {"common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": 4,
    ...                                                              "min_quant_weight_channel": 0}})
    >>> report = compare(digits.model_path, result.model_path, samples=digits.calib_path)
    >>> [(row.bits, row.storage) for row in report.layers][:1], report.summary.cosine_min > 0.9
    ([(4, 'int4, asymmetric')], True)
    """
    clock, told = Clock(), progress or silent
    check_values(False, input_data_format)
    with clock("load"):
        first, second = _told_apart(load_model(a), load_model(b))
        aligned = align_ports(first, second)
        settings, notes = _settings(config, first, second)
        reading = reading_of(settings, parse_input_shape(input_shape), input_data_format)
        data = _open(samples, aligned, reading)
        metric = (
            open_metric(evaluate, aligned.inputs, outputs=first.outputs, **reading) if evaluate is not None else None
        )
        notes = [*_sameness(first, second), *aligned.notes, *notes, *data.notes, *(metric.notes if metric else ())]
    with clock("match"):
        found = FoundModel.read(first), FoundModel.read(aligned.model)
        matching = match_layers(*found)
    with clock("weights"):
        weights = weight_rows(*found, matching, progress=told)
    with clock("compare"):
        sessions, feeds = Sessions(), next(iter(data))
        for model, label in ((first, first.label), (aligned.model, second.label)):
            _try(sessions(model), feeds, label)
        measured = measure(first, aligned.model, data, metric, sessions=sessions, progress=told)
        ratio = latencies([first, aligned.model], feeds, sessions=sessions)[1].ratio
        kernels = count_layers(optimized_model(aligned.model))
    with clock("depth"):
        errors, remarks = _depth(*found, matching, weights, data, told)
        remarks += _fusion(aligned.model, second.label, data, sessions)
    return report_two_models(
        Compared(
            first=first,
            second=second,
            found=found[1],
            matching=matching,
            measured=measured,
            rows=weights.rows,
            errors=errors,
            latency_ratio=ratio,
            kernels=kernels,
            timed_on=", ".join(f"{name} {format_shape(array.shape)}" for name, array in feeds.items()),
            notes=tuple(dict.fromkeys([*notes, *remarks])),
            seconds=clock.seconds,
        )
    )


def _depth(
    first: FoundModel, second: FoundModel, matching: Matching, weights: WeightRows, data: Samples, progress: Progress
) -> tuple[Table[ErrorRow], list[str]]:
    """Measure every layer; a model that does not run when it is cut open still has outputs to compare."""
    few = min(DEPTH_SAMPLES, len(data))
    notes: list[str] = []
    for fuse in (True, False):
        samples = islice(data, few)
        try:
            errors = measure_depth(
                first,
                second,
                matching,
                samples,
                count=few,
                other_inputs=weights.other_inputs,
                other_outputs=weights.other_outputs,
                fuse=fuse,
                progress=progress,
            )
        except InferenceError as fault:
            how = "as onnxruntime fuses the models" if fuse else "node by node"
            notes.append(f"the error could not be followed from layer to layer {how}: {fault}")
        else:
            return errors, notes
    return Table(ErrorRow), notes


def _told_apart(first: Model, second: Model) -> tuple[Model, Model]:
    """Call models by their whole paths if their files have the same name."""
    if first.label != second.label or first.path == second.path:
        return first, second
    return replace(first, label=str(first.path or first.label)), replace(second, label=str(second.path or second.label))


def _fusion(model: Model, label: str, data: Samples, sessions: Sessions) -> list[str]:
    """Say so if onnxruntime's fused kernels give something else than the nodes of the file one by one."""
    plain, fused, lowest = open_session(model, fuse=False), sessions(model), 1.0
    for feeds in islice(data, FUSION_SAMPLES):
        wanted, got = run_session(plain, feeds), run_session(fused, feeds)
        for name, value in wanted.items():
            if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.shape == got[name].shape:
                lowest = min(lowest, cosine(value, got[name]))
    if lowest >= SAME_COSINE:
        return []
    return [
        f"onnxruntime's fused kernels give other outputs of {label} than its nodes one by one: cosine {lowest:.6f} "
        "between the two"
    ]


def _try(session: Any, feeds: Feeds, label: str) -> None:
    """Run a model once, to say which one it is that fails.

    Raises
    ------
    InferenceError
    """
    try:
        run_session(session, feeds)
    except InferenceError as fault:
        raise InferenceError(f"{label}: {fault}") from fault


def _sameness(first: Model, second: Model) -> list[str]:
    if first.digest() == second.digest():
        return [f"{first.label} and {second.label} are the same, byte for byte"]
    return []


def _open(samples: Any, aligned: Aligned, reading: Mapping[str, Any]) -> Samples:
    """Open what both models are run on, and make sure that the second can take it."""
    if samples is None:
        data = random_samples(aligned.inputs, input_shape=reading["input_shape"])
    else:
        data = open_samples(samples, aligned.inputs, **reading)
    if aligned.narrowed:
        for index, feeds in enumerate(data):
            for name, dtype in aligned.narrowed.items():
                _check_fits(feeds[name], dtype, f"{data.place(index)}: {name}", aligned.model.label)
    return data


def _check_fits(values: np.ndarray[Any, Any], dtype: np.dtype[Any], where: str, label: str) -> None:
    """Refuse values that a cast would change.

    Raises
    ------
    SampleError
        If a value is no whole number, or outside the range of the type.
    """
    limits = np.iinfo(dtype) if dtype.kind in "iu" else None
    low, high = (int(limits.min), int(limits.max)) if limits is not None else (0, 1)
    if (values != np.floor(values)).any() or values.min(initial=0) < low or values.max(initial=0) > high:
        raise SampleError(
            f"{where}: the values reach from {values.min():g} to {values.max():g}, and {label} takes {dtype}: whole "
            f"numbers from {low} to {high}; give samples that both models can take"
        )


def _settings(config: Settings | None, first: Model, second: Model) -> tuple[QuantConfig, list[str]]:
    """Return how files are to be read, and where that was found if nobody said so."""
    if config is not None:
        return load_config(config), []
    for model in (second, first):
        text = model.ir_model.metadata_props.get("ptq_lab.config", "")
        if "[data_preprocess_param]" in text:
            try:
                stored = load_config(text)
            except ConfigError:  # written by a later version, perhaps
                continue
            return stored, [f"samples are read as the configuration says that ptq_lab stored in {model.label}"]
    return load_config(_NOTHING_SAID), []
