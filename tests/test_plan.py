"""The plan: frozen, printable, comparable, JSON-able, and edited by making a new one."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq_lab.errors import ConfigError, ModelError, PlanError
from ptq_lab.graph import Rules, Skip, find_targets, load_model
from ptq_lab.plan import QuantPlan, TensorPlan, make_plan, round_weights
from ptq_lab.progress import Step
from tests.models import conv_relu, depthwise_batchnorm, gather, matmul, model, node, random, recurrent, shared

EVERYTHING = Rules(min_channels=0)


def plan_for(tiny: object = None, *, bits: int = 8, **how: bool) -> QuantPlan:
    return make_plan(find_targets(load_model((tiny or matmul()).proto), EVERYTHING), bits=bits, **how)  # type: ignore[attr-defined]


def test_making_a_plan_reads_no_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    original = load_model(matmul().proto)

    def refuse(*_: object) -> None:
        raise AssertionError("a weight was read")

    monkeypatch.setattr("ptq_lab.graph.model.float32", refuse)
    plan = make_plan(find_targets(original, EVERYTHING), bits=8)
    assert [entry.weight for entry in plan.entries] == [None, None, None]


def test_per_tensor_drops_the_axis_but_remembers_the_channels() -> None:
    entry = plan_for(conv_relu(), per_channel=False)["w"]
    assert (entry.axis, entry.channel_axis, entry.channels, entry.granularity) == (None, 0, 1, "per-tensor")
    entry = plan_for(conv_relu())["w"]
    assert (entry.axis, entry.channels, entry.granularity) == (0, 5, "per-channel (5)")


@pytest.mark.parametrize(
    ("bits", "table", "storage"),
    [
        (1, False, "uint8 lanes 1"),
        (4, False, "int4"),
        (4, True, "uint8 lanes 4"),
        (5, False, "uint8 lanes 4+1"),
        (8, True, "int8"),
        (11, False, "uint8 lanes 8+2+1"),
        (16, True, "int16"),
    ],
)
def test_storage_says_how_the_codes_lie_in_the_file(bits: int, table: bool, storage: str) -> None:
    assert plan_for(gather() if table else matmul(), bits=bits).entries[0].storage == storage


@given(bits=st.integers(1, 16), rows=st.integers(1, 40), length=st.integers(1, 40), by_row=st.booleans())
def test_bytes_grow_with_the_width_and_stay_near_k_over_8(bits: int, rows: int, length: int, by_row: bool) -> None:
    entry = TensorPlan(
        tensor="w",
        nodes=("n",),
        op_type="Gather" if by_row else "MatMul",
        shape=(rows, length),
        bits=bits,
        axis=0,
        channel_axis=0,
        by_row=by_row,
        bytes_before=4 * rows * length,
    )
    exact = rows * length * bits / 8
    slack = bits * (rows if by_row else 1)  # lanes are filled up to whole bytes, in each row of a table
    assert exact <= entry.bytes_after - 8 * rows <= exact + slack


def test_other_widths_clear_only_the_codes_they_invalidate() -> None:
    original = load_model(matmul().proto)
    plan = round_weights(plan_for(), original.weight)
    edited = plan.with_bits({"b": 3, "a": 8})
    assert [entry.bits for entry in edited.entries] == [3, 8, 8]
    assert edited["b"].weight is None
    assert edited["a"].weight is plan["a"].weight
    assert [entry.bits for entry in plan.entries] == [8, 8, 8]
    again = round_weights(edited, original.weight)
    assert again["a"].weight is plan["a"].weight
    assert again["b"].weight is not None
    assert again["b"].weight.bits == 3
    assert {entry.bits for entry in plan.with_bits(2).entries} == {2}


@pytest.mark.parametrize("width", [0, 17, -1])
def test_a_width_outside_1_to_16_is_refused(width: int) -> None:
    with pytest.raises(PlanError, match=f"{width} bits are outside 1..16"):
        plan_for().with_bits(width)
    with pytest.raises(PlanError, match=f"b: {width} bits are outside 1..16"):
        plan_for().with_bits({"b": width})


def test_an_unknown_tensor_is_refused_with_the_nearest_name() -> None:
    said = r"no tensor named 'bached'; did you mean batched\?"
    with pytest.raises(PlanError, match=said) as caught:
        plan_for()["bached"]
    assert caught.value.tensor == "bached"


@pytest.mark.parametrize(
    ("name", "nearest"), [("bached", "batched"), ("/h2/MatMull", "/h2/MatMul"), ("/h9/MatMul", "/h[12]/MatMul")]
)
def test_an_unknown_name_for_a_width_is_refused_with_the_nearest_tensor_or_node(name: str, nearest: str) -> None:
    with pytest.raises(PlanError, match=rf"no tensor or node named '{name}'; did you mean {nearest}\?"):
        plan_for().with_bits({name: 4})


def test_the_name_of_a_node_means_the_weights_it_uses() -> None:
    assert [entry.bits for entry in plan_for().with_bits({"/h2/MatMul": 3, "a": 4}).entries] == [8, 3, 4]
    for user in ("/h/MatMul", "/y/MatMul"):  # one weight, two nodes
        assert plan_for(shared()).with_bits({user: np.int64(5)})["w"].bits == 5
    lstm = plan_for(recurrent("LSTM"))
    assert {entry.bits for entry in lstm.with_bits({lstm.entries[0].node: 6}).entries} == {6}
    assert len(lstm.entries) == 2


def test_two_names_of_one_weight_must_agree_on_its_width() -> None:
    assert plan_for().with_bits({"b": 3, "/h1/MatMul": 3})["b"].bits == 3
    with pytest.raises(PlanError, match="/h1/MatMul: 4 bits for b, but 3 by another name; name it once"):
        plan_for().with_bits({"b": 3, "/h1/MatMul": 4})


def test_a_width_for_what_stays_float_is_refused_with_the_reason() -> None:
    plan = plan_for().skipping("/h1/MatMul")
    for name in ("b", "/h1/MatMul"):
        with pytest.raises(PlanError, match=rf"{name}: stays float, so it has no width \(taken out of the plan\)"):
            plan.with_bits({name: 4})


@pytest.mark.parametrize("width", ["8", 4.0, True, None, [4], np.float32(4)])
def test_a_width_that_is_no_whole_number_is_refused(width: object) -> None:
    for bits, where in ((width, "with_bits"), ({"b": width}, "b")):
        with pytest.raises(PlanError, match=rf"^{where}: .* is no width; a whole number of bits in 1\.\.16 wanted"):
            plan_for().with_bits(bits)  # type: ignore[arg-type]


def test_patterns_in_a_list_are_refused_with_the_way_to_write_them() -> None:
    with pytest.raises(PlanError, match=r"skipping: \['a'\] is no pattern; write skipping"):
        plan_for().skipping(["a"])  # type: ignore[arg-type]


def test_skipping_moves_a_weight_to_the_skips_with_its_reason() -> None:
    plan = plan_for()
    rest = plan.skipping("/h1/*")
    assert [entry.tensor for entry in rest.entries] == ["batched", "a"]
    assert [(skip.tensor, skip.reason, skip.setting) for skip in rest.skips] == [
        ("b", "taken out of the plan", "plan.skipping")
    ]
    assert len(plan.entries) == 3
    assert not plan.skipping("type:MatMul").entries


def test_skipping_any_node_of_a_shared_weight_takes_the_weight_out() -> None:
    for name in ("/h/MatMul", "/y/MatMul"):
        assert not plan_for(shared()).skipping(name).entries


def test_skipping_what_is_not_there_is_refused() -> None:
    with pytest.raises(PlanError, match="'/h9/MatMul' matches no node"):
        plan_for().skipping("/h9/MatMul")
    with pytest.raises((PlanError, ConfigError), match="not a regular expression"):
        plan_for().skipping("re:(")


def test_a_diff_names_each_change_and_nothing_else() -> None:
    plan = plan_for()
    assert plan.diff(plan) == ()
    assert plan.diff(plan.with_bits({"a": 4})) == ("a: 8 bits per-channel (6) -> 4 bits per-channel (6)",)
    assert plan.diff(plan.skipping("/y/MatMul")) == ("a: 8 bits per-channel (6) -> float",)
    assert len(plan.diff(plan_for(per_channel=False))) == 3


@pytest.mark.parametrize("bits", [1, 8, 13])
def test_json_gives_the_plan_back_and_is_valid(bits: int) -> None:
    found = find_targets(load_model(depthwise_batchnorm().proto), Rules(min_channels=4))
    plan = make_plan(found, bits=bits)
    assert plan.entries
    assert plan.skips
    text = plan.to_json()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    back = QuantPlan.from_json(text)
    assert back == plan
    assert all(isinstance(skip, Skip) for skip in back.skips)


def test_json_of_a_rounded_plan_leaves_codes_out_and_they_are_found_again() -> None:
    original = load_model(matmul().proto)
    plan = round_weights(plan_for(bits=5), original.weight)
    back = round_weights(QuantPlan.from_json(plan.to_json()), original.weight)
    assert back == plan
    for entry, other in zip(plan.entries, back.entries, strict=True):
        assert entry.weight is not None
        assert other.weight is not None
        assert np.array_equal(entry.weight.codes, other.weight.codes)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"entries": [{"tensor": "w"}], "skips": []}', "3"])
def test_text_that_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(PlanError, match="not a plan that to_json wrote"):
        QuantPlan.from_json(text)


def test_printed_it_is_a_table_of_what_happens_and_what_does_not() -> None:
    plan = plan_for(bits=5).skipping("/h1/MatMul")
    lines = str(plan).splitlines()
    assert lines[0].split() == ["node", "operator", "shape", "bits", "storage", "bytes"]
    assert len(lines) == 4
    assert "uint8 lanes 4+1" in lines[1]
    assert "float: taken out of the plan" in lines[3]
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_weight_that_is_not_finite_is_refused_with_where_how_many_and_what_to_do(bad: float) -> None:
    weight = random(20, 20)
    weight[3, 4:6] = bad
    proto = model([node("MatMul", ["x", "w"], ["y"], name="/fc/MatMul")], {"x": (1, 20)}, ["y"], {"w": weight})
    original = load_model(proto)
    plan = make_plan(find_targets(original, Rules()), bits=8)
    with pytest.raises(ModelError, match="2 NaN or infinite values of 400") as caught:
        round_weights(plan, original.weight)
    assert (caught.value.node, caught.value.tensor) == ("/fc/MatMul", "w")
    assert "skip_quant_node=/fc/MatMul" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_progress_is_told_once_per_weight() -> None:
    steps: list[Step] = []
    round_weights(plan_for(), load_model(matmul().proto).weight, progress=steps.append)
    assert steps == [Step("quantize", index + 1, 3, name) for index, name in enumerate(["b", "batched", "a"])]


def test_a_plan_cannot_be_changed_in_place() -> None:
    plan = plan_for()
    with pytest.raises(AttributeError):
        plan.entries = ()  # type: ignore[misc]
    with pytest.raises(AttributeError):
        plan.entries[0].bits = 3  # type: ignore[misc]


def test_a_name_that_is_no_text_is_refused_by_name() -> None:
    plan = make_plan(find_targets(load_model(conv_relu().proto), Rules(min_channels=0)), bits=8)
    with pytest.raises(PlanError, match=r"^5 is no name of a tensor or node"):
        plan.with_bits({5: 4})  # type: ignore[dict-item]
