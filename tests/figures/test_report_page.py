"""The report page: one file, complete without network and scripts, written whole or not at all."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ptq_lab.errors import OutputError
from ptq_lab.figures.page import write_page
from ptq_lab.report.predictions import Predictions
from ptq_lab.report.rows import ErrorRow, PairRow
from ptq_lab.report.tables import ActivationRow, Report, Table
from tests.figures.test_draw_activations import activation
from tests.figures.test_draw_spreads import outline
from tests.figures.test_report_html import Outline, dynamic_report


@pytest.fixture
def page(made: Any, tmp_path: Path) -> str:
    hostile = made.layer(0, node="</script><img src=x onerror=alert(1)>")
    return write_page(made.report([hostile, made.layer(1)]), tmp_path / "report.html").read_text(encoding="utf-8")


def without_scripts(page: str) -> str:
    return re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def test_plotly_is_inside_once_and_nothing_is_loaded(page: str) -> None:
    assert page.count("plotly.js v") == 1
    assert 4_000_000 < len(page) < 7_000_000
    assert not re.search(r"<(script|img|link|iframe)[^>]+(src|href)=", without_scripts(page))
    assert not re.search(r"<script[^>]+src=", page)


def test_each_figure_is_valid_json_beside_its_place(page: str) -> None:
    data = re.findall(r'<script type="application/json" id="data-(\d)">(.*?)</script>', page, flags=re.DOTALL)
    assert [number for number, _ in data] == ["1", "2"]
    assert all(json.loads(text)["data"] for _, text in data)
    assert [f'id="figure-{number}"' in page for number, _ in data] == [True, True]


def test_a_hostile_node_name_stays_text(page: str) -> None:
    assert "<img" not in page.replace("&lt;img", "")[: page.index("plotly.js v")]
    assert "</script><img" not in page


def test_without_scripts_the_tables_hold_every_number(page: str, made: Any) -> None:
    plain = without_scripts(page)
    for said in ("/backbone/stage1/conv/Conv", "0.60 %", "scales and offsets", "0.999910", "32 samples"):
        assert said in plain


def test_the_page_shows_performance_and_the_folded_products_without_scripts(made: Any, tmp_path: Path) -> None:
    plain = without_scripts(write_page(dynamic_report(made), tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "<h2>Performance</h2>" in plain
    assert "Memory compared to FP32" in plain
    assert "<details><summary>All 2 activations quantized at run time" in plain
    assert "&lt;i&gt;norm1&lt;/i&gt;" in plain
    assert "<i>norm" not in plain


def test_to_html_of_a_report_writes_this_page(made: Any, tmp_path: Path) -> None:
    assert (
        made.report().to_html(tmp_path / "a.html").read_bytes()
        == write_page(made.report(), tmp_path / "b.html").read_bytes()
    )


def test_a_missing_folder_is_an_output_error_and_leaves_nothing(made: Any, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="report cannot be written"):
        write_page(made.report(), tmp_path / "missing" / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_folder_at_the_name_untouched(made: Any, tmp_path: Path) -> None:
    taken = tmp_path / "report.html"
    taken.mkdir()
    with pytest.raises(OutputError):
        write_page(made.report(), taken)
    assert list(tmp_path.iterdir()) == [taken]


NAME = """conv,'one' "two"\n<img src=x onerror=alert(1)>"""


def full(made: Any, name: str = "/backbone/stage0/conv/Conv") -> Report:
    """A report of which every part is there."""
    record = {
        "config": {"text": f"[common_quant_param]\nskip_quant_node={name}\n", "sha256": "c" * 64},
        "model": {"name": name, "sha256": "a" * 64},
        "quantized": {"name": "q.onnx", "sha256": "b" * 64},
        "samples": {"origin": f"3 samples of {name}", "sha256": "d" * 64},
        "versions": {"ptq_lab": "9.9.9"},
        "plan": {"secret": "not on the page"},
    }
    found = made.explanation(
        [made.error(0, node=name), made.error(2)], [made.error(0, 0.5, node=name)], causes=(made.cause(nodes=(name,)),)
    )
    return replace(
        dynamic_report(made),
        layers=made.report([made.layer(0, node=name, bits=5), made.in_float(1), made.layer(2, bits=8)]).layers,
        activations=Table(ActivationRow, [activation(0, tensor=name, node=name, histogram=(1, 2, 3))]),
        weights=(outline(0, node=name), outline(2)),
        predictions=Predictions(output=name, classes=3, before=(0, 1), after=(0, 2)),
        explanation=found,
        manifest=record,
    )


def test_every_entry_of_the_contents_leads_to_a_section_in_the_same_order(made: Any, tmp_path: Path) -> None:
    page = full(made).to_html(tmp_path / "r.html").read_text(encoding="utf-8")
    entries = re.findall(r'<a href="#(\w+)">', page)
    assert entries == re.findall(r'<section id="(\w+)"', page)
    assert entries == [
        *("summary", "performance", "diagnosis", "predictions", "layers", "depth", "distributions", "ranges"),
        *("sizes", "outputs", "configuration", "manifest"),
    ]


def test_parts_that_are_not_there_have_no_section_and_a_missing_diagnosis_says_how_to_get_one(
    page: str,
) -> None:
    entries = re.findall(r'<section id="(\w+)"', page)
    assert entries == ["summary", "diagnosis", "layers", "sizes", "outputs"]
    assert "ptq_lab.explain(result)" in page


def test_a_comparison_of_two_models_has_its_errors_and_its_pairs_on_the_page(made: Any, tmp_path: Path) -> None:
    pair = PairRow(node=NAME, op_type="Conv", other_node="c1", other_op_type="QLinearConv", how="weight name")
    alone = PairRow(node="", op_type="", other_node="c2", other_op_type="Relu", how="")
    compared = replace(
        made.report(), errors=Table(ErrorRow, [made.error(0), made.error(2)]), pairs=Table(PairRow, [pair, alone])
    )
    page = compared.to_html(tmp_path / "r.html").read_text(encoding="utf-8")
    entries = re.findall(r'<section id="(\w+)"', page)
    assert entries == ["summary", "diagnosis", "layers", "depth", "sizes", "outputs", "pairs"]
    words = Outline(without_scripts(page)).words
    for said in (NAME, "QLinearConv", "weight name", "only one model has it", "output, with all before"):
        assert said in words


def test_a_page_made_of_stored_json_is_the_same_page(made: Any, tmp_path: Path) -> None:
    report = full(made, NAME)
    report.to_json(tmp_path / "report.json")
    again = Report.from_json(tmp_path / "report.json")
    assert again == report
    assert again.to_html(tmp_path / "a.html").read_bytes() == report.to_html(tmp_path / "b.html").read_bytes()


def test_configuration_and_manifest_are_on_the_page_and_the_plan_is_not(made: Any, tmp_path: Path) -> None:
    plain = without_scripts(full(made).to_html(tmp_path / "r.html").read_text(encoding="utf-8"))
    for said in ("skip_quant_node=/backbone", "a" * 64, "b" * 64, "d" * 64, "ptq_lab 9.9.9"):
        assert said in plain
    assert "not on the page" not in plain


def test_a_name_of_commas_quotes_line_breaks_and_markup_is_text_in_every_section(made: Any, tmp_path: Path) -> None:
    page = full(made, NAME).to_html(tmp_path / "r.html").read_text(encoding="utf-8")
    plain = without_scripts(page)
    assert "<img" not in plain
    assert plain.count("&lt;img src=x onerror=alert(1)&gt;") > 10
    assert Outline(plain).words.count(NAME) > 5
    for _, text in re.findall(r'<script type="application/json" id="data-(\d)">(.*?)</script>', page, flags=re.DOTALL):
        assert "<" not in text
        assert "<img" not in json.dumps(json.loads(text))


def test_every_figure_has_a_still_picture_or_a_table_where_scripts_are_off(made: Any, tmp_path: Path) -> None:
    plain = without_scripts(full(made).to_html(tmp_path / "r.html").read_text(encoding="utf-8"))
    figures = re.findall(r'<h4>([^<]*)</h4><figure class="plot" id="figure-\d">(.*?)</figure>', plain, flags=re.DOTALL)
    assert len(figures) == 7
    for title, still in figures:
        assert title
        assert "<svg" in still or "<table" in still or title == "Where the bytes are"  # its table stands above it


def test_an_existing_page_is_replaced_and_its_neighbours_stay(made: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    (tmp_path / "report.html").write_text("old")
    made.report().to_html(tmp_path / "report.html")
    assert (tmp_path / "mine.txt").read_text() == "kept"
    assert "<!doctype html>" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt", "report.html"]
