"""Full quantization in a notebook: ranges beside layers and sizes, and a threshold on demand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ptq_lab.notebook.display import PLOTLY, figure_bundles, threshold_bundle
from ptq_lab.numerics import count_values
from ptq_lab.report.tables import ActivationRow, Table
from tests.figures.conftest import MadeReports
from tests.figures.test_draw_activations import activation


def titles(bundles: tuple[dict[str, Any], ...]) -> list[str]:
    return [bundle[PLOTLY]["layout"]["title"]["text"] for bundle in bundles]


def test_ranges_are_shown_only_where_activations_are_quantized() -> None:
    weights = MadeReports().report()
    integers = replace(weights, activations=Table(ActivationRow, [activation(0)]))
    assert len(titles(figure_bundles(weights))) == 2
    assert titles(figure_bundles(integers))[1].startswith("Range of every activation tensor")
    for bundle in figure_bundles(integers):
        assert "<script" not in bundle["text/html"]
        assert bundle["text/plain"].strip()


def test_a_threshold_is_a_bundle_with_its_twins() -> None:
    seen = count_values(np.array([1, 2, 9], np.float32), 0.0, 10.0)
    bundle = threshold_bundle(seen, 0.0, 5.0, title="relu")
    assert set(bundle) == {PLOTLY, "text/html", "text/plain"}
    assert "relu: 33 %" in bundle["text/plain"]
    assert "<svg" in bundle["text/html"]
    assert "<script" not in bundle["text/html"]
