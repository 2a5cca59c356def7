"""Reports as HTML: complete without scripts, escaped, and with what stayed float first."""

from html.parser import HTMLParser
from typing import Any

import pytest

from ptq_lab.figures.tables import problems_html, report_html

VOID = {"br", "meta", "img", "link", "path", "rect"}


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
