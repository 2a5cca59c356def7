"""Commented configurations to start from: the four that the document points to.

The files under ``templates/`` are written by `reference` from the declarations and the choices below; a test
keeps them the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """One starting point: its file, what it is for, and which options it shows.

    ``options`` maps sections to keys; a value is written, None shows the default commented out. ``edits`` says of
    the keys whose value depends on the user's model and files what to put there.
    """

    file: str
    title: str
    options: Mapping[str, Mapping[str, str | None]]
    edits: Mapping[str, str] = field(default_factory=dict)


_WEIGHTS: dict[str, str | None] = {"min_quant_weight_size": "0", "min_quant_weight_channel": "16"}
_SKIPS: dict[str, str | None] = {"skip_quant_node": None, "debug_info_save_path": None}
_IMAGES: dict[str, str | None] = {
    "calibrate_path": "input_1:./samples",
    "calibrate_size": "100",
    "input_type": "IMAGE",
    "image_to_format": "RGB",
    "normalize_mean": "[127.5, 127.5, 127.5]",
    "normalize_std": "[127.5, 127.5, 127.5]",
    "resize_width": "224",
    "resize_height": "224",
    "resize_method": "LINEAR",
    "center_crop_width": None,
    "center_crop_height": None,
}
_YOURS = {
    "calibrate_path": "the name of your model's input, a colon, and the folder of your samples",
    "calibrate_size": "at most as many as the folder holds",
    "normalize_mean": "as in the training of your model",
    "normalize_std": "as in the training of your model",
    "resize_width": "as wide as your model's input",
    "resize_height": "as high as your model's input",
}

TEMPLATES: Mapping[str, Template] = MappingProxyType(
    {
        "weight": Template(
            file="fixed_bit_weight_quant.cfg",
            title="Weights with a fixed number of bits: a smaller file, float32 arithmetic.",
            options={
                "common_quant_param": {
                    "quant_type": "WEIGHT_QUANT",
                    "bit_num": "8",
                    **_WEIGHTS,
                    **_SKIPS,
                    "enable_encode": None,
                },
                "weight_quant_param": {"per_channel": None, "bias_correction": None},
                "ptq_lab": {"effort": None},
            },
        ),
        "mixed": Template(
            file="mixed_bit_weight_quant.cfg",
            title="Weights with as many bits as each layer needs: a small file for an error you choose.",
            options={
                "common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": "0", **_WEIGHTS, **_SKIPS},
                "mixed_bit_weight_quant_param": {"init_scale": "0.02", "auto_tune": "false"},
                "ptq_lab.mixed_bit": {
                    "target_size_mb": None,
                    "average_bits": None,
                    "min_cosine": None,
                    "max_metric_drop": None,
                    "time_limit_s": None,
                    "bits": None,
                },
                "ptq_lab.layer_bits": {},
            },
        ),
        "full": Template(
            file="full_quant.cfg",
            title="Weights and activations in 8 bits, calibrated on samples: integer arithmetic.",
            edits=_YOURS,
            options={
                "common_quant_param": {"quant_type": "FULL_QUANT", "bit_num": "8", **_SKIPS},
                "data_preprocess_param": _IMAGES,
                "full_quant_param": {
                    "activation_quant_method": "MAX_MIN",
                    "bias_correction": "true",
                    "per_channel": "true",
                    "target_device": None,
                },
                "ptq_lab": {"effort": None},
            },
        ),
        "dynamic": Template(
            file="dynamic_quant.cfg",
            title="Weights in 8 bits, activations quantized at run time: faster language models, no samples.",
            options={
                "common_quant_param": {"quant_type": "DYNAMIC_QUANT", "bit_num": "8", **_SKIPS},
                "dynamic_quant_param": {"quant_strategy": "ALWC"},
                "ptq_lab": {"dynamic_strategy": None},
            },
        ),
    }
)


def template(kind: str) -> str:
    """Return a commented configuration to start from.

    Parameters
    ----------
    kind : {"weight", "mixed", "full", "dynamic"}
        Which quantization it is for.

    Returns
    -------
    str
        INI text that loads without errors; full quantization asks for samples in ``./samples``.

    Raises
    ------
    ValueError
        If there is no such template.

    Examples
    --------
    >>> print(template("weight").splitlines()[0])
    # Weights with a fixed number of bits: a smaller file, float32 arithmetic.
    """
    if kind not in TEMPLATES:
        raise ValueError(f"{kind!r} is not one of the templates {', '.join(TEMPLATES)}")
    file = resources.files("ptq_lab.config") / "templates" / TEMPLATES[kind].file
    return file.read_text(encoding="utf-8")
