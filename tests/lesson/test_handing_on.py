"""GPTQ on two weights: what the picture says is what numerics does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq_lab import lesson
from ptq_lab.errors import PlanError
from ptq_lab.lesson.handing_on import MOST, TOP

weights = st.floats(0, TOP, width=32)
pairs = st.builds(
    lambda first, second, correlation: lesson.handing_on(first, second, correlation=correlation),
    weights,
    weights,
    st.floats(-MOST, MOST),
)


@given(pairs)
def test_the_second_weight_is_rounded_from_where_the_picture_moves_it(pair: lesson.HandingOn) -> None:
    first, second = pair.handed_on
    assert first == pair.nearest[0]
    assert abs(second - min(max(pair.moved, 0), TOP)) <= 0.5 + 1e-5


@given(pairs)
def test_no_pair_with_the_same_first_weight_has_less_error_and_the_best_has_least_of_all(
    pair: lesson.HandingOn,
) -> None:
    least = min(pair.error((pair.nearest[0], code)) for code in range(TOP + 1))
    assert pair.error(pair.handed_on) <= least + 1e-5
    assert pair.error(pair.best) <= least + 1e-5


@given(pairs)
def test_the_ends_of_an_ellipse_have_the_error_of_the_pair_it_goes_through(pair: lesson.HandingOn) -> None:
    along, against = pair.radii(pair.nearest)
    matrix = np.array([[1.0, pair.correlation], [pair.correlation, 1.0]])
    for radius, direction in ((along, (1, 1)), (against, (1, -1))):
        end = radius * np.array(direction) / np.sqrt(2)
        assert float(end @ matrix @ end) == pytest.approx(pair.error(pair.nearest), rel=1e-4, abs=1e-6)


def test_without_correlation_nothing_is_handed_on_and_with_much_of_it_most_of_the_error_goes() -> None:
    assert lesson.handing_on(correlation=0.0).handed_on == lesson.handing_on(correlation=0.0).nearest
    pair = lesson.handing_on(correlation=0.9)
    assert pair.error(pair.handed_on) < pair.error(pair.nearest) / 5


@pytest.mark.parametrize(
    "wrong", [{"first": -0.1}, {"second": 3.1}, {"correlation": 1.0}, {"correlation": float("nan")}]
)
def test_what_cannot_be_drawn_is_refused_in_one_sentence(wrong: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match="handing on: "):
        lesson.handing_on(**wrong)
