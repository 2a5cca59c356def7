"""Runs side by side: numbers against independent ones, files that are gone, and what cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ptq_lab
from ptq_lab import demo
from ptq_lab.errors import ConfigError
from ptq_lab.figures.side_by_side import side_by_side_html
from ptq_lab.report.side_by_side import Flip, RunColumn, SideBySide, side_by_side_text
from ptq_lab.runs import MANY, PICTURES
from tests.figures.conftest import MadeReports

DIGITS = demo.load("digits_cnn")


def quantized(bits: int, output: Path | None = None, **options: Any) -> ptq_lab.QuantResult:
    common = {"quant_type": "WEIGHT_QUANT", "bit_num": bits, "min_quant_weight_channel": 0}
    given = {"samples": DIGITS.calib_path, "evaluate": DIGITS.eval_path} | options
    return ptq_lab.quantize(DIGITS.model_path, {"common_quant_param": common}, output, **given)


@pytest.fixture(scope="module")
def runs() -> dict[str, ptq_lab.QuantResult]:
    return {"eight": quantized(8), "two": quantized(2)}


@pytest.fixture(scope="module")
def seen(runs: dict[str, ptq_lab.QuantResult]) -> SideBySide:
    return ptq_lab.side_by_side(runs)


def answers(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return classes and outputs of the evaluation data, computed without the house."""
    session = onnxruntime.InferenceSession(path)
    with np.load(DIGITS.eval_path) as arrays:
        images = arrays["image"][:MANY]
    outputs = np.concatenate([session.run(None, {"image": image[None]})[0] for image in images])
    return outputs.argmax(-1), outputs


def test_changed_answers_are_those_that_onnxruntime_gives(runs: Any, seen: SideBySide) -> None:
    float_classes, _ = answers(DIGITS.model_path)
    for column, run in zip(seen.runs, runs.values(), strict=True):
        classes, _ = answers(run.model_path)
        assert column.changed == int((classes != float_classes).sum())
    two, _ = answers(runs["two"].model_path)
    numbers = {flip.sample.rpartition(" ")[2] for flip in seen.flips}
    assert len(seen.flips) == min(PICTURES, seen.flipped)
    for flip in seen.flips:
        index = int(flip.sample.rpartition(" ")[2])
        assert (flip.answer, flip.answers[1]) == (float_classes[index], two[index])
    assert len(numbers) == len(seen.flips) > 3


def test_the_errors_on_both_kinds_of_samples_are_mean_cosines(runs: Any, seen: SideBySide) -> None:
    _, wanted = answers(DIGITS.model_path)
    for column, run in zip(seen.runs, runs.values(), strict=True):
        _, got = answers(run.model_path)
        cosines = (wanted * got).sum(-1) / np.linalg.norm(wanted, axis=-1) / np.linalg.norm(got, axis=-1)
        assert column.evaluation == pytest.approx(1 - cosines.mean(), rel=1e-3, abs=1e-7)
        assert column.calibration is not None


def test_labels_stand_beside_the_answers(seen: SideBySide) -> None:
    with np.load(DIGITS.eval_path) as arrays:
        labels = arrays["labels"]
    assert all(flip.label == labels[int(flip.sample.rpartition(" ")[2])] for flip in seen.flips)


def test_layers_are_sorted_by_their_worst_error_and_name_their_bits(seen: SideBySide) -> None:
    assert [row.worst for row in seen.layers] == sorted((row.worst for row in seen.layers), reverse=True)
    assert {row.bits for row in seen.layers} == {(8, 2)}
    assert all(eight < two for eight, two in (row.errors for row in seen.layers))


def test_only_settings_that_differ_are_listed(runs: Any, seen: SideBySide) -> None:
    assert [(row.key, row.values) for row in seen.settings] == [("bit_num", ("8", "2"))]
    other = quantized(8, fp16=True, samples=[{"image": np.zeros((1, 1, 16, 16), np.float32)}] * 2)
    rows = {row.key: row.values for row in ptq_lab.side_by_side({"a": runs["eight"], "b": other}).settings}
    assert rows["fp16"] == ("False", "True")
    assert rows["samples"][1] == "2 samples given by the caller"
    assert set(rows) == {"fp16", "samples"}


