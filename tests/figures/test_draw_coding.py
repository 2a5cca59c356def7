"""Packed and coded bits of every layer, in all forms of a report: figure, still picture, text, page and JSON."""

from __future__ import annotations

import re
from pathlib import Path

from ptq_lab.figures.coding import coding_html, coding_text, draw_coding
from ptq_lab.figures.page import write_page
from ptq_lab.report.tables import Report
from ptq_lab.report.text import render_text
from tests.figures.conftest import MadeReports

WEIGHTS = 64 * 32 * 9


def coded_report(made: MadeReports) -> Report:
    half = {"bytes_after": WEIGHTS // 2, "storage": "coded, 4.00 bits"}
    rows = [
        made.layer(0, bits=5, entropy=3.9, bound=3.6, **half),
        made.in_float(1),
        made.layer(2, bits=7, entropy=3.8, bound=None, relative_error=0.0, node="<last>", **half),
    ]
    return made.report(rows)


def test_bars_and_marks_are_the_bits_of_entropy_coded_layers(made: MadeReports) -> None:
    figure = draw_coding(coded_report(made))
    assert {part.name: tuple(part.y) for part in figure.data} == {
        "packed": (5.0, 7.0),
        "coded, with scales": (4.0, 4.0),
        "entropy of the codes": (3.9, 3.8),
        "Shannon bound": (3.6, None),
    }
    assert "4.00 bits per weight coded, 6.00 packed" in figure.layout.title.text
    assert "entropy 3.85, Shannon bound 3.70" in figure.layout.title.text  # what loses nothing counts as its entropy
    assert "&lt;last&gt;" in figure.data[1].hovertext[1]


def test_the_still_picture_and_the_text_have_the_same_numbers(made: MadeReports) -> None:
    report = coded_report(made)
    html, text = coding_html(report), coding_text(report)
    assert html.count("<rect") == 4
    assert "&lt;last&gt;" in html
    assert "<script" not in html
    for line in (r"18,432 +0\.30 % +5 +3\.90 +4\.00 +3\.60", r"18,432 +0 % +7 +3\.80 +4\.00 +-", "all +36,864"):
        assert re.search(line, text), line
    assert text in render_text(report)


def test_reports_of_packed_weights_say_nothing_of_coding(made: MadeReports, tmp_path: Path) -> None:
    report = made.report()
    assert coding_text(report) == ""
    assert "Shannon" not in render_text(report)
    assert "Shannon" not in write_page(report, tmp_path / "r.html").read_text(encoding="utf-8").split("<script>")[0]


def test_the_page_has_figure_and_table_and_the_json_has_the_bound(made: MadeReports, tmp_path: Path) -> None:
    report = coded_report(made)
    page = write_page(report, tmp_path / "r.html").read_text(encoding="utf-8").split("<script>")[0]
    assert page.count("Packed and coded: 4.00 bits per weight coded") == 3  # title; name and heading of the picture
    assert page.count('<th scope="col" class="n">Shannon bound</th>') == 1
    assert [row.bound for row in Report.from_json(report.to_json()).layers] == [3.6, None, None]
