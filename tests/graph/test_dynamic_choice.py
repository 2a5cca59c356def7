"""Which products become integer at run time, which tables are stored as codes, and the reason for all the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from ptq_lab.errors import ConfigError
from ptq_lab.graph import find_dynamic, load_model
from ptq_lab.graph.dynamic import DynamicTargets
from tests.graph.products import multiplied
from tests.models import (
    OPERATOR_MODELS,
    Shape,
    Tiny,
    conv_relu,
    conv_transpose,
    gather_columns,
    half_precision,
    matmul,
    model,
    node,
    random,
    recurrent,
    sliced,
    tied_embedding,
)

INTEGERS = int(onnx.TensorProto.INT64)


def find(tiny: Tiny | onnx.ModelProto, *skip: str, pairs: bool = True) -> DynamicTargets:
    return find_dynamic(load_model(tiny.proto if isinstance(tiny, Tiny) else tiny), skip, pairs=pairs)


def reasons(found: DynamicTargets) -> dict[str, str]:
    return {skip.tensor: skip.reason for skip in found.skips}


def attention(names: tuple[str, str] = ("scores", "mix")) -> onnx.ModelProto:
    """Two projections, their scores, and what they mix."""
    nodes = [
        node("MatMul", ["x", "q"], ["a"], name="/attention/q/MatMul"),
        node("MatMul", ["x", "k"], ["b"], name="/attention/k/MatMul"),
        node("MatMul", ["a", "b"], ["s"], name=f"/attention/{names[0]}/MatMul"),
        node("MatMul", ["s", "a"], ["y"], name=f"/attention/{names[1]}/MatMul"),
    ]
    return model(nodes, {"x": (6, 8)}, ["y"], {"q": random(8, 6), "k": random(8, 6, seed=2)})


@pytest.mark.parametrize(
    ("tiny", "words"),
    [
        (conv_relu(), "ConvInteger) is slower"),
        (conv_transpose(), "no transposed convolution of integers"),
        (recurrent("LSTM"), "no LSTM of integers"),
        (recurrent("GRU"), "no GRU of integers"),
        (recurrent("RNN"), "no RNN of integers"),
        (gather_columns(), "only a matrix whose rows are looked up"),
    ],
    ids=["Conv", "ConvTranspose", "LSTM", "GRU", "RNN", "Gather along columns"],
)
def test_operators_without_integers_say_so(tiny: Tiny, words: str) -> None:
    found = find(tiny)
    assert not found.layers
    assert not found.weights
    assert set(reasons(found)) == set(tiny.weights)
    assert all(words in reason for reason in reasons(found).values())


def test_every_operator_with_weights_becomes_integer_or_has_a_reason() -> None:
    for name, build in OPERATOR_MODELS.items():
        tiny = build()
        found = find(tiny)
        assert set(tiny.weights) == {target.tensor for target in found.weights} | set(reasons(found)), name


def test_a_constant_on_the_left_stays_float_and_one_on_the_right_does_not() -> None:
    found = find(matmul())
    assert [layer.weight for layer in found.layers] == ["b", "batched"]
    assert reasons(found) == {"a": "it is the left operand, and activations are quantized there"}


def test_a_weight_that_multiplies_a_constant_stays_float() -> None:
    nodes = [node("MatMul", ["c", "w"], ["h"]), node("Add", ["x", "h"], ["y"])]
    found = find(model(nodes, {"x": (3, 5)}, ["y"], {"c": random(3, 4), "w": random(4, 5)}))
    assert not found.layers
    assert reasons(found)["w"] == "it multiplies a constant"


def test_a_weight_on_both_sides_stays_float_and_the_reason_names_the_node() -> None:
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("MatMul", ["w", "h"], ["y"])]
    found = find(model(nodes, {"x": (6, 6)}, ["y"], {"w": random(6, 6)}))
    assert not found.layers
    reason = "/y/MatMul uses it as well: it is the left operand, and activations are quantized there"
    assert reasons(found) == {"w": reason}


def test_float16_products_stay_float_and_a_float16_table_does_not() -> None:
    found = find(half_precision())
    assert not found.layers
    assert [target.tensor for target in found.weights] == ["table"]
    assert "is computed in FLOAT16, and integers replace float32" in reasons(found)["w"]


def test_rows_that_are_cut_out_are_looked_up_as_codes_and_columns_are_not() -> None:
    assert [target.by_row for target in find(sliced()).weights] == [True]
    ends = {"start": np.array([0]), "end": np.array([7]), "axis": np.array([1])}
    proto = model([node("Slice", ["t", *ends], ["y"])], {}, ["y"], {"t": random(40, 40), **ends})
    found = find(proto)
    assert not found.weights
    assert reasons(found) == {"t": "Slice is not an operator whose weights are known"}


def test_a_mask_of_infinities_stays_float() -> None:
    mask = np.triu(np.full((40, 40), -np.inf, np.float32), 1)
    ends = {"start": np.array([0]), "end": np.array([7])}
    found = find(model([node("Slice", ["m", *ends], ["y"])], {}, ["y"], {"m": mask, **ends}))
    assert not found.weights
    assert reasons(found) == {"m": "it holds infinite values, as masks do"}


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("/attention/q/MatMul", {"k"}),
        ("/attention/?/*", set()),
        ("re:.*/k/.*", {"q"}),
        ("type:MatMul", set()),
    ],
)
def test_a_pattern_keeps_products_in_float_and_is_named(pattern: str, left: set[str]) -> None:
    found = find(attention(), pattern)
    assert {layer.weight for layer in found.layers} - {""} == left
    skipped = [skip for skip in found.skips if skip.setting]
    assert {skip.setting for skip in skipped} == {f"skip_quant_node={pattern}"}
    assert {skip.tensor for skip in skipped} >= {"q", "k"} - left


def test_a_pattern_keeps_a_product_of_two_activations_in_float() -> None:
    found = find(attention(), "/attention/scores/MatMul")
    assert [layer.node for layer in found.layers if not layer.weight] == ["/attention/mix/MatMul"]
    assert [(skip.node, skip.setting) for skip in found.skips] == [
        ("/attention/scores/MatMul", "skip_quant_node=/attention/scores/MatMul")
    ]


def test_a_pattern_that_matches_nothing_is_a_problem() -> None:
    assert [problem.key for problem in find(attention(), "/atention/q/MatMul").problems] == ["skip_quant_node"]


def test_two_activations_are_multiplied_as_integers_for_alwc_only() -> None:
    with_pairs, without = find(attention()), find(attention(), pairs=False)
    assert [(layer.sources, layer.weight) for layer in with_pairs.layers] == [
        (("x",), "q"),
        (("x",), "k"),
        (("a", "b"), ""),
        (("s", "a"), ""),
    ]
    assert [layer.weight for layer in without.layers] == ["q", "k"]
    assert {(skip.reason, skip.setting) for skip in without.skips} == {
        ("it multiplies two activations; only ALWC quantizes both", "quant_strategy")
    }


@pytest.mark.parametrize(("strategy", "layers"), [("ALWC", 4), ("ACWL", 2), ("ACWC", 2)])
def test_the_strategies_differ_in_pairs_rows_and_columns(strategy: str, layers: int) -> None:
    result, plan = multiplied(attention(), strategy)
    assert plan.dynamic is not None
    assert (plan.dynamic.strategy, len(plan.dynamic.layers)) == (strategy, layers)
    assert {entry.axis for entry in plan.entries} == {None if strategy == "ACWL" else 1}
    floats = [n.name for n in result.graph if n.op_type == "MatMul"]
    assert len(floats) == 4 - layers


@pytest.mark.parametrize("inputs", [{"x": (6, 8)}, {"x": (INTEGERS, (6, 8))}], ids=["float", "integer"])
def test_products_of_integers_and_lookups_of_integers_are_nothing_to_report(inputs: dict[str, Any]) -> None:
    nodes = [node("Cast", ["x"], ["c"], to=INTEGERS), node("Gather", ["sizes", "c"], ["y"])]
    found = find(model(nodes, inputs, {"y": INTEGERS}, {"sizes": np.arange(40).reshape(20, 2)}))
    assert found == DynamicTargets((), ())


def test_double_precision_stays_float() -> None:
    kind = int(onnx.TensorProto.DOUBLE)
    double: dict[str, tuple[int, Shape]] = {"x": (kind, (3, 5))}
    proto = model([node("MatMul", ["x", "w"], ["y"])], double, {"y": kind}, {"w": random(5, 4).astype(np.float64)})
    found = find(proto)
    assert not found.layers
    assert reasons(found) == {"w": "float64 weights are not quantized"}


@pytest.mark.parametrize("strategy", ["ALWC", "ACWL", "ACWC"])
def test_a_tied_embedding_is_one_table_with_a_scale_per_row(strategy: str) -> None:
    result, plan = multiplied(tied_embedding().proto, strategy)
    assert [(entry.tensor, entry.axis, entry.by_row, entry.symmetric) for entry in plan.entries] == [
        ("table", 0, True, True)
    ]
    kept = {name: value.const_value for name, value in result.graph.initializers.items()}
    tables = {name: tensor.dtype.name for name, tensor in kept.items() if tensor is not None and tensor.size == 60}
    assert tables == {"table.codes": "INT8"}


def test_a_table_that_nothing_multiplies_has_an_offset_too() -> None:
    nodes = [node("Gather", ["t", "i"], ["rows"]), node("MatMul", ["rows", "w"], ["y"])]
    proto = model(nodes, {"i": (INTEGERS, (3,))}, ["y"], {"t": random(9, 8) + 2, "w": random(8, 4)})
    _, plan = multiplied(proto, "ACWL")
    assert [(entry.tensor, entry.axis, entry.symmetric) for entry in plan.entries] == [
        ("t", 0, False),
        ("w", None, True),
    ]


def test_a_model_without_a_product_is_refused_with_the_reasons() -> None:
    with pytest.raises(ConfigError, match=r"quant_type: DYNAMIC_QUANT finds no MatMul or Gemm.*Conv: .*slower") as told:
        multiplied(conv_relu().proto, "ALWC")
    assert "\n" not in str(told.value)
