"""What a lesson is about: a float model with the plan for its weights, its activations' grids and samples."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq_lab import demo
from ptq_lab.calibration import Samples, open_samples
from ptq_lab.demo import Demo
from ptq_lab.errors import ModelError
from ptq_lab.explorer import MixedBitExplorer
from ptq_lab.graph import Model, fold_batchnorm, load_model
from ptq_lab.pipeline import preview
from ptq_lab.plan import ActivationPlan, QuantPlan, TensorPlan
from ptq_lab.result import QuantResult

QUICK = 16_000_000
"""Bytes of the largest weight that a lesson starts with unasked; what is larger does not follow a slider."""

ALL_WEIGHTS = {"common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": 8, "min_quant_weight_channel": 0}}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """A float model and what is planned for it.

    Attributes
    ----------
    model : Model
        The float model that the plan speaks of.
    plan : QuantPlan
    samples : Samples or None
        Real ones only.
    label : str
        What to call the model.
    quantized : Model or None
        What a run made of it.
    """

    model: Model
    plan: QuantPlan
    samples: Samples | None
    label: str
    quantized: Model | None = None

    @property
    def weights(self) -> tuple[TensorPlan, ...]:
        """Weights that are quantized, in the order of the graph."""
        return self.plan.entries

    @property
    def activations(self) -> tuple[ActivationPlan, ...]:
        """Grids of activations, if the plan has any."""
        return self.plan.activations

    def weight(self, name: str | None, default: TensorPlan | None = None) -> TensorPlan:
        """Return the weight of this name, or of the node of this name.

        Raises
        ------
        PlanError
            If there is none; the message has the nearest name.
        ModelError
            If the model has no weight that is quantized.
        """
        if not self.plan.entries:
            raise ModelError(f"{self.label}: no weight of this model is quantized, so there is nothing to look at")
        if name is None:
            return default or self.plan.entries[0]
        return self.plan.meant(name)[0]


def open_subject(source: Any, samples: Any = None, *, fold: bool = True) -> Subject:
    """Return what a lesson is about.

    Parameters
    ----------
    source : str, path, onnx.ModelProto, Model, Demo, QuantResult or MixedBitExplorer
        The name of a demo, or a float model, or what already holds one.
    samples : folder, .npz, mapping or iterable, optional
        Instead of the source's own.
    fold : bool
        Make BatchNormalization part of the weights of a float model first, as a run that computes in integers does.

    Raises
    ------
    ModelError, SampleError
        The model or the samples cannot be read.

    Examples
    --------
    >>> subject = open_subject("digits_cnn")
    >>> subject.weights[1].node, len(subject.samples) > 10
    ('block1/depthwise/Conv', True)
    """
    if isinstance(source, QuantResult):
        run = source.run
        known = None if run.samples.random else run.samples
        label = run.original.label
        subject = Subject(model=run.prepared, plan=source.plan, samples=known, label=label, quantized=source.model)
    elif isinstance(source, MixedBitExplorer):
        model = source.original
        subject = Subject(model=model, plan=source.plan, samples=source.samples, label=model.label)
    else:
        card = demo.load(source) if isinstance(source, str) and source in demo.NAMES else source
        subject = _from_model(card, fold)
    if samples is None:
        return subject
    return replace(subject, samples=open_samples(samples, subject.model.inputs))


def channels_first(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Return an array as a matrix with one row per channel.

    Examples
    --------
    >>> channels_first(np.zeros((2, 5, 3), np.float32), 1).shape
    (5, 6)
    """
    moved = np.moveaxis(values, axis, 0)
    return np.ascontiguousarray(moved.reshape(len(moved), -1))


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Return a hint with the known name that is most alike, or nothing."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _from_model(source: Any, fold: bool) -> Subject:
    if isinstance(source, str) and not Path(source).exists():
        hint = nearest_name(source, demo.NAMES)
        raise ModelError(f"{source}: no such file, and no demo (there are {', '.join(demo.NAMES)}){hint}")
    card = source if isinstance(source, Demo) else None
    original = load_model(source if card is None else card.model_path)
    model = fold_batchnorm(original) if fold else original
    samples = None if card is None else open_samples(card.calib_path, model.inputs)
    label = original.label if card is None else card.name
    return Subject(model=model, plan=preview(model, ALL_WEIGHTS), samples=samples, label=label)
