"""A report as plain text: the words and numbers that every other rendering repeats.

Standard library only, so that a terminal, a log and a notebook without scripts all read the same. Sizes are
decimal (1 kB is 1000 bytes), relative errors are percent, SQNR is dB.
"""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Sequence

from ptq_lab.report.coding_text import coding_table
from ptq_lab.report.depth_text import depth_table, pair_table
from ptq_lab.report.dynamic_text import performance_table, product_table
from ptq_lab.report.findings import explanation_text
from ptq_lab.report.formats import (
    NAME_WIDTH,
    WIDTH,
    format_bytes,
    format_decibel,
    format_percent,
    format_seconds,
    format_shape,
    shorten,
    text_table,
)
from ptq_lab.report.steps import steps_line, steps_table
from ptq_lab.report.tables import ActivationRow, LayerRow, OutputRow, Preview, Report, Summary

__all__ = [
    "ACTIVATION_HEADERS",
    "LAYER_HEADERS",
    "activation_cells",
    "brief",
    "describe_sample",
    "facts",
    "format_bytes",
    "format_decibel",
    "format_percent",
    "format_seconds",
    "format_shape",
    "layer_cells",
    "left_float",
    "render_text",
    "shorten",
    "text_table",
    "title",
]

LAYER_HEADERS = ("node", "op", "shape", "bits", "granularity", "storage", "before", "after", "error", "SQNR")
ACTIVATION_HEADERS = ("tensor", "method", "low", "high", "seen low", "seen high", "cut off", "scale", "zero", "type")
NO_GAIN = 0.95  # of float32's time; what lies above is no speed worth the name


def render_text(report: Report, *, written_to: str = "", max_layers: int | None = None) -> str:
    """Return the whole report as aligned text, what stayed float first.

    Parameters
    ----------
    report : Report
        The tables of a finished run.
    written_to : str
        Where the quantized model is, if that is to be said.
    max_layers : int or None
        Show at most this many layers and activations and say how many were left out; ``None`` shows all.

    Returns
    -------
    str
        Lines without trailing blanks or a final newline.

    Examples
    --------
    >>> from ptq_lab.report.tables import LayerRow, OutputRow, Report, Summary, Table
    >>> row = LayerRow(node="conv", op_type="Conv", tensor="w", shape=(8, 3, 3, 3), bits=8, storage="int8",
    ...                granularity="per-channel (8)", bytes_before=864, bytes_after=280, relative_error=0.004,
    ...                sqnr_db=47.9)
    >>> summary = Summary(model="m.onnx", quant_type="WEIGHT_QUANT", bits=8, bytes_before=1000,
    ...                   bytes_after=400, layers=1, layers_quantized=1, cosine_mean=0.9999,
    ...                   cosine_min=0.9998, sqnr_db=38.0, compared_on="8 seeded random inputs",
    ...                   seconds={"quantize": 0.25})
    >>> print(render_text(Report(summary, Table(LayerRow, [row]), Table(OutputRow))))
    m.onnx: WEIGHT_QUANT, 8 bits
    <BLANKLINE>
    left in float  nothing: every weight tensor is stored as codes
    size           1.00 kB -> 400 B, 2.50 times smaller
    layers         1 of 1 weight tensors quantized
    output         cosine 0.999900 mean, 0.999800 min; SQNR 38.0 dB
    compared on    8 seeded random inputs
    time           quantize 0.2 s
    <BLANKLINE>
    node  op    shape    bits  granularity      storage  before  after   error  SQNR
    ----  ----  -------  ----  ---------------  -------  ------  -----  ------  ----
    conv  Conv  8x3x3x3     8  per-channel (8)  int8      864 B  280 B  0.40 %  47.9
    """
    blocks = (
        title(report.summary),
        "\n".join(_fact_lines(report, written_to)),
        performance_table(report) if report.performance else "",
        explanation_text(report.explanation) if report.explanation is not None else "",
        _output_table(report.outputs) if len(report.outputs) > 1 else "",
        _layer_table(report.layers, max_layers) if report.layers else "",
        steps_table(report.steps, max_layers),
        coding_table(report.layers, max_layers),
        depth_table(report.errors, max_layers) if report.errors else "",
        pair_table(report.pairs, max_layers),
        _activation_table(report.activations, max_layers) if report.activations else "",
        product_table(report.products, max_layers) if report.products else "",
    )
    return "\n\n".join(filter(None, blocks))


def title(summary: Summary) -> str:
    """Return which model was quantized and how, e.g. ``"m.onnx: WEIGHT_QUANT, 8 bits"``."""
    bits = f"{summary.bits} bits" if summary.bits else "mixed bits"
    bits = f"weights of {bits}" if summary.activations and summary.bits != 8 else bits
    device = "" if summary.runs_here else f" for {summary.device}"
    strategy = f" {summary.strategy}" if summary.strategy else ""
    return f"{summary.model}: {summary.quant_type}{strategy}{device}, {bits}"


