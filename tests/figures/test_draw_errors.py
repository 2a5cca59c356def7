"""Errors of layers: what is drawn, that the twins say the same, and that names stay text."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq_lab.figures.causes import explanation_html, ini_text, view_causes
from ptq_lab.figures.depth import LEAST, depth_html, depth_text, draw_depth
from ptq_lab.figures.errors import DRAWN, draw_errors, errors_html, errors_text
from ptq_lab.figures.harms import view_harm
from ptq_lab.report.diagnosis import Edit
from ptq_lab.report.findings import explanation_text, format_loss
from tests.figures.test_report_html import Outline

HOSTILE = "a,b\"c'd\n<script>alert(1)</script>&amp;"


def drawn(figure: Any) -> dict[str, Any]:
    return {trace["name"]: trace for trace in json.loads(figure.to_json())["data"]}


def test_layers_stand_in_the_order_of_the_graph_along_the_depth_and_by_harm_in_the_bars(made: Any) -> None:
    found = made.explanation([made.error(0, 1e-4, 2e-4), made.error(1, 0.1, 0.2), made.error(2, 1e-3, 0.3)])
    depth = drawn(draw_depth(found))
    assert depth["alone"]["y"] == pytest.approx([1e-4, 0.1, 1e-3])
    assert depth["with all before"]["y"] == pytest.approx([2e-4, 0.2, 0.3])
    bars = drawn(draw_errors(found))
    assert bars["alone"]["x"] == pytest.approx([0.1, 1e-3, 1e-4])
    assert bars["with all before"]["x"] == pytest.approx([0.2, 0.3, 2e-4])


def test_evaluation_samples_have_lines_marks_and_columns_of_their_own(made: Any) -> None:
    rows = [made.error(0, 0.01), made.error(1, 0.02)]
    found = made.explanation(rows, [made.error(1, 0.5, 0.6)])
    depth = drawn(draw_depth(found))
    assert depth["alone, evaluation"]["y"] == [None, pytest.approx(0.5)]
    assert depth["with all before, evaluation"]["line"]["dash"] == "dot"
    assert drawn(draw_errors(found))["alone, evaluation samples"]["x"] == [pytest.approx(0.5), None]
    assert "alone, evaluation" in explanation_text(found)
    assert "evaluation: 0.50, with all before 0.60" in depth_html(found)


def test_an_error_of_zero_and_one_that_is_not_known_are_drawn_on_a_logarithmic_scale(made: Any) -> None:
    unknown = made.error(1, isolated_cosine=None, accumulated_cosine=None)
    found = made.explanation([made.error(0, 0.0, 0.0), unknown])
    assert drawn(draw_depth(found))["alone"]["y"] == [LEAST, None]
    for twin in (depth_html(found), depth_text(found), errors_html(found), errors_text(found)):
        assert "nan" not in twin.lower()
    assert errors_text(found).splitlines()[2].split()[1] == "0"


def test_no_more_than_twenty_layers_are_bars_and_all_are_points(made: Any) -> None:
    found = made.explanation([made.error(i, 0.001 * (i + 1)) for i in range(50)])
    assert len(drawn(draw_errors(found))["alone"]["x"]) == DRAWN
    assert len(drawn(draw_depth(found))["alone"]["y"]) == 50
    assert errors_html(found).count("<tr>") == 1 + DRAWN


def test_the_bars_of_the_still_table_are_as_long_as_the_logarithms(made: Any) -> None:
    html = errors_html(made.explanation([made.error(0, 1e-1, 1e-1), made.error(1, LEAST, LEAST)]))
    widths = [int(width) for width in re.findall(r"width:(\d+)px", html)]
    assert widths == [137, 137, 0, 0]  # six sevenths of 160


def test_names_with_commas_quotes_markup_and_line_breaks_stay_text(made: Any) -> None:
    found = made.explanation([made.error(0, node=HOSTILE)], causes=(made.cause(nodes=(HOSTILE,), evidence=HOSTILE),))
    for html in (explanation_html(found), depth_html(found), errors_html(found)):
        assert "script" not in Outline(html).tags
    for figure in (draw_depth(found), draw_errors(found)):
        assert "<script" not in figure.to_json()
    assert HOSTILE in Outline(explanation_html(found)).words


def test_a_diagnosis_shows_evidence_places_and_the_edit_as_a_configuration(made: Any) -> None:
    nodes = tuple(f"conv{i}" for i in range(5))
    html = explanation_html(made.explanation([made.error(0)], causes=(made.cause(nodes=nodes),)))
    words = Outline(html).words
    for said in ("bias shift", "conv0, conv1, conv2", "2 more", "same for a whole channel", "Looked at 8 samples"):
        assert said in words
    assert "[full_quant_param]\nbias_correction=true" in words
    assert "<script" not in html
    assert explanation_html(made.explanation([made.error(0)]), pictures=False).count("<svg") == 0


def test_without_a_cause_the_diagnosis_says_that_nothing_stands_out(made: Any) -> None:
    found = made.explanation([made.error(0)], causes=())
    assert "Nothing stands out" in explanation_html(found)
    assert "nothing stands out" in explanation_text(found)
    assert view_causes(found).causes == ()


def test_keys_of_one_section_share_its_header() -> None:
    edits = [Edit("ptq_lab.layer_bits", "a", "8"), Edit("ptq_lab.layer_bits", "b", "8"), Edit("ptq_lab", "c", "1")]
    assert ini_text(edits).splitlines() == ["[ptq_lab.layer_bits]", "a=8", "b=8", "[ptq_lab]", "c=1"]


def test_the_table_of_layers_is_sorted_by_harm_and_float_layers_come_last(made: Any) -> None:
    from dataclasses import replace

    report = made.report([made.layer(0, relative_error=0.9), made.in_float(1), made.layer(2), made.layer(3)])
    found = made.explanation([made.error(0, 0.001), made.error(2, 0.1), made.error(3, 0.01)])
    view = view_harm(replace(report, explanation=found))
    assert [row.node[-16:-10] for row in view.rows] == ["stage2", "stage3", "stage0", "stage1"]
    assert view.headers == ("output, alone", "output, with all before")
    assert [loss.words for loss in view.rows[0].losses] == ["0.10", "0.020"]
    assert view.rows[-1].reason == "skip_quant_node"
    plain = view_harm(report)
    assert plain.headers == ()
    assert "stage0" in plain.rows[0].node  # by the error of its weight


@given(st.floats(0, 2))
def test_a_loss_is_written_with_two_digits_and_reads_back(loss: float) -> None:
    text = format_loss(1.0 - loss)
    assert len(text) <= 8
    assert float(text) == pytest.approx(loss, rel=0.06, abs=1e-11)
