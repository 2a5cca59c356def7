"""The report page: one file, complete without network and scripts, written whole or not at all."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ptq_lab.errors import OutputError
from ptq_lab.figures.page import write_page
from tests.figures.test_report_html import dynamic_report


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
