"""What a model costs and what run-time quantization loses, as text: captions, dashes, the mark on the lowest SQNR."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq_lab.demo import load
from ptq_lab.pipeline import quantize
from ptq_lab.report.dynamic_text import (
    DOCUMENT_HEADERS,
    LOWEST,
    NOT_MEASURED,
    PRODUCT_HEADERS,
    performance_caption,
    performance_cells,
    product_cells,
    product_table,
    worst_product,
)
from ptq_lab.report.tables import PerformanceRow, ProductRow, Report, Table
from ptq_lab.report.text import brief, facts, left_float, render_text
from ptq_lab.result import QuantResult
from tests.figures.conftest import MadeReports


def cost(model: str, **changes: object) -> PerformanceRow:
    fields: dict[str, object] = {
        "model": model,
        "arithmetic": "float32",
        "bytes": 20_000_000,
        "memory": 29_029_000,
        "latency_ms": 9.916,
        "cosine": 1.0,
        "compression_ratio": 1.0,
        "memory_change": 0.0,
        "latency_change": 0.0,
    }
    return PerformanceRow(**(fields | changes))  # type: ignore[arg-type]


INTEGERS: dict[str, object] = {
    "arithmetic": "int8 and float32",
    "bytes": 5_200_000,
    "memory": 15_709_000,
    "latency_ms": 4.517,
    "cosine": 0.99668,
    "compression_ratio": 20 / 5.2,
    "memory_change": -0.4589,
    "latency_change": -0.5441,
}


def product(tensor: str, sqnr: float | None, **changes: object) -> ProductRow:
    fields: dict[str, object] = {"readers": (f"{tensor}/MatMul",), "granularity": "per-tensor", "low": -1.5}
    fields |= {"high": 2.25, "sqnr_db": sqnr} if sqnr is not None else {"low": None}
    return ProductRow(tensor=tensor, **(fields | changes))  # type: ignore[arg-type]


def dynamic_report(products: list[ProductRow], rows: list[PerformanceRow] | None = None, **changes: object) -> Report:
    summary = {"quant_type": "DYNAMIC_QUANT", "strategy": "ALWC", "products": 48, "timed_on": "ids 1x128, mask 1x128"}
    report = MadeReports().report(None, **(summary | {"latency_ratio": 0.4} | changes))
    rows = rows if rows is not None else [cost("float32"), cost("DYNAMIC_QUANT ALWC", **INTEGERS)]
    return replace(report, performance=Table(PerformanceRow, rows), products=Table(ProductRow, products))


@pytest.fixture(scope="module")
def by_rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[QuantResult, Path]:
    model, folder = load("digits_transformer"), tmp_path_factory.mktemp("saved")
    settings: dict[str, Any] = {"common_quant_param": {"quant_type": "DYNAMIC_QUANT"}}
    result = quantize(model.model_path, settings | {"dynamic_quant_param": {"quant_strategy": "ACWL"}})
    return result, result.save(folder)


def test_the_performance_table_has_the_documents_columns_and_compares_with_the_float_model() -> None:
    first, second = performance_cells([cost("float32"), cost("DYNAMIC_QUANT ALWC", **INTEGERS)])
    assert len(first) == len(second) == len(DOCUMENT_HEADERS) == 9
    assert first == ("float32", "float32", "20.0", "29,029", "9.92", "1.00000", "", "", "")
    assert second[2:] == ("5.20", "15,709", "4.52", "0.99668", "3.85", "-45.9 %", "-54.4 %")


def test_memory_that_cannot_be_measured_is_a_dash_and_the_caption_says_so() -> None:
    unknown: dict[str, object] = {"memory": None, "memory_change": None}
    rows = [cost("float32", **unknown), cost("q", **(INTEGERS | unknown))]
    first, second = performance_cells(rows)
    assert (first[3], second[3], second[7]) == ("-", "-", "-")
    assert "not measurable here" in performance_caption(dynamic_report([], rows))
    assert "add to a process" in performance_caption(dynamic_report([]))


def test_the_caption_says_what_was_run_and_how() -> None:
    caption = performance_caption(dynamic_report([]))
    for said in ("ids 1x128, mask 1x128", "one thread", "medians of runs in turn"):
        assert said in caption


def test_the_text_names_products_strategy_and_what_was_timed() -> None:
    said = dict(facts(dynamic_report([]).summary))
    assert said["int8"] == "48 products computed in int8, activations quantized at run time (ALWC)"
    timed = "ids 1x128, mask 1x128, one thread, medians of runs in turn"
    assert said["latency"] == f"0.40 of float32's time, 2.5 times faster ({timed})"
    assert "DYNAMIC_QUANT ALWC, 8 bits" in brief(dynamic_report([]).summary)


def test_integers_that_bring_no_speed_are_said_to_bring_none_and_float_weights_never_claim_to_be_integers() -> None:
    slow = dict(facts(dynamic_report([], latency_ratio=1.08).summary))["latency"]
    assert slow.startswith("int8 brings no speed here: 1.08 of float32's time (ids 1x128")
    weights = dict(facts(MadeReports().report(latency_ratio=1.0).summary))["latency"]
    assert weights == "1.00 of float32's time (one sample, one thread, medians of runs in turn)"


def test_one_activation_is_marked_as_the_lowest_and_the_order_is_kept() -> None:
    rows = [product("first", 40.0), product("second", 17.5), product("third", math.inf), product("fourth", 17.5)]
    lines = product_table(rows).splitlines()
    assert [line.split()[0] for line in lines[-4:]] == ["first", "second", "third", "fourth"]
    assert [line.endswith(f"<- {LOWEST}") for line in lines[-4:]] == [False, True, False, False]
    assert "exact" in lines[-2]


def test_the_lowest_is_shown_even_where_the_table_is_cut() -> None:
    rows = [product(f"tensor{i}", 40.0 - i) for i in range(6)]
    table = product_table(rows, 2)
    assert "tensor5" in table
    assert "tensor3" not in table
    assert table.endswith("... and 3 more activations")


def test_without_samples_nothing_is_measured_and_it_says_why() -> None:
    rows = [product("a", None), product("b", None)]
    assert worst_product(rows) is None
    assert NOT_MEASURED in product_table(rows)
    assert product_cells(rows[0])[3:] == ("-", "-", "-")
    assert len(product_cells(rows[0])) == len(PRODUCT_HEADERS)


@given(st.lists(st.none() | st.just(math.inf) | st.floats(-20, 90), max_size=12))
def test_the_worst_product_is_the_first_with_the_lowest_finite_sqnr(losses: list[float | None]) -> None:
    rows = [product(str(i), loss) for i, loss in enumerate(losses)]
    finite = [loss for loss in losses if loss is not None and math.isfinite(loss)]
    expected = rows[losses.index(min(finite))] if finite else None
    assert worst_product(rows) is expected


@given(st.integers(1, 10**12), st.floats(1e-3, 1e5))
def test_sizes_and_times_keep_three_digits(size: int, milliseconds: float) -> None:
    (cells,) = performance_cells([cost("float32", bytes=size, latency_ms=milliseconds)])
    assert float(cells[2]) == pytest.approx(size / 1e6, rel=0.006)
    assert float(cells[4]) == pytest.approx(milliseconds, rel=0.006)


def test_a_reader_is_named_and_the_others_are_counted() -> None:
    row = product("norm", 30.0, readers=("query", "key", "value"))
    assert product_cells(row)[1] == "query and 2 more"


def test_tables_of_a_run_are_saved_and_read_back(by_rows: tuple[QuantResult, Path]) -> None:
    result, folder = by_rows
    with (folder / "performance.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == ["float32", "DYNAMIC_QUANT ACWL"]
    assert int(rows[1]["bytes"]) == result.model_path.stat().st_size
    held = [row.memory for row in result.report.performance]
    assert [row["memory"] for row in rows] == ["" if size is None else str(size) for size in held]
    with (folder / "products.csv").open(newline="") as file:
        products = list(csv.DictReader(file))
    assert [row["tensor"] for row in products] == [row.tensor for row in result.report.products]
    assert {row["low"] for row in products} == {""}
    assert not (folder / "activations.csv").exists()


def test_weights_alone_leave_no_such_files(tmp_path: Path) -> None:
    digits = load("digits_cnn")
    result = quantize(digits.model_path, {"common_quant_param": {"quant_type": "WEIGHT_QUANT"}})
    result.save(tmp_path)
    assert not list(tmp_path.glob("p*.csv"))
    assert "Performance, measured on this machine" not in render_text(result.report)


def test_products_of_two_activations_are_no_weights_and_staying_float_is_said(
    by_rows: tuple[QuantResult, Path],
) -> None:
    report = by_rows[0].report
    assert (report.summary.layers_quantized, report.summary.layers) == (14, 15)
    assert "quant_strategy: 4 products of two activations stayed float" in left_float(report)
    pairs = [row for row in report.layers if not row.bytes_before]
    assert len(pairs) == 4
    assert "scalar" not in render_text(report)
