"""Calibration that remembers: the same result, keys that notice every change, and files that never get in the way."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ptq_lab import demo, quantize
from ptq_lab.calibration import Preprocessing, Samples, cache, collect_statistics, open_samples, recall
from ptq_lab.calibration.cache import cache_folder, read_entry, write_entry
from ptq_lab.calibration.columns import ItemColumn
from ptq_lab.calibration.recall import Calibrator, pack, unpack
from ptq_lab.errors import InferenceError
from ptq_lab.graph import Model, load_model, save_model
from ptq_lab.numerics import Histogram, TensorStatistics
from ptq_lab.progress import Step
from ptq_lab.result import QuantResult
from ptq_lab.search import smooth
from tests import models
from tests.models import node

DIGITS = demo.load("digits_cnn")
TENSORS = ("x", "r", "p")
REUSED = "calibration statistics reused from the cache"


def network(seed: int = 0) -> Model:
    nodes = [node("Conv", ["x", "w"], ["c"]), node("Relu", ["c"], ["r"]), node("GlobalAveragePool", ["r"], ["p"])]
    return load_model(models.model(nodes, {"x": (1, 3, 8, 8)}, ["p"], {"w": models.random(4, 3, 3, 3, seed=seed)}))


def samples_of(model: Model, count: int = 3, seed: int = 1) -> Samples:
    return open_samples([{"x": models.random(3, 8, 8, seed=seed + index)} for index in range(count)], model.inputs)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where entries are kept during the test; the variable points to its parent."""
    monkeypatch.setenv("PTQ_LAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "calibration"


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def flat(value: Any) -> Any:
    """Turn statistics into something that compares by bits and types."""
    if isinstance(value, TensorStatistics | Histogram):
        return [flat(getattr(value, each.name)) for each in fields(value)]
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    return type(value).__name__, repr(value)


def same(ones: Mapping[str, TensorStatistics], others: Mapping[str, TensorStatistics]) -> bool:
    return [(name, flat(each)) for name, each in ones.items()] == [(name, flat(each)) for name, each in others.items()]


def calibrated(samples: Samples, model: Model, tensors: Sequence[str] = TENSORS, **options: Any) -> Calibrator:
    calibrate = Calibrator(samples=samples)
    calibrate(model, tensors, **options)
    return calibrate


@pytest.mark.parametrize("options", [{}, {"channels": True}, {"methods": ("KL", "MSE", "REMOVAL_OUTLIER")}])
def test_what_is_recalled_is_what_was_collected_to_the_last_bit(folder: Path, options: dict[str, Any]) -> None:
    model = network()
    collected = collect_statistics(model, TENSORS, samples_of(model), **options)
    for _ in range(2):
        calibrate = Calibrator(samples=samples_of(model))
        assert same(calibrate(model, TENSORS, **options), collected)
    assert (calibrate.memory.measured, calibrate.memory.reused, calibrate.memory.note) == (0, 1, REUSED)
    assert len(entries(folder)) == 1


numbers = st.floats(-1e6, 1e6)
counts = st.none() | st.lists(st.integers(0, 2**60), min_size=1, max_size=9).map(lambda each: np.array(each, np.int64))
extremes = st.none() | st.lists(st.floats(width=32), max_size=5).map(lambda each: np.array(each, np.float32))
histograms = st.none() | st.builds(
    Histogram, low=numbers, high=numbers, counts=counts.filter(lambda each: each is not None), zeros=st.integers(0, 99)
)
anything = st.builds(
    TensorStatistics,
    low=numbers,
    high=numbers,
    count=st.integers(0, 2**62),
    rounds=st.integers(0, 2**31),
    round_low=st.none() | numbers,
    round_high=st.none() | numbers,
    histogram=histograms,
    absolute=counts,
    channel_low=extremes,
    channel_high=extremes,
)


@given(st.dictionaries(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), anything))
def test_packing_loses_nothing(statistics: dict[str, TensorStatistics]) -> None:
    assert same(unpack(pack(statistics)), statistics)


def test_every_change_of_what_shapes_statistics_measures_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    samples = samples_of(model)
    cpu = {"samples": samples, "providers": ("CPUExecutionProvider",)}
    assert calibrated(samples, model).memory.measured == 1
    changed = [
        calibrated(samples, network(seed=5)),
        calibrated(samples, model, ("x", "r")),
        calibrated(samples, model, ("r", "x", "p")),
        calibrated(samples, model, channels=True),
        calibrated(samples, model, methods=("KL",)),
        calibrated(samples_of(model, seed=2), model),
        calibrated(samples.take(2), model),
    ]
    with monkeypatch.context() as patch:
        patch.setattr(recall, "runtime_version", lambda: "99.0")
        changed.append(calibrated(samples, model))
    with monkeypatch.context() as patch:
        patch.setattr(recall, "FORMAT", recall.FORMAT + 1)
        changed.append(calibrated(samples, model))
    assert {each.memory.reused for each in changed} == {0}
    assert len(entries(folder)) == 1 + len(changed)
    assert Calibrator(**cpu)(model, TENSORS)  # type: ignore[arg-type]
    assert calibrated(samples, model).memory.reused == 1


