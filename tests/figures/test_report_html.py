"""Reports as HTML: complete without scripts, escaped, and with what stayed float first."""

from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from ptq_lab.figures.tables import problems_html, report_html
from ptq_lab.report.dynamic_text import DOCUMENT_HEADERS
from ptq_lab.report.tables import PerformanceRow, ProductRow, Report, Table

VOID = {"br", "wbr", "meta", "img", "link", "path", "rect"}


class Outline(HTMLParser):
    """Collects the tags and the text; fails on a tag that is closed out of turn."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.words = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words += data


def test_the_report_is_well_formed_and_has_a_row_for_every_layer(made: Any) -> None:
    layers = [made.layer(0), made.in_float(1, reason="min_quant_weight_size=5000"), made.layer(2)]
    outline = Outline(report_html(made.report(layers)))
    assert "script" not in outline.tags
    assert outline.tags.count("tr") == 1 + len(layers)
    assert "min_quant_weight_size=5000" in outline.words


def test_what_stayed_float_is_read_before_every_number(made: Any) -> None:
    words = Outline(report_html(made.report(left_float=("1 tensor: skip_quant_node=head",)))).words
    assert words.index("skip_quant_node=head") < words.index("smaller") < words.index("0.99991")


def test_every_fact_of_the_summary_is_there(made: Any) -> None:
    words = Outline(report_html(made.report(), written_to="q.onnx")).words
    for said in (
        "0.9680",
        "was 0.9710, 0.0030 lost",
        "32 samples",
        "1.14 or newer",
        "q.onnx",
        "raised from 11",
    ):
        assert said in words


def test_a_file_for_another_device_names_it_and_says_that_it_was_not_run_there(made: Any) -> None:
    there = made.report(device="NVGPU", toolchain="TensorRT, explicit quantization", runs_here=False)
    words = Outline(report_html(there)).words
    assert "WEIGHT_QUANT for NVGPU, 8 bits" in words
    assert "written for NVGPU: TensorRT, explicit quantization; not run on it" in words


@pytest.mark.parametrize("field", ["node", "tensor", "op_type", "storage", "granularity"])
def test_names_from_the_model_cannot_become_markup(made: Any, field: str) -> None:
    html = report_html(made.report([made.layer(0, **{field: '"><script>alert(1)</script>'})]))
    assert "<script" not in html
    assert "script" not in Outline(html).tags


def test_a_report_that_left_nothing_in_float_says_so(made: Any) -> None:
    words = Outline(report_html(made.report([made.layer(0)], left_float=()))).words
    assert "nothing: every weight tensor is stored as codes" in words


def test_many_remarks_are_folded_and_few_are_open() -> None:
    assert '<details class="notes" open>' in problems_html("3 remarks", ["a", "b", "c"])
    assert '<details class="notes">' in problems_html("4 remarks", ["a", "b", "c", "d"])


def dynamic_report(made: Any, **changes: object) -> Report:
    rows = [
        PerformanceRow(
            model=name,
            arithmetic="float32",
            bytes=1_000_000,
            memory=memory,
            latency_ms=1.25,
            cosine=1.0,
            compression_ratio=1.0,
            memory_change=None,
            latency_change=0.25,
        )
        for name, memory in (("float32", 12_345_000), ("<b>q</b>", None))
    ]
    products = [
        ProductRow(tensor=f"<i>norm{i}</i>", readers=(f"<u>{i}</u>", "key"), granularity="per-row", **measured)
        for i, measured in enumerate(({}, {"low": -2.0, "high": 3.5, "sqnr_db": 21.5}))
    ]
    summary = {"quant_type": "DYNAMIC_QUANT", "products": 2, "strategy": "ACWC", "timed_on": "ids <1x8>"}
    return replace(
        made.report(**(summary | {"latency_ratio": 1.25} | changes)),
        performance=Table(PerformanceRow, rows),
        products=Table(ProductRow, products),
    )


def test_the_performance_table_has_the_documents_headers_dashes_and_a_caption(made: Any) -> None:
    html = report_html(dynamic_report(made))
    words = Outline(html).words
    for said in (*DOCUMENT_HEADERS, "12,345", "+25.0 %", "Performance, measured on this machine with ids <1x8>"):
        assert said in words
    assert '<td class="n">-</td>' in html
    assert "int8 brings no speed here: 1.25 of float32's time (ids <1x8>, one thread" in words


def test_products_are_folded_name_every_reader_and_mark_the_lowest_in_words(made: Any) -> None:
    html = report_html(dynamic_report(made))
    assert "<details><summary>All 2 activations quantized at run time as a table" in html
    words = Outline(html).words
    assert "<u>1</u>, key" in words
    assert "lowest 21.5" in words
    assert html.count('class="worst"') == words.count("lowest") == 1


def test_names_in_the_new_tables_cannot_become_markup(made: Any) -> None:
    tags = Outline(report_html(dynamic_report(made))).tags
    assert "script" not in tags
    assert "u" not in tags
    assert tags.count("i") == report_html(made.report()).count("<i ")  # bars and meters only


def test_every_header_of_the_new_tables_has_a_scope(made: Any) -> None:
    html = report_html(dynamic_report(made))
    tables = html[html.index('<table class="costs">') :].partition("</table>")[0] + html[html.rindex("<table") :]
    assert tables.count("<th ") == tables.count("scope=") == len(DOCUMENT_HEADERS) + 2 + 6 + 2
    assert "<th>" not in tables
    assert tables.count("<caption>") == 2


def test_without_samples_the_table_of_products_says_why_it_is_empty(made: Any) -> None:
    report = dynamic_report(made)
    words = Outline(report_html(replace(report, products=Table(ProductRow, report.products[:1])))).words
    assert "not measured: no samples were given" in words
    assert "lowest" not in words


def test_reports_of_other_kinds_have_neither_table(made: Any) -> None:
    words = Outline(report_html(made.report())).words
    assert "Cos-Similarity" not in words
    assert "quantized at run time" not in words
