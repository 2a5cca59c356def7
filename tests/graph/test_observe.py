"""Observed models give what the inner tensors hold, and leave the model they were made from alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from ptq_lab.errors import ModelError
from ptq_lab.graph import Model, load_model, observe
from tests import models
from tests.conftest import Run
from tests.models import node

FLOAT16, DOUBLE, INT64 = onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.INT64


def chain(*, opset: int = 17, kind: int = models.FLOAT, typed: bool = True) -> Model:
    """``x (2, 3, 4, 5) -> Relu -> r -> Mul -> m -> Flatten -> y``, and the shape of r as a second output."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
    nodes = [
        node("Relu", ["x"], ["r"]),
        node("Mul", ["r", "k"], ["m"]),
        node("Flatten", ["m"], ["y"]),
        node("Shape", ["r"], ["s"]),
    ]
    proto = models.model(
        nodes, {"x": (kind, ("n", 3, 4, 5))}, {"y": kind, "s": INT64}, {"k": np.array(-2, dtype)}, opset=opset
    )
    return load_model(onnx.shape_inference.infer_shapes(proto) if typed else proto)


@pytest.fixture
def feeds() -> dict[str, NDArray[np.float32]]:
    return {"x": models.random(2, 3, 4, 5, seed=7)}


def expected(x: NDArray[Any]) -> dict[str, NDArray[Any]]:
    r = np.maximum(x, 0)
    return {"x": x, "r": r, "m": r * -2, "y": (r * -2).reshape(2, -1)}


@pytest.mark.parametrize("typed", [True, False])
def test_inner_tensors_inputs_and_outputs_come_out_as_they_are(run: Run, feeds: Any, typed: bool) -> None:
    observed, outputs = observe(chain(typed=typed), ["m", "x", "r", "y"])
    got = run(observed, feeds)

    assert list(outputs) == ["m", "x", "r", "y"]
    assert sorted(got) == sorted(name for (name,) in outputs.values())
    for tensor, (name,) in outputs.items():
        np.testing.assert_array_equal(got[name], expected(feeds["x"])[tensor])


@pytest.mark.parametrize("opset", [9, 11, 12, 13, 17, 18, 21])
@pytest.mark.parametrize("typed", [True, False])
def test_reduced_tensors_come_out_as_minimum_maximum_sum_and_size(
    run: Run, feeds: Any, opset: int, typed: bool
) -> None:
    observed, outputs = observe(chain(opset=opset, typed=typed), ["x", "m", "y"], reduce=True)
    onnx.checker.check_model(onnx.load_from_string(observed.serialize()), full_check=True)
    got = run(observed, feeds)

    for tensor, names in outputs.items():
        values = expected(feeds["x"])[tensor]
        low, high, total, size = (got[name] for name in names)
        assert (low.shape, high.shape, total.shape) == ((), (), ())
        assert (low, high, size) == (values.min(), values.max(), values.size)
        assert total == pytest.approx(values.sum(dtype=np.float64), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("opset", [12, 17, 18])
def test_extremes_per_channel_are_those_along_axis_1(run: Run, feeds: Any, opset: int) -> None:
    model = chain(opset=opset, typed=False)
    observed, outputs = observe(model, ["r", "y"], reduce=True, channel_ranks={"r": 4, "y": 2})
    got = run(observed, feeds)

    for tensor, axes in {"r": (0, 2, 3), "y": (0,)}.items():
        values = expected(feeds["x"])[tensor]
        low, high, total, _ = (got[name] for name in outputs[tensor])
        np.testing.assert_array_equal(low, values.min(axis=axes))
        np.testing.assert_array_equal(high, values.max(axis=axes))
        assert total == pytest.approx(values.sum(dtype=np.float64), rel=1e-5)


@pytest.mark.parametrize("kind", [FLOAT16, DOUBLE])
@pytest.mark.parametrize("reduce", [True, False])
def test_other_floats_come_out_as_float32(run: Run, kind: int, reduce: bool) -> None:
    model = chain(kind=kind)
    x = models.random(2, 3, 4, 5).astype(model.inputs[0].dtype)
    observed, outputs = observe(model, ["x", "m"], reduce=reduce)
    got = run(observed, {"x": x})

    for tensor, names in outputs.items():
        values = expected(x)[tensor].astype(np.float32)
        assert all(got[name].dtype == np.float32 for name in names[:3])
        np.testing.assert_array_equal(got[names[0]], values.min() if reduce else values)


def test_a_nan_that_the_extremes_pass_over_shows_in_the_sum(run: Run, feeds: Any) -> None:
    feeds["x"][1, 2, 3, 1] = np.nan
    observed, outputs = observe(chain(), ["x"], reduce=True)
    low, high, total, _ = (run(observed, feeds)[name] for name in outputs["x"])

    assert np.isnan(total)
    assert np.isfinite([low, high]).all(), "onnxruntime reports NaN now: the sum is not needed any more"


def test_the_models_own_outputs_stay_if_they_are_to_stay(run: Run, feeds: Any) -> None:
    observed, _ = observe(chain(), ["r", "y"], drop_outputs=False)

    assert sorted(run(observed, feeds)) == ["r", "s", "y"]


def test_the_model_itself_is_not_changed() -> None:
    model = chain(typed=False)
    before = model.serialize()

    observe(model, ["x", "m"], reduce=True)

    assert model.serialize() == before


def test_a_tensor_asked_for_twice_comes_out_once() -> None:
    observed, outputs = observe(chain(), ["r", "r"])

    assert (outputs, len(observed.outputs)) == ({"r": ("r",)}, 1)


def test_new_names_hide_none_of_the_models_own(run: Run) -> None:
    taken = models.model([node("Relu", ["q0"], ["q1"]), node("Neg", ["q1"], ["q2"])], {"q0": (4,)}, ["q2"])
    observed, outputs = observe(load_model(taken), ["q0", "q1", "q2"], reduce=True)
    got = run(observed, {"q0": np.array([-1, 2, 3, -4], np.float32)})

    assert {tensor: float(got[names[1]]) for tensor, names in outputs.items()} == {"q0": 3, "q1": 3, "q2": 0}


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        ("rr", r"no tensor called 'rr' in its main graph; did you mean r\?"),
        ("nothing like it", "no tensor called 'nothing like it' in its main graph$"),
        ("k", "k is a constant"),
        ("s", "s is of type int64; only float"),
    ],
)
@pytest.mark.parametrize("typed", [True, False])
def test_what_cannot_be_observed_is_refused_with_the_reason(tensor: str, said: str, typed: bool) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        observe(chain(typed=typed), ["r", tensor])

    assert caught.value.tensor == tensor


def test_observing_behind_the_activation_keeps_it_fused(run: Run, tmp_path: Any) -> None:
    import onnxruntime

    tiny = models.conv_relu()
    observed, _ = observe(load_model(tiny.proto), ["x", "y"], reduce=True)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 3
    onnxruntime.InferenceSession(observed.serialize(), options, providers=["CPUExecutionProvider"])

    kinds = [one.op_type for one in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert "FusedConv" in kinds
    assert "Relu" not in kinds
