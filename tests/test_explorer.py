"""The explorer: edits can be taken back, budgets hold, predictions and files agree with what is run and written."""

from __future__ import annotations

import configparser
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ptq_lab
from ptq_lab.calibration import Samples, cache, open_samples
from ptq_lab.errors import ConfigError, ModelError, PlanError
from ptq_lab.explorer import MixedBitExplorer
from ptq_lab.graph import load_model, required_opset
from ptq_lab.search.file_size import measure_file_sizes
from ptq_lab.search.verifier import Decoded
from tests.models import model, node, random, tied_embedding

DIGITS = ptq_lab.demo.load("digits_cnn")
HEAD = "[common_quant_param]\nquant_type=WEIGHT_QUANT\nmin_quant_weight_channel=0\n"


@pytest.fixture(scope="module")
def measured() -> MixedBitExplorer:
    """An explorer whose history tests add to."""
    return ptq_lab.explore(DIGITS.model_path, DIGITS.calib_path)


@pytest.fixture
def explorer(measured: MixedBitExplorer) -> MixedBitExplorer:
    return back_to_start(measured)


def back_to_start(explorer: MixedBitExplorer) -> MixedBitExplorer:
    while explorer.undo():
        pass
    return explorer


def explorer_samples() -> Samples:
    return open_samples(DIGITS.calib_path, load_model(DIGITS.model_path).inputs)


def widths_of(explorer: MixedBitExplorer) -> dict[str, int | None]:
    return {row.tensor: row.bits for row in explorer.layers}


TENSORS = [entry.tensor for entry in ptq_lab.preview(DIGITS.model_path, HEAD).entries]
layer = st.sampled_from(TENSORS)
edit: st.SearchStrategy[Callable[[MixedBitExplorer], Any]] = st.one_of(
    st.builds(lambda name, bits: lambda e: e.set_bits(name, bits), layer, st.integers(1, 16)),
    st.builds(lambda name: lambda e: e.skip(name), layer),
    st.builds(lambda name: lambda e: e.pin(name), layer),
    st.builds(lambda name: lambda e: e.unpin(name), layer),
    st.builds(lambda bits: lambda e: e.take(e.uniform(bits)), st.integers(1, 16)),
)


@settings(max_examples=40, deadline=None)
@given(edits=st.lists(edit, max_size=8))
def test_undoing_every_edit_returns_to_the_start_and_redoing_to_the_end(
    measured: MixedBitExplorer, edits: list[Callable[[MixedBitExplorer], Any]]
) -> None:
    back_to_start(measured).set_bits(TENSORS[0], 3)  # an edit: what was undone before cannot be redone
    start = measured.widths
    states = [start]
    for change in edits:
        change(measured)
        states += [measured.widths] if measured.widths != states[-1] else []
    for state in reversed(states[:-1]):
        assert measured.undo()
        assert measured.widths == state
    for state in states[1:]:
        assert measured.redo()
        assert measured.widths == state
    assert not measured.redo()


@settings(max_examples=40, deadline=None)
@given(edits=st.lists(edit, max_size=3), sizes=st.lists(st.floats(0.0, 1.0), min_size=2, max_size=4))
def test_a_file_budget_holds_pins_stay_and_a_larger_one_never_predicts_worse(
    measured: MixedBitExplorer, edits: list[Callable[[MixedBitExplorer], Any]], sizes: list[float]
) -> None:
    back_to_start(measured)
    for change in edits:
        change(measured)
    pinned = {row.tensor: row.bits for row in measured.layers if row.pinned or row.bits is None}
    front = measured.front
    low, high = front[0].file_bytes, front[-1].file_bytes
    before = -1.0
    for size in sorted(low + round(share * (high - low)) for share in sizes):
        prediction = measured.fit(target_size_mb=size / 1e6)
        assert prediction.file_bytes <= size  # whole bytes, as the budget
        assert prediction.cosine >= before - 1e-12
        assert pinned.items() <= widths_of(measured).items()
        before = prediction.cosine


