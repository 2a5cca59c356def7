"""The quantized graph computes exactly what a float model with the dequantized weights computes."""

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest

from ptq_lab.errors import PlanError
from ptq_lab.graph import OPERATORS, apply_plan, find_targets, load_model, required_opset
from ptq_lab.numerics import dequantize_weight
from ptq_lab.plan import QuantPlan, make_plan, round_weights
from tests.conftest import Outputs, Run
from tests.graph.quantized import EVERYTHING, float_twin, quantized
from tests.models import FLOAT, OPERATOR_MODELS, WIRINGS, gather, matmul, model, node, random

WIDTHS = range(1, 17)
MODELS = {**OPERATOR_MODELS, **WIRINGS}

every_width = pytest.mark.parametrize("bits", WIDTHS)
each_storage = pytest.mark.parametrize("bits", [1, 2, 3, 4, 7, 8, 9, 11, 16])  # every number of parts, and natives
every_model = pytest.mark.parametrize("name", MODELS)


def difference(a: Outputs, b: Outputs) -> float:
    assert a.keys() == b.keys()
    assert all(a[name].shape == b[name].shape and a[name].dtype == b[name].dtype for name in a)
    return max(float(np.abs(a[name].astype(float) - b[name].astype(float)).max(initial=0.0)) for name in a)


def one_lookup(count: int | str) -> onnx.ModelProto:
    inputs = {"i": (int(onnx.TensorProto.INT64), (count,))}
    return model([node("Gather", ["t", "i"], ["y"])], inputs, ["y"], {"t": random(9, 5)})


def test_every_operator_of_the_table_has_a_model_here() -> None:
    assert {name.split("-")[0] for name in OPERATOR_MODELS} == set(OPERATORS)


@every_width
@every_model
def test_outputs_equal_those_of_the_float_twin_to_the_last_bit(name: str, bits: int, run: Run) -> None:
    tiny = MODELS[name]()
    original, result, plan = quantized(tiny.proto, bits)
    assert {entry.tensor: entry.channel_axis for entry in plan.entries} == dict(tiny.weights)
    twin = float_twin(original, plan)
    # Rows of a float16 table: onnxruntime takes out the pair of casts behind them, so they keep more digits.
    limit = 4e-3 if name == "float16" else 0.0
    assert difference(run(result, tiny.feeds), run(twin, tiny.feeds)) <= limit


@pytest.mark.parametrize("bits", [1, 3, 4, 8, 11, 16])
@every_model
def test_outputs_agree_without_optimisations_as_well(name: str, bits: int, run: Run) -> None:
    tiny = MODELS[name]()
    original, result, plan = quantized(tiny.proto, bits)
    plain = run(result, tiny.feeds, optimize="off")
    twin = run(float_twin(original, plan), tiny.feeds, optimize="off")
    size = max(float(np.abs(value).max(initial=1.0)) for value in twin.values())
    assert difference(plain, twin) <= (1e-4 if "float16" not in name else 1e-2) * size


@pytest.mark.parametrize("bits", [1, 2, 5, 8, 13])
@pytest.mark.parametrize("per_channel", [False, True], ids=["per tensor", "per channel"])
@pytest.mark.parametrize("correct", [False, True], ids=["plain", "corrected"])
@pytest.mark.parametrize("name", ["Conv", "Gather", "Gather-tied", "MatMul", "ConvTranspose"])
def test_granularity_and_correction_decode_exactly_too(
    name: str, bits: int, per_channel: bool, correct: bool, run: Run
) -> None:
    tiny = MODELS[name]()
    original, result, plan = quantized(tiny.proto, bits, per_channel=per_channel, correct=correct)
    assert difference(run(result, tiny.feeds), run(float_twin(original, plan), tiny.feeds)) == 0.0


@pytest.mark.parametrize("basic_bits", [3, 8])
def test_everything_folds_at_the_basic_level(basic_bits: int, run: Run) -> None:
    tiny = matmul()
    original, result, plan = quantized(tiny.proto, basic_bits)
    basic = run(result, tiny.feeds, optimize="basic")
    assert difference(basic, run(float_twin(original, plan), tiny.feeds, optimize="basic")) == 0.0


