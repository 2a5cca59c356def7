"""Pinned widths: the names of `[ptq_lab.layer_bits]` become bits of single weights, and nothing passes in silence."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq_lab.graph import Rules, find_targets, load_model
from ptq_lab.pins import pinned_bits
from ptq_lab.pipeline import preview, quantize
from ptq_lab.plan import QuantPlan, make_plan
from tests.models import matmul, shared

EVERYTHING = Rules(min_channels=0)
WEIGHT = "[common_quant_param]\nquant_type=WEIGHT_QUANT\nmin_quant_weight_channel=0\n"


def plan_for(tiny: object = None, rules: Rules = EVERYTHING) -> QuantPlan:
    return make_plan(find_targets(load_model((tiny or matmul()).proto), rules), bits=8)  # type: ignore[attr-defined]


def said(*pins: tuple[str, int], plan: QuantPlan | None = None) -> tuple[dict[str, int], list[tuple[str, str]]]:
    plan = plan or plan_for()
    bits, problems = pinned_bits(pins, plan.entries, skips=plan.skips)
    return bits, [(problem.level, str(problem)) for problem in problems]


@pytest.mark.parametrize("pattern", ["b", "/h1/MatMul", "/h1/*", "re:^/h1"])
def test_a_weight_is_meant_by_its_own_name_or_by_its_node(pattern: str) -> None:
    assert said((pattern, 3)) == ({"b": 3}, [])


def test_an_operator_means_all_weights_of_its_nodes() -> None:
    assert said(("type:MatMul", 5)) == ({entry.tensor: 5 for entry in plan_for().entries}, [])


def test_a_weight_that_nodes_share_is_meant_by_each_of_them() -> None:
    plan = plan_for(shared())
    (entry,) = (entry for entry in plan.entries if len(entry.nodes) > 1)
    for user in entry.nodes:
        assert said((user, 3), plan=plan) == ({entry.tensor: 3}, [])


def test_of_two_lines_about_a_weight_the_later_one_wins() -> None:
    bits, problems = said(("type:MatMul", 4), ("a", 8))
    assert (bits, problems) == ({entry.tensor: 4 for entry in plan_for().entries} | {"a": 8}, [])


def test_a_line_that_later_ones_override_altogether_is_said() -> None:
    bits, problems = said(("a", 8), ("type:MatMul", 4))
    assert set(bits.values()) == {4}
    assert problems == [
        (
            "note",
            "[ptq_lab.layer_bits] a: has no effect, because later lines decide about all it matches: type:MatMul; "
            "of two lines the later one wins",
        )
    ]


def test_a_name_that_matches_nothing_is_a_warning_with_near_names() -> None:
    bits, problems = said(("/h1/MatMull", 4), ("type:Matmul", 4))
    assert bits == {}
    assert [level for level, _ in problems] == ["warning", "warning"]
    assert problems[0][1].startswith("[ptq_lab.layer_bits] /h1/MatMull: matches no node and no weight; the nearest")
    assert "/h1/MatMul" in problems[0][1]
    assert problems[1][1].endswith("the nearest operator is MatMul")


def test_many_names_that_match_nothing_are_one_warning_that_comes_first() -> None:
    pins = [(f"/h{index}/MatMull", 4) for index in range(2000)]
    bits, problems = said(("b", 4), ("/h1/MatMul", 3), *pins)
    assert bits == {"b": 3}
    assert [level for level, _ in problems] == ["warning", "note"]
    assert problems[0][1].startswith("[ptq_lab.layer_bits] 2,000 of 2,002 names match no node and no weight: ")
    assert problems[0][1].count("the nearest name") == 3
    assert "/h1/MatMull (the nearest names are /h1/MatMul" in problems[0][1]
    assert "; and 1,997 more; the names of another model" in problems[0][1]


def test_a_name_that_means_only_weights_that_stay_float_says_why() -> None:
    plan = plan_for(rules=Rules(min_channels=0, skip=("/h1/MatMul",)))
    bits, problems = said(("b", 4), ("/h?/*", 5), plan=plan)
    assert problems == [
        (
            "warning",
            "[ptq_lab.layer_bits] b: has no effect, because what it matches stays float: "
            "/h1/MatMul (skip_quant_node=/h1/MatMul)",
        )
    ]
    assert set(bits.values()) == {5}
    assert "b" not in bits


def test_many_weights_that_stay_float_are_counted_not_listed() -> None:
    plan = plan_for(rules=Rules(min_channels=0, skip=("*",)))
    many = QuantPlan((), (*plan.skips, *plan_for(shared(), Rules(min_channels=0, skip=("*",))).skips))
    assert len(many.skips) == 4
    (problem,) = pinned_bits([("*", 4)], many.entries, skips=many.skips)[1]
    assert problem.message.count("skip_quant_node") == 3
    assert problem.message.endswith("; and 1 more")


NAMES = st.sampled_from(["a", "b", "/h1/MatMul", "/h?/*", "type:MatMul", "re:2", "nowhere", "*"])


@given(pins=st.lists(st.tuples(NAMES, st.integers(1, 16)), max_size=5, unique_by=lambda pin: pin[0]))
def test_applying_the_lines_one_after_the_other_gives_the_same_plan(pins: list[tuple[str, int]]) -> None:
    plan = plan_for()
    step = plan
    for pin in pins:
        step = step.with_bits(pinned_bits([pin], plan.entries)[0])
    assert plan.with_bits(pinned_bits(pins, plan.entries)[0]) == step


def test_a_preview_and_a_run_have_the_pinned_widths_and_the_report_says_what_matched_nothing(tmp_path: Path) -> None:
    source = tmp_path / "m.onnx"
    onnx.save(matmul().proto, source)
    config = WEIGHT + "bit_num=8\n[ptq_lab.layer_bits]\n/h?/*=6\nb=3\nnowhere=2\n"
    shown = preview(source, config)
    result = quantize(source, config)
    assert shown["b"].bits == 3
    assert shown == result.plan
    assert result.plan["b"].weight is not None
    assert result.plan["b"].weight.bits == 3
    line = next(line for line in str(shown).splitlines() if line.startswith("/h1/MatMul"))
    assert "uint8 lanes 2+1" in line
    assert {row.bits for row in result.report.layers if row.tensor == "b"} == {3}
    notes = [note for note in result.report.summary.notes if "ptq_lab.layer_bits" in note]
    assert len(notes) == 1
    assert notes[0].startswith("[ptq_lab.layer_bits] nowhere: matches no node and no weight")
