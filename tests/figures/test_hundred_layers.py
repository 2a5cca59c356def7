"""A model of a hundred layers with long names: its page and its notebook cell stay small, whatever is known of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from plotly.offline import get_plotlyjs

import ptq_lab
from ptq_lab.notebook.display import figure_bundles, report_bundle
from tests.models import model, node

LAYERS = 100


def deep() -> onnx.ModelProto:
    """A hundred convolutions, each behind a ReLU, with the names that exporters give."""
    nodes, weights, source = [], {}, "x"
    for i in range(LAYERS):
        place = f"/backbone/encoder/layers.{i}/attention/self/projection"
        made = f"{place}/relu_output_0" if i < LAYERS - 1 else "logits"
        nodes.append(node("Conv", [source, f"w{i}"], [f"c{i}"], name=f"{place}/Conv", pads=[1, 1, 1, 1]))
        nodes.append(node("Relu", [f"c{i}"], [made], name=f"{place}/Relu"))
        shape = (16, 3 if i == 0 else 16, 3, 3)
        weights[f"w{i}"] = np.random.default_rng(i).normal(0, 0.12, shape).astype(np.float32)
        source = made
    return model(nodes, {"x": (1, 3, 8, 8)}, ["logits"], weights)


@pytest.mark.parametrize("kind", ["WEIGHT_QUANT", "FULL_QUANT"])
def test_the_page_takes_less_than_a_megabyte_beside_plotly_and_the_cell_less_than_400_kilobytes(
    kind: str, tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    samples = [{"x": generator.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(4)]
    config = {"common_quant_param": {"quant_type": kind}}
    if kind == "WEIGHT_QUANT":
        config["common_quant_param"]["min_quant_weight_channel"] = "0"
    report = ptq_lab.quantize(deep(), config, samples=samples, explain=True).report
    assert report.explanation is not None
    assert len(report.explanation.errors) == len(report.weights) == LAYERS
    page = report.to_html(tmp_path / "report.html")
    assert page.stat().st_size - len(get_plotlyjs().encode()) < 1_000_000
    cell = [report_bundle(report), *figure_bundles(report)]
    assert sum(len(json.dumps(bundle)) for bundle in cell) < 400_000