@pytest.mark.parametrize("bits", [1, 4, 7, 8, 12, 16])
@every_model
def test_names_stay_and_the_input_model_is_not_touched(name: str, bits: int) -> None:
    tiny = MODELS[name]()
    original = load_model(tiny.proto)
    before, given = original.serialize(), tiny.proto.SerializeToString(deterministic=True)
    plan = quantized(original, bits)[2]
    result = apply_plan(original, plan)
    assert tiny.proto.SerializeToString(deterministic=True) == given  # before serialize() could repair it
    assert original.serialize() == before
    old, new = onnx.load_from_string(before), onnx.load_from_string(result.serialize())
    assert [value.name for value in new.graph.input] == [value.name for value in old.graph.input]
    assert [value.name for value in new.graph.output] == [value.name for value in old.graph.output]
    kept = {n.name for n in old.graph.node} - {n.name for n in old.graph.node if n.output[0] in tiny.weights}
    assert kept <= {n.name for n in new.graph.node}
    made = {out for n in new.graph.node for out in n.output} | {array.name for array in new.graph.initializer}
    wanted = {out for n in old.graph.node for out in n.output if n.output[0] not in tiny.weights}
    assert wanted <= made


@each_storage
@every_model
def test_the_result_is_a_valid_model_of_the_opset_that_its_storage_needs(name: str, bits: int) -> None:
    tiny = MODELS[name]()
    original, result, plan = quantized(tiny.proto, bits)
    assert result.opset == max(original.opset, required_opset(plan))
    proto = onnx.load_from_string(result.serialize())
    onnx.checker.check_model(proto, full_check=True)
    names = Counter(n.name for n in proto.graph.node)
    assert names.most_common(1)[0][1] == 1


@each_storage
@every_model
def test_stored_bytes_are_those_the_plan_announces_and_none_is_a_dequantize_linear(name: str, bits: int) -> None:
    tiny = MODELS[name]()
    _, result, plan = quantized(tiny.proto, bits)
    assert not [n for n in result.graph if n.op_type in ("DequantizeLinear", "DynamicQuantizeLSTM")]
    stored = {name: value.const_value for name, value in result.graph.initializers.items()}
    for entry in plan.entries:
        mine = [t for key, t in stored.items() if key.startswith((f"{entry.tensor}.",)) and t is not None]
        others = [e.tensor for e in plan.entries if e.tensor.startswith(f"{entry.tensor}.")]
        mine = [t for t in mine if not any((t.name or "").startswith(f"{other}.") for other in others)]
        assert sum(t.nbytes for t in mine) == entry.bytes_after
        assert entry.tensor not in stored


def test_a_table_is_decoded_after_the_lookup_row_by_row(run: Run) -> None:
    tiny = gather()
    _, result, _ = quantized(tiny.proto, 5)
    decoded = [n.outputs[0].shape for n in result.graph if n.op_type == "Gather"]
    assert len(decoded) == 16  # two parts, scale and offset for each of the four lookups
    assert not [n for n in result.graph if n.op_type in ("BitShift", "Cast") and n.inputs[0].is_initializer()]  # type: ignore[union-attr]


@pytest.mark.parametrize("bits", [3, 8, 9])
def test_a_lookup_without_any_index_gives_no_rows(bits: int, run: Run) -> None:
    proto = model(
        [node("Gather", ["t", "i"], ["y"])], {"i": (onnx.TensorProto.INT64, ("n",))}, ["y"], {"t": random(9, 5)}
    )
    result = quantized(proto, bits)[1]
    assert run(result, {"i": np.zeros(0, np.int64)})["y"].shape == (0, 5)


@pytest.mark.parametrize("bits", [2, 4, 8, 11])
def test_lookups_of_unknown_rank_and_along_columns_decode_the_whole_table(bits: int, run: Run) -> None:
    nodes = [
        node("Reshape", ["i", "shape"], ["j"]),
        node("Gather", ["t", "j"], ["a"]),
        node("Gather", ["t", "j"], ["b"], axis=1),
    ]
    kind = int(onnx.TensorProto.INT64)
    inputs: dict[str, tuple[int, tuple[int | str, ...]]] = {"i": (kind, (4,)), "shape": (kind, ("r",))}
    proto = model(nodes, inputs, ["a", "b"], {"t": random(9, 5)})
    feeds = {"i": np.array([0, 1, -1, 4]), "shape": np.array([2, 2])}
    original, result, plan = quantized(proto, bits)
    assert difference(run(result, feeds), run(float_twin(original, plan), feeds)) == 0.0


@pytest.mark.parametrize("bits", [1, 4, 8, 11])
def test_a_table_whose_rows_are_looked_up_and_whose_columns_are_cut_serves_both(bits: int, run: Run) -> None:
    nodes = [
        node("Gather", ["t", "i"], ["rows"]),
        node("Identity", ["t"], ["same"]),
        node("Gather", ["same", "i"], ["again"]),
        node("Slice", ["t", "start", "end", "axis"], ["columns"]),
    ]
    numbers = {"start": np.array([1]), "end": np.array([3]), "axis": np.array([1])}
    inputs = {"i": (int(onnx.TensorProto.INT64), (3,))}
    proto = model(nodes, inputs, ["rows", "again", "columns"], {"t": random(9, 5), **numbers})
    feeds = {"i": np.array([1, 8, -1])}
    original, result, plan = quantized(proto, bits)
    assert [entry.by_row for entry in plan.entries] == [True]
    assert difference(run(result, feeds), run(float_twin(original, plan), feeds)) == 0.0


