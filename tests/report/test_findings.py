"""What is found out about layers: harm, evaluation against calibration, answers, and spreads of weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq_lab.errors import OutputError
from ptq_lab.numerics import dequantize_weight, quantize_symmetric, quantize_weight
from ptq_lab.plan import TensorPlan
from ptq_lab.report.diagnosis import diagnose
from ptq_lab.report.facts import Facts
from ptq_lab.report.files import copy_whole, replacing
from ptq_lab.report.layer_errors import worse_on_evaluation
from ptq_lab.report.names import telling_names
from ptq_lab.report.predictions import Answers, Predictions
from ptq_lab.report.rows import ErrorRow
from ptq_lab.report.weight_outlines import BINS, CHANNELS, COUNTED, outline_weight


def row(node: str, loss: float, channel_error: float | None = None) -> ErrorRow:
    return ErrorRow(
        node=node,
        op_type="Conv",
        tensor=node,
        isolated_cosine=1 - loss,
        isolated_sqnr_db=None,
        accumulated_cosine=None,
        accumulated_sqnr_db=None,
        channel_error=channel_error,
    )


def test_harm_is_the_larger_of_the_loss_and_half_the_error_of_channels() -> None:
    assert row("a", 0.1).harm == pytest.approx(0.1)
    assert row("a", 0.1, 0.5).harm == pytest.approx(0.25)
    assert row("a", 0.4, 0.5).harm == pytest.approx(0.4)


def test_only_layers_that_do_much_worse_on_evaluation_samples_are_named_the_worst_first() -> None:
    here = [row("a", 0.01), row("b", 0.01), row("c", 0.01), row("d", 1e-9)]
    there = [row("a", 0.02), row("b", 0.04), row("c", 0.5), row("d", 5e-5), row("e", 0.5)]
    assert [node for node, _ in worse_on_evaluation(here, there)] == ["c", "b"]


def test_a_layer_that_does_much_worse_on_evaluation_samples_is_a_cause_with_both_numbers(plain: Any) -> None:
    facts = Facts(
        plan=plain.plan,
        model=plain.run.prepared,
        errors={"a": row("a", 1e-4)},
        evaluated_errors={"a": row("a", 0.02)},
    )
    [cause] = [each for each in diagnose(facts) if each.kind == "larger error on evaluation samples"]
    assert cause.nodes == ("a",)
    assert cause.evidence.startswith("error 0.02 on evaluation samples, 200 times the 0.0001 of calibration")


@pytest.fixture(scope="module")
def plain() -> Any:
    from ptq_lab import demo, quantize

    digits = demo.load("digits_cnn")
    return quantize(digits.model_path, {"common_quant_param": {"quant_type": "WEIGHT_QUANT"}})


def entry(values: np.ndarray, bits: int, axis: int | None, channel_axis: int = 0, **more: Any) -> TensorPlan:
    return TensorPlan(
        tensor="w",
        nodes=("conv",),
        op_type="Conv",
        shape=values.shape,
        bits=bits,
        axis=axis,
        channel_axis=channel_axis,
        bytes_before=values.nbytes,
        **more,
    )


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 8),
    st.sampled_from([(0, 0), (1, 1), (None, 0), (None, 1)]),
    st.booleans(),
)
def test_histograms_count_every_value_and_codes_stay_within_their_reach(
    seed: int, bits: int, axes: tuple[int | None, int], symmetric: bool
) -> None:
    values = np.random.default_rng(seed).normal(0.1, 1, (5, 7, 3)).astype(np.float32)
    axis, channel_axis = axes
    bits = max(2, bits) if symmetric else bits
    make = quantize_symmetric if symmetric else quantize_weight
    weight = make(values, bits=bits, axis=axis)
    seen = outline_weight(entry(values, bits, axis, channel_axis, symmetric=symmetric), weight, values)
    assert seen is not None
    assert sum(seen.before) == sum(seen.after) == seen.counted == values.size
    assert len(seen.before) == BINS
    after = dequantize_weight(weight)
    slack = 1e-4 * max(1.0, float(np.abs(after).max()))
    assert seen.grid[0] - slack <= after.min()
    assert after.max() <= seen.grid[1] + slack
    lows = np.sort([low for low, _ in seen.channels])
    others = tuple(i for i in range(3) if i != channel_axis)
    np.testing.assert_allclose(lows, np.sort(values.min(axis=others)), rtol=1e-3)
    reaches = [max(-low, high) for low, high in seen.channels]
    assert reaches == sorted(reaches)


def test_of_a_large_weight_some_values_and_channels_are_taken_from_all_over_and_the_ends_are_exact() -> None:
    generator = np.random.default_rng(1)
    values = generator.normal(size=(400, 1000)).astype(np.float32)
    values[3, 5] = 40.0
    seen = outline_weight(entry(values, 8, 0), quantize_weight(values, bits=8, axis=0), values)
    assert seen is not None
    assert COUNTED // 2 < seen.counted <= COUNTED
    assert seen.values == values.size
    assert seen.high == 40.0
    assert (len(seen.channels), seen.channel_count) == (CHANNELS, 400)
    assert seen.channels[-1][1] == 40.0
    assert seen.spread > 8
    shares = np.array(seen.before) / seen.counted
    whole = np.histogram(values, BINS, (seen.low, seen.high))[0] / values.size
    np.testing.assert_allclose(shares, whole, atol=0.01)


def test_an_empty_weight_has_no_outline_and_a_constant_one_has() -> None:
    empty, constant = np.zeros((0, 3), np.float32), np.ones((2, 3), np.float32)
    weight = quantize_weight(constant, bits=8, axis=None)
    assert outline_weight(entry(empty, 8, None), weight, empty) is None
    seen = outline_weight(entry(constant, 8, None), weight, constant)
    assert seen is not None
    assert seen.low < 1.0 < seen.high or seen.low == pytest.approx(0.0)
    assert sum(seen.before) == 6


def scores(*values: float) -> np.ndarray:
    return np.array([values], np.float32)


def test_rows_of_scores_become_answers_and_an_embedding_does_not() -> None:
    named, probable, embedded, several = Answers(), Answers(), Answers(), Answers()
    for _ in range(2):
        named.add("logits", scores(1, 3, 2), scores(3, 1, 2))
        probable.add("y", scores(0.2, 0.8), scores(0.3, 0.7))
        embedded.add("sentence_embedding", scores(0.6, 0.8), scores(0.6, 0.8))
        several.add("logits", np.zeros((2, 4), np.float32), np.zeros((2, 4), np.float32))
    found = named.found("2 images")
    assert found == Predictions(output="logits", classes=3, before=(1, 1), after=(0, 0), origin="2 images")
    assert probable.found("") is not None
    assert embedded.found("") is None
    assert several.found("") is None


def test_outputs_of_changing_length_are_no_scores() -> None:
    answers = Answers()
    answers.add("logits", scores(1, 2), scores(1, 2))
    answers.add("logits", scores(1, 2, 3), scores(1, 2, 3))
    assert answers.found("") is None


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_numbers_about_answers_agree_with_each_other(samples: list[tuple[int, int, int]]) -> None:
    before, after, labels = zip(*samples, strict=True)
    seen = Predictions(output="y", classes=4, before=before, after=after, labels=labels)
    assert sum(map(sum, seen.matrix())) == len(samples)
    assert sum(count for _, _, count in seen.flips) == seen.changed
    right = [sum(a == b for a, b in zip(answers, labels, strict=True)) for answers in (before, after)]
    assert right[1] - right[0] == seen.won - seen.lost
    assert json.loads(json.dumps(seen.to_dict()))["classes"] == 4


@given(st.lists(st.text("ab/.", min_size=1, max_size=40), min_size=1, max_size=12), st.integers(10, 30))
def test_short_names_fit_and_differ_where_the_names_do(names: list[str], width: int) -> None:
    short = telling_names(names, width)
    assert all(len(name) <= width for name in short)
    pairs = set(zip(names, short, strict=True))
    assert len(pairs) == len(set(names)) == len(set(short))


def test_a_file_that_fails_half_way_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_half() -> None:
        with replacing(path) as stream:
            stream.write("new")
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_named_with_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"no/a\.txt: the table cannot be written \(No such file"):
        replacing(tmp_path / "no" / "a.txt", what="the table").__enter__()


def test_a_copy_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"new")
    (tmp_path / "b").write_bytes(b"old")
    copy_whole(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"new"
    assert len(list(tmp_path.iterdir())) == 2
