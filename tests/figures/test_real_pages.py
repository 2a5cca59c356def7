"""Pages of real models: what the page says of a run whose fault is known, and that it stays small."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs

import ptq_lab

pytestmark = pytest.mark.models


def test_the_page_of_a_depthwise_network_with_one_scale_per_weight_names_it_and_shows_its_channels(
    models_folder: Path, tmp_path: Path
) -> None:
    model, images = models_folder / "mobilenet_v1_075" / "model.onnx", models_folder.parent / "data" / "imagenet-calib"
    if not (model.is_file() and images.is_dir()):
        pytest.skip(f"{model} or {images} does not exist")
    config = {
        "common_quant_param": {"quant_type": "FULL_QUANT"},
        "full_quant_param": {"per_channel": False, "bias_correction": False},
        "ptq_lab": {"equalize": False},
        "data_preprocess_param": {
            "calibrate_path": f"image:{images}",
            "calibrate_size": 4,
            "input_type": "IMAGE",
            "image_to_format": "RGB",
            "normalize_mean": "[127.5, 127.5, 127.5]",
            "normalize_std": "[127.5, 127.5, 127.5]",
            "center_crop_width": 224,
            "center_crop_height": 224,
        },
    }
    result = ptq_lab.quantize(model, config, explain=True)
    page = result.report.to_html(tmp_path / "report.html")
    assert page.stat().st_size - len(get_plotlyjs().encode()) < 400_000
    text = page.read_text(encoding="utf-8")
    first = re.search(r'<ol class="causes">\s*<li><b>(.*?)</b>: <span class="places">(.*?)</span>', text)
    assert first is not None
    assert first.groups() == ("per-tensor weight ranges of depthwise layers", "conv_dw_1, conv_dw_2, conv_dw_3")
    assert "[full_quant_param]\nper_channel=true" in text
    widest = max(result.report.weights, key=lambda outline: outline.spread)
    assert widest.spread > 30
    assert "_dw_" in widest.node
