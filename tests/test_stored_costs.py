"""Fewer bits that make a file larger are said, and only those."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ptq_lab import demo, quantize

DIGITS = demo.load("digits_cnn")
UNITS = {"B": 1.0, "kB": 1000.0}


def written(tmp_path: Path, bits: int, pins: dict[str, int]) -> tuple[int, str]:
    common = {"quant_type": "WEIGHT_QUANT", "bit_num": bits, "enable_encode": True, "min_quant_weight_channel": 0}
    settings = {"common_quant_param": common, "ptq_lab.layer_bits": pins}
    result = quantize(DIGITS.model_path, settings, tmp_path / "q.onnx")
    return (tmp_path / "q.onnx").stat().st_size, "\n".join(result.report.summary.notes)


@pytest.mark.parametrize(("bits", "says"), [(3, "the nodes that decode stem/weight"), (4, "opset 21")])
def test_a_first_layer_whose_few_bits_enlarge_the_file_is_said(tmp_path: Path, bits: int, says: str) -> None:
    plain, silent = written(tmp_path, 8, {})
    narrow, notes = written(tmp_path, 8, {"stem/Conv": bits})
    assert narrow > plain
    assert says in notes
    assert says not in silent


def test_how_much_smaller_eight_bits_would_be_is_what_it_is(tmp_path: Path) -> None:
    plain, _ = written(tmp_path, 8, {})
    narrow, notes = written(tmp_path, 8, {"stem/Conv": 3})
    found = re.search(r"the file would be about ([\d.]+) (k?B) smaller", notes)
    assert found
    assert float(found[1]) * UNITS[found[2]] == pytest.approx(narrow - plain, rel=0.5)  # nodes are averages


@pytest.mark.parametrize("bits", [4, 8])
def test_bits_that_pay_are_not_talked_about(tmp_path: Path, bits: int) -> None:
    assert "smaller" not in written(tmp_path, bits, {})[1]


def test_weights_whose_biases_were_corrected_are_weighed_too() -> None:
    card = demo.load("digits_transformer")
    common = {"quant_type": "WEIGHT_QUANT", "bit_num": 3, "min_quant_weight_channel": 0}
    result = quantize(card.model_path, {"common_quant_param": common}, samples=card.calib_path)
    assert result.plan.biases
    assert any("the nodes that decode" in note for note in result.report.summary.notes)


@pytest.mark.parametrize("bits", [2, 4])
def test_weights_decoded_at_run_time_are_not_talked_about(bits: int) -> None:
    card = demo.load("digits_transformer")
    common = {"quant_type": "WEIGHT_QUANT", "bit_num": bits, "min_quant_weight_channel": 0}
    settings = {"common_quant_param": common, "weight_quant_param": {"dequant_strategy": "ON_THE_FLY"}}
    result = quantize(card.model_path, settings)
    assert any(entry.on_the_fly for entry in result.plan.entries)
    assert not any("would be" in note and "smaller" in note for note in result.report.summary.notes)