def test_methods_that_need_the_same_counts_share_them(folder: Path) -> None:
    model = network()
    assert calibrated(samples_of(model), model, methods=("MSE",)).memory.measured == 1
    assert calibrated(samples_of(model), model, methods=("PERCENTILE",)).memory.reused == 1


def test_images_are_known_by_content_and_preprocessing_and_not_by_place(folder: Path, tmp_path: Path) -> None:
    model = network()

    def opened(name: str, **options: Any) -> Samples:
        (tmp_path / name).mkdir(exist_ok=True)
        for index in range(2):
            pixels = np.random.default_rng(index).integers(0, 255, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{name}{index}.png")
        path = (("x", str(tmp_path / name)),)
        return open_samples(None, model.inputs, preprocess=Preprocessing(calibrate_path=path, **options))

    assert calibrated(opened("a"), model).memory.measured == 1
    assert calibrated(opened("b", calibrate_size=2, input_type="IMAGE"), model).memory.reused == 1
    assert calibrated(opened("a", image_to_format="RGB"), model).memory.reused == 0
    assert calibrated(opened("a", normalize_mean=(1.0,) * 3, normalize_std=(2.0,) * 3), model).memory.reused == 0


def test_a_file_that_changed_since_its_model_was_loaded_is_not_mistaken_for_it(folder: Path, tmp_path: Path) -> None:
    model = save_model(network(), tmp_path / "m.onnx")
    save_model(network(seed=7), tmp_path / "m.onnx")
    old = Calibrator(samples=samples_of(model))(model, TENSORS)
    new_model = load_model(tmp_path / "m.onnx")
    new = Calibrator(samples=samples_of(new_model))
    assert new(new_model, TENSORS)["r"].high != old["r"].high
    assert new.memory.reused == 0


def test_a_fingerprint_of_pinned_samples_is_taken_once_and_of_others_every_time() -> None:
    model = network()
    array = models.random(3, 3, 8, 8)
    samples = open_samples(array, model.inputs)
    pinned = samples.pinned()
    first, part = samples.fingerprint(), samples.take(2).fingerprint()
    assert (pinned.fingerprint(), pinned.take(2).fingerprint(), pinned.pinned()) == (first, part, pinned)
    array *= 2.0
    assert pinned.fingerprint() == first
    assert samples.fingerprint() != first
    assert samples.pinned().fingerprint() == samples.fingerprint()


def test_a_run_reads_the_samples_for_their_fingerprint_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    digest = ItemColumn.digest
    monkeypatch.setattr(ItemColumn, "digest", lambda *given: taken.append(given[0].name) or digest(*given))
    items = [{"image": image} for image in np.load(DIGITS.calib_path)["image"][:20]]
    config = {"common_quant_param": {"quant_type": "FULL_QUANT"}, "full_quant_param": {"smooth_alpha": 0}}
    quantize(DIGITS.model_path, config, samples=items)
    assert taken == ["image"]
    assert len(entries(folder)) == 1


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut", None])
def test_a_damaged_entry_is_measured_again_and_replaced(folder: Path, content: bytes | None) -> None:
    model = network()
    first = Calibrator(samples=samples_of(model))(model, TENSORS)
    [name] = entries(folder)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2] if content is None else content)
    again = Calibrator(samples=samples_of(model))
    assert same(again(model, TENSORS), first)
    assert again.memory.measured == 1
    assert calibrated(samples_of(model), model).memory.reused == 1


def test_arrays_of_something_else_are_measured_again(folder: Path) -> None:
    model = network()
    calibrated(samples_of(model), model)
    [name] = entries(folder)
    other = pack(collect_statistics(model, ["x"], samples_of(model)))
    for arrays in ({"x": np.arange(3)}, other, other | {"numbers": np.zeros((1, 2))}):
        write_entry(folder, name.removesuffix(".npz"), arrays)
        assert calibrated(samples_of(model), model).memory.measured == 1
    np.save(folder / "single", np.zeros(3))
    (folder / "single.npy").rename(folder / "single.npz")
    assert read_entry(folder, "single") is None


def test_objects_are_never_unpickled(folder: Path) -> None:
    folder.mkdir(parents=True)
    np.savez(folder / "evil.npz", x=np.array([{"a": 1}], object))
    assert read_entry(folder, "evil") is None


def test_a_folder_that_cannot_be_written_costs_nothing_but_a_line_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("PTQ_LAB_CACHE", str(tmp_path / "file"))
    caplog.set_level("INFO", "ptq_lab.calibration.cache")
    model = network()
    for _ in range(2):
        assert calibrated(samples_of(model), model).memory.measured == 1
    assert "cannot be written" in caplog.text
    assert (tmp_path / "file").read_text() == "no folder"


def test_what_cannot_be_measured_is_not_kept(folder: Path) -> None:
    model = network()
    broken = open_samples([{"x": models.random(3, 8, 8)}, {"x": np.full((3, 8, 8), 1e38, np.float32)}], model.inputs)
    with pytest.raises(InferenceError, match="sample 1"):
        calibrated(broken, model)
    assert entries(folder) == []


