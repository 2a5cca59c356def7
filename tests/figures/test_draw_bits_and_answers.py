"""Widths of layers and answers of classifiers: drawn, still and as text."""

from __future__ import annotations

import json
import re
from typing import Any

from ptq_lab.figures.bits import bits_html, bits_text, draw_bits
from ptq_lab.figures.confusion import bars_of, confusion_html, confusion_text, draw_confusion
from ptq_lab.report.predictions import Predictions
from tests.figures.test_report_html import Outline


def traces(figure: Any) -> dict[str, Any]:
    return {trace.get("name", trace["type"]): trace for trace in json.loads(figure.to_json())["data"]}


def answers(classes: int, before: tuple[int, ...], after: tuple[int, ...], **more: Any) -> Predictions:
    return Predictions(output="logits", classes=classes, before=before, after=after, **more)


def test_every_layer_has_its_bits_and_float_ones_reach_beyond_the_axis(made: Any) -> None:
    report = made.report([made.layer(0, bits=3), made.in_float(1), made.layer(2, bits=7)])
    figure = draw_bits(report)
    assert traces(figure)["bits"]["y"] == [3, 32, 7]
    assert 7 < figure.layout.yaxis.range[1] < 9
    assert "14.00 bits per weight on average" in figure.layout.title.text
    heights = [float(h) for h in re.findall(r'<rect [^>]*height="([\d.]+)"', bits_html(report))][::3]
    assert heights[1] == max(heights)
    assert heights[0] / heights[2] == 3 / 7 or abs(heights[0] / heights[2] - 3 / 7) < 0.01
    assert [line.count("#") for line in bits_text(report).splitlines()[2:]] == [3, 0, 7]


def test_an_average_counts_a_shared_weight_once(made: Any) -> None:
    shared = [made.layer(0, tensor="w", bits=4), made.layer(1, tensor="w", bits=4), made.layer(2, bits=8)]
    assert "6.00 bits per weight" in draw_bits(made.report(shared)).layout.title.text


def test_few_classes_are_a_map_of_all_pairs(made: Any) -> None:
    seen = answers(3, (0, 1, 1, 2), (0, 1, 2, 2), labels=(0, 1, 1, 2))
    assert traces(draw_confusion(seen))["heatmap"]["z"] == [[1, None, None], [None, 1, 1], [None, None, 1]]
    words = Outline(confusion_html(seen)).words
    assert "1 of 4 answers changed (25 %); 1 were right and are wrong now, 0 the other way round" in words
    assert confusion_text(seen).splitlines()[-2].split() == ["1", ".", "1", "1"]


def test_many_classes_are_the_pairs_that_differ_most_often() -> None:
    seen = answers(1000, (7, 7, 7, 3, 9), (8, 8, 7, 4, 9))
    assert [(bar.words, bar.count) for bar in bars_of(seen)] == [("7 → 8", 2), ("3 → 4", 1)]
    assert traces(draw_confusion(seen))["changed"]["x"] == [2, 1]
    assert "7 → 8" in confusion_text(seen)
    assert "7 → 8" in Outline(confusion_html(seen)).words


def test_where_no_pair_occurs_twice_the_classes_that_gained_or_lost_are_shown() -> None:
    seen = answers(1000, (1, 2, 3, 4), (9, 9, 9, 4))
    drawn = traces(draw_confusion(seen))
    assert drawn["before"]["x"][0] == 0
    assert drawn["after"]["x"][0] == 3
    assert drawn["after"]["y"][0] == 0


def test_answers_that_are_no_class_have_a_word() -> None:
    seen = answers(1000, (1, 1), (-1, -1))
    assert "1 → none" in confusion_text(seen)
    assert answers(2, (1, 1), (-1, 0)).matrix() == ((0, 0), (1, 0))


def test_without_a_change_all_twins_say_so() -> None:
    seen = answers(1000, (5, 6), (5, 6))
    assert draw_confusion(seen).data == ()
    for text in (confusion_html(seen), confusion_text(seen)):
        assert "0 of 2 answers changed" in text
