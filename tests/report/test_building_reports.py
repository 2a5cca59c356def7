"""A report is built from a plan and what was measured: rows, order, sentences, CSV and strict JSON."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptq_lab.graph import Rules, find_targets, load_model
from ptq_lab.numerics import dequantize_weight
from ptq_lab.pipeline import quantize
from ptq_lab.plan import QuantPlan, make_plan
from ptq_lab.report.build import layer_rows, left_float, overall
from ptq_lab.report.tables import LayerRow, OutputRow, Report, Table
from ptq_lab.report.text import left_float as left_float_lines
from tests.models import Tiny, depthwise_batchnorm, matmul, model, node, random


def strict(text: str) -> Any:
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def report_of(tiny: Tiny, *, bits: int = 5, **common: Any) -> tuple[Report, QuantPlan]:
    given = {"quant_type": "WEIGHT_QUANT", "bit_num": bits, "enable_encode": True, "min_quant_weight_channel": 0}
    result = quantize(tiny.proto, {"common_quant_param": given | common})
    return result.report, result.plan


def test_rows_are_in_the_order_of_the_graph_with_what_stayed_float_among_them() -> None:
    report, _ = report_of(matmul(), skip_quant_node="/h2/MatMul")
    assert [(row.tensor, row.quantized) for row in report.layers] == [("b", True), ("batched", False), ("a", True)]
    kept = report.layers[1]
    assert (kept.bits, kept.storage, kept.bytes_after, kept.relative_error) == (None, "float", kept.bytes_before, None)
    assert kept.reason == "skip_quant_node=/h2/MatMul"
    assert (report.summary.layers, report.summary.layers_quantized) == (3, 2)


def test_errors_of_a_row_are_those_of_its_dequantized_weight() -> None:
    report, plan = report_of(matmul())
    original = load_model(matmul().proto)
    for row in report.layers:
        weight = plan[row.tensor].weight
        assert weight is not None
        exact = original.weight(row.tensor).astype(float)
        error = np.linalg.norm(dequantize_weight(weight) - exact) / np.linalg.norm(exact)
        assert row.relative_error == pytest.approx(error)
        assert row.sqnr_db == pytest.approx(-20 * math.log10(error))
        assert (row.bytes_before, row.bytes_after) == (exact.size * 4, plan[row.tensor].bytes_after)


def test_a_weight_that_lost_nothing_has_an_infinite_sqnr_and_json_says_null() -> None:
    weight = np.array([[0.0, 1.0], [1.0, 0.0]], np.float32)
    proto = model([node("MatMul", ["x", "w"], ["y"])], {"x": (1, 2)}, ["y"], {"w": weight}, opset=18)
    report, _ = report_of(Tiny(proto=proto, feeds={}, weights={}), bits=1)
    assert report.layers[0].relative_error == 0.0
    assert report.layers[0].sqnr_db == math.inf
    assert strict(report.to_json())["layers"][0]["sqnr_db"] is None
    assert strict(report.to_json())["outputs"][0]["sqnr_db"] is None
    assert strict(report.layers.to_json())[0]["sqnr_db"] is None


def test_json_holds_every_field_and_the_ratio(tmp_path: Path) -> None:
    report, _ = report_of(depthwise_batchnorm(), min_quant_weight_channel=4)
    text = report.to_json(tmp_path / "r.json")
    assert (tmp_path / "r.json").read_text() == text + "\n"
    data = strict(text)
    tables = {"layers", "outputs", "activations", "performance", "products", "errors", "pairs", "weights", "steps"}
    assert set(data) == {"summary", "sample", "predictions", "explanation", "manifest", *tables}
    assert data["summary"]["compression_ratio"] == pytest.approx(report.summary.compression_ratio)
    assert data["summary"]["bits"] == 5
    assert set(data["layers"][0]) == set(report.layers.columns)
    assert data["layers"][0]["shape"] == [6, 1, 3, 3]


def test_csv_has_one_line_per_row_and_reads_back(tmp_path: Path) -> None:
    report, _ = report_of(depthwise_batchnorm(), min_quant_weight_channel=4)
    report.layers.to_csv(tmp_path / "layers.csv")
    content = (tmp_path / "layers.csv").read_bytes()
    assert b"\r" not in content
    rows = list(csv.DictReader(content.decode().splitlines()))
    assert [row["tensor"] for row in rows] == ["dw", "pw"]
    assert rows[0]["shape"] == "6x1x3x3"
    assert rows[1]["bits"] == rows[1]["relative_error"] == ""
    assert float(rows[0]["relative_error"]) == report.layers[0].relative_error
    assert list(rows[0]) == list(report.layers.columns)


def test_names_with_commas_quotes_and_line_ends_survive_csv(tmp_path: Path) -> None:
    name = 'a,"b"\nc'
    proto = model([node("MatMul", ["x", "w"], ["y"], name=name)], {"x": (1, 9)}, ["y"], {"w": random(9, 9)})
    report, _ = report_of(Tiny(proto=proto, feeds={}, weights={}))
    report.layers.to_csv(tmp_path / "layers.csv")
    with (tmp_path / "layers.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["node"] == name


def test_one_sentence_per_setting_says_what_it_left_in_float_the_biggest_first() -> None:
    weights = {"w1": random(30, 40), "w2": random(40, 40), "w3": random(40, 10)}
    nodes = [node("MatMul", [a, w], [b]) for a, w, b in (("x", "w1", "h1"), ("h1", "w2", "h2"), ("h2", "w3", "y"))]
    proto = model(nodes, {"x": (1, 30)}, ["y"], weights)
    found = find_targets(load_model(proto), Rules(skip=("/h?/*",)))
    sentences = left_float(make_plan(found, bits=8))
    assert len(sentences) == 2
    assert sentences[0].startswith("nothing was quantized; skip_quant_node=/h?/*: 2 weights (11.2 ")
    assert sentences[1].startswith("min_quant_weight_channel=16: 1 weight (1.6")


def test_that_nothing_was_quantized_is_said_first_with_the_setting_behind_it() -> None:
    report, _ = report_of(matmul(), skip_quant_node="*")
    assert left_float_lines(report)[0].startswith("nothing was quantized; skip_quant_node=*: 3 weights (")
    settings: dict[str, Any] = {"skip_quant_node": "/h1/MatMul", "min_quant_weight_channel": 50}
    first, *others = report_of(matmul(), **settings)[0].summary.left_float
    assert first.startswith("nothing was quantized; min_quant_weight_channel=50: 2 weights")
    assert [line.partition(":")[0] for line in others] == ["skip_quant_node=/h1/MatMul"]
    partly, _ = report_of(matmul(), skip_quant_node="/h1/MatMul")
    assert "nothing" not in " ".join(partly.summary.left_float)


def test_a_model_without_weights_is_told_from_one_that_is_quantized_whole() -> None:
    proto = model([node("Relu", ["x"], ["y"])], {"x": (1, 3)}, ["y"], {}, opset=18)
    report, _ = report_of(Tiny(proto=proto, feeds={}, weights={}))
    assert left_float_lines(report) == ("nothing was quantized; the model has no weight of a known operator",)


def test_the_csv_of_a_report_is_its_table_of_layers(tmp_path: Path) -> None:
    report, _ = report_of(matmul())
    report.to_csv(tmp_path / "report.csv")
    report.layers.to_csv(tmp_path / "layers.csv")
    assert (tmp_path / "report.csv").read_text() == (tmp_path / "layers.csv").read_text()


def test_a_summary_of_no_outputs_is_perfect_and_of_several_the_worst() -> None:
    assert overall([]) == (1.0, 1.0, math.inf)
    rows = [
        OutputRow(output="a", cosine_mean=0.9, cosine_min=0.8, sqnr_db=20.0, max_abs_error=1.0),
        OutputRow(output="b", cosine_mean=1.0, cosine_min=0.95, sqnr_db=math.inf, max_abs_error=0.0),
    ]
    mean, lowest, worst = overall(rows)
    assert (mean, lowest, worst) == pytest.approx((0.95, 0.8, 20.0))


def test_a_table_is_a_sequence_that_compares_by_its_rows() -> None:
    report, plan = report_of(matmul())
    original = load_model(matmul().proto)
    same = layer_rows(plan, original.weight)
    assert same == report.layers
    assert hash(same) == hash(report.layers)
    assert same[:2] == tuple(same)[:2]
    assert same != Table(LayerRow)
    assert "3 rows" in repr(same)
