"""The int8 part of a report: ranges and what they cut off, kernels, speed, and the sample that was looked at."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq_lab.calibration.outlines import BINS, outline_activations
from ptq_lab.calibration.preview import preview_sample
from ptq_lab.graph import load_model
from ptq_lab.graph.kernels import KernelReport, LayerKernel
from ptq_lab.numerics import TensorStatistics, count_magnitudes, count_values
from ptq_lab.report.activations import activation_rows, clip_share
from ptq_lab.report.build import Integers as Known
from ptq_lab.report.build import build_report
from ptq_lab.report.compare import Measured
from ptq_lab.report.execution import Execution, latencies, measure_execution
from ptq_lab.report.tables import OutputRow, Report, Table
from ptq_lab.report.text import left_float, render_text
from ptq_lab.route import Quantized
from tests.integers import Integers, pictures, separable, to_int8
from tests.models import matmul, model, node, random


class Options:
    quant_type = "FULL_QUANT"
    bit_num = 8


ALL_INTEGER = KernelReport(layers=(LayerKernel(node="stem", op_type="Conv", kernel="QLinearConv"),))


def report_of(done: Integers, execution: Execution | None = None) -> Report:
    outputs = Table(OutputRow, [OutputRow(output="y", cosine_mean=1.0, cosine_min=1.0, sqnr_db=30.0, max_abs_error=0)])
    known = Known(
        execution=execution or Execution(kernels=ALL_INTEGER, latency_ratio=0.5),
        statistics=done.statistics,
        outlines=outline_activations(done.original, done.statistics, done.samples),
        preview=preview_sample(done.samples),
    )
    return build_report(
        done.original,
        SimpleNamespace(model=done.quantized, size=done.quantized.size, stored={}),
        Quantized(plan=done.plan, model=done.quantized, prepared=done.original),
        Measured(outputs=outputs, compared_on="4 samples"),
        Options(),
        notes=(),
        seconds={},
        integers=known,
    )


@pytest.fixture(scope="module")
def done() -> Integers:
    return to_int8(separable(), pictures(), method="KL")


def test_every_tensor_with_codes_has_a_row_in_the_order_of_the_graph_that_names_its_readers(done: Integers) -> None:
    rows = activation_rows(done.plan, done.statistics)
    assert [(row.tensor, row.readers) for row in rows] == [
        ("x", ("stem",)),
        ("a", ("deep",)),
        ("e", ("point",)),
        ("y", ()),
    ]
    assert rows[0].node == ""
    assert {row.dtype for row in rows} == {"uint8"}
    for row, activation in zip(rows, done.plan.activations, strict=True):
        seen = done.statistics[row.tensor]
        assert (row.low, row.high, row.scale, row.zero_point) == (
            activation.low,
            activation.high,
            activation.scale,
            activation.zero_point,
        )
        assert (row.observed_low, row.observed_high) == (seen.low, seen.high)
        assert row.scale * (0 - row.zero_point) <= row.low + row.scale
        assert row.scale * (255 - row.zero_point) >= row.high - row.scale


def test_the_share_that_a_range_cuts_off_is_what_the_float_model_makes_beyond_it(done: Integers, run: Any) -> None:
    row = next(row for row in activation_rows(done.plan, done.statistics) if row.tensor == "y")
    values = np.concatenate([run(done.original, feeds)["y"].ravel() for feeds in done.samples])
    exact = np.mean((values < row.low) | (values > row.high))
    assert row.clip_share == pytest.approx(exact, abs=2 / values.size)


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 1.5))
def test_a_share_from_a_histogram_is_exact_but_for_the_bin_at_the_end_of_the_range(seed: int, end: float) -> None:
    values = np.random.default_rng(seed).exponential(1.0, 500).astype(np.float32)
    top = float(values.max())
    high = end * top
    kinds: tuple[dict[str, Any], ...] = (
        {"histogram": count_values(values, 0.0, top)},
        {"absolute": count_magnitudes(values, top)},
    )
    for kind in kinds:
        seen = TensorStatistics(low=float(values.min()), high=top, count=values.size, rounds=1, **kind)
        share = clip_share(seen, 0.0, high)
        width = top / 2048
        assert share is not None
        assert np.mean(values > high + width) <= share <= np.mean(values > high - width)


def test_a_range_that_holds_everything_cuts_off_nothing_and_an_unknown_share_is_not_called_zero() -> None:
    seen = TensorStatistics(low=-1.0, high=2.0, count=10, rounds=2)
    assert clip_share(seen, -1.0, 2.0) == 0.0
    assert clip_share(seen, -1.0, 1.5) is None


def test_the_table_reads_back_from_csv_and_json(done: Integers, tmp_path: Path) -> None:
    report = report_of(done)
    report.activations.to_csv(tmp_path / "activations.csv")
    with (tmp_path / "activations.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["tensor"] for row in rows] == ["x", "a", "e", "y"]
    assert rows[1]["readers"] == "deep"
    assert float(rows[1]["scale"]) == report.activations[1].scale
    assert not [column for column in rows[0] if "histogram" in column]
    data = json.loads(report.to_json())
    assert data["activations"][1]["readers"] == ["deep"]
    assert data["activations"][1]["histogram"] == list(report.activations[1].histogram)
    assert {len(row["histogram"]) for row in data["activations"]} == {BINS}
    assert {row["histogram_samples"] for row in data["activations"]} == {4}
    assert data["sample"]["shape"] == [1, 3, 10, 10]
    assert "png" not in data["sample"]


def test_several_readers_are_apart_in_csv(done: Integers, tmp_path: Path) -> None:
    rows = [replace(row, readers=("one", "two")) for row in activation_rows(done.plan, done.statistics)]
    Table(type(rows[0]), rows).to_csv(tmp_path / "a.csv")
    assert "one two" in (tmp_path / "a.csv").read_text()


def test_the_summary_counts_integer_layers_and_says_how_fast_they_are(done: Integers) -> None:
    report = report_of(done, measure_execution(done.original, done.quantized, done.plan, pictures(1)[0]))
    assert (report.summary.integer_layers, report.summary.integer_total) == (3, 3)
    assert report.summary.latency_ratio is not None
    assert report.summary.latency_ratio > 0
    text = render_text(report)
    assert "3 of 3 layers run as int8; 4 activation tensors quantized" in text
    assert "of float32's time" in text
    assert "image" not in text
    assert "x 1x3x10x10, values -" in text
    assert "nothing: every weight tensor is stored as codes" in text


@pytest.mark.parametrize(
    ("ratio", "said"), [(0.45, "0.45 of float32's time, 2.2 times faster"), (1.02, "no speed here: 1.02")]
)
def test_a_slow_int8_model_is_not_called_fast(done: Integers, ratio: float, said: str) -> None:
    text = render_text(report_of(done, Execution(kernels=ALL_INTEGER, latency_ratio=ratio)))
    assert said in text
    assert ("faster" in text) is (ratio < 0.95)


def test_layers_that_compute_in_float_are_said_first_and_nothing_is_called_complete(done: Integers) -> None:
    layers = (*ALL_INTEGER.layers, LayerKernel(node="deep", op_type="Conv", kernel="FusedConv", why="who knows"))
    report = report_of(done, Execution(kernels=KernelReport(layers=layers), latency_ratio=0.5))
    assert left_float(report) == ("1 of 2 layers do not run as int8 (who knows): deep",)
    text = render_text(report)
    assert text.index("(who knows): deep") < text.index("smaller")
    assert "every weight tensor is stored" not in text


def test_a_report_about_weights_only_has_no_word_about_integers(done: Integers) -> None:
    report = report_of(done)
    plain = Report(
        replace(report.summary, integer_layers=None, integer_total=None, activations=0, latency_ratio=None),
        report.layers,
        report.outputs,
    )
    assert len(plain.activations) == 0
    text = render_text(plain)
    assert "int8;" not in text
    assert "latency" not in text
    data = json.loads(plain.to_json())
    assert (data["activations"], data["sample"], data["summary"]["integer_layers"]) == ([], None, None)


def test_a_model_takes_about_as_long_as_itself_and_less_than_a_much_larger_one() -> None:
    light = matmul()
    same = latencies([load_model(light.proto), load_model(light.proto)], light.feeds)[1].ratio
    assert 0.5 < same < 2
    weights = {f"w{index}": random(700, 700, seed=index) for index in range(8)}
    nodes = [node("MatMul", [f"h{index}" if index else "x", f"w{index}"], [f"h{index + 1}"]) for index in range(8)]
    heavy = model(nodes, {"x": (64, 700)}, ["h8"], weights)
    one = model(nodes[:1], {"x": (64, 700)}, ["h1"], {"w0": weights["w0"]})
    assert latencies([load_model(one), load_model(heavy)], {"x": random(64, 700)})[1].ratio > 2