def left_float(report: Report) -> tuple[str, ...]:
    """Return one sentence per reason that left weights, or the arithmetic of layers, in float; never empty.

    Examples
    --------
    >>> from ptq_lab.report.tables import LayerRow, OutputRow, Report, Summary, Table
    >>> summary = Summary(model="m.onnx", quant_type="WEIGHT_QUANT", bits=8, bytes_before=9, bytes_after=9,
    ...                   layers=2, layers_quantized=1, cosine_mean=1.0, cosine_min=1.0, sqnr_db=60.0,
    ...                   compared_on="", seconds={}, left_float=("1 tensor (80 B): skip_quant_node=head",))
    >>> left_float(Report(summary, Table(LayerRow), Table(OutputRow)))
    ('1 tensor (80 B): skip_quant_node=head',)
    """
    summary = report.summary
    if summary.left_float or summary.kernel_notes:
        return (*summary.left_float, *summary.kernel_notes)
    reasons = Counter(row.reason or "no reason recorded" for row in report.layers if not row.quantized)
    if reasons:
        return tuple(f"{count} of {summary.layers} weight tensors: {why}" for why, count in reasons.items())
    if summary.layers_quantized == summary.layers:
        return ("nothing: every weight tensor is stored as codes",)
    return (f"{summary.layers - summary.layers_quantized} of {summary.layers} weight tensors",)


def brief(summary: Summary) -> str:
    """Return a run in one line: model, kind, sizes, agreement.

    Examples
    --------
    >>> from ptq_lab.report.tables import Summary
    >>> brief(Summary(model="m", quant_type="WEIGHT_QUANT", bits=8, bytes_before=1000, bytes_after=400, layers=1,
    ...               layers_quantized=1, cosine_mean=0.99, cosine_min=0.98, sqnr_db=18.0, compared_on="",
    ...               seconds={}))
    'm: WEIGHT_QUANT, 8 bits; 1.00 kB -> 400 B, 2.50 times smaller; cosine 0.990000 mean, 0.980000 min; SQNR 18.0 dB'
    """
    return "; ".join(part for part in (title(summary), _sizes(summary), _agreement(summary)) if part)


def facts(summary: Summary, written_to: str = "") -> tuple[tuple[str, str], ...]:
    """Return label and text of every fact of a run, in reading order, without those not measured."""
    required = ""
    if summary.onnxruntime_required:
        required = f"onnxruntime {summary.onnxruntime_required} or newer"
        required += f" (opset {summary.opset}, IR {summary.ir_version})" if summary.opset else ""
    stages = ", ".join(f"{stage} {format_seconds(seconds)}" for stage, seconds in summary.seconds.items())
    stopped = f"{summary.interrupted}; this is the best so far" if summary.interrupted else ""
    every = (
        ("interrupted", stopped),
        ("size", _sizes(summary)),
        ("layers", f"{summary.layers_quantized} of {summary.layers} weight tensors quantized"),
        ("device", _device(summary)),
        ("int8", _integers(summary)),
        ("latency", _latency(summary)),
        ("output", _agreement(summary)),
        (summary.metric or "metric", _metric(summary)),
        ("compared on", summary.compared_on),
        ("needs", required),
        ("time", stages),
        ("written to", written_to),
    )
    return tuple((label, text) for label, text in every if text)


def _sizes(summary: Summary) -> str:
    sizes = f"{format_bytes(summary.bytes_before)} -> {format_bytes(summary.bytes_after)}"
    if summary.bytes_after > summary.bytes_before:
        return f"{sizes}, {summary.bytes_after / summary.bytes_before:.2f} times larger"
    return f"{sizes}, {summary.compression_ratio:.2f} times smaller"


def _agreement(summary: Summary) -> str:
    if math.isnan(summary.cosine_mean):
        return ""
    decibel = format_decibel(summary.sqnr_db)
    noise = "equal to the original" if decibel == "exact" else f"SQNR {decibel} dB"
    return f"cosine {summary.cosine_mean:.6f} mean, {summary.cosine_min:.6f} min; {noise}"


def _metric(summary: Summary) -> str:
    drop = summary.metric_drop
    if drop is None:
        return ""
    change = "unchanged" if drop == 0 else f"{abs(drop):.4f} {'lost' if drop > 0 else 'gained'}"
    return f"{summary.metric_before:.4f} -> {summary.metric_after:.4f}, {change}"


def _device(summary: Summary) -> str:
    if summary.runs_here:
        return ""
    return f"written for {summary.device}: {summary.toolchain}; not run on it, so int8 layers and latency are not known"


