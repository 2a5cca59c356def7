"""What every way of quantizing returns: the plan, the model, and the float model that the plan speaks of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ptq_lab.graph import Model
from ptq_lab.numerics.ranges import TensorStatistics
from ptq_lab.plan import QuantPlan
from ptq_lab.report.weight_outlines import WeightLook
from ptq_lab.search.layer_rounding import LayerSteps


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """The outcome of one way of quantizing.

    Attributes
    ----------
    plan : QuantPlan
        With codes.
    model : Model
        The quantized model.
    prepared : Model
        The float model whose weights the plan quantizes: the original, or what became of it by exact
        transformations such as folding BatchNormalization.
    notes : tuple of str
        What the user should know.
    statistics : mapping of str to TensorStatistics
        What calibration saw, by tensor of `prepared`; empty without calibration.
    fitted : bool
        Whether the samples shaped the model, so that a comparison on them flatters it.
    runs_here : bool
        Whether the model is meant for onnxruntime, so that its kernels and its speed say something.
    interrupted : str
        How far a search came that the user stopped, so that this is the best so far; empty if none was stopped.
    rounding : tuple of LayerSteps
        What was done to each layer's weight beyond rounding it, with the error before and after.
    seen : mapping of str to WeightLook
        What was seen of weights while they were rounded, by tensor; of others a report looks for it.
    streamed : bool
        Whether codes lie in a file, and weights were never held.
    unfit : str
        Why the models are not run beside each other; empty if they are.
    device : mapping
        What the target's own toolchain needs to know, for the manifest; plain data.
    """

    plan: QuantPlan
    model: Model
    prepared: Model
    notes: tuple[str, ...] = ()
    statistics: Mapping[str, TensorStatistics] = field(default_factory=dict)
    fitted: bool = False
    runs_here: bool = True
    interrupted: str = ""
    rounding: tuple[LayerSteps, ...] = ()
    seen: Mapping[str, WeightLook] = field(default_factory=dict)
    streamed: bool = False
    unfit: str = ""
    device: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """How it was quantized, in two or three words."""
        if self.plan.dynamic is not None:
            return f"DYNAMIC_QUANT {self.plan.dynamic.strategy}"
        if any(entry.decoder for entry in self.plan.entries):
            return "WEIGHT_QUANT ON_THE_FLY"
        return "WEIGHT_QUANT" if self.plan.placement is None else "FULL_QUANT"

    @property
    def arithmetic(self) -> str:
        """What the model computes in."""
        integers = self.plan.dynamic is not None or self.plan.placement is not None
        integers = integers or any(entry.decoder and entry.int8_activations for entry in self.plan.entries)
        return "int8 and float32" if integers else "float32"
