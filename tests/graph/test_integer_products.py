"""Products of integers compute what their codes stand for, with onnxruntime's fusions and without."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ptq_lab.graph import load_model
from ptq_lab.runtime import optimized_model
from tests.conftest import Run
from tests.graph.products import Exact, Floats, ahead_of_time, at_run_time, multiplied
from tests.models import FLOAT, Feeds, model, node, random

STRATEGIES = ("ALWC", "ACWL", "ACWC")
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)
row_strategies = pytest.mark.parametrize("strategy", STRATEGIES[1:])
generated = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
fewer = settings(generated, max_examples=25)


@dataclass(frozen=True)
class Case:
    """A model, its inputs, what it has to give for a strategy, and the size of what is summed on the way."""

    proto: onnx.ModelProto
    feeds: Feeds
    wanted: Callable[[str], Exact]
    size: float


def uneven(shape: tuple[int, ...], seed: int) -> Floats:
    """Return numbers whose rows and columns differ in size by orders of magnitude."""
    rows = random(*shape[:-1], 1, seed=seed + 1, scale=1.5)
    columns = random(shape[-1], seed=seed + 2)
    return np.asarray(random(*shape, seed=seed) * np.exp(rows) * np.exp(columns), np.float32)


def named(shape: tuple[int, ...], free: bool, letter: str) -> tuple[int | str, ...]:
    """Return a shape as a graph declares it: with numbers, or with names that say nothing."""
    return tuple(f"{letter}{axis}" for axis in range(len(shape))) if free else shape


def check(case: Case, strategy: str, run: Run) -> None:
    """Prove (a) that onnxruntime's fusions change nothing, and (b) that the numbers are those of the codes."""
    result, _ = multiplied(case.proto, strategy)
    onnx.checker.check_model(onnx.load_from_string(result.serialize()))
    wanted = case.wanted(strategy)
    plain, fused = (run(result, case.feeds, optimize=level)["y"] for level in ("off", "all"))
    assert plain.shape == fused.shape == wanted.shape
    largest = np.abs(wanted).max()
    assert np.abs(fused - plain).max() <= 1e-3 * largest + 1e-6 * case.size
    assert np.abs(plain - wanted).max() <= 1e-4 * largest + 1e-6 * case.size
    assert np.abs(fused - wanted).max() <= 1e-4 * largest + 1e-6 * case.size


