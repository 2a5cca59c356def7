"""Where a result came from: versions, hashes, options and decisions, as plain data.

The whole record goes into ``manifest.json``; the part that does not depend on how the result was checked
goes into the model's own ``metadata_props``. No times and no paths, so that equal inputs give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from ptq_lab import __version__
from ptq_lab.config import QuantConfig, dump_config
from ptq_lab.graph import Model
from ptq_lab.plan import QuantPlan
from ptq_lab.publish import Draft
from ptq_lab.route import Quantized
from ptq_lab.runtime import runtime_version
from ptq_lab.search.layer_rounding import LayerSteps

_PACKAGES = ("numpy", "onnx", "onnx-ir")


def metadata(model: Model, config: QuantConfig, plan: QuantPlan) -> dict[str, str]:
    """Return what the quantized model says about itself.

    Returns
    -------
    dict of str to str
        ``ptq_lab.version``, ``.source_sha256`` (of the float model), ``.config`` (INI text), ``.config_sha256`` and
        ``.plan`` (JSON: bits and granularity per tensor).
    """
    text = config_text(config)
    return {
        "ptq_lab.version": __version__,
        "ptq_lab.source_sha256": model.digest(),
        "ptq_lab.config": text,
        "ptq_lab.config_sha256": _sha256(text),
        "ptq_lab.plan": json.dumps(_widths(plan), separators=(",", ":")),
    }


def manifest(
    model: Model, quantized: Draft, config: QuantConfig, done: Quantized, samples: dict[str, str]
) -> dict[str, Any]:
    """Return the full record of a run, ready for JSON.

    Parameters
    ----------
    model : Model
        Before, with its files.
    quantized : Draft
        After, as it will be published.
    done : Quantized
    samples : dict
        ``origin`` and ``sha256`` of what the two were compared on.
    """
    text = config_text(config)
    return {
        "format": 1,
        "versions": {
            "ptq_lab": __version__,
            **{name: version(name) for name in _PACKAGES},
            "onnxruntime": runtime_version(),
        },
        "model": {"name": model.label, "sha256": model.digest(), "opset": model.opset},
        "quantized": {"name": quantized.name, "sha256": quantized.digest(), "opset": quantized.model.opset},
        "config": {"text": text, "sha256": _sha256(text)},
        "samples": samples,
        "device": dict(done.device),
        "plan": json.loads(done.plan.to_json()),
        "rounding": [_steps(layer) for layer in done.rounding],
    }


def config_text(config: QuantConfig) -> str:
    """Return the options that were given, as INI text in canonical spelling."""
    return dump_config(config, comments=False, only_given=True)


def _steps(layer: LayerSteps) -> dict[str, Any]:
    """Return what was tried on a layer and what of it was kept, in types that JSON gives back as they are."""
    return asdict(layer) | {"steps": [{**asdict(step), "kept": step.kept} for step in layer.steps]}


def _widths(plan: QuantPlan) -> dict[str, list[int]]:
    """Map each tensor to its bits and its number of scales."""
    return {entry.tensor: [entry.bits, entry.channels] for entry in plan.entries}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