@settings(max_examples=30, deadline=None)
@given(average=st.lists(st.floats(2.0, 8.0), min_size=2, max_size=4))
def test_an_average_width_holds_and_a_larger_one_never_predicts_worse(
    measured: MixedBitExplorer, average: list[float]
) -> None:
    back_to_start(measured)
    before = -1.0
    for bits in sorted(average):
        prediction = measured.fit(average_bits=bits)
        assert prediction.average_bits <= bits * (1 + 1e-9)
        assert prediction.cosine >= before - 1e-12
        before = prediction.cosine


@pytest.mark.parametrize("average", [2, 8])
def test_the_ends_of_the_allowed_widths_can_be_reached_by_average(explorer: MixedBitExplorer, average: int) -> None:
    explorer.fit(average_bits=average)
    assert set(widths_of(explorer).values()) == {average}


def test_a_cosine_budget_gives_the_smallest_file_of_the_front_that_is_expected_to_keep_it(
    explorer: MixedBitExplorer,
) -> None:
    prediction = explorer.fit(min_cosine=0.99)
    assert prediction.cosine >= 0.99
    assert not [p for p in explorer.front if p.cosine >= 0.99 and p.file_bytes < prediction.file_bytes]


def test_all_limits_given_together_hold(explorer: MixedBitExplorer) -> None:
    prediction = explorer.fit(average_bits=5, target_size_mb=0.115)
    assert prediction.average_bits <= 5
    assert prediction.file_bytes <= 115_000


