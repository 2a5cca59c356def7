"""The steps of the quality ladder: what is drawn, that the twins say the same, and that names stay text."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ptq_lab.figures import draw_steps, write_page
from ptq_lab.figures.steps import LEAST, steps_html, steps_table_html, steps_text, view_steps
from ptq_lab.notebook.display import figure_bundles, report_bundle
from ptq_lab.report.steps import MEANING
from ptq_lab.report.tables import Report, StepRow, Table
from tests.figures.conftest import MadeReports
from tests.figures.test_report_html import Outline
from tests.report.test_steps import row

HOSTILE = "a,b\"c'd\n<script>alert(1)</script>&amp;"


@pytest.fixture
def stepped(made: MadeReports) -> Report:
    rows = [
        row("conv1", "bias", 0.4, 0.2, blend=0.5, meaning=MEANING["bias"]),
        row("conv1", "gptq", 0.2, 0.1, blend=0.5, meaning=MEANING["gptq"]),
        row("conv2", "bias", 0.3, 0.35, meaning=MEANING["bias"]),
        StepRow(node="conv3", op_type="Conv", bits=4, reason="it reads NaN or infinite values"),
    ]
    return with_steps(made, rows)


def with_steps(made: MadeReports, rows: list[StepRow]) -> Report:
    return replace(made.report(), steps=Table(StepRow, rows))


def test_a_layer_has_a_point_before_its_first_step_and_one_after_the_last_that_was_kept(stepped: Report) -> None:
    before, after = json.loads(draw_steps(stepped).to_json())["data"]
    assert (before["name"], before["y"]) == ("before", pytest.approx([0.4, 0.3]))
    assert (after["name"], after["y"]) == ("after", pytest.approx([0.1, 0.3]))
    assert "gptq 0.1 kept" in before["hovertext"][0]  # one label for both points of a layer
    assert "bias 0.35 dropped" in before["hovertext"][1]


def test_the_picture_and_the_text_say_what_the_figure_says(stepped: Report) -> None:
    still, text = steps_html(stepped), steps_text(stepped)
    assert "conv1: 0.4 -&gt; 0.1; bias 0.2 kept; gptq 0.1 kept" in still
    assert text.splitlines()[2].split() == ["conv1", "0.4", "0.1", "-"]
    assert text.splitlines()[3].split() == ["conv2", "0.3", "0.3", "1"]


def test_the_table_has_a_column_per_step_and_explains_each(stepped: Report) -> None:
    view, html = view_steps(stepped), steps_table_html(stepped)
    assert list(view.meanings) == ["bias", "gptq"]
    assert [cell.verdict for cell in view.layers[0].cells] == ["kept", "kept"]
    assert [cell.verdict for cell in view.layers[1].cells] == ["dropped", ""]
    outline = Outline(html)
    assert "script" not in outline.tags
    for words in (*view.meanings.values(), "it reads NaN or infinite values", "2 kept, 1 dropped", "0.5"):
        assert words in outline.words


def test_the_page_has_a_section_of_steps_only_where_there_were_some(
    stepped: Report, made: MadeReports, tmp_path: Path
) -> None:
    page = write_page(stepped, tmp_path / "with.html").read_text(encoding="utf-8")
    assert '<section id="steps">' in page
    assert 'href="#steps"' in page
    assert '<section id="steps">' not in write_page(made.report(), tmp_path / "without.html").read_text("utf-8")


def test_a_notebook_shows_the_figure_and_the_folded_table_without_scripts(stepped: Report, made: MadeReports) -> None:
    assert len(figure_bundles(stepped)) == len(figure_bundles(made.report())) + 1
    html = report_bundle(stepped)["text/html"]
    assert "All steps tried on 3 layers" in html
    assert "script" not in Outline(html).tags
    assert "All steps" not in report_bundle(made.report())["text/html"]


def test_an_error_of_zero_is_drawn_on_a_logarithmic_scale_and_many_layers_are_numbered(made: MadeReports) -> None:
    report = with_steps(made, [row(f"conv{i}", before=0.1, after=0.0) for i in range(60)])
    after = json.loads(draw_steps(report).to_json())["data"][1]
    assert after["y"] == [LEAST] * 60
    assert "nan" not in (steps_html(report) + steps_text(report)).lower()


def test_names_with_commas_quotes_markup_and_line_breaks_stay_text(made: MadeReports) -> None:
    report = with_steps(made, [row(HOSTILE)])
    for html in (steps_html(report), steps_table_html(report)):
        assert "script" not in Outline(html).tags
    assert "<script" not in draw_steps(report).to_json()
