"""`quantize`: the whole house in one function, and the result it returns."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import onnx

from ptq_lab.calibration import Samples
from ptq_lab.calibration.outlines import outline_activations
from ptq_lab.calibration.preview import preview_sample
from ptq_lab.clock import Clock
from ptq_lab.config import QuantConfig, load_config, unsupported
from ptq_lab.debug import place_debug
from ptq_lab.dynamic_quant import STRATEGIES, decide_products, quantize_dynamically
from ptq_lab.errors import ConfigError, NotImplementedYet, Problem
from ptq_lab.evaluation import Metric
from ptq_lab.explanation import Subject, look
from ptq_lab.flags import Flags, InputShape, check_optimize, check_values, parse_input_shape
from ptq_lab.full_quant import preview_integers, quantize_fully
from ptq_lab.graph import Model, load_model
from ptq_lab.inputs import Layout, open_data, open_judge
from ptq_lab.manifest import manifest, metadata
from ptq_lab.on_the_fly import folded_model
from ptq_lab.performance import Performance, look_at_performance
from ptq_lab.plan import QuantPlan
from ptq_lab.progress import Progress, silent
from ptq_lab.publish import draft_result, place_result, published
from ptq_lab.report.build import Integers, build_report, overall
from ptq_lab.report.compare import Measured, measure
from ptq_lab.report.execution import measure_execution
from ptq_lab.report.findings import Explanation
from ptq_lab.report.performance import Form
from ptq_lab.report.products import product_rows
from ptq_lab.report.rows import ProductRow
from ptq_lab.report.tables import OutputRow, Table
from ptq_lab.result import QuantResult, Run
from ptq_lab.route import Quantized
from ptq_lab.runtime import Sessions
from ptq_lab.weight_quant import preview_weights, quantize_weights

PRODUCT_SAMPLES = 8  # on which run-time quantization is looked at, activation by activation
COMPARE_SAMPLES = 16  # of calibration data, the last ones: bias correction is fitted to the first

Config = str | Path | Mapping[str, Mapping[str, object]] | QuantConfig
Source = str | os.PathLike[str] | onnx.ModelProto | Model


def quantize(
    model: Source,
    config: Config | None = None,
    output: str | os.PathLike[str] | None = None,
    *,
    samples: Any = None,
    evaluate: Any = None,
    progress: Progress | None = None,
    executor: Executor | None = None,
    input_shape: InputShape | None = None,
    input_data_format: Layout | None = None,
    optimize: str | None = None,
    fp16: bool = False,
    explain: bool = False,
) -> QuantResult:
    """Quantize an ONNX model as a configuration says, and measure what it cost.

    Parameters
    ----------
    model : path, onnx.ModelProto or Model
        The float model; it is not changed.
    config : INI text, path, dict of dicts, or QuantConfig
    output : path, optional
        Where to write the quantized model; ``.onnx`` is added if there is no suffix. The file appears whole or
        not at all.
    samples : folder, .npz, mapping or iterable, optional
        What the two models are compared on; seeded random inputs if there are none here or in the config.
    evaluate : callable, .npz or folder, optional
        The task metric, measured before and after; higher is better.
    progress : callable, optional
        Told about every step.
    executor : concurrent.futures.Executor, optional
        Threads, processes or other machines among which calibration is split.
    input_shape : mapping or "name:1,3,224,224", optional
        Sizes for dynamic axes.
    input_data_format : {"NHWC", "NCHW"}, optional
        Layout of ``.bin`` samples.
    optimize : str, optional
        Accepted for the original's sake; a note says that it is not used.
    fp16 : bool
        Store what stays float in 16 bits.
    explain : bool
        Also look at every layer and say what causes the error: ``report.explanation``, and a part of ``report.html``.

    Returns
    -------
    QuantResult

    Raises
    ------
    ConfigError, ModelError, SampleError, InferenceError, OutputError
        The input's fault, in one message; nothing has been written.
    NotImplementedYet
        The configuration asks for something that has not landed.

    Examples
    --------
    >>> from ptq_lab import demo
    >>> digits = demo.load("digits_cnn")
    >>> settings = {"common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": 8}}
    >>> result = quantize(digits.model_path, settings, samples=digits.calib_path)
    >>> result.report.summary.cosine_min > 0.99
    True
    """
    clock, told = Clock(), progress or silent
    options = _configured(config)
    check_values(fp16, input_data_format, progress, executor)
    notes = [*check_optimize(optimize, options.full.target_device), *map(str, options.problems)]
    with clock("load"):
        original, shapes = load_model(model), parse_input_shape(input_shape)
        place, folder = place_result(output, original, options), place_debug(options)
        data, metric = _inputs(original, options, samples, evaluate, shapes, input_data_format)
        flags = Flags(fp16=fp16, optimize=optimize, shapes=shapes, executor=executor, metric=metric)
        notes += [*data.notes, *(metric.notes if metric else ())]
    with clock("quantize"):
        route = ROUTES[options.common.quant_type or ""]
        done = route(original, options, data, flags, progress=told)
        done.model.ir_model.metadata_props.update(metadata(original, options, done.plan))
        notes += done.notes
        notes += [f"nothing was explained: {done.unfit}"] if explain and done.unfit else []
    with draft_result(place, done.model, options, external=done.streamed, progress=told) as shipped:
        draft, notes = shipped.model, [*notes, *filter(None, [shipped.note])]
        with clock("compare"):
            sessions = Sessions(options.lab.providers)
            measured = _compared(original, draft, done, data, metric=metric, sessions=sessions, progress=told)
            integers = _look_at_integers(original, draft, done, data, sessions, progress=told)
            form = _form(done, draft, measured)
            performance = _look_at_costs(original, form, done, data, options=options, flags=flags, sessions=sessions)
            products = _look_at_products(done, data)
        found = None
        if explain and not done.unfit:
            with clock("explain"):
                found = _explained(done, draft, options, data, metric, integers=integers, progress=told)
        with clock("debug"):
            tables = folder.write_tables(original, draft, done, data, progress=told) if folder is not None else None
            notes += [tables.note] if tables is not None else []
        record = manifest(original, shipped, options, done, {"origin": data.origin, "sha256": data.fingerprint()})
        report = build_report(
            original,
            shipped,
            done,
            measured,
            options.common,
            notes=tuple(dict.fromkeys(notes)),  # samples and metric may have read the same files
            seconds=clock.seconds,
            integers=integers,
            performance=performance,
            products=products,
            explanation=found,
            record=record,
        )
        if tables is not None:
            tables.finish(report, record)
    flags_given = {
        "input_shape": input_shape,
        "input_data_format": input_data_format,
        "optimize": optimize,
        "fp16": fp16,
        "executor": executor,
    }
    run = Run(original, done.prepared, data, samples, evaluate, flags_given, metric.samples if metric else None)
    return QuantResult(options, done.plan, published(place, shipped), report, record, place, run)


def preview(model: Source, config: Config | None = None) -> QuantPlan:
    """Decide what :func:`quantize` would do, without reading a weight or writing anything.

    Returns
    -------
    QuantPlan
        Its text is a table of every weight: bits, storage, bytes, or why it stays float.

    Raises
    ------
    ConfigError, ModelError, NotImplementedYet
    """
    options, original = _configured(config), load_model(model)
    if options.common.quant_type == "FULL_QUANT":
        return preview_integers(original, options)
    if options.common.quant_type == "DYNAMIC_QUANT":
        return decide_products(original, options)[0]
    return preview_weights(original, options)


def _configured(config: Config | None) -> QuantConfig:
    if config is None:
        hint = "give INI text, the path of a file or a dictionary; ptq_lab.template('weight') is one to start from"
        raise ConfigError([Problem(message="no configuration given", hint=hint)])
    return _usable(load_config(config))


def _usable(config: QuantConfig) -> QuantConfig:
    """Refuse what cannot be done yet, and a configuration that asks for nothing."""
    if config.common.quant_type is None:
        message = "is missing, so there is nothing to do"
        hint = "WEIGHT_QUANT, FULL_QUANT or DYNAMIC_QUANT"
        missing = Problem(section="common_quant_param", key="quant_type", message=message, hint=hint)
        misspelt = [problem for problem in config.problems if problem.suggestion and not problem.key]
        raise ConfigError([*misspelt, missing])
    if problems := unsupported(config):
        raise NotImplementedYet("\n".join(map(str, problems)))
    return config


def _compared(
    original: Model,
    draft: Model,
    done: Quantized,
    data: Samples,
    *,
    metric: Metric | None,
    sessions: Sessions,
    progress: Progress,
) -> Measured:
    """Compare both models, on samples that the model was not fitted to where there are others; unless unfit for it."""
    if done.unfit:
        return Measured(outputs=Table(OutputRow), compared_on=f"nothing: {done.unfit}", skipped=True)
    shown = data.part(max(0, len(data) - COMPARE_SAMPLES), len(data)) if done.fitted else data
    providers = sessions.providers
    measured = measure(original, draft, shown, metric, sessions=sessions, providers=providers, progress=progress)
    if done.fitted:
        role = "they chose among the steps" if done.rounding else "used for calibration too"
        return replace(measured, compared_on=f"{shown.origin} ({role})")
    return measured


def _explained(
    done: Quantized,
    draft: Model,
    options: QuantConfig,
    data: Samples,
    metric: Metric | None,
    *,
    integers: Integers | None,
    progress: Progress,
) -> Explanation:
    """Look at every layer, on the samples and on what the metric judges."""
    run = integers.execution if integers is not None else None
    subject = Subject(
        prepared=done.prepared,
        model=draft,
        plan=done.plan,
        config=options,
        samples=data,
        evaluated=metric.samples if metric is not None else None,
        kernel_notes=run.kernels.notes if run is not None else (),
    )
    return look(subject, progress=progress)


def _form(done: Quantized, draft: Model, measured: Measured) -> Form:
    """Return the quantized model as a table of costs names it."""
    cosine, _, _ = overall(measured.outputs)
    return Form(name=done.label, arithmetic=done.arithmetic, model=draft, cosine=cosine)


def _look_at_costs(
    original: Model,
    form: Form,
    done: Quantized,
    data: Samples,
    *,
    options: QuantConfig,
    flags: Flags,
    sessions: Sessions,
) -> Performance | None:
    """Look at what the forms of a model cost on this machine, if it runs here and there is room to run it."""
    if not done.runs_here or done.unfit:
        return None
    folded = folded_model(done)
    return look_at_performance(original, form, options, flags, data, sessions=sessions, folded=folded)


def _look_at_integers(
    original: Model, draft: Model, done: Quantized, data: Samples, sessions: Sessions, *, progress: Progress
) -> Integers | None:
    """Look at what computes in integers: its kernels and how fast they are, and how its activations are spread."""
    if done.plan.placement is None:
        return None
    run = None
    if done.runs_here:
        feeds = next(iter(data))
        run = measure_execution(original, draft, done.plan, feeds, sessions=sessions, providers=sessions.providers)
    shown = [each.tensor for each in done.plan.activations if each.tensor in done.statistics]
    seen = {tensor: done.statistics[tensor] for tensor in shown}
    outlines = outline_activations(done.prepared, seen, data, providers=sessions.providers, progress=progress)
    return Integers(execution=run, statistics=done.statistics, outlines=outlines, preview=preview_sample(data))


def _look_at_products(done: Quantized, data: Samples) -> Table[ProductRow]:
    """Measure what run-time quantization loses, on a few real samples if there are any."""
    if done.plan.dynamic is None:
        return Table(ProductRow)
    few = () if data.random else data.take(PRODUCT_SAMPLES)
    by_row = STRATEGIES[done.plan.dynamic.strategy].by_row
    return product_rows(done.plan.dynamic, done.prepared, few, by_row=by_row)


def _inputs(
    model: Model,
    config: QuantConfig,
    samples: Any,
    evaluate: Any,
    shapes: Mapping[str, Any],
    layout: Layout | None,
) -> tuple[Samples, Metric | None]:
    """Open what the two models are compared and judged on."""
    data = open_data(model, config, samples, shapes, layout)
    return data, open_judge(model, config, evaluate, shapes, layout)


class Route(Protocol):
    """One way of quantizing."""

    def __call__(
        self, original: Model, config: QuantConfig, samples: Samples, flags: Flags, *, progress: Progress
    ) -> Quantized:
        """Quantize a model."""


ROUTES: Mapping[str, Route] = {
    "WEIGHT_QUANT": quantize_weights,
    "FULL_QUANT": quantize_fully,
    "DYNAMIC_QUANT": quantize_dynamically,
}