def test_the_front_gets_larger_and_better_from_point_to_point(explorer: MixedBitExplorer) -> None:
    front = explorer.front
    assert all(one.file_bytes < two.file_bytes and one.error > two.error for one, two in pairwise(front))
    for point in (front[0], front[len(front) // 2], front[-1]):
        prediction = explorer.take(point)
        assert (prediction.bytes, prediction.file_bytes) == (point.bytes, point.file_bytes)
        assert prediction.cosine == pytest.approx(point.cosine)


@pytest.mark.parametrize(("bits", "least"), [(8, 0.9999), (4, 0.98)])
def test_what_is_verified_is_what_the_written_model_gives(explorer: MixedBitExplorer, bits: int, least: float) -> None:
    explorer.take(explorer.uniform(bits))
    judges = dict(np.load(DIGITS.calib_path))
    judges = {name: array[8:16] for name, array in judges.items()}
    result = explorer.quantize(samples=[{name: a[i : i + 1] for name, a in judges.items()} for i in range(8)])
    assert explorer.verify() == pytest.approx(result.report.summary.cosine_mean, abs=1e-6)
    assert explorer.verify() > least


def test_predictions_follow_what_is_verified(explorer: MixedBitExplorer) -> None:
    for bits in (4, 5, 6):
        prediction = explorer.fit(average_bits=bits)
        assert 0.5 < (1 - explorer.verify()) / (1 - prediction.cosine) < 2.0
    assert [point.measured for point in explorer.verified] == sorted(
        (point.measured for point in explorer.verified), reverse=True
    )


def test_at_equal_size_ours_is_better_than_one_width_and_than_the_originals_rule(explorer: MixedBitExplorer) -> None:
    for point in (explorer.uniform(5, verify=True), explorer.original_rule(0.05, verify=True)):
        explorer.fit(target_size_mb=point.file_bytes / 1e6)
        assert 1 - explorer.verify() < 0.7 * point.measured


def test_the_written_file_is_within_the_budget_and_near_the_estimate(explorer: MixedBitExplorer) -> None:
    few = list(explorer_samples())[:8]  # too few to shape weights, for which BatchNormalization would be folded
    for ratio in (3.0, 3.5, 4.5):
        prediction = explorer.fit(compression_ratio=ratio)
        result = explorer.quantize(samples=few)
        written = result.model_path.stat().st_size
        assert written <= explorer.original.size / ratio
        assert written <= prediction.file_bytes <= 1.02 * written


@settings(max_examples=6, deadline=None)
@given(edits=st.lists(edit, max_size=6))
def test_the_configuration_and_quantize_give_exactly_these_widths(
    measured: MixedBitExplorer, edits: list[Callable[[MixedBitExplorer], Any]]
) -> None:
    back_to_start(measured)
    for change in edits:
        change(measured)
    wanted = {tensor: bits for tensor, bits in widths_of(measured).items() if bits is not None}
    text = measured.to_config()
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    lines = parser["ptq_lab.layer_bits"] if wanted else {}
    assert {name: int(bits) for name, bits in lines.items()} == wanted
    assert {entry.tensor: entry.bits for entry in ptq_lab.preview(DIGITS.model_path, text).entries} == wanted
    assert not ptq_lab.load_config(text).problems
    again = ptq_lab.explore(DIGITS.model_path, DIGITS.calib_path, text)
    assert {row.tensor: row.bits for row in again.layers} == wanted
    result = measured.quantize()
    assert {entry.tensor: entry.bits for entry in result.plan.entries} == wanted
    assert ptq_lab.dump_config(result.config, comments=False, only_given=True) == text


def test_names_that_look_like_patterns_are_written_so_that_they_mean_themselves() -> None:
    weights = {"w[0]": random(16, 16), "w0": random(16, 16), "a=b": random(16, 16), "type:MatMul": random(16, 16)}
    values = ["x", "h1", "h2", "h3", "y"]
    nodes = [node("MatMul", [values[i], name], [values[i + 1]], name=f"n[{i}]") for i, name in enumerate(weights)] + [
        node("MatMul", ["y", "last"], ["z"], name="w0")
    ]
    tiny = model(nodes, {"x": (2, 16)}, ["z"], weights | {"last": random(16, 16)})
    explorer = ptq_lab.explore(tiny)
    for bits, tensor in enumerate([*weights, "last"], start=3):
        explorer.set_bits(tensor, bits)
    explorer.skip("n[3]")
    plan = ptq_lab.preview(tiny, explorer.to_config())
    assert {entry.tensor: entry.bits for entry in plan.entries} == {"w[0]": 3, "w0": 4, "a=b": 5, "last": 7}


def test_setting_bits_pins_unpinning_frees_and_skipping_keeps_float(explorer: MixedBitExplorer) -> None:
    first, second = explorer.layers[0], explorer.layers[1]
    explorer.set_bits([first.node, second.tensor], 7)
    assert [row.pinned for row in explorer.layers[:3]] == [True, True, False]
    explorer.fit(average_bits=3.5)
    assert [row.bits for row in explorer.layers[:2]] == [7, 7]
    explorer.skip(first.node)
    row = explorer.layers[0]
    assert (row.bits, row.bytes_after, row.output_error) == (None, row.bytes_before, 0.0)
    explorer.unpin()
    assert [(row.bits, row.pinned) for row in explorer.layers[:2]] == [(7, False), (7, False)]


def test_skipping_everything_costs_nothing_and_cannot_be_fitted(explorer: MixedBitExplorer) -> None:
    prediction = explorer.skip(TENSORS)
    assert prediction.cosine == 1.0
    assert prediction.bytes == 0
    assert explorer.verify() == pytest.approx(1.0, abs=1e-9)
    assert len(explorer.front) == 1
    with pytest.raises(PlanError, match="nothing to fit"):
        explorer.fit(average_bits=4)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (
            {"target_size_mb": 0.01},
            r"target_size_mb: 10\.0 kB cannot be reached; the file takes 8\d\.\d kB to 1\d\d kB",
        ),
        ({"compression_ratio": 100}, r"compression_ratio: .* cannot be reached; the file takes"),
        ({"min_cosine": 0.9999999}, r"min_cosine: .*0\.9999999; the most exact one: 0\.9999"),
        (
            {"min_cosine": 0.999, "average_bits": 3},
            "average_bits: the smallest file expected to keep a cosine of 0.999",
        ),
        ({"average_bits": 17}, r"17 is outside 1\.\.16"),
        ({"average_bits": 1.5}, "with 2 bits or more"),
        ({}, "a budget needs a limit"),
    ],
)
def test_an_impossible_budget_says_what_can_be_reached_and_changes_nothing(
    explorer: MixedBitExplorer, budget: dict[str, float], message: str
) -> None:
    before = explorer.widths
    with pytest.raises(ConfigError, match=message):
        explorer.fit(**budget)
    assert explorer.widths == before


