"""The steps of the quality ladder as rows and as text: which were tried, which were dropped, and why none was."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq_lab.demo import load
from ptq_lab.pipeline import quantize
from ptq_lab.plan import QuantPlan, TensorPlan
from ptq_lab.report.steps import MEANING, format_error, layers_of, step_rows, steps_line, steps_table
from ptq_lab.report.tables import Report, StepRow
from ptq_lab.report.text import render_text
from ptq_lab.result import QuantResult
from ptq_lab.search.layer_rounding import LayerSteps, StepTaken


def plan_of(*nodes: str) -> QuantPlan:
    entries = (
        TensorPlan(
            tensor=f"{node}.w",
            nodes=(node,),
            op_type="Conv",
            shape=(8, 3),
            bits=4,
            axis=0,
            channel_axis=0,
            bytes_before=96,
        )
        for node in nodes
    )
    return QuantPlan(tuple(entries))


def row(node: str = "conv", step: str = "gptq", before: float = 0.2, after: float = 0.1, **changes: Any) -> StepRow:
    fields: dict[str, Any] = {"before": before, "after": after, "kept": after < before} | changes
    return StepRow(node=node, op_type="Conv", bits=4, step=step, **fields)


@pytest.fixture(scope="module")
def best() -> QuantResult:
    digits = load("digits_cnn")
    settings: dict[str, Any] = {"common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": 3}}
    return quantize(digits.model_path, settings, samples=digits.calib_path)


def test_every_layer_that_was_rounded_has_its_steps_with_a_meaning_and_an_end_no_worse_than_its_start(
    best: QuantResult,
) -> None:
    layers = layers_of(best.report.steps)
    assert [layer.node for layer in layers] == [entry.node for entry in best.plan.entries]
    for layer in layers:
        assert layer.before is not None
        assert layer.after is not None
        assert layer.after <= layer.before
        assert all(step.meaning and step.kept == (step.after < step.before) for step in layer.rows)  # type: ignore[operator]


def test_steps_survive_json_and_stand_in_the_manifest_and_in_a_csv_of_the_saved_run(
    best: QuantResult, tmp_path: Path
) -> None:
    assert Report.from_json(best.report.to_json()) == best.report
    folder = best.save(tmp_path / "saved")
    with (folder / "steps.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["step"] for line in lines] == [step.step for step in best.report.steps]
    rounding = json.loads((folder / "manifest.json").read_text())["rounding"]
    told = [(layer["node"], step["step"], step["kept"]) for layer in rounding for step in layer["steps"]]
    assert told == [(step.node, step.step, step.kept) for step in best.report.steps]


def test_the_text_of_a_report_counts_the_steps_and_lists_those_that_were_dropped(best: QuantResult) -> None:
    text = render_text(best.report)
    dropped = [step for step in best.report.steps if not step.kept]
    assert f"{len(dropped)} dropped; median error of a layer" in text
    assert sum(line.endswith("dropped") for line in text.splitlines()) == len(dropped) > 0


def test_a_run_without_steps_says_nothing_about_them() -> None:
    digits = load("digits_cnn")
    settings: dict[str, Any] = {"common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": 8}}
    report = quantize(digits.model_path, settings | {"ptq_lab": {"effort": "fast"}}, samples=digits.calib_path).report
    assert not report.steps
    assert "steps" not in [line.split(" ")[0] for line in render_text(report).splitlines()]


def test_a_layer_that_was_left_alone_says_why() -> None:
    taken = [LayerSteps("a", reason="it reads NaN or infinite values"), LayerSteps("b")]
    rows = step_rows(taken, plan_of("a", "b"))
    assert [(each.step, each.reason) for each in rows] == [
        ("", "it reads NaN or infinite values"),
        ("", "no step suits it"),
    ]
    assert steps_line(rows) == "none on 2 layers"
    assert "it reads NaN" in steps_table(rows)


def test_a_step_of_no_known_name_speaks_by_its_name() -> None:
    (only,) = step_rows([LayerSteps("a", (StepTaken("magic", 0.2, 0.1),))], plan_of("a"))
    assert (only.step, only.meaning, only.kept) == ("magic", "", True)
    assert "magic" not in MEANING


def test_long_tables_say_how_many_steps_they_leave_out() -> None:
    rows = [row(f"conv{i}", after=0.3) for i in range(5)]
    assert steps_table(rows, 2).splitlines()[-1] == "... and 3 more"
    assert steps_table([row()]) == ""


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8))
def test_the_error_after_all_steps_is_the_smallest_that_was_seen(errors: list[float]) -> None:
    best, taken = 0.5, []
    for error in errors:
        taken.append(StepTaken("gptq", best, error))
        best = min(best, error)
    (layer,) = layers_of(step_rows([LayerSteps("a", tuple(taken))], plan_of("a")))
    assert layer.after == best
    assert len(layer.dropped) == sum(not step.kept for step in taken)
    assert format_error(layer.after) in steps_line(layer.rows)
