"""Codes chosen at run time are onnxruntime's own, and the error of a weight is what a decoded copy would give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from ptq_lab.numerics import dequantize_weight, quantize_symmetric, quantize_weight, relative_error
from ptq_lab.numerics.dynamic import quantize_at_run_time
from ptq_lab.numerics.loss import weight_error
from tests.conftest import Run
from tests.models import model, node

generated = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
finite = st.floats(-1e4, 1e4, width=32, allow_subnormal=False)
activations = hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=3, max_side=9), elements=finite)
weights = hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=4, max_side=6), elements=finite)

TENSOR = model(
    [
        node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ],
    {"x": ("n",)},
    ["y"],
)
ROWS = model(
    [
        node("Abs", ["x"], ["a"]),
        node("ReduceMax", ["a", "last"], ["r"], keepdims=0),
        node("Mul", ["r", "step"], ["m"]),
        node("Max", ["m", "least"], ["s"]),
        node("Shape", ["s"], ["n"]),
        node("Expand", ["middle", "n"], ["z"]),
        node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=0),
        node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=0),
    ],
    {"x": ("n", "k")},
    ["y"],
    {
        "last": np.array([-1]),
        "step": np.array(1 / 127, np.float32),
        "least": np.array(2.0**-120, np.float32),
        "middle": np.array(128, np.uint8),
    },
)


@generated
@given(values=activations)
def test_one_scale_per_tensor_gives_exactly_what_onnxruntime_gives(values: NDArray[np.float32], run: Run) -> None:
    wanted = run(TENSOR, {"x": values.reshape(-1)}, optimize="off")["y"].reshape(values.shape)
    assert np.array_equal(quantize_at_run_time(values, by_row=False), wanted)


@generated
@given(values=activations)
def test_one_scale_per_row_gives_exactly_what_onnxruntime_gives(values: NDArray[np.float32], run: Run) -> None:
    rows = values.reshape(-1, values.shape[-1])
    wanted = run(ROWS, {"x": rows}, optimize="off")["y"].reshape(values.shape)
    assert np.array_equal(quantize_at_run_time(values, by_row=True), wanted)


@given(values=activations)
def test_no_value_moves_further_than_half_a_step_or_a_whole_one_with_a_rounded_zero_point(
    values: NDArray[np.float32],
) -> None:
    span = max(values.max(), 0.0) - min(values.min(), 0.0)
    # an offset that is rounded as well adds another half
    assert np.abs(quantize_at_run_time(values, by_row=False) - values).max() <= span / 255 * 1.001
    reach = np.abs(values).max(axis=-1, keepdims=True)
    step = np.maximum(reach / 127, 2.0**-120)  # no step is smaller, so that a row of zeros can be divided by it
    assert (np.abs(quantize_at_run_time(values, by_row=True) - values) <= step / 2 * 1.001).all()


@pytest.mark.parametrize("by_row", [False, True], ids=["tensor", "rows"])
@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0,)], ids=str)
def test_nothing_at_all_is_quantized_to_nothing(shape: tuple[int, ...], by_row: bool) -> None:
    assert quantize_at_run_time(np.zeros(shape, np.float32), by_row=by_row).shape == shape


@generated
@given(values=weights, data=st.data())
def test_the_error_of_a_weight_is_that_of_its_decoded_copy(values: NDArray[np.float32], data: st.DataObject) -> None:
    axis = data.draw(st.sampled_from([None, *range(values.ndim)]))
    if data.draw(st.booleans()):
        weight = quantize_symmetric(values, axis=axis)
    else:
        bits = data.draw(st.integers(1, 16))
        weight = quantize_weight(values, bits=bits, axis=axis, correct=data.draw(st.booleans()))
    wanted = relative_error(values, dequantize_weight(weight))
    assume(np.abs(values).max() > 1e-6)
    assert weight_error(values, weight) == pytest.approx(wanted, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_a_weight_of_many_blocks_has_the_same_error(axis: int | None) -> None:
    values = np.random.default_rng(3).normal(0, 1, (700, 301)).astype(np.float32)
    weight = quantize_weight(values, bits=6, axis=axis)
    wanted = relative_error(values, dequantize_weight(weight))
    assert weight_error(values, weight) == pytest.approx(wanted, rel=1e-5)
