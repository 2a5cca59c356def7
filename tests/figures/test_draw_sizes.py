"""The sizes figure: every byte of both files is in exactly one part."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ptq_lab.figures.sizes import draw_sizes, size_parts, sizes_text
from ptq_lab.figures.tables import sizes_html


@settings(max_examples=40)
@given(
    widths=st.lists(st.one_of(st.none(), st.integers(1, 16)), max_size=6),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_the_parts_add_up_to_both_file_sizes(made: Any, widths: list[int | None], shape: tuple[int, int]) -> None:
    elements = shape[0] * shape[1]
    layers = [
        made.in_float(i, shape=shape, bytes_before=4 * elements, bytes_after=4 * elements)
        if bits is None
        else made.layer(
            i,
            shape=shape,
            bits=bits,
            bytes_before=4 * elements,
            bytes_after=-(-elements * bits // 8) + 4 * shape[0],
        )
        for i, bits in enumerate(widths)
    ]
    report = made.report(layers)
    parts = size_parts(report)
    assert sum(part.before for part in parts) == report.summary.bytes_before
    assert sum(part.after for part in parts) == report.summary.bytes_after
    assert min(min(part.before, part.after) for part in parts) >= 0
    assert parts[1].after == 4 * shape[0] * sum(bits is not None for bits in widths)


def test_a_weight_that_two_nodes_share_counts_once(made: Any) -> None:
    once = size_parts(made.report([made.layer(0)]))
    twice = size_parts(made.report([made.layer(0), made.layer(1, tensor=made.layer(0).tensor)]))
    assert [part.after for part in once[:3]] == [part.after for part in twice[:3]]


def test_the_figure_draws_the_parts_that_exist_to_one_scale(made: Any) -> None:
    report = made.report([made.layer(0), made.layer(1)])
    drawn = {trace.name: trace.x for trace in draw_sizes(report).data}
    assert drawn == {part.name: (part.before, part.after) for part in size_parts(report) if part.before or part.after}
    assert "weights left in float" not in drawn


def test_both_twins_name_every_part_and_the_file(made: Any) -> None:
    report = made.report()
    for twin in (sizes_text(report), sizes_html(report)):
        assert all(part.name in twin for part in size_parts(report))
        assert "the file" in twin
