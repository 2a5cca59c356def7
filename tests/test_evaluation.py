"""Metrics: the user's function, and top-1 on labelled data."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ptq_lab.calibration import Preprocessing
from ptq_lab.errors import SampleError
from ptq_lab.evaluation import Metric, open_metric
from ptq_lab.graph.tensors import TensorSpec

INPUTS = [TensorSpec(name="x", dtype=np.dtype("float32"), shape=("n", 4))]
SCORES = np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0, 1]]  # the "model" answers 0 1 2 3 0 1
LABELS = np.array([0, 1, 2, 0, 1, 1])  # four of six are right


class Echo:
    """A session whose class scores are its input; ``shape`` and ``classes`` bend the output."""

    def __init__(self, shape: tuple[int, ...] = (1, 4), shift: int = 0, dtype: str = "float32") -> None:
        self.shape, self.shift, self.dtype = shape, shift, dtype

    def run(self, names: None, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        scores = np.pad(feeds["x"], ((0, 0), (self.shift, 0)))
        return [np.resize(scores, self.shape).astype(self.dtype), np.zeros(3)]

    def get_outputs(self) -> list[Any]:
        return [SimpleNamespace(name="probabilities"), SimpleNamespace(name="other")]


def archive(tmp_path: Path, **arrays: Any) -> Path:
    np.savez(tmp_path / "eval.npz", **arrays)
    return tmp_path / "eval.npz"


def folder(tmp_path: Path, labels: str) -> Path:
    for number, scores in enumerate(SCORES):
        scores.tofile(tmp_path / f"{number} a.bin")
    (tmp_path / "labels.txt").write_text(labels, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("name", ["labels", "label"])
@pytest.mark.parametrize("form", ["flat", "column", "whole floats"])
def test_top1_of_an_archive_is_the_share_of_right_answers(tmp_path: Path, name: str, form: str) -> None:
    labels = {"flat": LABELS, "column": LABELS[:, None], "whole floats": LABELS.astype(float)}[form]

    metric = open_metric(archive(tmp_path, x=SCORES, **{name: labels}), INPUTS)

    assert metric.name == "top-1"
    assert metric.origin == "6 samples of eval.npz"
    assert metric.notes == ()
    assert metric.score(Echo()) == metric.score(Echo()) == pytest.approx(4 / 6)


def test_the_limit_takes_the_first_samples_with_their_labels(tmp_path: Path) -> None:
    metric = open_metric(archive(tmp_path, x=SCORES, labels=LABELS), INPUTS, limit=3)

    assert metric.score(Echo()) == 1.0


@pytest.mark.parametrize("separator", ["\t", ",", ", "])
def test_top1_of_a_folder_follows_labels_txt(tmp_path: Path, separator: str) -> None:
    lines = [f"{number} a.bin{separator}{label}" for number, label in enumerate(LABELS)]

    metric = open_metric(folder(tmp_path, "\n".join(["# file, class", "", *lines])), INPUTS)

    assert metric.origin.startswith("6 .bin files of")
    assert metric.score(Echo()) == pytest.approx(4 / 6)


def test_labels_may_come_in_any_order_with_blanks_and_further_columns(tmp_path: Path) -> None:
    for number, scores in enumerate(SCORES):
        scores.tofile(tmp_path / f"{number}.bin")
    lines = [f"{number}.bin  {label}   cat whatever" for number, label in enumerate(LABELS)]
    (tmp_path / "labels.txt").write_text("\n".join(reversed(lines)))

    assert open_metric(tmp_path, INPUTS).score(Echo()) == pytest.approx(4 / 6)


def test_labels_of_absent_files_are_noted_and_files_without_label_refused(tmp_path: Path) -> None:
    text = "".join(f"{number} a.bin\t{label}\n" for number, label in enumerate(LABELS))
    folder(tmp_path, text + "gone.bin\t1\n")

    assert open_metric(tmp_path, INPUTS).notes == (
        "labels.txt names 1 files that are not in the folder, e.g. gone.bin",
    )
    SCORES[0].tofile(tmp_path / "new.bin")
    with pytest.raises(SampleError, match=r"labels\.txt: no label for new\.bin"):
        open_metric(tmp_path, INPUTS)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("0.bin", r"line 2: '0\.bin'; a file name and a class index"),
        ("0.bin\tcat", "line 2: "),
        ("0.bin\t\t1", "line 2: "),
        ("0.bin\t-1", "line 2: "),
        ("a.bin\t2", "line 2: a.bin has two labels, 1 and 2"),
    ],
)
def test_a_bad_line_of_labels_is_named(tmp_path: Path, line: str, expected: str) -> None:
    with pytest.raises(SampleError, match=expected):
        open_metric(folder(tmp_path, f"a.bin\t1\n{line}\n"), INPUTS)


def test_a_folder_without_labels_is_refused(tmp_path: Path) -> None:
    SCORES[0].tofile(tmp_path / "0.bin")

    with pytest.raises(SampleError, match=r"no labels\.txt for top-1; each line"):
        open_metric(tmp_path, INPUTS)


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"x": SCORES}, "no array 'labels' for top-1, it holds: x"),
        ({"mfcc": SCORES, "label": LABELS}, "no array for the input 'x', it holds: mfcc, label"),
        ({"x": SCORES, "labels": LABELS[:5]}, "5 labels for 6 samples"),
        ({"x": SCORES, "labels": SCORES}, r"'labels' is float32 \[6, 4\]; one class index"),
        ({"x": SCORES, "labels": LABELS + 0.5}, "one class index"),
        ({"x": SCORES, "labels": -LABELS}, "one class index"),
        ({"x": SCORES, "labels": np.full(6, np.inf)}, "one class index"),
        ({"x": SCORES, "labels": LABELS.astype(str)}, "one class index"),
        ({"x": SCORES, "labels": LABELS.astype(object)}, "'labels' holds Python objects"),
    ],
)
def test_an_archive_that_cannot_score_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray], expected: str) -> None:
    with pytest.raises(SampleError, match=expected):
        open_metric(archive(tmp_path, **arrays), INPUTS)


@pytest.mark.parametrize("shape", [("n", 4), (1, 4), ("n", 4, 1, 1), ("n", 1, 4)])
def test_a_label_beyond_a_fixed_number_of_classes_is_refused_when_the_metric_is_opened(
    tmp_path: Path, shape: tuple[int | str, ...]
) -> None:
    scores = [TensorSpec(name="y", dtype=np.dtype("float32"), shape=shape)]
    said = r"sample 1 is labelled 4, but the model has only 4 classes \(0\.\.3\)"
    with pytest.raises(SampleError, match=said):
        open_metric(archive(tmp_path, x=SCORES, labels=LABELS + 3), INPUTS, outputs=scores)
    assert open_metric(archive(tmp_path, x=SCORES, labels=LABELS), INPUTS, outputs=scores).name == "top-1"


@pytest.mark.parametrize("shape", [("n", "classes"), ("n", 2, 3), ("n", 1), (), ("n", 4, "m")])
def test_an_output_whose_shape_does_not_tell_the_classes_leaves_labels_for_later(
    tmp_path: Path, shape: tuple[int | str, ...]
) -> None:
    output = [TensorSpec(name="y", dtype=np.dtype("float32"), shape=shape)]
    assert open_metric(archive(tmp_path, x=SCORES, labels=LABELS + 9), INPUTS, outputs=output).name == "top-1"


def test_a_label_that_the_model_does_not_have_is_refused(tmp_path: Path) -> None:
    metric = open_metric(archive(tmp_path, x=SCORES, labels=LABELS + 3), INPUTS)

    with pytest.raises(SampleError, match=r"eval\.npz, sample 1 is labelled 4, .* only 4 classes \(0\.\.3\)"):
        metric.score(Echo())


def test_answers_that_are_off_by_one_are_counted_as_wrong_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metric = open_metric(archive(tmp_path, x=SCORES, labels=LABELS), INPUTS)

    with caplog.at_level(logging.WARNING):
        score = metric.score(Echo(shape=(1, 5), shift=1))

    assert score == 0.0 + (np.array([1, 2, 3, 4, 1, 2]) == LABELS).mean()
    assert "answers are the label plus 1" in caplog.text


def test_class_scores_may_have_further_axes_of_size_one(tmp_path: Path) -> None:
    metric = open_metric(archive(tmp_path, x=SCORES, labels=LABELS), INPUTS)

    assert metric.score(Echo(shape=(1, 4, 1, 1))) == pytest.approx(4 / 6)


@pytest.mark.parametrize("shape", [(1, 2, 2), (2, 4), (1, 1), ()])
def test_an_output_that_is_no_row_of_scores_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    metric = open_metric(archive(tmp_path, x=SCORES, labels=LABELS), INPUTS)

    with pytest.raises(SampleError, match="the output 'probabilities' gives float32"):
        metric.score(Echo(shape=shape))


def test_a_model_that_answers_nan_is_never_right(tmp_path: Path) -> None:
    class Broken(Echo):
        def run(self, names: None, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
            return [np.full((1, 4), np.nan, np.float32)]

    metric = open_metric(archive(tmp_path, x=SCORES, labels=np.zeros(6, int)), INPUTS)

    assert metric.score(Broken()) == 0.0


def test_the_input_shape_sizes_raw_buffers_of_inputs_with_dynamic_axes(tmp_path: Path) -> None:
    text = "".join(f"{number} a.bin\t{label}\n" for number, label in enumerate(LABELS))
    inputs = [TensorSpec(name="x", dtype=np.dtype("float32"), shape=("n", "classes"))]

    metric = open_metric(folder(tmp_path, text), inputs, input_shape={"x": [1, 4]})

    assert metric.score(Echo()) == pytest.approx(4 / 6)


def test_preprocessing_reaches_the_samples_of_a_folder(tmp_path: Path) -> None:
    text = "".join(f"{number} a.bin\t{label}\n" for number, label in enumerate(LABELS))

    with pytest.raises(SampleError, match="no IMAGE files"):
        open_metric(folder(tmp_path, text), INPUTS, preprocess=Preprocessing(input_type="IMAGE"))


@pytest.mark.parametrize("value", [0.25, np.float32(0.25), np.array(0.25), np.array([0.25])])
def test_a_function_of_the_user_scores_under_its_own_name(value: Any) -> None:
    def psnr(session: Any) -> Any:
        return value if session == "session" else None

    metric = open_metric(psnr, INPUTS)

    assert metric.name == "psnr"
    assert metric.score("session") == 0.25
    assert type(metric.score("session")) is float
    assert open_metric(metric, INPUTS) is metric


def test_a_callable_object_is_named_after_its_class() -> None:
    class Accuracy:
        def __call__(self, session: Any) -> int:
            return 1

    assert open_metric(Accuracy(), INPUTS).name == "Accuracy"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "f: returned NoneType None, a number"),
        ("0.9", "returned str '0.9', a number"),
        (np.ones(2), r"returned ndarray array\(\[1\., 1\.\]\), a number"),
        (1j, "returned complex"),
        (float("nan"), "returned nan, a finite number"),
        (np.float32("inf"), "returned inf, a finite number"),
    ],
)
def test_a_function_that_returns_no_finite_number_is_refused(value: Any, expected: str) -> None:
    with pytest.raises(SampleError, match=expected):
        Metric(name="f", function=lambda session: value).score(None)


def test_a_function_is_imported_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_metric_of_tests.py").write_text(
        "class Scores:\n    @staticmethod\n    def half(session):\n        return 0.5\nnumber = 3\n"
    )
    (tmp_path / "broken_metric_of_tests.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)

    metric = open_metric("my_metric_of_tests:Scores.half", INPUTS)

    assert (metric.name, metric.score(None)) == ("half", 0.5)
    assert sys.path == path
    for source, expected in [
        ("my_metric_of_tests:whole", "my_metric_of_tests has no whole"),
        ("my_metric_of_tests:number", "is int 3, a function"),
        ("my_metric_of_tests.py:half", "cannot be imported: .*; write my_metric_of_tests:half"),
        ("broken_metric_of_tests:half", "failed with ZeroDivisionError"),
        ("no_such_module_of_tests:half", "cannot be imported"),
    ]:
        with pytest.raises(SampleError, match=expected):
            open_metric(source, INPUTS)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("nowhere.npz", r"no such file or folder; a callable session -> float, 'module:function', an \.npz"),
        ("here.txt", r"is neither a folder nor an \.npz"),
        (3.5, "evaluate: float 3.5 given"),
        (None, "evaluate: NoneType None given"),
    ],
)
def test_anything_else_is_refused_with_what_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Any, expected: str
) -> None:
    (tmp_path / "here.txt").write_text("x")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(SampleError, match=expected):
        open_metric(source, INPUTS)


def test_what_a_users_metric_raises_is_told_as_the_users() -> None:
    def broken(session: object) -> float:
        raise ZeroDivisionError("boom")

    with pytest.raises(SampleError, match="broken: raised ZeroDivisionError: boom"):
        Metric(name="broken", function=broken).score(None)


def test_the_users_own_exception_stays_reachable_behind_the_message() -> None:
    with pytest.raises(SampleError) as caught:
        Metric(name="divide", function=lambda session: 1 / 0).score(None)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
