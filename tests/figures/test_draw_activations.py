"""Ranges and thresholds: what is drawn, and that the twins without script say the same."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq_lab.figures.page import write_page
from ptq_lab.figures.ranges import draw_ranges, ranges_text
from ptq_lab.figures.tables import ranges_html, report_html, threshold_html
from ptq_lab.figures.thresholds import draw_threshold, fold_counts, threshold_text
from ptq_lab.numerics import Histogram, count_values
from ptq_lab.report.tables import ActivationRow, Report, Table
from tests.figures.test_report_html import Outline

HOSTILE = '"><script>alert(1)</script>'


@dataclass
class Picture:
    input: str = "image"
    shape: tuple[int, ...] = (1, 3, 8, 8)
    low: float = -1.0
    high: float = 1.0
    mean: float = 0.25
    warnings: tuple[str, ...] = ("image: looks <odd>",)
    png: bytes = b"\x89PNG not really"


def activation(i: int, **changes: Any) -> ActivationRow:
    fields: dict[str, Any] = {
        "tensor": f"relu{i}",
        "node": f"conv{i}",
        "method": "KL",
        "low": 0.0,
        "high": 2.0 + i,
        "observed_low": 0.0,
        "observed_high": 3.0 + i,
        "clip_share": 0.0123,
        "scale": (2.0 + i) / 255,
        "zero_point": 0,
        "dtype": "uint8",
        "readers": (f"conv{i + 1}",),
    }
    return ActivationRow(**(fields | changes))


@pytest.fixture
def integers(made: Any) -> Report:
    rows = [
        activation(0),
        activation(1, low=-1.0, observed_low=-0.5),
        activation(2, observed_low=None, observed_high=None),
    ]
    report = made.report(
        integer_layers=2, integer_total=3, activations=3, latency_ratio=0.5, kernel_notes=("1 of 3 layers: a reason",)
    )
    return replace(report, activations=Table(ActivationRow, rows), preview=Picture())


def drawn(figure: Any) -> dict[str, Any]:
    return {trace["name"]: trace for trace in json.loads(figure.to_json())["data"]}


def counted(values: Any, high: float, bins: int = 64) -> Histogram:
    return count_values(np.asarray(values, np.float32), 0.0, high, bins=bins)


def test_each_bar_spans_the_range_of_its_tensor(integers: Report) -> None:
    traces = drawn(draw_ranges(integers))
    assert (traces["range of the codes"]["base"], traces["range of the codes"]["y"]) == ([0, -1, 0], [2, 4, 4])
    assert (traces["seen in calibration"]["base"], traces["seen in calibration"]["y"]) == ([0, -0.5, 0], [3, 4.5, 0])
    assert "1.2 %" in traces["range of the codes"]["hovertext"][0]


def test_the_still_picture_has_the_same_proportions(integers: Report) -> None:
    picture = ranges_html(integers)
    groups = re.findall(r"<g>.*?</g>", picture, re.DOTALL)
    heights = [[float(height) for height in re.findall(r'height="([\d.]+)"', group)] for group in groups]
    assert [len(found) for found in heights] == [2, 2, 1]
    assert heights[1][0] / heights[0][0] == pytest.approx(4 / 2, rel=0.01)
    assert heights[0][1] / heights[0][0] == pytest.approx(3 / 2, rel=0.01)


def test_the_text_bars_show_what_was_seen_beyond_the_range(integers: Report) -> None:
    lines = ranges_text(integers).splitlines()[2:]
    assert [line.count("#") > 0 for line in lines] == [True] * 3
    assert lines[0].rstrip().endswith("#-" + "-" * (lines[0].count("-") - 1))
    assert "-" not in lines[2].split("4", 1)[1].replace("#", "")


@pytest.mark.parametrize("field", ["tensor", "node", "method", "dtype", "readers"])
def test_names_from_the_model_cannot_become_markup(integers: Report, field: str) -> None:
    value = (HOSTILE,) if field == "readers" else HOSTILE
    report = replace(integers, activations=Table(ActivationRow, [activation(0, **{field: value})]))
    for html in (report_html(report), ranges_html(report), draw_ranges(report).to_json()):
        assert "<script" not in html


def test_the_report_has_a_folded_table_the_sample_and_the_integer_layers(integers: Report) -> None:
    html = report_html(integers)
    outline = Outline(html)
    words = outline.words
    assert "All 3 activation tensors as a table" in words
    assert html.count("<details>") == 2
    assert "2 of 3" in words
    assert "takes 0.50 of float32's time" in words
    assert words.index("a reason") < words.index("smaller")
    assert 'src="data:image/png;base64,iVBORyBub3QgcmVhbGx5"' in html
    assert "looks <odd>" in words
    assert "values -1 to 1, mean 0.25" in words


def test_a_report_about_weights_shows_none_of_it(made: Any) -> None:
    html = report_html(made.report())
    assert "activation" not in html
    assert "<img" not in html
    assert "layers run as" not in html


def test_the_page_draws_the_ranges_and_holds_their_table_and_loads_nothing(integers: Report, tmp_path: Path) -> None:
    page = write_page(integers, tmp_path / "r.html").read_text(encoding="utf-8")
    data = re.findall(r'<script type="application/json" id="data-(\d)">(.*?)</script>', page, flags=re.DOTALL)
    assert [number for number, _ in data] == ["1", "2", "3"]
    plain = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert all(row.tensor in plain for row in integers.activations)
    assert not re.search(r'<(script|img|link|iframe)[^>]+(src|href)="(?!data:)', plain)


def test_forty_tensors_fit_in_30_kilobytes_and_the_same_report_gives_the_same_bytes(integers: Report) -> None:
    many = replace(integers, activations=Table(ActivationRow, [activation(i) for i in range(40)]))
    text = draw_ranges(many).to_json()
    assert len(text) < 30_000
    assert text == draw_ranges(many).to_json()


@given(st.lists(st.floats(0, 10, width=32), min_size=1, max_size=60), st.integers(1, 200), st.integers(1, 90))
def test_folding_loses_no_value(values: list[float], bars: int, bins: int) -> None:
    histogram = counted(values, 10.0, bins)
    slots = fold_counts(histogram, 0.0, 4.0, bars)
    assert len(slots) <= bars
    assert sum(slot.count for slot in slots) == histogram.counts.sum()
    assert all(slot.kept == (slot.center <= 4.0) for slot in slots)


def test_a_threshold_splits_the_histogram_and_all_twins_say_how_much_is_cut_off() -> None:
    histogram = counted([1, 1, 2, 2, 2, 3, 3, 9], 10.0)
    figure = draw_threshold(histogram, 0.0, 5.0, title="relu<1>")
    traces = drawn(figure)
    assert (sum(traces["kept"]["y"]), sum(traces["cut off"]["y"])) == (7, 1)
    lines = json.loads(figure.to_json())["layout"]["shapes"]
    assert [line["x0"] for line in lines] == [0, 5]
    html, text = (twin(histogram, 0.0, 5.0, title="relu<1>") for twin in (threshold_html, threshold_text))
    for twin in (figure.to_json(), html, text):
        assert "12 % of the non-zero values cut off" in twin
    assert "relu<1>" not in html
    assert html.count('fill="#d55e00"') == 1
    assert "<script" not in html


def test_a_histogram_of_zeros_only_is_drawn_empty() -> None:
    histogram = counted([0, 0], 0.0)
    assert drawn(draw_threshold(histogram, 0.0, 0.0)) == {}
    assert "0 %" in threshold_text(histogram, 0.0, 0.0)
    assert "<svg" in threshold_html(histogram, 0.0, 0.0)