def test_entries_beyond_the_limit_go_and_those_used_last_stay(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = {"x": np.random.default_rng(0).integers(0, 256, 1000, np.uint8)}
    for name in "abc":
        write_entry(folder, name, noise)
    monkeypatch.setattr(cache, "LIMIT", int(3.5 * (folder / "a.npz").stat().st_size))
    (folder / "a.npz.1.unfinished").write_bytes(bytes(1000))
    (folder / "mine.txt").write_text("not of the cache")
    for age, name in enumerate(["a.npz.1.unfinished", "b.npz", "a.npz", "c.npz"]):
        os.utime(folder / name, (age, age))
    assert read_entry(folder, "b") is not None
    write_entry(folder, "d", noise)
    assert entries(folder) == ["b.npz", "c.npz", "d.npz", "mine.txt"]


def test_the_folder_is_the_variable_or_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = {
        ("", str(tmp_path)): tmp_path / "ptq_lab",
        ("", "relative"): Path.home() / ".cache" / "ptq_lab",
        ("", ""): Path.home() / ".cache" / "ptq_lab",
        (str(tmp_path / "mine"), str(tmp_path)): tmp_path / "mine",
        ("~/mine", ""): Path.home() / "mine",
    }
    for (given_folder, xdg), wanted in places.items():
        monkeypatch.setenv("PTQ_LAB_CACHE", given_folder)
        monkeypatch.setenv("XDG_CACHE_HOME", xdg)
        assert cache_folder() == wanted / "calibration"
    monkeypatch.setenv("PTQ_LAB_CACHE", " OFF ")
    assert cache_folder() is None


def test_a_folder_of_ours_is_for_its_user_alone(folder: Path) -> None:
    write_entry(folder, "a", {"x": np.zeros(1)})
    assert os.name == "nt" or stat.S_IMODE(folder.stat().st_mode) == 0o700


def unwanted(*_: object, **__: object) -> None:
    pytest.fail("the samples were run again")


def run(**full: object) -> QuantResult:
    config: dict[str, dict[str, object]] = {
        "common_quant_param": {"quant_type": "FULL_QUANT"},
        "full_quant_param": full,
    }
    return quantize(DIGITS.model_path, config, samples=DIGITS.calib_path)


def test_quantizing_again_recalibrates_nothing_gives_the_same_bytes_and_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as off:
        off.setenv("PTQ_LAB_CACHE", "off")
        without = run()
    assert entries(folder) == []
    cold, warm = run(), run()
    assert [REUSED in result.report.summary.notes for result in (without, cold, warm)] == [False, False, True]
    contents = {result.model_path.read_bytes() for result in (without, cold, warm)}
    assert len(contents) == 1
    assert warm.manifest == cold.manifest == without.manifest
    assert warm.report.activations == without.report.activations


def test_editing_another_line_does_not_recalibrate(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(activation_quant_method="KL")
    monkeypatch.setattr(recall, "collect_statistics", unwanted)
    second = run(activation_quant_method="KL", bias_correction=False)
    assert REUSED in second.report.summary.notes
    assert second.model_path.read_bytes() != first.model_path.read_bytes()
    assert first.report.activations == second.report.activations


def test_a_run_of_which_a_part_is_known_says_partly(folder: Path) -> None:
    run(activation_quant_method="MAX_MIN")
    assert (
        "calibration statistics partly reused from the cache" in run(activation_quant_method="KL").report.summary.notes
    )


def test_what_smoothing_measures_is_remembered_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = demo.load("digits_transformer")
    config = {"common_quant_param": {"quant_type": "FULL_QUANT"}}
    cold = quantize(words.model_path, config, samples=words.calib_path)
    assert len(entries(folder)) == 3  # both parts of the samples, and all of them after smoothing
    monkeypatch.setattr(recall, "collect_statistics", unwanted)
    monkeypatch.setattr(smooth, "run_sweep", unwanted)
    steps: list[Step] = []
    warm = quantize(words.model_path, config, samples=words.calib_path, progress=steps.append)
    assert warm.model_path.read_bytes() == cold.model_path.read_bytes()
    assert REUSED in warm.report.summary.notes
    told = {step.stage: (step.done, step.total) for step in steps if step.detail == "from the cache"}
    assert {stage: done == total for stage, (done, total) in told.items()} == {"smooth": True, "calibrate": True}


def test_what_progress_raises_is_not_taken_for_damage(folder: Path) -> None:
    model = network()
    calibrated(samples_of(model), model)

    def stop(_: Step) -> None:
        raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        Calibrator(samples=samples_of(model), progress=stop)(model, TENSORS)


def test_trying_two_methods_in_one_run_is_not_called_reuse(folder: Path) -> None:
    config = {"common_quant_param": {"quant_type": "FULL_QUANT"}, "ptq_lab": {"effort": "best"}}
    first, second = (quantize(DIGITS.model_path, config, samples=DIGITS.calib_path) for _ in range(2))
    assert not [note for note in first.report.summary.notes if "cache" in note]
    assert REUSED in second.report.summary.notes
    assert first.model_path.read_bytes() == second.model_path.read_bytes()
