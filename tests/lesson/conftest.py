"""Runs that lessons look at, made once."""

from __future__ import annotations

from typing import Any

import pytest

import ptq_lab
from ptq_lab.result import QuantResult

KL: dict[str, Any] = {
    "common_quant_param": {"quant_type": "FULL_QUANT"},
    "full_quant_param": {"activation_quant_method": "KL"},
}


@pytest.fixture(scope="session")
def integers() -> QuantResult:
    """The digits network with weights and activations of 8 bits."""
    card = ptq_lab.demo.load("digits_cnn")
    return ptq_lab.quantize(card.model_path, KL, samples=card.calib_path)


@pytest.fixture(scope="session")
def four_bits() -> QuantResult:
    """The digits network with weights of 4 bits."""
    card = ptq_lab.demo.load("digits_cnn")
    settings = {"common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": 4, "min_quant_weight_channel": 0}}
    return ptq_lab.quantize(card.model_path, settings, samples=card.calib_path)
