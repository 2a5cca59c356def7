"""A result is explained: errors per layer, causes with evidence, edits that are tried, and repairs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import pytest

import ptq_lab
from ptq_lab import demo, quantize
from ptq_lab.advice import edited
from ptq_lab.errors import ConfigError
from ptq_lab.report.diagnosis import Edit, diagnose
from ptq_lab.report.facts import ChannelFacts, Facts
from ptq_lab.report.layer_errors import measure_layer_errors
from ptq_lab.result import QuantResult
from tests.conftest import Run
from tests.models import model, node, random

DIGITS = demo.load("digits_cnn")
FULL = {"common_quant_param": {"quant_type": "FULL_QUANT"}}


def depthwise(*, spoiled: float = 50.0) -> onnx.ModelProto:
    """A depthwise separable network in which one depthwise channel has weights `spoiled` times larger than the others.

    A Clip keeps its output in range, so that only a scale for the whole weight suffers.
    """
    nodes = [
        node("Conv", ["x", "w0"], ["c0"], name="stem", pads=[1, 1, 1, 1]),
        node("Clip", ["c0", "zero", "six"], ["r0"]),
        node("Conv", ["r0", "w1"], ["c1"], name="depthwise", group=8, pads=[1, 1, 1, 1]),
        node("Clip", ["c1", "zero", "six"], ["r1"]),
        node("Conv", ["r1", "w2"], ["y"], name="pointwise"),
    ]
    sizes = np.where(np.arange(8) == 3, spoiled, 1.0).reshape(8, 1, 1, 1)
    weights = {
        "w0": random(8, 3, 3, 3, seed=1),
        "w1": (random(8, 1, 3, 3, seed=2) * sizes).astype(np.float32),
        "w2": random(6, 8, 1, 1, seed=3),
        "zero": np.array(0.0, np.float32),
        "six": np.array(6.0, np.float32),
    }
    return model(nodes, {"x": (1, 3, 8, 8)}, ["y"], weights)


def pictures(count: int = 24) -> list[dict[str, np.ndarray]]:
    generator = np.random.default_rng(7)
    return [{"x": generator.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(count)]


def broken(**lab: object) -> QuantResult:
    config = FULL | {
        "full_quant_param": {"per_channel": False, "bias_correction": False},
        "ptq_lab": {"equalize": False, **lab},
    }
    return quantize(depthwise(), config, samples=pictures())


def kinds(causes: Iterable[object]) -> list[str]:
    return [getattr(cause, "kind", "") for cause in causes]


def test_one_scale_for_channels_of_very_different_sizes_is_the_first_cause() -> None:
    found = ptq_lab.explain(broken())
    assert found.causes[0].kind == "per-tensor weight ranges of depthwise layers"
    assert found.causes[0].nodes[0] == "depthwise"
    assert found.causes[0].edits == (Edit("full_quant_param", "per_channel", "true"),)
    assert max(found.errors, key=lambda row: row.channel_error or 0.0).node == "depthwise"


def test_the_first_advice_recovers_most_of_the_loss_and_says_what_it_did() -> None:
    result = broken()
    lost = 1 - result.report.summary.cosine_mean
    advice = ptq_lab.advise(result, count=2)
    assert advice[0].gain > 0.8 * lost
    assert advice[0].cosine == pytest.approx(result.report.summary.cosine_mean + advice[0].gain)
    assert str(advice[0]).startswith("[full_quant_param] per_channel=true: +")
    again = quantize(depthwise(), advice[0].config, samples=pictures())
    assert again.report.summary.cosine_mean == advice[0].cosine


def test_a_repair_reaches_its_goal_and_returns_the_configuration() -> None:
    result = broken()
    fixed = ptq_lab.repair(result, min_cosine=0.999)
    assert fixed.reached
    assert fixed.result.report.summary.cosine_mean >= 0.999
    assert fixed.config.full.per_channel
    assert len(fixed.steps) >= 1
    assert "the goal is reached" in str(fixed)


def test_a_repair_that_cannot_reach_its_goal_returns_the_best_it_found() -> None:
    result = broken()
    tried = ptq_lab.repair(result, min_cosine=1.0, rounds=1, tries=1)
    assert not tried.reached
    assert tried.result.report.summary.cosine_mean > result.report.summary.cosine_mean


def test_a_good_result_has_no_cause_of_weight() -> None:
    result = quantize(DIGITS.model_path, FULL, samples=DIGITS.calib_path)
    found = ptq_lab.explain(result)
    assert "per-tensor" not in " ".join(kinds(found.causes))
    assert all((row.isolated_cosine or 0) > 0.99 for row in found.errors)


def test_a_layer_of_few_bits_is_named_with_the_pin_that_helps() -> None:
    config = {
        "common_quant_param": {"quant_type": "WEIGHT_QUANT", "min_quant_weight_channel": 0},
        "ptq_lab.layer_bits": {"pointwise": 2},
    }
    result = quantize(depthwise(spoiled=1.0), config, samples=pictures())
    causes = ptq_lab.explain(result).causes
    assert causes[0].kind == "too few bits"
    assert causes[0].nodes == ("pointwise",)
    config_with_edit = edited(result.config, causes[0].edits)
    assert config_with_edit is not None
    assert dict(config_with_edit.layer_bits)["pointwise"] == 8


def test_skipped_names_are_added_to_those_that_were_there() -> None:
    result = quantize(
        depthwise(),
        FULL | {"common_quant_param": {"quant_type": "FULL_QUANT", "skip_quant_node": "stem"}},
        samples=pictures(),
    )
    changed = edited(result.config, [Edit("common_quant_param", "skip_quant_node", "pointwise,stem")])
    assert changed is not None
    assert changed.common.skip_quant_node == ("stem", "pointwise")


def test_an_edit_that_makes_no_configuration_is_none() -> None:
    assert edited(broken().config, [Edit("full_quant_param", "per_channel", "perhaps")]) is None


def facts_about(here: ChannelFacts, there: ChannelFacts) -> Facts:
    result = quantize(depthwise(), FULL, samples=pictures(4))
    return Facts(plan=result.plan, model=result.run.prepared, errors={}, inputs={"x": here}, evaluated={"x": there})


def test_inputs_of_another_scale_and_channels_in_another_order_are_told_apart() -> None:
    tint = np.array([0.8, 0.1, -0.9])
    one, certain = np.ones(3), np.full(3, 0.01)
    evaluated = ChannelFacts(tint / 4, one, tint, certain)
    swapped = ChannelFacts(tint[::-1] / 4, one, tint[::-1], certain)
    doubtful = ChannelFacts(tint[::-1] / 4, one, tint[::-1], 100 * certain)
    normalised = ChannelFacts(np.array([-0.35, 0.03, 0.31]), one, np.array([-0.35, 0.03, 0.31]), certain)
    neutral = ChannelFacts(np.array([-0.03, 0.05, -0.02]), one, np.array([-0.03, 0.05, -0.02]), certain)
    scaled = ChannelFacts(tint * 60 + 120, 60 * one, tint * 60, certain)
    assert kinds(diagnose(facts_about(swapped, evaluated))) == ["channels in another order (RGB, BGR)"]
    assert kinds(diagnose(facts_about(normalised, neutral))) == ["channels in another order (RGB, BGR)"]
    assert kinds(diagnose(facts_about(scaled, evaluated))) == ["calibration does not look like evaluation"]
    assert diagnose(facts_about(doubtful, evaluated)) == ()
    assert diagnose(facts_about(evaluated, evaluated)) == ()


def test_isolated_errors_are_those_of_a_layer_that_reads_what_the_float_model_made(run: Run) -> None:
    result = broken()
    rows = {row.node: row for row in measure_layer_errors(result.run.prepared, result.model, result.plan, pictures(3))}
    watched = onnx.ModelProto.FromString(depthwise().SerializeToString())
    watched.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in ("r0", "c1"))
    [entry] = [each for each in result.plan.entries if each.node == "depthwise"]
    assert entry.weight is not None
    weight = entry.weight.codes.astype(np.float32) * entry.weight.scale + entry.weight.offset
    alone = model(
        [node("Conv", ["x", "w"], ["y"], group=8, pads=[1, 1, 1, 1])], {"x": (1, 8, 8, 8)}, ["y"], {"w": weight}
    )
    [grid] = [each for each in result.plan.activations if each.tensor == "r0"]
    signal = noise = 0.0
    for feeds in pictures(3):
        values = run(watched, feeds)
        codes = np.clip(np.rint(values["r0"] / np.float32(grid.scale)) + grid.zero_point, 0, 255)
        source = ((codes - grid.zero_point) * np.float32(grid.scale)).astype(np.float32)
        error = run(alone, {"x": source})["y"] - values["c1"]
        signal, noise = signal + float((values["c1"] ** 2).sum()), noise + float((error**2).sum())
    assert rows["depthwise"].isolated_sqnr_db == pytest.approx(10 * np.log10(signal / noise), abs=0.05)


def test_an_explanation_becomes_a_part_of_the_report_and_of_its_text() -> None:
    result = broken()
    assert result.report.explanation is None
    found = ptq_lab.explain(result)
    assert result.report.explanation is found
    assert "one scale serves channels" in str(ptq_lab.report.text.render_text(result.report))
    assert result.report.to_dict()["explanation"]["causes"][0]["kind"] == found.causes[0].kind


def test_a_run_that_is_asked_to_explain_finds_what_explain_finds() -> None:
    config = FULL | {"full_quant_param": {"per_channel": False}, "ptq_lab": {"equalize": False}}
    asked = quantize(depthwise(), config, samples=pictures(), explain=True).report.explanation
    assert asked is not None
    assert asked == quantize(depthwise(), config, samples=pictures()).explain()
    assert asked.looked_at == "8 of 24 samples given by the caller"


def test_labelled_samples_are_looked_at_too_and_their_answers_kept() -> None:
    result = quantize(DIGITS.model_path, FULL, samples=DIGITS.calib_path, evaluate=DIGITS.eval_path, explain=True)
    found, seen = result.report.explanation, result.report.predictions
    assert found is not None
    assert [row.node for row in found.evaluated] == [row.node for row in found.errors]
    assert found.evaluated_on.startswith("8 of ")
    assert found.evaluated != found.errors
    assert seen is not None
    hits = [sum(a == b for a, b in zip(answers, seen.labels, strict=True)) for answers in (seen.before, seen.after)]
    summary = result.report.summary
    assert [count / len(seen.labels) for count in hits] == [summary.metric_before, summary.metric_after]


def test_a_layer_whose_activations_are_larger_in_the_evaluation_is_named() -> None:
    config = FULL | {"ptq_lab": {"equalize": False}}
    result = quantize(depthwise(spoiled=1.0), config, samples=pictures())
    larger = [{"x": 40 * feeds["x"]} for feeds in pictures(8)]
    found = ptq_lab.explain(result, evaluated=larger)
    [cause] = [cause for cause in found.causes if cause.kind == "larger error on evaluation samples"]
    assert "stem" in cause.nodes
    stem = found.on_evaluation("stem")
    assert stem is not None
    assert stem.harm > 3 * next(row.harm for row in found.errors if row.node == "stem")


def test_a_layer_that_gives_no_numbers_is_as_far_off_as_can_be() -> None:
    result = quantize(depthwise(), FULL, samples=pictures())
    endless = [{"x": np.full((1, 3, 8, 8), np.inf, np.float32)}]
    [row, *_] = measure_layer_errors(result.run.prepared, result.model, result.plan, endless)
    assert row.harm == 1.0
    assert row.shift_share is None


def test_advice_to_skip_a_layer_keeps_those_that_are_skipped_already() -> None:
    config = {
        "common_quant_param": {"quant_type": "FULL_QUANT", "skip_quant_node": "stem"},
        "full_quant_param": {"per_channel": False, "bias_correction": False},
        "ptq_lab": {"equalize": False},
    }
    found = quantize(depthwise(), config, samples=pictures(), explain=True).report.explanation
    assert found is not None
    edits = [edit for cause in found.causes for edit in cause.edits if edit.key == "skip_quant_node"]
    assert edits
    assert all(edit.value.split(",")[0] == "stem" for edit in edits)


def test_many_layers_of_too_few_bits_are_one_cause_behind_the_worst_four() -> None:
    transformer = demo.load("digits_transformer")
    config = {"common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": 2, "min_quant_weight_channel": 0}}
    result = quantize(transformer.model_path, config, samples=transformer.calib_path)
    causes = ptq_lab.explain(result).causes
    assert kinds(causes).count("too few bits") == 4
    [many] = [cause for cause in causes if cause.kind == "too few bits in many layers"]
    assert many.edits == (Edit("common_quant_param", "bit_num", "8"),)
    worst = {cause.nodes[0] for cause in causes if cause.kind == "too few bits"}
    assert result.report.explanation is not None
    assert worst == {row.node for row in result.report.explanation.by_harm[:4]}


def test_a_result_can_be_asked_itself(tmp_path: Path) -> None:
    result = broken()
    assert result.explain().causes
    assert result.advise(count=1)[0].gain > 0
    (tmp_path / "mine.txt").write_text("kept")
    result.save(tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "per-tensor weight ranges of depthwise layers" in page
    assert "equalize=false" in page
    assert (tmp_path / "mine.txt").read_text() == "kept"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_page_of_a_debug_folder_holds_the_diagnosis_of_a_run_that_was_asked_for_one(tmp_path: Path) -> None:
    config = {"common_quant_param": {"quant_type": "FULL_QUANT", "debug_info_save_path": str(tmp_path / "debug")}}
    config |= {"full_quant_param": {"per_channel": False}, "ptq_lab": {"equalize": False}}
    quantize(depthwise(), config, samples=pictures(4), explain=True)
    page = (tmp_path / "debug" / "report.html").read_text(encoding="utf-8")
    assert "per-tensor weight ranges of depthwise layers" in page


def test_one_huge_value_in_a_sample_is_found_at_the_input_and_not_only_where_it_spreads_to() -> None:
    samples = pictures()
    samples[-1]["x"][0, 1, 2, 3] = 400.0
    found = ptq_lab.explain(quantize(depthwise(spoiled=1.0), FULL, samples=samples))
    assert found.causes[0].kind == "activation range stretched by outliers"
    assert found.causes[0].nodes[0] == "x"
    assert "400" in found.causes[0].evidence


@pytest.mark.parametrize(
    ("goal", "says"),
    [
        ({"min_cosine": 1.5}, r"min_cosine: 1\.5 is outside 0\.\.1"),
        ({"max_metric_drop": -1.0}, "max_metric_drop: -1 is not a number of 0 or more"),
        ({"max_metric_drop": 0.1}, "the result was not evaluated"),
    ],
)
def test_a_goal_that_means_nothing_is_refused(goal: dict[str, float], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ptq_lab.repair(broken(), **goal)
