"""Pictures of a model at several widths: the real outputs, made once per width, in bounded memory."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ptq_lab
from ptq_lab import lesson
from ptq_lab.graph import load_model
from ptq_lab.lesson.png import SIDE
from ptq_lab.lesson.variants import Variants


def pixels(png: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(png)), np.float64)


def test_a_variant_computes_what_the_model_file_of_the_same_width_does(run: Any, tmp_path: Path) -> None:
    card = ptq_lab.demo.load("digits_cnn")
    settings = {"common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": 4, "min_quant_weight_channel": 0}}
    settings["ptq_lab"] = {"effort": "fast"}  # variants are rounded, no more
    written = ptq_lab.quantize(card.model_path, settings, tmp_path / "q.onnx", samples=card.calib_path)
    with np.load(card.eval_path) as arrays:
        feeds = {"image": arrays["image"][:1]}
    (wanted,) = run(written.model_path, feeds).values()
    (got,) = Variants(load_model(card.model_path)).run("4", feeds).values()
    np.testing.assert_array_equal(got, wanted)


def test_a_variant_is_made_once_per_width_however_often_it_is_asked_for() -> None:
    shown = lesson.pictures("photo_denoiser")
    for sample in range(3):
        for bits in (3, 4, 3):
            shown.draw(sample, bits, factor=4)
    assert shown.made == 2


def test_variants_beyond_the_limit_make_room_for_each_other() -> None:
    card = ptq_lab.demo.load("digits_cnn")
    model = load_model(card.model_path)
    with np.load(card.eval_path) as arrays:
        feeds = {"image": arrays["image"][:1]}
    variants = Variants(model, limit=2 * model.size)
    for name in ("8", "7", "6", "6", "8"):
        variants.run(name, feeds)
    assert variants.made == 4  # 8 had to go for 6, and is made again


def test_more_bits_bring_the_picture_closer_to_that_of_the_float_model() -> None:
    shown = lesson.pictures("photo_denoiser")
    drawn = {bits: shown.draw(0, bits) for bits in (3, 5, 8)}
    noise = [each.sqnr_db for each in drawn.values()]
    assert noise == sorted(noise)
    far, _, near = [np.abs(pixels(each.after) - pixels(each.before)).mean() for each in drawn.values()]
    assert far > 5 * near


def test_the_difference_is_amplified_as_often_as_asked() -> None:
    shown = lesson.pictures("photo_denoiser")
    plain, strong = (pixels(shown.draw(0, 6, factor=factor).difference).mean() for factor in (8, 32))
    assert strong == pytest.approx(4 * plain, rel=0.1)


def test_classes_are_listed_from_the_best_down_and_the_right_answer_is_said() -> None:
    found = lesson.pictures("digits_cnn", bits=8).draw(3)
    for side in found.guesses:
        shares = [guess.share for guess in side]
        assert len(shares) == 5
        assert shares == sorted(shares, reverse=True)
        assert 0 < sum(shares) <= 1 + 1e-9
    assert found.guesses[0][0].label == found.guesses[1][0].label
    assert any("the right answer" in fact for fact in found.facts)


def test_names_of_classes_can_be_given() -> None:
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    found = lesson.pictures("digits_cnn", labels=words, bits=8).draw(0)
    assert {guess.label for guess in found.guesses[0]} <= set(words)


def test_a_result_starts_with_its_own_model(integers: Any) -> None:
    shown = lesson.pictures(integers)
    found = shown.draw()
    assert (shown.variants[-1], found.title) == ("result", "the result's model")
    feeds = next(iter(integers.run.samples))
    got = ptq_lab.runtime.run_session(ptq_lab.runtime.open_session(integers.model), feeds)
    best = int(np.argmax(next(iter(got.values()))))
    assert found.guesses[1][0].label == f"class {best}"


def test_a_large_picture_is_cut_not_scaled() -> None:
    card = ptq_lab.demo.load("photo_denoiser")
    image = np.random.default_rng(0).random((1, 3, 300, 280), dtype=np.float32)
    found = lesson.pictures(card.model_path, samples=[{"image": image}]).draw()
    assert pixels(found.source).shape == (SIDE, SIDE, 3)
    np.testing.assert_array_equal(pixels(found.source)[0, 0], np.rint(image[0, :, 22, 12] * 255.0))


@pytest.mark.models
def test_super_resolution_shows_a_larger_picture_than_it_takes(models_folder: Path) -> None:
    model = models_folder / "super_resolution_x3" / "model.onnx"
    luma = np.linspace(0, 1, 32 * 32, dtype=np.float32).reshape(1, 1, 32, 32)
    shown = lesson.pictures(model, samples=[{"luma": luma}])
    found = shown.draw(0, 4)
    assert shown.makes_pictures
    assert (pixels(found.source).shape, pixels(found.after).shape) == ((32, 32), (96, 96))
    assert found.sqnr_db < shown.draw(0, 8).sqnr_db
