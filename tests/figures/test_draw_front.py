"""The picture of size against error: every kind of point, on a scale that shows small errors, with twins."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from ptq_lab.figures.front import draw_front, front_html, front_series, front_text
from ptq_lab.figures.tables import widths_html
from ptq_lab.report.widths import FrontData, FrontPoint, WidthRow, widths_text


def point(label: str, size: int, error: float, measured: float = math.nan) -> FrontPoint:
    return FrontPoint(label=label, bits=(4,), bytes=size - 100, file_bytes=size, error=error, measured=measured)


@pytest.fixture
def data() -> FrontData:
    return FrontData(
        model="<tiny>.onnx",
        curve=tuple(point(f"point {i}", 1000 + 100 * i, 10.0**-i) for i in range(1, 8)),
        uniform=(point("4 bits", 1400, 0.02, 0.03),),
        rule=(point("init_scale 0.02", 1500, 0.001),),
        current=point("now", 1300, 0.004),
        verified=(point("verified", 1300, 0.004, 0.005),),
    )


def test_points_lie_at_what_was_measured_and_else_at_what_is_expected(data: FrontData) -> None:
    drawn = {trace.name: (trace.x, trace.y) for trace in draw_front(data).data}
    assert drawn["one width for all"] == ((1400,), (0.03,))
    assert drawn["the original's rule"] == ((1500,), (0.001,))
    assert drawn["verified"] == ((1300,), (0.005,))
    assert len(drawn["best for its size"][0]) == 7
    assert draw_front(data).layout.yaxis.type == "log"


def test_kinds_without_points_are_left_out(data: FrontData) -> None:
    bare = FrontData(model="m", curve=data.curve, uniform=(), rule=(), current=data.current)
    assert [series.name for series in front_series(bare)] == ["best for its size", "now"]


def test_a_point_without_error_has_a_place_on_the_logarithmic_scale(data: FrontData) -> None:
    exact = FrontData(model="m", curve=(point("a", 10, 0.0),), uniform=(), rule=(), current=point("b", 10, 0.0))
    assert all(y > 0 for trace in draw_front(exact).data for y in trace.y)
    ElementTree.fromstring(front_html(exact))


def test_the_picture_without_scripts_holds_every_point_and_escapes_names(data: FrontData) -> None:
    html = front_html(data)
    assert "<script" not in html
    assert "<tiny>" not in html
    ElementTree.fromstring(html)
    words = [title.text or "" for title in ElementTree.fromstring(html).iter("title")]
    assert len(words) == 4
    assert any("init_scale 0.02: 1.50 kB, 1 - cosine expected 0.001" in text for text in words)
    text = front_text(data)
    assert all(series.name in text for series in front_series(data))
    assert "0.03" in text


def test_widths_read_the_same_as_text_and_as_a_table() -> None:
    rows = tuple(
        WidthRow(
            node=f"<conv{i}>",
            op_type="Conv",
            tensor=f"w{i}",
            shape=(4, 3),
            bits=bits,
            pinned=i == 0,
            bytes_before=48,
            bytes_after=20,
            relative_error=None if bits is None else 0.02,
            output_error=0.001,
            gain=1.0,
        )
        for i, bits in enumerate((5, None))
    )
    html, text = widths_html("Now", rows), widths_text(rows)
    assert "<conv0>" not in html
    for twin in (html, text):
        assert "pinned" in twin
        assert "float" in twin
    assert widths_text(rows, limit=1).endswith("... and 1 more")
