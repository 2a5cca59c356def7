"""Histograms of weights and activations and ranges of channels: drawn and still pictures show the same numbers."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from math import log10
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq_lab.figures.activations import activations_html, activations_text, draw_activations
from ptq_lab.figures.channels import channels_html, channels_text, draw_channels
from ptq_lab.figures.panels import HEIGHT, WIDTH, Curve, Panel, still_panels
from ptq_lab.figures.weights import draw_weights, weights_html, weights_text
from ptq_lab.report.tables import ActivationRow, Report, Table
from ptq_lab.report.weight_outlines import WeightOutline
from tests.figures.test_draw_activations import activation
from tests.figures.test_report_html import Outline

HOSTILE = 'a,b"c\n<script>alert(1)</script>'


def outline(i: int = 0, **changes: Any) -> WeightOutline:
    fields: dict[str, Any] = {
        "node": f"/backbone/stage{i}/conv/Conv",
        "tensor": f"stage{i}.weight",
        "bits": 4,
        "low": -1.0,
        "high": 3.0,
        "before": (1, 9, 99, 0),
        "after": (0, 10, 99, 0),
        "values": 1000,
        "counted": 109,
        "grid": (-0.5, 2.5),
        "channels": ((-0.1, 0.1), (-0.2, 0.3), (-1.0, 3.0)),
        "grids": ((-0.5, 2.5),) * 3,
        "channel_count": 12,
    }
    return WeightOutline(**(fields | changes))


def report_of(made: Any, *outlines: WeightOutline, rows: tuple[ActivationRow, ...] = ()) -> Report:
    return replace(made.report(), weights=outlines, activations=Table(ActivationRow, rows))


def data(figure: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(figure.to_json())["data"]
    return found


def test_bars_are_logarithms_of_counts_from_the_first_edge_to_the_last(made: Any) -> None:
    before, after = data(draw_weights(report_of(made, outline())))
    assert (before["x0"], before["dx"]) == (-1.0, 1.0)
    assert before["y"] == pytest.approx([log10(2), 1, 2, 0, 0], abs=0.01)  # the last step ends where its bin does
    assert after["y"] == pytest.approx([0, log10(11), 2, 0, 0], abs=0.01)
    assert before["hovertext"][1] == "9 around 0.5"


def test_lines_stand_at_the_ends_of_the_codes_that_lie_inside(made: Any) -> None:
    shapes = json.loads(draw_weights(report_of(made, outline(grid=(-0.5, 9.0)))).to_json())["layout"]["shapes"]
    assert [shape["x0"] for shape in shapes] == [-0.5]
    assert f'M{WIDTH / 8} -2V86"' in weights_html(report_of(made, outline(grid=(-0.5, 9.0))))


def test_the_most_harmful_weights_are_drawn_first_and_only_six(made: Any) -> None:
    layers = [made.layer(i, relative_error=0.01 * i) for i in range(9)]
    report = replace(made.report(layers), weights=tuple(outline(i) for i in range(9)))
    titles = [note["text"] for note in json.loads(draw_weights(report).to_json())["layout"]["annotations"]]
    assert [re.findall(r"stage\d", title)[0] for title in titles] == [f"stage{i}" for i in (8, 7, 6, 5, 4, 3)]
    assert weights_html(report).count("<figure>") == 6
    assert len(weights_text(report).splitlines()) == 2 + 2 * 6


def test_values_outside_of_the_range_of_an_activation_have_another_colour(made: Any) -> None:
    row = activation(0, histogram=(1, 1, 1, 1, 1, 1), observed_high=3.0, high=2.0)
    kept, cut = data(draw_activations(report_of(made, rows=(row,))))
    assert [value > 0 for value in kept["y"]] == [True] * 4 + [False] * 3
    assert [value > 0 for value in cut["y"]] == [False] * 4 + [True] * 2 + [True]
    assert activations_html(report_of(made, rows=(row,))).count("<path") == 5  # ground, kept, cut off, two ends
    assert "####--" in activations_text(report_of(made, rows=(row,)))


def test_activations_that_were_not_counted_are_left_out_and_the_most_cut_comes_first(made: Any) -> None:
    rows = (activation(0), *(activation(i, histogram=(3, 4), clip_share=0.1 * i) for i in (1, 2)))
    lines = activations_text(report_of(made, rows=rows)).splitlines()[2:]
    assert [line.split()[0] for line in lines] == ["relu2", "relu1"]


def test_a_channel_spans_its_values_and_the_codes_are_the_same_for_all(made: Any) -> None:
    bottom, top, codes_bottom, codes_top = data(draw_channels(report_of(made, outline())))
    assert (bottom["y"][:3], top["y"][:3]) == ([-0.1, -0.2, -1.0], [0.1, 0.3, 3.0])
    assert top["fill"] == "tonexty"
    assert set(codes_bottom["y"]), set(codes_top["y"]) == ({-0.5}, {2.5})
    words = Outline(channels_html(report_of(made, outline()))).words
    assert "3 of 12 channels, the widest 10 times the middle one" in words
    assert channels_text(report_of(made, outline())).splitlines()[-1].endswith("10")


@given(st.lists(st.floats(0, 100, width=32), min_size=1, max_size=80))
def test_a_still_picture_is_as_high_as_its_steps(tops: list[float]) -> None:
    curve = Curve(name="c", colour="#000000", tops=tuple(tops), filled=False)
    [picture] = still_panels([Panel(title="t", name="t", words="", low=0, high=1, curves=(curve,))])
    [(path, _, _)] = picture.paths
    levels = [int(level) for level in re.findall(r"(?:^M\d+ |V)(\d+)", path)]
    assert path.startswith("M0 ")
    assert path.rstrip("0123456789").endswith("H")
    assert path.endswith(f"H{WIDTH}")
    highest = max(tops)
    assert min(levels) == (0 if highest > 0 else min(levels))
    assert max(levels) <= HEIGHT
    wanted = [round((highest - top) * HEIGHT / (highest or 1.0)) for top in tops]
    assert set(levels) == set(wanted)


def test_names_stay_text_in_every_panel(made: Any) -> None:
    rows = (activation(0, tensor=HOSTILE, histogram=(1, 2)),)
    report = report_of(made, outline(node=HOSTILE), rows=rows)
    for html in (weights_html(report), activations_html(report), channels_html(report)):
        assert "script" not in Outline(html).tags
    for figure in (draw_weights(report), draw_activations(report), draw_channels(report)):
        assert "<script" not in figure.to_json()


def test_a_report_without_weights_still_draws(made: Any) -> None:
    assert data(draw_weights(made.report())) == data(draw_channels(made.report())) == []
    assert "<svg" not in weights_html(made.report())