def _integers(summary: Summary) -> str:
    if summary.products:
        how = f" ({summary.strategy})" if summary.strategy else ""
        noun = "product" if summary.products == 1 else "products"
        return f"{summary.products} {noun} computed in int8, activations quantized at run time{how}"
    if summary.integer_total is None:
        return ""
    layers = f"{summary.integer_layers} of {summary.integer_total} layers run as int8"
    return f"{layers}; {summary.activations} activation tensors quantized"


def _latency(summary: Summary) -> str:
    ratio = summary.latency_ratio
    if ratio is None:
        return ""
    how = f"{summary.timed_on or 'one sample'}, one thread, medians of runs in turn"
    if summary.integer_total is None and not summary.products:
        return f"{ratio:.2f} of float32's time ({how})"
    if ratio > NO_GAIN:
        return f"int8 brings no speed here: {ratio:.2f} of float32's time ({how})"
    return f"{ratio:.2f} of float32's time, {1 / ratio:.1f} times faster ({how})"


def describe_sample(preview: Preview) -> str:
    """Return shape and values of a previewed sample in words."""
    values = f"values {preview.low:.4g} to {preview.high:.4g}, mean {preview.mean:.4g}"
    return f"{preview.input} {format_shape(preview.shape)}, {values}"


def _fact_lines(report: Report, written_to: str) -> list[str]:
    entries = [("left in float" if i == 0 else "", text) for i, text in enumerate(left_float(report))]
    entries += facts(report.summary, written_to)
    if steps := steps_line(report.steps):
        entries.append(("steps", steps))
    if report.preview is not None:
        entries.append(("first sample", describe_sample(report.preview)))
        entries += [("", f"warning: {warning}") for warning in report.preview.warnings]
    entries += [("notes" if i == 0 else "", note) for i, note in enumerate(report.summary.notes)]
    indent = 2 + max(len(label) for label, _ in entries)
    return [
        textwrap.fill(
            text,
            WIDTH,
            initial_indent=label.ljust(indent),
            subsequent_indent=" " * (indent + 2),
            break_long_words=False,
            break_on_hyphens=False,
        )
        for label, text in entries
    ]


def layer_cells(row: LayerRow, width: int = NAME_WIDTH) -> tuple[str, ...]:
    """Return one layer as text, a cell per name in ``LAYER_HEADERS``; the node name is cut to `width`."""
    return (
        shorten(row.node, width),
        row.op_type,
        format_shape(row.shape) if row.bytes_before else "-",  # two activations multiplied have no weight
        "-" if row.bits is None else str(row.bits),
        row.granularity or "-",
        row.storage,
        format_bytes(row.bytes_before),
        format_bytes(row.bytes_after),
        format_percent(row.relative_error),
        format_decibel(row.sqnr_db),
    )


def activation_cells(row: ActivationRow, width: int = NAME_WIDTH) -> tuple[str, ...]:
    """Return one activation as text, a cell per name in ``ACTIVATION_HEADERS``; its name is cut to `width`."""
    return (
        shorten(row.tensor, width),
        row.method,
        f"{row.low:.4g}",
        f"{row.high:.4g}",
        "-" if row.observed_low is None else f"{row.observed_low:.4g}",
        "-" if row.observed_high is None else f"{row.observed_high:.4g}",
        format_percent(row.clip_share),
        f"{row.scale:.4g}",
        str(row.zero_point),
        row.dtype,
    )


def _activation_table(activations: Sequence[ActivationRow], limit: int | None) -> str:
    shown = activations if limit is None else activations[:limit]
    table = text_table(ACTIVATION_HEADERS, [activation_cells(row) for row in shown], right=ACTIVATION_HEADERS[2:9])
    hidden = len(activations) - len(shown)
    return f"{table}\n... and {hidden} more activations" if hidden else table


def _layer_table(layers: Sequence[LayerRow], max_layers: int | None) -> str:
    shown = layers if max_layers is None else layers[:max_layers]
    body: list[tuple[str, ...]] = [layer_cells(row) for row in shown]
    headers: tuple[str, ...] = LAYER_HEADERS
    if any(row.reason for row in shown):
        headers = (*headers, "why float")
        body = [(*cells, row.reason) for cells, row in zip(body, shown, strict=True)]
    table = text_table(headers, body, right=("bits", "before", "after", "error", "SQNR"))
    hidden = len(layers) - len(shown)
    return f"{table}\n... and {hidden} more layers" if hidden else table


def _output_table(outputs: Sequence[OutputRow]) -> str:
    headers = ("output", "cosine mean", "cosine min", "SQNR", "max. difference")
    body = [
        (
            shorten(row.output),
            f"{row.cosine_mean:.6f}",
            f"{row.cosine_min:.6f}",
            format_decibel(row.sqnr_db),
            f"{row.max_abs_error:.3g}",
        )
        for row in outputs
    ]
    return text_table(headers, body, right=headers[1:])