def test_wrong_names_and_widths_are_refused_with_a_hint(explorer: MixedBitExplorer) -> None:
    with pytest.raises(PlanError, match="did you mean"):
        explorer.set_bits(TENSORS[0] + "x", 4)
    for bits in (0, 17, 4.5, True):
        with pytest.raises(PlanError, match=r"1\.\.16"):
            explorer.set_bits(TENSORS[0], bits)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="another model"):
        explorer.take(ptq_lab.explore(ptq_lab.demo.load("photo_denoiser").model_path).uniform(4))
    with pytest.raises(ConfigError, match="init_scale"):
        explorer.original_rule(1.0)


def test_what_has_no_widths_to_choose_is_refused() -> None:
    relu = model([node("Relu", ["x"], ["y"])], {"x": (1, 3)}, ["y"], {})
    with pytest.raises(ModelError, match="no weight can be quantized"):
        ptq_lab.explore(relu)
    with pytest.raises(ConfigError, match="8 bits throughout"):
        ptq_lab.explore(DIGITS.model_path, config={"common_quant_param": {"quant_type": "DYNAMIC_QUANT"}})
    raw = {"common_quant_param": {"quant_type": "WEIGHT_QUANT", "enable_encode": False}}
    with pytest.raises(ConfigError, match="8 and 16 bits only"):
        ptq_lab.explore(DIGITS.model_path, config=raw)


def test_a_weight_that_two_nodes_share_is_one_layer_and_random_inputs_are_admitted() -> None:
    explorer = ptq_lab.explore(tied_embedding().proto)
    assert any("no samples" in note for note in explorer.notes)
    shared = [row for row in explorer.layers if len(explorer.plan[row.tensor].nodes) > 1]
    assert len(shared) == 1
    for name in explorer.plan[shared[0].tensor].nodes:
        assert explorer.set_bits(name, 5).errors[shared[0].tensor] > 0.0


def test_sensitivities_are_measured_once_for_the_same_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    runs: list[str] = []
    explorers = [
        ptq_lab.explore(DIGITS.model_path, DIGITS.calib_path, progress=lambda step: runs.append(step.detail))
        for _ in range(2)
    ]
    assert len(runs) == len(TENSORS) + 1
    assert runs[-1] == "from the cache"
    assert explorers[1].notes == (*explorers[0].notes, "sensitivities reused from the cache")
    assert explorers[0].predict() == explorers[1].predict()
    other = ptq_lab.explore(DIGITS.model_path, DIGITS.calib_path, HEAD + "[weight_quant_param]\nper_channel=false\n")
    assert other.notes == ()


def test_decoded_weights_are_kept_within_their_limit_and_are_what_quantizing_gives(
    measured: MixedBitExplorer,
) -> None:
    entries = back_to_start(measured).plan.entries
    largest = max(4 * int(np.prod(entry.shape)) for entry in entries)
    decoded = Decoded(measured.original, limit=largest)
    free = Decoded(measured.original)
    for entry in entries:
        np.testing.assert_array_equal(decoded(entry), free(entry))
        assert free(entry) is free(entry)
        assert decoded.held <= largest


@pytest.mark.parametrize("name", ptq_lab.demo.NAMES)
def test_the_size_of_a_file_is_known_without_writing_its_weights(name: str) -> None:
    source = load_model(ptq_lab.demo.load(name).model_path)
    plan = ptq_lab.preview(source, HEAD)
    widths = (2, 4, 5, 7, 8)
    sizes = measure_file_sizes(source, plan, widths)
    for bits in widths:
        text = HEAD + f"bit_num={bits}\n"
        result = ptq_lab.quantize(source, text)
        said = sum(len(k) + len(v) for k, v in result.model.ir_model.metadata_props.items())
        found = plan.with_bits(bits)
        guess = (
            sizes.rest[required_opset(found)] + sum(e.bytes_after + sizes.decoding[bits] for e in found.entries) + said
        )
        assert guess == pytest.approx(result.model_path.stat().st_size, rel=0.03, abs=600)
