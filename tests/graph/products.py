"""Quantize the products of a tiny model in one call, and the arithmetic that the result has to follow, in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq_lab.config import load_config
from ptq_lab.dynamic_quant import STRATEGIES, decide_products
from ptq_lab.graph import Model, insert_products, load_model
from ptq_lab.plan import QuantPlan, round_weights

Floats = NDArray[np.float32]
Exact = NDArray[np.float64]


def multiplied(source: Any, strategy: str, skip: str = "") -> tuple[Model, QuantPlan]:
    """Return the model with integer products, and the plan of it."""
    common = {"quant_type": "DYNAMIC_QUANT"} | ({"skip_quant_node": skip} if skip else {})
    original = load_model(source)
    config = load_config({"common_quant_param": common, "ptq_lab": {"dynamic_strategy": strategy}})
    plan = round_weights(decide_products(original, config)[0], original.weight)
    assert plan.dynamic is not None
    weights = {entry.tensor: entry.weight for entry in plan.entries if entry.weight is not None}
    by_row = STRATEGIES[strategy].by_row
    return insert_products(original, plan.dynamic.layers, weights, by_row=by_row), plan


def at_run_time(values: Floats, strategy: str) -> Exact:
    """Return what the codes of an activation stand for: a scale per row, or scale and zero point for all."""
    if strategy != "ALWC":
        reach = np.abs(values).max(axis=-1, keepdims=True)
        step = np.maximum(reach * np.float32(1 / 127), np.float32(2.0**-120))
        return np.asarray(np.clip(np.rint(values / step), -128, 127), np.float64) * step
    low, high = np.minimum(values.min(), np.float32(0)), np.maximum(values.max(), np.float32(0))
    step = (high - low) / np.float32(255) if high > low else np.float32(1)
    zero = np.rint(-low / step)
    codes = np.clip(np.rint(values / step) + zero, 0, 255)
    return np.asarray((codes - zero).astype(np.float64) * step)


def ahead_of_time(values: Floats, strategy: str, *, whole: bool = False) -> Exact:
    """Return what the codes of a right operand stand for: a scale per column, for ACWL or on request one for all."""
    across = None if whole or strategy == "ACWL" else tuple(range(values.ndim - 1))
    step = np.asarray(np.abs(values).max(axis=across) / np.float32(127), np.float32)
    step = np.where(step == 0, np.float32(1), step)
    return np.asarray(np.rint(values / step), np.float64) * step