@pytest.mark.parametrize(
    ("numbers", "cut", "reason"),
    [
        (np.triu(np.full((40, 40), -np.inf, np.float32), 1), 0, "it holds infinite values, as masks do"),
        (random(40, 40), 1, "Slice is not an operator whose weights are known"),
        (random(2, 40, 40), 0, "Slice is not an operator whose weights are known"),
    ],
    ids=["mask", "columns", "three axes"],
)
def test_what_is_cut_and_no_table_of_numbers_stays_float_with_its_reason(numbers: Any, cut: int, reason: str) -> None:
    ends = {"start": np.array([0]), "end": np.array([7]), "axis": np.array([cut])}
    proto = model([node("Slice", ["t", *ends], ["y"])], {}, ["y"], {"t": numbers, **ends})
    found = find_targets(load_model(proto), EVERYTHING)
    assert not found.targets
    assert [(skip.tensor, skip.op_type, skip.reason) for skip in found.skips] == [("t", "Slice", reason)]


def test_a_table_that_a_subgraph_captures_is_decoded_for_it_as_a_whole(run: Run) -> None:
    value = onnx.helper.make_tensor_value_info
    then = onnx.helper.make_graph([node("Gather", ["table", "i"], ["t"])], "then", [], [value("t", FLOAT, None)])
    other = onnx.helper.make_graph([node("Identity", ["h"], ["e"])], "else", [], [value("e", FLOAT, None)])
    nodes = [
        node("Gather", ["table", "i"], ["h"]),
        node("If", ["flag"], ["y"], then_branch=then, else_branch=other),
    ]
    inputs = {"i": (int(onnx.TensorProto.INT64), (3,)), "flag": (int(onnx.TensorProto.BOOL), ())}
    original, result, plan = quantized(model(nodes, inputs, ["y", "h"], {"table": random(9, 5)}), 5)
    for flag in (True, False):
        feeds = {"i": np.array([1, 8, -1]), "flag": np.array(flag)}
        assert difference(run(result, feeds), run(float_twin(original, plan), feeds)) == 0.0


def test_weights_and_plans_that_do_not_fit_are_refused() -> None:
    original, _, plan = quantized(matmul().proto, 8)
    with pytest.raises(PlanError, match="the model has no weight named"):
        apply_plan(load_model(gather().proto), plan)
    undecided = make_plan(find_targets(original, EVERYTHING), bits=8)
    with pytest.raises(PlanError, match="run round_weights first"):
        apply_plan(original, undecided)


def test_mixed_widths_in_one_model_decode_exactly(run: Run) -> None:
    tiny = matmul()
    original = load_model(tiny.proto)
    plan = quantized(original, 8)[2].with_bits({"b": 3, "a": 12})
    plan = round_weights(plan, original.weight)
    result = apply_plan(original, plan)
    assert difference(run(result, tiny.feeds), run(float_twin(original, plan), tiny.feeds)) == 0.0


def test_an_empty_plan_changes_nothing_but_the_object() -> None:
    original = load_model(matmul().proto)
    result = apply_plan(original, QuantPlan(()))
    assert result is not original
    assert result.serialize() == original.serialize()


def test_sub_graph_names_are_never_shadowed() -> None:
    tiny = WIRINGS["branches"]()
    inner = tiny.proto.graph.node[1].attribute[1].g
    inner.node[0].output[0], inner.output[0].name = "q0", "q0"
    inner.initializer[0].name = inner.node[0].input[1] = "k1"
    result = quantized(tiny.proto, 8)[1]
    outer = onnx.load_from_string(result.serialize()).graph
    names = {out for n in outer.node for out in n.output} | {array.name for array in outer.initializer}
    assert not names & {"q0", "k1"}


def test_dequantized_weights_are_what_the_graph_decodes(run: Run) -> None:
    proto = model(
        [node("Gather", ["t", "i"], ["y"])], {"i": (onnx.TensorProto.INT64, (9,))}, ["y"], {"t": random(9, 5)}
    )
    _, result, plan = quantized(proto, 6)
    weight = plan["t"].weight
    assert weight is not None
    assert np.array_equal(run(result, {"i": np.arange(9)})["y"], dequantize_weight(weight))