@st.composite
def batches(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two lists of leading axes that broadcast."""
    joined = draw(st.lists(st.integers(1, 3), max_size=2))
    sides = []
    for _ in range(2):
        kept = joined[draw(st.integers(0, len(joined))) :]
        sides.append(tuple(draw(st.sampled_from((size, 1))) for size in kept))
    return sides[0], sides[1]


@st.composite
def matmuls(draw: st.DrawFn) -> Case:
    """MatMul: activations of 1 to 4 axes, weights of 2 to 4, as they are or through a Transpose; a bias behind."""
    leading, batch = draw(batches())
    inner, columns, seed = draw(st.integers(1, 40)), draw(st.integers(1, 9)), draw(st.integers(0, 99))
    rank_one = not leading and draw(st.booleans())
    left = uneven((inner,) if rank_one else (*leading, draw(st.integers(1, 5)), inner), seed)
    right = uneven((*batch, inner, columns), seed + 7)
    weights, nodes, read = {"w": right}, [node("Neg", ["x"], ["n"])], "w"
    if draw(st.booleans()):
        order = [*range(right.ndim - 2), right.ndim - 1, right.ndim - 2]
        weights["w"], read = right.transpose(order).copy(), "wt"
        nodes.append(node("Transpose", ["w"], ["wt"], perm=order))
    source = draw(st.sampled_from(("x", "n")))  # an input has a declared shape, and what a node makes has none here
    bias = uneven(draw(st.sampled_from(((columns,), (1,), ()))) or (1,), seed + 9) * np.float32(10)
    if draw(st.booleans()):
        nodes += [node("MatMul", [source, read], ["h"]), node("Add", ["h", "b"], ["y"])]
        weights["b"] = bias
    else:
        nodes += [node("MatMul", [source, read], ["y"])]
        bias = np.zeros(1, np.float32)
    values = left if source == "x" else -left

    def wanted(strategy: str) -> Exact:
        return at_run_time(values, strategy) @ ahead_of_time(right, strategy) + bias

    shape = named(left.shape, draw(st.booleans()), "d")
    proto = model(nodes, {"x": shape}, ["y"], weights, opset=draw(st.integers(11, 21)), ir_version=10)
    size = float((np.abs(left) @ np.abs(right)).max() + np.abs(bias).max())
    return Case(proto, {"x": left}, wanted, size)


@st.composite
def gemms(draw: st.DrawFn) -> Case:
    """Gemm with either operand transposed, factors, and biases of every shape, constant and computed."""
    rows, inner, columns = draw(st.integers(1, 5)), draw(st.integers(1, 40)), draw(st.integers(1, 9))
    seed, turned, turned_weight = draw(st.integers(0, 99)), draw(st.booleans()), draw(st.booleans())
    alpha, beta = draw(st.sampled_from((1.0, 0.5, -3.0, 0.0))), draw(st.sampled_from((1.0, 0.25, -2.0, 0.0)))
    left, right = uneven((rows, inner), seed), uneven((inner, columns), seed + 7)
    kind = draw(st.sampled_from(("none", "constant", "computed")))
    shapes = ((columns,), (1, columns), (rows, 1), (rows, columns), (1,), ())
    bias = np.asarray(random(*draw(st.sampled_from(shapes)), seed=seed) * 100, np.float32)
    feeds: Feeds = {"x": left.T.copy() if turned else left}
    inputs: dict[str, Any] = {"x": named(feeds["x"].shape, draw(st.booleans()), "d")}
    weights = {"w": right.T.copy() if turned_weight else right}
    nodes, operands = [], ["x", "w", "b"]
    if kind == "constant":
        weights["b"] = bias
    elif kind == "computed":
        feeds["c"], inputs["c"] = np.asarray(-bias), bias.shape
        nodes.append(node("Neg", ["c"], ["b"]))
    else:
        operands, bias = operands[:2], np.zeros((), np.float32)
    attributes: dict[str, Any] = {"alpha": alpha, "beta": beta, "transA": int(turned), "transB": int(turned_weight)}
    nodes.append(node("Gemm", operands, ["y"], **attributes))

    def wanted(strategy: str) -> Exact:
        return alpha * (at_run_time(left, strategy) @ ahead_of_time(right, strategy)) + beta * bias.astype(float)

    proto = model(nodes, inputs, ["y"], weights, opset=draw(st.integers(11, 21)), ir_version=10)
    size = float(abs(alpha) * (np.abs(left) @ np.abs(right)).max() + np.abs(beta * bias).max())
    return Case(proto, feeds, wanted, size)


@st.composite
def pairs(draw: st.DrawFn) -> Case:
    """Two activations: attention scores, or a Gemm of both, and a mask or bias added."""
    seed, inner = draw(st.integers(0, 99)), draw(st.integers(1, 20))
    leading, batch = draw(batches())
    left = uneven((*leading, draw(st.integers(1, 5)), inner), seed)
    right = uneven((*batch, inner, draw(st.integers(1, 5))), seed + 7)
    alpha, free = 1.0, draw(st.booleans())
    feeds = {"x": left, "z": right}
    if left.ndim == right.ndim == 2 and draw(st.booleans()):
        alpha = draw(st.sampled_from((1.0, -0.5)))
        feeds = {"x": left.T.copy(), "z": right.T.copy()}
        nodes = [node("Gemm", ["x", "z"], ["y"], transA=1, transB=1, alpha=alpha)]
    else:
        nodes = [node("MatMul", ["x", "z"], ["y"])]
    inputs = {name: named(value.shape, free, name) for name, value in feeds.items()}
    bias = random(right.shape[-1], seed=seed) * draw(st.sampled_from((0, 100)))
    nodes[-1].output[0] = "h"
    nodes.append(node("Add", ["h", "b"], ["y"]))
    proto = model(nodes, inputs, ["y"], {"b": bias}, opset=draw(st.integers(11, 21)), ir_version=10)

    def wanted(strategy: str) -> Exact:
        return alpha * (at_run_time(left, strategy) @ at_run_time(right, strategy)) + bias

    return Case(proto, feeds, wanted, float((np.abs(left) @ np.abs(right)).max() + np.abs(bias).max()))


@every_strategy
@generated
@given(case=matmuls())
def test_a_matmul_computes_what_its_codes_stand_for_fused_or_not(case: Case, strategy: str, run: Run) -> None:
    check(case, strategy, run)


@every_strategy
@generated
@given(case=gemms())
def test_a_gemm_computes_what_its_codes_stand_for_fused_or_not(case: Case, strategy: str, run: Run) -> None:
    check(case, strategy, run)


@fewer
@given(case=pairs())
def test_two_activations_are_multiplied_as_codes_of_both(case: Case, run: Run) -> None:
    check(case, "ALWC", run)


def product(values: Floats, weights: Floats, bias: Floats | None = None) -> onnx.ModelProto:
    """Return a model of one product, with free axes and, if given, an Add behind."""
    shape = (*(f"d{axis}" for axis in range(values.ndim - 1)), values.shape[-1])
    if bias is None:
        return model([node("MatMul", ["x", "w"], ["y"])], {"x": shape}, ["y"], {"w": weights})
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Add", ["h", "b"], ["y"])]
    return model(nodes, {"x": shape}, ["y"], {"w": weights, "b": bias})


@every_strategy
def test_a_bias_behind_rows_of_unequal_size_is_added_after_their_scales(strategy: str, run: Run) -> None:
    values = random(6, 40) * np.logspace(-4, 4, 6, dtype=np.float32)[:, None]
    weights, bias = random(40, 8), random(8, seed=3) * 10
    result, _ = multiplied(product(values, weights, bias), strategy)
    fused, plain = (run(result, {"x": values}, optimize=level)["y"] for level in ("all", "off"))
    assert (np.abs(fused - plain).max(axis=1) <= 1e-4 * np.abs(plain).max(axis=1)).all()
    if strategy != "ALWC":
        exact = values.astype(float) @ weights + bias
        assert (np.abs(fused - exact).max(axis=1) <= 0.02 * np.abs(exact).max(axis=1)).all()


@every_strategy
def test_no_float_product_is_left_when_onnxruntime_has_loaded_the_model(strategy: str) -> None:
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Relu", ["h"], ["r"]), node("Gemm", ["r", "v", "b"], ["y"])]
    proto = model(nodes, {"x": ("n", 16)}, ["y"], {"w": random(16, 8), "v": random(8, 4), "b": random(4)})
    seen = Counter(n.op_type for n in optimized_model(multiplied(proto, strategy)[0]).graph)
    integers = ("DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat")
    assert sum(seen[name] for name in integers) == 2
    assert not {"MatMul", "Gemm", "FusedMatMul", "MatMulNBits", "Transpose"} & set(seen)


@every_strategy
def test_an_activation_that_two_products_read_is_quantized_once(strategy: str, run: Run) -> None:
    nodes = [node("MatMul", ["x", "q"], ["a"]), node("MatMul", ["x", "k"], ["b"]), node("Add", ["a", "b"], ["y"])]
    weights = {"q": random(12, 5), "k": random(12, 5, seed=2)}
    values = uneven((2, 3, 12), 5)
    proto = model(nodes, {"x": ("n", "t", 12)}, ["y"], weights)
    result, _ = multiplied(proto, strategy)
    made = Counter(n.op_type for n in result.graph)
    assert made["DynamicQuantizeLinear"] + made["QuantizeLinear"] == 1
    left = at_run_time(values, strategy)
    wanted = left @ ahead_of_time(weights["q"], strategy) + left @ ahead_of_time(weights["k"], strategy)
    assert np.abs(run(result, {"x": values})["y"] - wanted).max() <= 1e-4 * np.abs(wanted).max()


@every_strategy
def test_an_activation_times_itself_and_a_weight_is_quantized_once(strategy: str, run: Run) -> None:
    nodes = [node("MatMul", ["x", "x"], ["s"]), node("MatMul", ["x", "w"], ["h"]), node("Add", ["s", "h"], ["y"])]
    values, weight = uneven((6, 6), 5), random(6, 6)
    result, _ = multiplied(model(nodes, {"x": (6, 6)}, ["y"], {"w": weight}), strategy)
    left = at_run_time(values, strategy)
    squared = left @ left if strategy == "ALWC" else values.astype(float) @ values
    wanted = squared + left @ ahead_of_time(weight, strategy)
    assert np.abs(run(result, {"x": values})["y"] - wanted).max() <= 1e-4 * np.abs(wanted).max()


@every_strategy
@pytest.mark.parametrize("turned", [False, True], ids=["twice as it is", "as it is and transposed"])
def test_a_weight_that_two_products_read_is_stored_once_with_scales_that_fit_both(
    strategy: str, turned: bool, run: Run
) -> None:
    weight = uneven((9, 9), 3)  # rows and columns of very different sizes: scales along the wrong axis would show
    second = [node("Transpose", ["w"], ["wt"]), node("MatMul", ["h", "wt"], ["y"])]
    nodes = [node("MatMul", ["x", "w"], ["h"]), *(second if turned else [node("MatMul", ["h", "w"], ["y"])])]
    values = random(4, 9, seed=8)
    result, plan = multiplied(model(nodes, {"x": (4, 9)}, ["y"], {"w": weight}), strategy)
    assert [entry.axis for entry in plan.entries] == [None if turned or strategy == "ACWL" else 1]
    assert [(tensor.dtype.name, tuple(tensor.shape)) for tensor in stored(result)] == [("INT8", (9, 9))]
    decoded = ahead_of_time(weight, strategy, whole=turned)
    hidden = (at_run_time(values, strategy) @ decoded).astype(np.float32)
    wanted = at_run_time(hidden, strategy) @ (decoded.T if turned else decoded)
    # a code of the hidden activation may fall to the other side where its last digit decides
    assert np.abs(run(result, {"x": values})["y"] - wanted).max() <= 1e-2 * np.abs(wanted).max()


@every_strategy
@pytest.mark.parametrize("turned", [False, True], ids=["as it is", "through a Transpose"])
@pytest.mark.parametrize("same", [False, True], ids=["directly", "through an Identity"])
def test_a_table_that_is_looked_up_and_multiplied_is_stored_once(
    strategy: str, turned: bool, same: bool, run: Run
) -> None:
    table = uneven((30, 12), 3)
    nodes = [node("Identity", ["table"], ["same"])] if same else []
    nodes.append(node("Gather", ["same" if same else "table", "i"], ["rows"]))
    nodes += [node("Transpose", ["table"], ["tt"], perm=[1, 0])] if turned else []
    nodes.append(node("MatMul", ["x", "tt" if turned else "table"], ["y"]))
    values, picks = random(4, 12 if turned else 30, seed=8), np.array([0, 29, -2])
    inputs: dict[str, Any] = {"i": (int(onnx.TensorProto.INT64), (3,)), "x": values.shape}
    result, plan = multiplied(model(nodes, inputs, ["y", "rows"], {"table": table}), strategy)
    assert sum(tensor.nbytes for tensor in stored(result)) == plan["table"].bytes_after
    got = run(result, {"x": values, "i": picks})
    assert np.abs(got["rows"] - table[picks]).max() <= np.abs(table).max() / 250
    right = table.T if turned else table
    # rows of the table are columns of the transposed product: ACWL may keep their scales then
    weights = [ahead_of_time(right, strategy, whole=False)] + [ahead_of_time(right, "ACWC")] * (turned)
    wanted = [at_run_time(values, strategy) @ weight for weight in weights]
    assert min(np.abs(got["y"] - one).max() for one in wanted) <= 1e-4 * np.abs(wanted[0]).max()


def stored(result: Any) -> list[Any]:
    """Return the tensors of the weights that a model stores, without the small constants of its nodes."""
    tensors = [value.const_value for value in result.graph.initializers.values()]
    return [tensor for tensor in tensors if (tensor.name or "").startswith(("table", "w", "v"))]


@every_strategy
def test_a_weight_and_a_table_that_a_subgraph_reads_too_are_decoded_for_it(strategy: str, run: Run) -> None:
    value = onnx.helper.make_tensor_value_info
    inside = [node("Gather", ["table", "i"], ["t0"]), node("MatMul", ["t0", "w"], ["t"])]
    then = onnx.helper.make_graph(inside, "then", [], [value("t", FLOAT, None)])
    other = onnx.helper.make_graph([node("Identity", ["h"], ["e"])], "else", [], [value("e", FLOAT, None)])
    nodes = [
        node("Gather", ["table", "i"], ["rows"]),
        node("MatMul", ["rows", "w"], ["h"]),
        node("If", ["flag"], ["y"], then_branch=then, else_branch=other),
    ]
    inputs: dict[str, Any] = {"i": (int(onnx.TensorProto.INT64), (3,)), "flag": (int(onnx.TensorProto.BOOL), ())}
    proto = model(nodes, inputs, ["y"], {"table": random(9, 8), "w": random(8, 8, seed=2)})
    result, plan = multiplied(proto, strategy)
    assert not [t for t in stored(result) if t.name in ("table", "w")], "the float weight is still there"
    assert sum(t.nbytes for t in stored(result)) == sum(entry.bytes_after for entry in plan.entries)
    for flag in (True, False):
        feeds = {"i": np.array([1, 8, -1]), "flag": np.array(flag)}
        got, wanted = run(result, feeds)["y"], run(proto, feeds)["y"]
        assert np.abs(got - wanted).max() <= 0.05 * np.abs(wanted).max()


@every_strategy
@pytest.mark.parametrize("rank", [2, 3], ids=["matrix", "batched"])
def test_tiny_zero_and_huge_rows_stay_finite_and_near(strategy: str, rank: int, run: Run) -> None:
    values, weights = random(5, 32), random(32, 6) if rank == 2 else random(1, 32, 6)
    values[1], values[2], values[3] = 1e-40, 0.0, values[3] * np.float32(1e36)
    result, _ = multiplied(product(values, weights), strategy)
    for level in ("all", "off"):
        got = run(result, {"x": values}, optimize=level)["y"].reshape(5, -1)
        exact = (values.astype(float) @ weights.astype(float)).reshape(5, -1)
        assert np.isfinite(got).all()
        assert not got[2].any()
        assert np.abs(got[1]).max() <= 1e-30
        near = (0, 3, 4) if strategy != "ALWC" else (3,)  # one scale for all knows nothing but the largest row
        for row in near:
            assert np.abs(got[row] - exact[row]).max() <= 0.03 * np.abs(exact[row]).max()


@every_strategy
@pytest.mark.parametrize("value", [1e-44, 1e-40, 1e-38, 1e38])
def test_an_activation_that_is_tiny_or_huge_throughout_stays_finite(strategy: str, value: float, run: Run) -> None:
    values = np.full((2, 16), value, np.float32)
    values[0, ::2] *= -1
    result, _ = multiplied(product(values, random(16, 4, scale=0.01)), strategy)
    assert all(np.isfinite(run(result, {"x": values}, optimize=level)["y"]).all() for level in ("all", "off"))


@row_strategies
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("bias", [None, random(6, seed=4)], ids=["alone", "biased"])
def test_a_row_that_is_not_finite_spoils_no_other(
    strategy: str, value: float, bias: NDArray[Any] | None, run: Run
) -> None:
    values = random(4, 32)
    result, _ = multiplied(product(values, random(32, 6), bias), strategy)
    clean = run(result, {"x": values})["y"]
    values[2, 5] = value
    for level in ("all", "off"):
        got = run(result, {"x": values}, optimize=level)["y"]
        assert np.allclose(got[[0, 1, 3]], clean[[0, 1, 3]], rtol=1e-5, atol=1e-6)


@every_strategy
def test_weights_of_zeros_give_zeros(strategy: str, run: Run) -> None:
    weights = random(16, 4)
    weights[:, 1] = 0
    for matrix in (weights, np.zeros_like(weights)):
        got = run(multiplied(product(random(3, 16), matrix), strategy)[0], {"x": random(3, 16)})["y"]
        assert np.isfinite(got).all()
        assert not got[:, 1].any()


@every_strategy
@pytest.mark.parametrize("shape", [(0, 16), (0, 5, 16), (3, 0, 16), (2, 0, 5, 16)], ids=str)
@pytest.mark.parametrize("batched", [False, True], ids=["matrix", "batched"])
@pytest.mark.parametrize("bias", [None, random(4)], ids=["alone", "biased"])
def test_an_empty_batch_or_sequence_gives_an_empty_output_of_the_right_shape(
    strategy: str, shape: tuple[int, ...], batched: bool, bias: NDArray[Any] | None, run: Run
) -> None:
    weights = random(1, 16, 4) if batched else random(16, 4)
    proto = product(np.zeros(shape, np.float32), weights, bias)
    feeds = {"x": np.zeros(shape, np.float32)}
    result, wanted = multiplied(proto, strategy)[0], run(proto, feeds)["y"].shape
    assert all(run(result, feeds, optimize=level)["y"].shape == wanted for level in ("all", "off"))


@every_strategy
def test_the_model_that_came_in_is_not_touched_and_names_stay(strategy: str) -> None:
    nodes = [
        node("Gather", ["t", "i"], ["rows"]),
        node("MatMul", ["rows", "w"], ["h"]),
        node("Gemm", ["h", "v"], ["y"], transB=1),
    ]
    inputs = {"i": (int(onnx.TensorProto.INT64), (3,))}
    proto = model(nodes, inputs, ["y", "h"], {"t": random(9, 8), "w": random(8, 8), "v": random(5, 8)})
    given, original = proto.SerializeToString(deterministic=True), load_model(proto)
    result, _ = multiplied(original, strategy)
    assert proto.SerializeToString(deterministic=True) == given
    assert {n.name for n in original.graph} <= {n.name for n in result.graph}
    assert [v.name for v in result.graph.outputs] == ["y", "h"]
    assert "rows" in {v.name for n in result.graph for v in n.outputs}
    assert result.opset == original.opset
