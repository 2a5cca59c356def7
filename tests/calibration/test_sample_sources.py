"""Every form of source gives the same kind of samples: order, count, pairing, passes, fingerprints."""

from __future__ import annotations

import os
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ptq_lab.calibration import Preprocessing, open_samples
from ptq_lab.errors import SampleError
from ptq_lab.graph.tensors import TensorSpec

VALUES = np.arange(10, dtype=np.float32).reshape(5, 2)


def spec(name: str = "x", dtype: str = "float32", shape: tuple[int | str, ...] = ("n", 2)) -> TensorSpec:
    return TensorSpec(name=name, dtype=np.dtype(dtype), shape=shape)


PAIR = [spec("a"), spec("b", "int64", ("n", "length"))]


def save_each(folder: Path, values: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, value in enumerate(values):
        np.save(folder / f"{number}.npy", value)
    return folder


def source(kind: str, tmp_path: Path) -> object:
    """Keep ``VALUES`` in one of the forms that `open_samples` takes."""
    if kind in ("npz", "compressed npz"):
        write = np.savez if kind == "npz" else np.savez_compressed
        write(tmp_path / "x.npz", x=VALUES)
        return tmp_path / "x.npz"
    if kind == "npz in Fortran order":
        np.savez(tmp_path / "x.npz", x=np.asfortranarray(VALUES))
        return tmp_path / "x.npz"
    if kind == "npy":
        np.save(tmp_path / "x.npy", VALUES)
        return str(tmp_path / "x.npy")
    folder = save_each(tmp_path / "all" / "x", VALUES)
    return {
        "folder": folder,
        "folder of folders": folder.parent,
        "mapping to folder": {"x": str(folder)},
        "mapping to array": {"x": VALUES},
        "array": VALUES,
        "list": [{"x": value} for value in VALUES],
        "list with batch axis": [{"x": value[None]} for value in VALUES],
        "generator": ({"x": value} for value in VALUES),
    }[kind]


KINDS = [
    "npz",
    "compressed npz",
    "npz in Fortran order",
    "npy",
    "folder",
    "folder of folders",
    "mapping to folder",
    "mapping to array",
    "array",
    "list",
    "list with batch axis",
    "generator",
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_source_gives_the_same_samples_on_every_pass(kind: str, tmp_path: Path) -> None:
    samples = open_samples(source(kind, tmp_path), [spec()])

    assert samples.names == ("x",)
    assert len(samples) == 5
    for _ in range(2):
        passed = [sample["x"] for sample in samples]
        assert [array.shape for array in passed] == [(1, 2)] * 5
        np.testing.assert_array_equal(np.concatenate(passed), VALUES)


@pytest.mark.parametrize("kind", KINDS)
def test_limits_and_parts_are_the_same_samples_and_more_than_there_are_is_refused(kind: str, tmp_path: Path) -> None:
    samples = open_samples(source(kind, tmp_path), [spec()], limit=4)
    assert len(samples) == 4
    np.testing.assert_array_equal(next(iter(samples.part(2, 3)))["x"][0], VALUES[2])
    np.testing.assert_array_equal(next(iter(samples.part(1, 4).part(1, 2)))["x"][0], VALUES[2])
    assert [len(samples.take(count)) for count in (1, 4, 9)] == [1, 4, 4]

    with pytest.raises(SampleError, match=r"too few samples: 5 .*, 6 wanted"):
        open_samples(source(kind, tmp_path), [spec()], limit=6)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_can_be_pickled_for_another_process(kind: str, tmp_path: Path) -> None:
    samples = open_samples(source(kind, tmp_path), [spec()])

    copy = pickle.loads(pickle.dumps(samples))

    assert [sample["x"].tolist() for sample in copy] == [sample["x"].tolist() for sample in samples]
    assert copy.fingerprint() == samples.fingerprint()


@pytest.mark.parametrize("kind", KINDS)
def test_the_fingerprint_follows_the_content_and_nothing_else(kind: str, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    samples = open_samples(source(kind, first), [spec()])
    again = open_samples(source(kind, second), [spec()])

    assert samples.fingerprint() == again.fingerprint()
    assert samples.fingerprint() == samples.take(5).fingerprint()
    assert samples.fingerprint() != samples.take(4).fingerprint()
    assert samples.take(1).fingerprint() != samples.part(1, 2).fingerprint()


def test_the_fingerprint_of_images_follows_the_preprocessing(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / "0.png")
    inputs = [spec(shape=("n", 3, "h", "w"))]

    rgb = open_samples(tmp_path, inputs, preprocess=Preprocessing(image_to_format="RGB"))
    bgr = open_samples(tmp_path, inputs, preprocess=Preprocessing(image_to_format="BGR"))

    assert rgb.fingerprint() != bgr.fingerprint()


def test_files_are_opened_again_in_every_pass(tmp_path: Path) -> None:
    folder = save_each(tmp_path, VALUES)
    samples = open_samples(folder, [spec()])
    before = samples.fingerprint()

    np.save(folder / "0.npy", np.array([7, 7], np.float32))

    assert next(iter(samples))["x"].tolist() == [[7, 7]]
    assert samples.fingerprint() != before


def test_an_interrupted_pass_leaves_the_next_one_whole(tmp_path: Path) -> None:
    samples = open_samples(source("npz", tmp_path), [spec()])
    for _ in samples:
        break

    assert len(list(samples)) == 5


@pytest.mark.parametrize("kind", ["npz", "compressed npz", "npy", "folder"])
def test_a_pass_holds_few_samples_in_memory_at_a_time(kind: str, tmp_path: Path, monkeypatch: Any) -> None:
    values = np.random.default_rng(0).normal(size=(40, 50_000)).astype(np.float32)  # 200 kB each, 8 MB in all
    monkeypatch.setitem(globals(), "VALUES", values)
    samples = open_samples(source(kind, tmp_path), [spec(shape=("n", 50_000))])

    tracemalloc.start()
    try:
        seen = sum(1 for _ in samples)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert seen == 40
    assert peak < 6 * values[0].nbytes


def test_the_first_files_are_taken_by_the_bytes_of_their_names(tmp_path: Path) -> None:
    for name in ("2", "10", "1", "B", "a", "é"):
        np.save(tmp_path / f"{name}.npy", np.zeros(2, np.float32))

    samples = open_samples(tmp_path, [spec()])

    names = [Path(samples.place(index)).stem for index in range(6)]
    assert names == sorted(names, key=os.fsencode)
    assert names[:4] == ["1", "10", "2", "B"]


def test_hidden_files_sub_folders_and_labels_are_left_out_of_the_count(tmp_path: Path) -> None:
    save_each(tmp_path, VALUES)
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / ".hidden.npy").write_bytes(b"x")
    (tmp_path / "labels.txt").write_text("0.npy 1")
    (tmp_path / "0000").mkdir()

    samples = open_samples(tmp_path, [spec()])

    assert len(samples) == 5
    assert samples.notes == ()


def test_other_files_are_left_out_with_a_note(tmp_path: Path) -> None:
    save_each(tmp_path / "mine", VALUES)
    (tmp_path / "mine" / "recipe.md").write_text("x")

    assert open_samples(tmp_path / "mine", [spec()]).notes == ("mine: 1 file is not read as NPY and left out (1 .md)",)


def test_samples_of_another_kind_than_the_one_asked_for_are_left_out_with_a_note(tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    save_each(folder, VALUES)
    for number, row in enumerate(VALUES):
        row.astype(np.float32).tofile(folder / f"{number}.bin")

    samples = open_samples(folder, [spec()], preprocess=Preprocessing(input_type="BIN"))

    assert samples.notes == (f"mixed: {len(VALUES)} files are not read as BIN and left out ({len(VALUES)} .npy)",)
    assert len(samples) == len(VALUES)


def test_several_inputs_are_paired_by_their_sorted_position(tmp_path: Path) -> None:
    save_each(tmp_path / "a", VALUES)
    save_each(tmp_path / "b", np.arange(20).reshape(5, 4))

    samples = open_samples(tmp_path, PAIR)

    third = list(samples)[2]
    assert third["a"].tolist() == [[4, 5]]
    assert third["b"].tolist() == [[8, 9, 10, 11]]
    assert third["b"].dtype == np.int64


def test_a_mapping_may_mix_folders_files_and_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "b.npy", np.arange(20).reshape(5, 4))

    samples = open_samples({"b": tmp_path / "b.npy", "a": save_each(tmp_path / "a", VALUES)}, PAIR)

    assert next(iter(samples))["b"].tolist() == [[0, 1, 2, 3]]


def test_an_input_name_with_slashes_is_looked_up_inside_the_folder(tmp_path: Path) -> None:
    save_each(tmp_path / "model" / "x", VALUES)

    assert len(open_samples(tmp_path, [spec("/model/x")])) == 5


def test_dynamic_axes_may_differ_from_sample_to_sample() -> None:
    items = [{"b": np.arange(length)} for length in (3, 7)]

    samples = open_samples(items, PAIR[1:])

    assert [sample["b"].shape for sample in samples] == [(1, 3), (1, 7)]


def test_arrays_that_are_no_inputs_are_ignored_with_a_note(tmp_path: Path) -> None:
    np.savez(tmp_path / "calib.npz", x=VALUES, labels=np.arange(5))

    samples = open_samples(tmp_path / "calib.npz", [spec()])
    listed = open_samples([{"x": VALUES[0], "labels": 1}], [spec()])

    assert samples.notes == ("calib.npz: arrays that are no inputs were ignored: labels",)
    assert listed.notes == ("samples: arrays that are no inputs were ignored: labels",)


def test_image_options_are_reported_as_unused_for_arrays(tmp_path: Path) -> None:
    options = Preprocessing(normalize_mean=(1, 2, 3), normalize_std=(1, 1, 1))

    (note,) = open_samples(source("npz", tmp_path), [spec()], preprocess=options).notes

    assert note == "the arrays are fed as they are: normalize_mean, normalize_std act on image files only"


@pytest.mark.parametrize(
    ("kind", "origin"),
    [
        ("npz", "5 samples of x.npz"),
        ("folder", "5 .npy files of x"),
        ("mapping to folder", "5 .npy files of x"),
        ("list", "5 samples given by the caller"),
    ],
)
def test_the_origin_says_how_many_of_what_from_where(kind: str, origin: str, tmp_path: Path) -> None:
    samples = open_samples(source(kind, tmp_path), [spec()])

    assert samples.origin == origin
    assert samples.take(1).origin == origin.replace("5", "1").replace("samples", "sample").replace("files", "file")


def test_without_a_source_the_calibrate_path_is_read_up_to_its_size(tmp_path: Path) -> None:
    folder = save_each(tmp_path, VALUES)
    options = Preprocessing(calibrate_path=(("x", str(folder)),), calibrate_size=3)

    assert len(open_samples(None, [spec()], preprocess=options)) == 3
    assert len(open_samples(None, [spec()], preprocess=options, limit=2)) == 2
    assert len(open_samples(folder, [spec()], preprocess=options)) == 5


def test_samples_are_passed_through_as_a_source() -> None:
    samples = open_samples(VALUES, [spec()])

    assert open_samples(samples, [spec()]) is samples
    assert len(open_samples(samples, [spec()], limit=2)) == 2
    with pytest.raises(SampleError, match="for the inputs x, the model has a, b"):
        open_samples(samples, PAIR)


def test_a_generator_is_read_no_further_than_the_limit() -> None:
    def endless() -> object:
        while True:
            yield {"x": VALUES[0]}

    assert len(open_samples(endless(), [spec()], limit=3)) == 3


@given(
    given_as=st.sampled_from(["uint8", "int16", "int32", "int64", "float32", "float64", "float16", "bool"]),
    wanted=st.sampled_from(["uint8", "int8", "int32", "int64", "float32", "float16", "float64", "bool"]),
    bits=st.lists(st.integers(0, 1), min_size=2, max_size=2),
)
def test_values_that_the_input_can_hold_are_converted_whatever_their_type(
    given_as: str, wanted: str, bits: list[int]
) -> None:
    samples = open_samples([{"x": np.array(bits, given_as)}], [spec(dtype=wanted)])

    result = next(iter(samples))["x"]

    assert result.dtype == np.dtype(wanted)
    assert result.tolist() == [bits]
