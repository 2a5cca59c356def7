"""The plain text of a report: complete, aligned, and with what stayed float first."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq_lab.report.tables import LayerRow, OutputRow, Report, Summary, Table
from ptq_lab.report.text import format_bytes, format_percent, left_float, render_text, shorten, text_table

UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def layer(node: str, **changes: object) -> LayerRow:
    fields: dict[str, object] = {
        "node": node,
        "op_type": "Conv",
        "tensor": f"{node}.weight",
        "shape": (8, 3, 3, 3),
        "bits": 8,
        "granularity": "per-channel (8)",
        "storage": "int8",
        "bytes_before": 864,
        "bytes_after": 280,
        "relative_error": 0.004,
        "sqnr_db": 47.9,
    }
    return LayerRow(**(fields | changes))  # type: ignore[arg-type]


def in_float(node: str, reason: str) -> LayerRow:
    return layer(node, bits=None, granularity="", storage="float32", relative_error=None, sqnr_db=None, reason=reason)


def report(rows: list[LayerRow], **changes: object) -> Report:
    fields: dict[str, object] = {
        "model": "tiny.onnx",
        "quant_type": "WEIGHT_QUANT",
        "bits": 8,
        "bytes_before": 4_123_456,
        "bytes_after": 1_100_000,
        "layers": len(rows),
        "layers_quantized": sum(row.quantized for row in rows),
        "cosine_mean": 0.99991,
        "cosine_min": 0.9997,
        "sqnr_db": 38.2,
        "compared_on": "32 samples of calib.npz",
        "seconds": {},
    }
    output = OutputRow(output="y", cosine_mean=1.0, cosine_min=1.0, sqnr_db=math.inf, max_abs_error=0.0)
    summary = Summary(**(fields | changes))  # type: ignore[arg-type]
    return Report(summary, Table(LayerRow, rows), Table(OutputRow, [output]))


def test_what_stayed_float_and_the_setting_behind_it_come_before_every_number() -> None:
    said = "1 tensor (864 B): skip_quant_node=head"
    text = render_text(report([layer("a"), in_float("head", "skip_quant_node")], left_float=(said,)))
    assert said in text
    assert text.index(said) < text.index("4.12 MB") < text.index("cosine")


def test_a_file_for_another_device_names_it_and_says_that_it_was_not_run_there() -> None:
    there = report([layer("a")], device="NVGPU", toolchain="TensorRT, explicit quantization", runs_here=False)
    words = " ".join(render_text(there).split())
    assert words.startswith("tiny.onnx: WEIGHT_QUANT for NVGPU, 8 bits")
    assert "written for NVGPU: TensorRT, explicit quantization; not run on it" in words
    here = render_text(report([layer("a")], device="CPU", toolchain="onnxruntime"))
    assert "CPU" not in here
    assert "not run" not in here


def test_reasons_of_layers_are_counted_where_the_summary_has_no_sentence() -> None:
    made = report([in_float("a", "too small"), layer("b"), in_float("c", "too small"), in_float("d", "skipped")])
    assert left_float(made) == ("2 of 4 weight tensors: too small", "1 of 4 weight tensors: skipped")


def test_every_measured_fact_is_printed_and_no_other_label_appears() -> None:
    plain = render_text(report([layer("a")]))
    assert "needs" not in plain
    assert "accuracy" not in plain
    full = render_text(
        report(
            [layer("a")],
            metric="accuracy",
            metric_before=0.971,
            metric_after=0.968,
            notes=("The opset was raised.",),
            onnxruntime_required="1.14",
            opset=13,
            ir_version=8,
        ),
        written_to="q.onnx",
    )
    for said in (
        "0.9710 -> 0.9680, 0.0030 lost",
        "The opset was raised.",
        "1.14 or newer (opset 13, IR 8)",
        "q.onnx",
    ):
        assert said in full


def test_a_model_that_grew_is_called_larger() -> None:
    assert "1.50 times larger" in render_text(report([layer("a")], bytes_before=1000, bytes_after=1500))


def test_mixed_widths_are_named_so() -> None:
    assert render_text(report([layer("a")], bits=0)).startswith("tiny.onnx: WEIGHT_QUANT, mixed bits\n")


def test_layers_beyond_the_limit_are_counted() -> None:
    text = render_text(report([layer(f"conv{i}") for i in range(5)]), max_layers=3)
    assert "conv2" in text
    assert "conv3" not in text
    assert text.endswith("... and 2 more layers")


def test_every_output_has_a_row_where_there_are_several() -> None:
    made = report([layer("a")])
    more = [
        *made.outputs,
        OutputRow(output="z", cosine_mean=0.5, cosine_min=0.4, sqnr_db=3.0, max_abs_error=2.5),
    ]
    text = render_text(Report(made.summary, made.layers, Table(OutputRow, more)))
    assert re.search(r"^y +1\.000000 +1\.000000 +exact +0$", text, re.MULTILINE)
    assert re.search(r"^z +0\.500000 +0\.400000 +3\.0 +2\.5$", text, re.MULTILINE)


@given(st.integers(0, 10**14))
def test_a_printed_size_is_within_half_a_percent_of_the_true_one(count: int) -> None:
    value, unit = format_bytes(count).split()
    assert float(value) * UNITS[unit] == pytest.approx(count, rel=0.0051)
    assert float(value) < 1000 or unit == "TB"


@given(st.floats(1e-10, 100))
def test_a_printed_error_has_two_significant_digits(ratio: float) -> None:
    assert float(format_percent(ratio).split()[0]) == pytest.approx(100 * ratio, rel=0.051)


@given(st.text(max_size=80), st.integers(8, 60))
def test_a_shortened_name_fits_and_keeps_its_end(name: str, width: int) -> None:
    short = shorten(name, width)
    assert len(short) == min(len(name), width)
    assert short[-3:] == name[-3:]


@given(st.lists(st.tuples(st.text("ab ", max_size=9), st.text("12", min_size=1, max_size=5)), max_size=6))
def test_columns_of_a_table_end_where_their_rule_ends(rows: list[tuple[str, str]]) -> None:
    lines = text_table(("name", "number"), rows, right=("number",)).splitlines()
    assert len(lines) == 2 + len(rows)
    assert all(len(line) == len(lines[1]) for line in lines)
