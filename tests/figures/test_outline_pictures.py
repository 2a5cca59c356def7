"""The small histogram in every row: where the range stands in it, that it is valid markup, and how large it is."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq_lab.figures.outlines import HEIGHT, WIDTH, view_outline
from ptq_lab.figures.page import write_page
from ptq_lab.figures.tables import report_html
from ptq_lab.report.tables import ActivationRow, Report, Table
from tests.figures.test_draw_activations import HOSTILE, activation
from tests.figures.test_report_html import Outline


def drawn(i: int = 0, **changes: Any) -> ActivationRow:
    counts = np.random.default_rng(i).lognormal(6, 4, 64).astype(int)
    return activation(i, **({"histogram": tuple(counts.tolist()), "histogram_samples": 8} | changes))


def report_of(made: Any, *rows: ActivationRow) -> Report:
    return replace(made.report(activations=len(rows)), activations=Table(ActivationRow, rows))


def heights(path: str) -> list[float]:
    """Read the bars back from the path."""
    steps = re.findall(r"V(\d+)h(\d+)", path)
    return [HEIGHT - int(y) for y, width in steps for _ in range(int(width))]


def pictures(html: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(found) for found in re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)]


def test_the_range_of_the_codes_stands_where_its_values_are(made: Any) -> None:
    row = drawn(low=-1.0, high=2.0, observed_low=-2.0, observed_high=6.0)
    [picture] = pictures(report_html(report_of(made, row)))
    bars, codes, seen = (path.attrib for path in picture.iter("path"))
    assert codes["d"] == f"M{WIDTH / 8} -2V35M{WIDTH / 2} -2V35"
    assert seen["d"].startswith("M0.0 ")
    assert f"H{float(WIDTH)}" in seen["d"]
    assert bars["transform"] == "translate(0.0) scale(4.0 1)"


def test_a_range_wider_than_what_was_seen_leaves_room_beside_the_bars() -> None:
    view = view_outline(drawn(low=-4.0, high=4.0, observed_low=-2.0, observed_high=2.0))
    assert view is not None
    assert view.ends == (0.0, WIDTH)
    assert view.seen == (WIDTH / 4, 3 * WIDTH / 4)
    assert (view.shift, view.stretch) == (WIDTH / 4, WIDTH / 2 / 64)


@given(st.lists(st.integers(0, 10**12), min_size=64, max_size=64))
def test_every_bar_is_as_high_as_the_logarithm_of_its_count(counts: list[int]) -> None:
    view = view_outline(drawn(histogram=tuple(counts)))
    assert view is not None
    found = heights(view.path)
    assert len(found) == 64
    wanted = np.log10(1 + np.array(counts, float))
    np.testing.assert_allclose(found, HEIGHT * wanted / (wanted.max() or 1.0), atol=0.51)


def test_a_tensor_that_never_changes_is_drawn_without_a_bar(made: Any) -> None:
    row = drawn(low=0.0, high=0.0, observed_low=0.0, observed_high=0.0, histogram=(0,) * 64)
    view = view_outline(row)
    assert view is not None
    assert heights(view.path) == [0] * 64
    assert len(pictures(report_html(report_of(made, row)))) == 1


def test_every_tensor_opens_to_its_picture_and_says_what_was_counted(made: Any) -> None:
    html = report_html(report_of(made, drawn(0), drawn(1, histogram_samples=1), activation(2)))
    words = Outline(html).words
    assert html.count("<td title=") == 3 + 3  # three layers, three tensors
    assert html.count("<details><summary>relu") == 2
    assert "codes from 0 to 2, seen 0 to 3, 1.2 % cut off; counted in the first 8 samples" in words
    assert "counted in the first sample" in words
    assert [picture.attrib["aria-hidden"] for picture in pictures(html)] == ["true"] * 2  # the words say the same
    assert "<script" not in html


def test_without_histograms_the_table_is_what_it_was(made: Any) -> None:
    html = report_html(report_of(made, activation(0)))
    assert "<svg" not in html
    assert "opens the histogram" not in html


def test_a_hostile_name_stays_text_in_the_picture(made: Any) -> None:
    html = report_html(report_of(made, drawn(0, tensor=HOSTILE)))
    assert "<script" not in html
    assert len(pictures(html)) == 1
    assert HOSTILE in Outline(html).words


@pytest.mark.parametrize("count", [1, 100])
def test_a_picture_takes_two_kilobytes_at_most(made: Any, count: int) -> None:
    rows = [drawn(i, tensor=f"/backbone/stage{i}/block/activation/Relu_output_0") for i in range(count)]
    plain = [replace(row, histogram=(), histogram_samples=0) for row in rows]
    html, before = (report_html(report_of(made, *each)) for each in (rows, plain))
    assert len(html) - len(before) < 2_000 * count
    assert len(html) < 250_000


def test_the_page_holds_the_pictures_outside_of_its_scripts(made: Any, tmp_path: Path) -> None:
    page = write_page(report_of(made, drawn(0), drawn(1)), tmp_path / "r.html").read_text(encoding="utf-8")
    plain = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert len(re.findall(r'<div class="outline"><svg', plain)) == 2
