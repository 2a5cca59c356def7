"""One picture through several runs: the pictures are the runs' own, and their distances are measured."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ptq_lab
from ptq_lab import lesson
from ptq_lab.demo import picture_psnr
from ptq_lab.errors import ModelError, PlanError, SampleError
from ptq_lab.notebook.lessons import lesson_bundle
from ptq_lab.result import QuantResult


@pytest.fixture(scope="module")
def runs() -> dict[str, QuantResult]:
    card = ptq_lab.demo.load("photo_denoiser")
    return {
        f"W{bits}": ptq_lab.quantize(
            card.model_path,
            {"common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": bits}, "ptq_lab": {"effort": "fast"}},
            samples=card.calib_path,
        )
        for bits in (8, 2)
    }


def test_a_frame_shows_what_the_written_file_computes(runs: dict[str, QuantResult], run: Any) -> None:
    card = ptq_lab.demo.load("photo_denoiser")
    with np.load(card.eval_path) as arrays:
        feeds, wanted = {"image": arrays["image"][3:4]}, arrays["target"][3:4]
    (output,) = run(runs["W2"].model_path, feeds).values()
    frame = lesson.gallery(runs, card, sample=3).frames[1]
    shown = np.asarray(Image.open(io.BytesIO(frame.picture)), np.float64) / 255
    np.testing.assert_allclose(shown, np.clip(output[0].transpose(1, 2, 0), 0, 1), atol=0.003)
    assert frame.psnr_db == pytest.approx(float(picture_psnr(output, wanted)[0]), abs=1e-3)


def test_fewer_bits_make_the_difference_brighter(runs: dict[str, QuantResult]) -> None:
    frames = lesson.gallery(runs, ptq_lab.demo.load("photo_denoiser")).frames
    fine, coarse = (np.asarray(Image.open(io.BytesIO(frame.difference))) for frame in frames)
    assert fine.ndim == 2
    assert fine.mean() * 5 < coarse.mean()


def test_without_samples_named_those_of_the_run_are_shown_and_captions_compare_with_float(
    runs: dict[str, QuantResult],
) -> None:
    shown = lesson.gallery(runs)
    assert [caption for caption, _ in shown.starts()] == ["input", "float"]
    assert all(frame.psnr_db is None and "dB to float" in frame.caption for frame in shown.frames)
    html = lesson_bundle(shown)["text/html"]
    assert html.count("data:image/png;base64,") == 2 + 2 * 2
    assert "<script" not in html
    assert "W2" in str(shown)


def test_what_cannot_be_shown_side_by_side_is_refused(runs: dict[str, QuantResult], four_bits: QuantResult) -> None:
    with pytest.raises(PlanError, match="no run"):
        lesson.gallery({})
    with pytest.raises(PlanError, match="different models"):
        lesson.gallery(runs | {"digits": four_bits})
    with pytest.raises(PlanError, match=r"only 0\.\.99"):
        lesson.gallery(runs, sample=100)
    with pytest.raises(ModelError, match="gives no picture"):
        lesson.gallery({"digits": four_bits})
    alone = ptq_lab.quantize(
        ptq_lab.demo.load("photo_denoiser").model_path, {"common_quant_param": {"quant_type": "WEIGHT_QUANT"}}
    )
    with pytest.raises(SampleError, match="no samples of its own"):
        lesson.gallery({"alone": alone})
