"""The affine grid: equal to onnxruntime's own operators, and to the original's golden values."""

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from ptq_lab.numerics import QuantParams, QuantSpec, choose_params, dequantize_array, quantize_array
from tests.conftest import Run
from tests.models import FLOAT, model, node

KINDS = {
    "int8": QuantSpec(bits=8),
    "uint8": QuantSpec(bits=8, signed=False),
    "int16": QuantSpec(bits=16),
    "uint16": QuantSpec(bits=16, signed=False),
}
GOLDEN = [  # low, high, spec, scale, zero point
    (-1, 2, QuantSpec(bits=8), 0.0117647, -43),
    (-1, 2, QuantSpec(bits=8, symmetric=True, narrow=True), 0.0157480, 0),
    (1, 5, QuantSpec(bits=8), 0.0196078, -128),
    (-5, -1, QuantSpec(bits=8), 0.0196078, 127),
    (0, 0, QuantSpec(bits=8), 3.92e-13, -128),
    (-1, 2, QuantSpec(bits=4), 0.2, -3),
    (-1, 2, QuantSpec(bits=1), 3.0, -1),
    (-1, 2, QuantSpec(bits=8, signed=False), 0.0117647, 85),
]

numbers = st.floats(-1e6, 1e6, width=32)
widths = st.integers(1, 16)


def onnx_type(spec: QuantSpec) -> int:
    return int(helper.np_dtype_to_tensor_dtype(spec.dtype))


def quantize_model(spec: QuantSpec, rank: int) -> onnx.ModelProto:
    attributes: dict[str, Any] = {} if spec.axis is None else {"axis": spec.axis}
    nodes = [
        node("QuantizeLinear", ["x", "scale", "zp"], ["codes"], **attributes),
        node("DequantizeLinear", ["codes", "scale", "zp"], ["back"], **attributes),
    ]
    numbers_shape: list[int | str] = [] if spec.axis is None else ["c"]
    inputs: dict[str, Any] = {"x": ["d"] * rank, "scale": numbers_shape, "zp": (onnx_type(spec), numbers_shape)}
    return model(nodes, inputs, {"codes": onnx_type(spec), "back": FLOAT}, opset=21, ir_version=10)


@pytest.mark.parametrize("axis", [None, 0, 1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_codes_and_values_equal_those_of_onnxruntime(
    kind: str, axis: int | None, run: Run, rng: np.random.Generator
) -> None:
    base = KINDS[kind]
    spec = QuantSpec(bits=base.bits, signed=base.signed, axis=axis)
    values = rng.normal(0.3, 2.0, (5, 6, 700)).astype(np.float32)
    seen = values / 2  # the tails lie outside the range
    values[0, 0, :4] = [0.0, -0.0, 1e30, -1e30]
    others = tuple(a for a in range(3) if a != axis)
    params = choose_params(seen.min(axis=others), seen.max(axis=others), spec)
    feeds = {
        "x": values,
        "scale": np.asarray(params.scale, np.float32),
        "zp": np.asarray(params.zero_point, spec.dtype),
    }
    wanted = run(quantize_model(spec, 3), feeds)
    codes = quantize_array(values, params)
    assert codes.dtype == spec.dtype
    assert np.array_equal(codes, wanted["codes"])
    assert np.array_equal(dequantize_array(codes, params), wanted["back"])


def test_exact_ties_go_to_even_like_onnxruntime_before_the_zero_point_is_added(run: Run) -> None:
    spec = QuantSpec(bits=8)
    params = QuantParams(spec, np.array(0.5), np.array(-43, np.int32))
    ties = (np.arange(-90, 90, dtype=np.float32) + 0.5) * np.float32(0.5)
    feeds = {"x": ties, "scale": np.array(0.5, np.float32), "zp": np.array(-43, np.int8)}
    assert np.array_equal(quantize_array(ties, params), run(quantize_model(spec, 1), feeds)["codes"])


@pytest.mark.parametrize(("low", "high", "spec", "scale", "zero_point"), GOLDEN)
def test_ranges_give_the_originals_scale_and_zero_point(
    low: float, high: float, spec: QuantSpec, scale: float, zero_point: int
) -> None:
    params = choose_params(low, high, spec)
    assert float(params.scale) == pytest.approx(scale, rel=1e-3 if scale < 1e-9 else 1e-5)
    assert int(params.zero_point) == zero_point


def test_ties_away_from_zero_give_the_originals_codes_with_its_tie_at_minus_one_half() -> None:
    params = choose_params(-1.0, 2.0, QuantSpec(bits=8))
    values = np.array([-1, -0.5, 0, 0.25, 1, 2, 3])
    assert quantize_array(values, params, ties="away").tolist() == [-128, -86, -43, -22, 42, 127, 127]


@given(low=numbers, high=numbers, bits=widths, signed=st.booleans(), symmetric=st.booleans())
def test_every_grid_has_a_positive_step_and_zero_on_it(
    low: float, high: float, bits: int, signed: bool, symmetric: bool
) -> None:
    low, high = min(low, high), max(low, high)
    spec = QuantSpec(bits=bits, signed=signed, symmetric=symmetric)
    params = choose_params(low, high, spec)
    assert params.scale > 0
    assert spec.qmin <= params.zero_point <= spec.qmax
    zero = quantize_array(np.zeros(1), params)
    assert dequantize_array(zero, params).tolist() == [0.0]


@given(low=numbers, high=numbers, bits=widths, signed=st.booleans())
def test_the_nudged_range_covers_both_bounds_to_half_a_step(low: float, high: float, bits: int, signed: bool) -> None:
    low, high = min(low, high), max(low, high)
    params = choose_params(low, high, QuantSpec(bits=bits, signed=signed))
    bounds = np.array([low, high])
    back = dequantize_array(quantize_array(bounds, params, ties="away"), params)
    assert np.abs(back - bounds).max() <= float(params.scale) * 0.501 + 1e-6 * np.abs(bounds).max()


@given(bits=st.integers(2, 16), high=st.floats(1e-3, 1e6))
def test_a_symmetric_signed_grid_has_its_zero_point_at_zero(bits: int, high: float) -> None:
    params = choose_params(-high / 3, high, QuantSpec(bits=bits, symmetric=True, narrow=True))
    assert int(params.zero_point) == 0


@given(st.lists(numbers, min_size=2, max_size=40), widths, st.sampled_from(["even", "away"]))
def test_codes_never_fall_when_values_rise(values: list[float], bits: int, ties: str) -> None:
    ordered = np.sort(np.array(values, np.float32))
    params = choose_params(ordered[0], ordered[-1], QuantSpec(bits=bits))
    codes = quantize_array(ordered, params, ties=ties).astype(int)  # type: ignore[arg-type]
    assert (np.diff(codes) >= 0).all()


@pytest.mark.parametrize("bound", [np.nan, np.inf, -np.inf])
def test_a_range_that_is_not_finite_is_refused(bound: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        choose_params(min(bound, 0.0), 1.0 if bound < 0 else bound, QuantSpec())


@pytest.mark.parametrize("bits", [-1, 0, 17])
def test_widths_outside_1_to_16_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match=f"{bits} is outside 1..16"):
        QuantSpec(bits=bits)
