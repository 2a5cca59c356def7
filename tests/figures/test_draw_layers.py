"""The layers figure: what is drawn where, how big its JSON is, and what its twins say."""

import json
import re
from typing import Any
from xml.etree import ElementTree

from ptq_lab.figures.bits import bits_html
from ptq_lab.figures.depth import depth_html
from ptq_lab.figures.layers import draw_layers, layers_text
from ptq_lab.figures.tables import layers_html


def traces(figure: object) -> dict[str, dict]:
    return {trace["name"]: trace for trace in json.loads(figure.to_json())["data"]}


def test_errors_and_bytes_stand_at_the_position_of_the_layer_in_the_graph(made: Any) -> None:
    layers = [made.layer(0, relative_error=0.01), made.in_float(1), made.layer(2, relative_error=0.03)]
    drawn = traces(draw_layers(made.report(layers)))
    assert drawn["relative error"]["x"] == [0, 2]
    assert drawn["relative error"]["y"] == [1.0, 3.0]
    assert drawn["bytes before"]["y"] == [row.bytes_before for row in layers]
    assert drawn["bytes after"]["y"] == [layers[0].bytes_after, layers[2].bytes_after]


def test_layers_left_in_float_have_their_own_colour_and_say_why(made: Any) -> None:
    drawn = traces(draw_layers(made.report([made.layer(0), made.in_float(1, reason="skip_quant_node=head")])))
    assert drawn["left in float"]["x"] == drawn["no error"]["x"] == [1]
    colours = {name: trace["marker"]["color"] for name, trace in drawn.items()}
    assert colours["left in float"] == colours["no error"] != colours["bytes after"]
    assert "skip_quant_node=head" in drawn["no error"]["hovertext"][0]


def test_a_name_with_markup_is_shown_and_not_obeyed(made: Any) -> None:
    report = made.report([made.layer(0, node="<b>loud</b>"), made.layer(1, tensor="<script>alert(1)</script>")])
    figure = draw_layers(report).to_json()
    assert "<b>loud" not in json.loads(figure)["data"][0]["hovertext"][0]
    assert "<script>" not in figure
    assert "<script>" not in layers_html(report)


def test_forty_layers_fit_in_60_kilobytes_and_the_same_report_gives_the_same_bytes(
    made: Any,
) -> None:
    layers = [made.layer(i, node=f"/encoder/layer.{i}/attention/self/query/MatMul") for i in range(40)]
    drawn = draw_layers(made.report(layers)).to_json()
    assert len(drawn) < 60_000
    assert drawn == draw_layers(made.report(layers)).to_json()


def test_axis_labels_leave_out_what_all_names_share(made: Any) -> None:
    layers = [made.layer(i, node=f"/net/block{i}/conv/Conv") for i in range(3)]
    axis = json.loads(draw_layers(made.report(layers)).to_json())["layout"]["xaxis"]
    assert axis["ticktext"] == ["block0", "block1", "block2"]


def test_a_report_without_layers_or_without_errors_still_draws(made: Any) -> None:
    assert traces(draw_layers(made.report([]))) == {}
    assert "relative error" not in traces(draw_layers(made.report([made.in_float(0)])))
    assert "<svg" in layers_html(made.report([]))


def test_the_picture_without_script_has_bars_as_high_as_the_numbers(made: Any) -> None:
    layers = [made.layer(0, relative_error=0.02), made.layer(1, relative_error=0.01), made.in_float(2)]
    picture = layers_html(made.report(layers))
    groups = re.findall(r"<g>.*?</g>", picture, re.DOTALL)
    heights = [[float(h) for h in re.findall(r'height="([\d.]+)"', group)] for group in groups]
    assert heights[0][0] == 2 * heights[1][0]
    assert "<path" in groups[2]
    assert "<script" not in picture


def test_the_text_twin_has_bars_as_long_as_the_numbers(made: Any) -> None:
    layers = [made.layer(0, relative_error=0.02), made.layer(1, relative_error=0.01), made.in_float(2)]
    lines = layers_text(made.report(layers)).splitlines()[2:]
    assert [line.count("#") for line in lines] == [40, 20, 0]
    assert "left in float" in lines[2]


def test_where_widths_differ_every_layer_says_its_own(made: Any) -> None:
    mixed = made.report([made.layer(0, bits=5), made.in_float(1), made.layer(2, bits=3)])
    bars = {trace.name: trace.text for trace in draw_layers(mixed).data}
    assert bars["bytes after"] == ("5", "3")
    assert all(trace.text is None for trace in draw_layers(made.report()).data)
    assert [line.split()[1] for line in layers_text(mixed).splitlines()[2:]] == ["5", "-", "3"]


def test_the_picture_without_script_names_its_layers_below_the_bars_where_they_fit(made: Any) -> None:
    few = [made.layer(i, node=f"/net/block{i}/conv/Conv") for i in range(3)]
    many = [made.layer(i, node=f"/net/block{i}/conv/Conv") for i in range(49)]
    for draw in (layers_html, bits_html):
        below = re.findall(r"rotate\(-40\)\">(.*?)</text>", draw(made.report(few)))
        assert below == ["block0", "block1", "block2"]
        assert "rotate" not in draw(made.report(many))


def test_what_is_left_of_a_picture_without_its_tags_still_tells_the_layers_apart(made: Any) -> None:
    report = made.report([made.layer(0, node="stem"), made.in_float(1, node="head")])
    found = made.explanation([made.error(0, node="stem"), made.error(1, node="head")])
    for picture in (layers_html(report), bits_html(report), depth_html(found)):
        words = [part.strip() for part in re.sub(r"<[^>]*>", "", picture).split(";")]
        assert sum(part.startswith("stem: ") for part in words) == 1
        assert sum(part.startswith("head: ") for part in words) == 1
        assert {"stem", "head"} <= set(words)
        ElementTree.fromstring(re.findall(r"<svg.*</svg>", picture, re.DOTALL)[0])