def test_pictures_are_small_pngs_inside_html_without_scripts(seen: SideBySide) -> None:
    html = side_by_side_html(seen)
    assert html.count("data:image/png;base64,") == len(seen.flips)
    assert all(flip.picture[1:4] == b"PNG" for flip in seen.flips)
    assert "<script" not in html
    assert len(html) < 100_000


def test_a_deleted_and_an_overwritten_file_are_looked_at_as_they_were(tmp_path: Path) -> None:
    first, second = quantized(3, tmp_path / "q.onnx"), None
    wanted = ptq_lab.side_by_side({"first": first, "again": first}).runs[0].evaluation
    second = quantized(8, tmp_path / "q.onnx")
    seen = ptq_lab.side_by_side({"first": first, "second": second})
    assert seen.runs[0].evaluation == pytest.approx(wanted)
    assert [note for note in seen.notes if "written over" in note] == [
        "first: q.onnx was deleted or written over since; the run is looked at as it was"
    ]
    (tmp_path / "q.onnx").unlink()
    assert ptq_lab.side_by_side({"first": first, "second": second}).runs[0].evaluation == pytest.approx(wanted)


def test_runs_of_different_models_compare_sizes_alone(runs: Any) -> None:
    words = demo.load("digits_transformer")
    other = ptq_lab.quantize(words.model_path, {"common_quant_param": {"quant_type": "WEIGHT_QUANT"}})
    seen = ptq_lab.side_by_side({"a": runs["eight"], "b": other})
    assert (seen.layers, seen.flips, seen.looked_at) == ((), (), 0)
    assert any("different models" in note for note in seen.notes)
    assert "times smaller" in str(seen)


def test_a_model_that_gives_pictures_has_no_answers_to_change() -> None:
    photo = demo.load("photo_denoiser")
    config = {"common_quant_param": {"quant_type": "WEIGHT_QUANT"}}
    run = ptq_lab.quantize(photo.model_path, config, samples=photo.calib_path, evaluate=photo.evaluate)
    seen = ptq_lab.side_by_side({"a": run, "b": run})
    assert (seen.flips, seen.runs[0].changed, seen.runs[0].evaluation) == ((), None, None)
    assert seen.runs[0].calibration is not None


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (None, "a mapping from names to results"),
        ({}, "0 given; 2 to 8"),
        ({"a": None, "b": 3}, "a is NoneType, b is int; results of ptq_lab.quantize wanted"),
    ],
)
def test_what_are_no_runs_is_one_message(wrong: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ptq_lab.side_by_side(wrong)


def test_a_larger_error_on_evaluation_is_pointed_out() -> None:
    summary = MadeReports().report().summary
    pairs = [(0.01, 0.03), (0.01, 0.015), (None, 0.5), (0.0, 1e-9)]
    columns = [RunColumn(name="r", summary=summary, calibration=a, evaluation=b) for a, b in pairs]
    assert [column.overfits for column in columns] == [True, False, False, False]


@given(name=st.text(min_size=1, max_size=30), answer=st.integers(0, 999))
def test_any_name_is_escaped_and_every_number_stands_in_both_renderings(name: str, answer: int) -> None:
    summary = MadeReports().report().summary
    flip = Flip(sample="7", label=None, answer=answer, answers=(answer + 1, answer + 2))
    runs = (RunColumn(name=name, summary=summary, changed=1), RunColumn(name="<b>", summary=summary, changed=2))
    seen = SideBySide(runs=runs, flips=(flip,), flipped=1, looked_at=9, seen_on="9 samples")
    text, html = side_by_side_text(seen), side_by_side_html(seen)
    assert "<b>" not in html
    assert all(f"{number}" in text and f"{number}" in html for number in (answer, answer + 1, answer + 2))
    assert json.dumps(text)


def test_runs_that_wrote_containers_are_as_they_were_written(tmp_path: Path) -> None:
    config = {"common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": 4}, "ptq_lab": {"encode": "entropy"}}
    runs = {
        name: ptq_lab.quantize(DIGITS.model_path, config, tmp_path / f"{name}.ptqz", samples=DIGITS.calib_path)
        for name in ("one", "two")
    }
    assert "written over" not in " ".join(ptq_lab.side_by_side(runs).notes)
    runs["two"].model_path.write_bytes(b"something else")
    assert "two: two.ptqz was deleted or written over since" in " ".join(ptq_lab.side_by_side(runs).notes)
