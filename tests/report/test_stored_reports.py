"""A report's JSON gives the same report back, infinities and picture included; other files are refused in one line."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq_lab import demo, quantize
from ptq_lab.errors import OutputError
from ptq_lab.report.rows import ErrorRow, LayerRow, OutputRow, PairRow
from ptq_lab.report.tables import Report, Summary, Table

ANY = st.floats(allow_nan=False)
MAYBE = st.none() | ANY


@pytest.fixture(scope="module")
def report() -> Report:
    """A run with activations, a picture and everything else there is."""
    source = demo.load("photo_denoiser")
    settings = {"common_quant_param": {"quant_type": "FULL_QUANT"}, "ptq_lab": {"effort": "fast"}}
    return quantize(source.model_path, settings, samples=source.calib_path).report


def same(one: Report, other: Report) -> None:
    for column in fields(Report):
        if column.name != "preview":
            assert getattr(one, column.name) == getattr(other, column.name), column.name


def test_a_run_reads_back_with_its_picture(report: Report, tmp_path: Path) -> None:
    report.to_json(tmp_path / "report.json")
    back = Report.from_json(tmp_path / "report.json")
    same(back, report)
    assert report.preview is not None
    assert back.preview is not None
    assert back.preview.png == report.preview.png
    assert back.preview.warnings == report.preview.warnings
    assert back.to_json() == report.to_json()


def test_the_page_of_a_report_that_was_read_back_is_the_same_page(report: Report, tmp_path: Path) -> None:
    first = report.to_html(tmp_path / "a.html").read_text(encoding="utf-8")
    second = Report.from_json(report.to_json()).to_html(tmp_path / "b.html").read_text(encoding="utf-8")
    assert first == second


def made_of(layer: LayerRow, output: OutputRow, error: ErrorRow, sqnr: float) -> Report:
    summary = Summary(
        model="m.onnx",
        quant_type="Q/DQ",
        bits=8,
        bytes_before=10,
        bytes_after=5,
        layers=1,
        layers_quantized=1,
        cosine_mean=1.0,
        cosine_min=0.5,
        sqnr_db=sqnr,
        compared_on="",
        notes=("a", 'b "quoted"'),
        seconds={"load": 0.25},
    )
    pair = PairRow(node="n/1", op_type="Conv", other_node="", other_op_type="", how="")
    return Report(
        summary,
        Table(LayerRow, [layer]),
        Table(OutputRow, [output]),
        errors=Table(ErrorRow, [error]),
        pairs=Table(PairRow, [pair]),
    )


@given(ANY, ANY, MAYBE, MAYBE, MAYBE, st.text())
def test_any_numbers_and_names_read_back_as_they_were(
    sqnr: float, worst: float, relative: float | None, decibel: float | None, cosine: float | None, name: str
) -> None:
    layer = LayerRow(
        node=name,
        op_type="Conv",
        tensor=name,
        shape=(1, 2, 3),
        bits=None,
        granularity="",
        storage="float32",
        bytes_before=1,
        bytes_after=1,
        relative_error=relative,
        sqnr_db=decibel,
    )
    output = OutputRow(output=name, cosine_mean=1.0, cosine_min=1.0, sqnr_db=sqnr, max_abs_error=worst)
    error = ErrorRow(
        node=name,
        op_type="Conv",
        tensor=name,
        isolated_cosine=cosine,
        isolated_sqnr_db=decibel,
        accumulated_cosine=cosine,
        accumulated_sqnr_db=relative,
    )
    report = made_of(layer, output, error, sqnr)
    assert Report.from_json(report.to_json()) == report


def test_what_is_not_finite_is_null_and_told_beside_the_tables(report: Report) -> None:
    exact = replace(report.summary, sqnr_db=math.inf, cosine_mean=math.nan)
    text = replace(report, summary=exact).to_json()
    data = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert data["summary"]["sqnr_db"] is None
    assert data["not_finite"] == {"/summary/cosine_mean": "nan", "/summary/sqnr_db": "inf"}
    back = Report.from_json(text).summary
    assert back.sqnr_db == math.inf
    assert math.isnan(back.cosine_mean)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no JSON"),
        (b"[1, 2]", "is no report of this version"),
        (b'{"summary": {}}', "is no report of this version"),
        (b'{"summary": {"model": "m", "colour": 1}, "sample": null}', "is no report of this version"),
        (b'{"summary"', "is no JSON"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_a_file_that_is_no_report_is_refused_with_its_name(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(OutputError) as fault:
        Report.from_json(path)
    assert str(fault.value).startswith(f"{path}: ")
    assert said in str(fault.value)


def test_a_missing_file_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be read"):
        Report.from_json(tmp_path / "none.json")
