"""What models are run on: samples and labelled data, opened as a configuration says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from ptq_lab.calibration import Samples, open_samples, random_samples
from ptq_lab.calibration.preprocess import plain as plain_options
from ptq_lab.config import QuantConfig
from ptq_lab.errors import SampleError
from ptq_lab.evaluation import Metric, open_metric
from ptq_lab.graph import Model

Layout = Literal["NHWC", "NCHW"]


def open_judge(
    model: Model, config: QuantConfig, evaluate: Any, shapes: Mapping[str, Any], layout: Layout | None
) -> Metric | None:
    """Open what scores a model, if anything was given for that.

    Raises
    ------
    SampleError
        If it cannot be read, or does not fit the model.
    """
    if evaluate is None:
        return None
    return open_metric(evaluate, model.inputs, outputs=model.outputs, **reading_of(config, shapes, layout))


def open_data(
    model: Model, config: QuantConfig, samples: Any, shapes: Mapping[str, Any], layout: Layout | None
) -> Samples:
    """Open the samples that were given or that a configuration names; made up if there are neither.

    Raises
    ------
    SampleError
        If they cannot be read, or calibration has none.
    """
    if samples is None and not config.preprocess.calibrate_path:
        if config.common.quant_type == "FULL_QUANT":
            message = (
                "FULL_QUANT needs calibration data; give samples (--samples in %%quantize and ptq-lab), or write "
                "calibrate_path and calibrate_size in [data_preprocess_param]"
            )
            raise SampleError(message)
        data = random_samples(model.inputs, input_shape=shapes)
    else:
        data = open_samples(samples, model.inputs, **reading_of(config, shapes, layout))
    return data.pinned()  # the manifest and the caches ask for their fingerprint


def reading_of(config: QuantConfig, shapes: Mapping[str, Any], layout: Layout | None) -> dict[str, Any]:
    """Return how files become samples: the keywords of :func:`~ptq_lab.calibration.open_samples`."""
    options = replace(
        plain_options(config.preprocess),
        resize_first=config.lab.preprocess_order == "resize_first",
        antialias=config.lab.antialias,
    )
    return {"preprocess": options, "input_data_format": layout, "input_shape": shapes}
