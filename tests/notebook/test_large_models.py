"""A model of 300 layers stays usable: outputs are bounded, and the worst layers are among what is shown."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests import models

LAYERS, SIZE = 300, 16
CELL_LIMIT = 400_000  # bytes of one cell's outputs in a saved notebook


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model of 300 products that neither die out nor explode."""
    nodes, weights, last = [], {}, "x"
    rotation = np.linalg.qr(models.random(SIZE, SIZE))[0].astype(np.float32)
    for i in range(LAYERS):
        weights[f"w{i}"] = np.roll(rotation, i, axis=0) * np.float32(1 + 0.0001 * i)
        name = f"/encoder/layer.{i}/attention/query/MatMul"
        nodes.append(models.node("MatMul", [last, f"w{i}"], [f"h{i}"], name=name))
        last = f"h{i}"
    path = tmp_path_factory.mktemp("deep") / "deep.onnx"
    onnx.save(models.model(nodes, {"x": (1, SIZE)}, [last], weights), path)
    return path


def size(outputs: list[Any]) -> int:
    return sum(len(json.dumps(output.data)) for output in outputs)


@pytest.mark.parametrize("quant_type", ["WEIGHT_QUANT", "FULL_QUANT"])
def test_the_outputs_of_a_cell_are_bounded_and_show_the_worst(shell: Any, deep: Path, quant_type: str) -> None:
    shell.user_ns["deep"] = str(deep)
    shell.user_ns["some"] = [{"x": models.random(1, SIZE, seed=i)} for i in range(4)]
    text = f"[common_quant_param]\nquant_type={quant_type}\nmin_quant_weight_channel=0\n[ptq_lab]\neffort=fast\n"
    outputs = shell.outputs_of(f"%%quantize deep --samples some -r result\n{text}")
    assert size(outputs) < CELL_LIMIT
    worst = max(shell.user_ns["result"].report.layers, key=lambda row: row.relative_error)
    html = "".join(output.data["text/html"] for output in outputs)
    assert f"{worst.node}, weight" in html
    assert "shown are the worst 100 rows" in html
    assert len(shell.user_ns["result"].report.layers) == LAYERS


def test_two_runs_of_it_side_by_side_are_bounded_too(shell: Any, deep: Path) -> None:
    shell.user_ns["deep"] = str(deep)
    for bits in (8, 4):
        text = f"[common_quant_param]\nquant_type=WEIGHT_QUANT\nbit_num={bits}\nmin_quant_weight_channel=0\n"
        shell.outputs_of(f"%%quantize deep --quiet -r run{bits}\n{text}")
    outputs = shell.outputs_of("%quantize_compare run8 run4")
    assert size(outputs) < CELL_LIMIT
    assert "200 layers with smaller errors are not shown" in outputs[0].data["text/html"]


def test_names_of_it_are_completed_in_a_blink(shell: Any, deep: Path) -> None:
    from ptq_lab.notebook.completion import Completer

    completer = Completer({"deep": str(deep)})
    lines = ["%%quantize deep", "[common_quant_param]", "skip_quant_node=/encoder/layer.29"]
    completer.answer(lines, 2, len(lines[2]))
    times = []
    for _ in range(9):
        start = time.perf_counter()
        found = completer.answer(lines, 2, len(lines[2]))
        times.append(time.perf_counter() - start)
    assert found is not None
    assert len(found[1]) > 10
    assert sorted(times)[4] < 0.02
