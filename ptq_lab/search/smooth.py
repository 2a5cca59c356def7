"""Smoothing: the outliers of an activation are moved into the weights that read it.

Integer activations have one scale for all features, so a feature that is twenty times larger than the others takes
their resolution; weights have a scale per output channel and lose little when an input feature is scaled up.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq_lab.calibration import Samples
from ptq_lab.calibration.cache import Arrays, Memory
from ptq_lab.calibration.recall import content_key
from ptq_lab.calibration.sweep import Sweep, run_sweep
from ptq_lab.graph import Model, Placement, observe
from ptq_lab.graph.placement import Layer
from ptq_lab.graph.scaling import divide_features
from ptq_lab.int8 import Int8Settings, apply_int8, make_int8_plan, round_int8
from ptq_lab.numerics import TensorStatistics
from ptq_lab.progress import Progress, Step, silent
from ptq_lab.runtime import CPU, Feeds
from ptq_lab.search.judging import output_error, outputs_of

Write = Callable[[Model, Placement, Mapping[str, TensorStatistics]], Model]  # float model -> quantized

ALPHAS = (0.5, 0.65, 0.75, 0.8)
HELD_OUT = 16  # samples that judge without giving ranges (and as many that do both); at most a quarter of all
LEAST_GAIN = 0.25  # of the output error: below it, an extra multiplication is not worth having
_FAR = 1e3  # no feature is scaled further than this from the average one
_SMOOTHABLE = ("MatMul", "Gemm")


@dataclass(frozen=True, slots=True, eq=False)
class FeatureExtent:
    """Smallest and largest value, for each index of the last axis (shape (K,)) or for all (shape ()).

    Examples
    --------
    >>> one, other = (FeatureExtent(np.array([low, 0.0]), np.array([1.0, 3.0])) for low in (-2.0, -4.0))
    >>> one.merge(other).largest.tolist()
    [4.0, 3.0]
    """

    low: NDArray[Any]
    high: NDArray[Any]

    @property
    def largest(self) -> NDArray[np.float64]:
        """The largest magnitudes."""
        return np.asarray(np.maximum(np.abs(self.low), np.abs(self.high)), np.float64)

    def merge(self, other: FeatureExtent) -> FeatureExtent:
        """Return the extent over the samples of both."""
        return FeatureExtent(np.minimum(self.low, other.low), np.maximum(self.high, other.high))


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoothed:
    """A smoothed model, how strongly (``None``: it is the model that came in), and one line that says so."""

    model: Model
    alpha: float | None
    note: str


def measure_features(
    model: Model,
    placement: Placement,
    samples: Samples,
    *,
    providers: Sequence[str] = CPU,
    progress: Progress = silent,
    memory: Memory | None = None,
) -> dict[str, FeatureExtent]:
    """Measure every tensor that will carry codes, those that can be smoothed feature by feature.

    What `memory` knows of the same model and samples is not measured again.

    Raises
    ------
    InferenceError
        If a tensor holds NaN or infinity; the sample is named.
    """
    smoothable = {layer.source for layer in smoothable_layers(placement)}
    observed, outputs = observe(model, placement.measured)
    gauges = {name: _per_feature if name in smoothable else _overall for name in outputs}
    done = 0

    def tick(count: int, place: str) -> None:
        nonlocal done
        done += count
        progress(Step("smooth", done, len(samples), place))

    def measure() -> dict[str, FeatureExtent]:
        sweep = Sweep(model=observed.serialize(), outputs=outputs, gauges=gauges, providers=tuple(providers), threads=0)
        return run_sweep(sweep, samples, executor=None, tick=tick)

    def recalled(arrays: Arrays) -> dict[str, FeatureExtent]:
        return {name: FeatureExtent(arrays[f"low {i}"], arrays[f"high {i}"]) for i, name in enumerate(outputs)}

    if memory is None:
        return measure()
    facts = {"tensors": list(outputs), "features": sorted(smoothable), "providers": list(providers)}
    facts["threads"] = [str(os.cpu_count())]  # onnxruntime chooses them by it
    extents = memory.recall(lambda: content_key(model, samples, facts), measure, pack=_pack, unpack=recalled)
    if not done:
        tick(len(samples), "from the cache")
    return extents


def _pack(extents: Mapping[str, FeatureExtent]) -> Arrays:
    rows = list(enumerate(extents.values()))
    lows = {f"low {i}": np.asarray(extent.low) for i, extent in rows}
    return lows | {f"high {i}": np.asarray(extent.high) for i, extent in rows}


def smoothable_layers(placement: Placement) -> tuple[Layer, ...]:
    """Return the layers whose input may be rescaled: MatMul and Gemm that read a tensor made in float."""
    floats = {place.tensor for place in placement.places if not place.integer}
    return tuple(layer for layer in placement.layers if layer.op_type in _SMOOTHABLE and layer.source in floats)


def smooth(model: Model, placement: Placement, extents: Mapping[str, FeatureExtent], alpha: float) -> Model:
    """Return a float model of the same function whose integer layers read smoother tensors.

    Parameters
    ----------
    model : Model
        Not changed.
    placement : Placement
        Of `model`; make a new one for the result.
    extents : mapping
        Tensor to what it holds per feature, as from :func:`measure_features`.
    alpha : float
        0..1: how much of the spread of the activation moves into the weights.

    Notes
    -----
    Feature j is divided by ``s_j = max|x_j|^alpha / max|w_j|^(1 - alpha)``, with the maximum of w over all layers
    that read the tensor, and s normalised to a geometric mean of 1. Source: Xiao et al. 2022, *SmoothQuant*,
    equation 4; the normalisation, and the limit for features that are nearly constant zero, are ours.
    """
    divisors = smoothing_divisors(extents, weight_extents(model, placement), alpha)
    return divide_features(model, divisors, placement.layers)


def weight_extents(model: Model, placement: Placement) -> dict[str, NDArray[np.float64]]:
    """Return the largest magnitude that each feature of a smoothable tensor meets, over all layers that read it."""
    largest: dict[str, NDArray[np.float64]] = {}
    for layer in smoothable_layers(placement):
        weight = np.abs(model.weight(layer.weight)).max(axis=layer.axis).astype(np.float64)
        largest[layer.source] = np.maximum(largest.get(layer.source, 0.0), weight)
    return largest


def smoothing_divisors(
    extents: Mapping[str, FeatureExtent], weights: Mapping[str, NDArray[np.float64]], alpha: float
) -> dict[str, NDArray[np.float64]]:
    """Return what each tensor of `weights` is divided by, per feature.

    Examples
    --------
    >>> extents = {"x": FeatureExtent(np.array([-4.0, -1.0]), np.array([0.0, 1.0]))}
    >>> smoothing_divisors(extents, {"x": np.array([1.0, 1.0])}, 0.5)["x"].round(3).tolist()
    [1.414, 0.707]
    """
    return {tensor: _divisor(extents[tensor].largest, weight, alpha) for tensor, weight in weights.items()}


def smooth_for_output(
    model: Model,
    place: Callable[[Model], Placement],
    samples: Samples,
    settings: Int8Settings,
    *,
    alpha: float | None = None,
    write: Write | None = None,
    providers: Sequence[str] = CPU,
    progress: Progress = silent,
    memory: Memory | None = None,
) -> Smoothed:
    """Smooth a model as strongly as its own output likes best, or not at all.

    Parameters
    ----------
    model : Model
        Float, BatchNormalization folded.
    place : callable
        Decides where integers flow, e.g. ``lambda model: place_integers(model, skipped)``.
    samples : Samples
        Calibration data.
    settings : Int8Settings
    alpha : float, optional
        A strength that is taken as it is; 0 switches smoothing off.
    write : callable, optional
        Quantizes a candidate, given its placement and the extremes of its tensors; statically if not given.
    providers : sequence of str
        onnxruntime execution providers that measure.
    memory : Memory, optional
        What was measured before.

    Returns
    -------
    Smoothed

    Notes
    -----
    Candidates are compared by the cosine of the quantized model's output: the error of single layers prefers
    strengths that are worse for the whole. Of the samples that judge, half take no part in the ranges: strong
    smoothing resolves better what lies inside of them, and suffers more from what does not. Nothing is done for one
    weight scale per tensor, where the outliers would hurt in the weights just as much.
    """
    placement = place(model)
    reason = _why_not(placement, samples, settings, alpha)
    if reason:
        return Smoothed(model=model, alpha=None, note=reason)
    measure = partial(measure_features, model, placement, providers=providers, progress=progress, memory=memory)
    if alpha is not None:
        smoothed = smooth(model, placement, measure(samples), alpha)
        return Smoothed(model=smoothed, alpha=alpha, note=f"smoothed with alpha {alpha:g}, as asked for")
    edge = len(samples) - min(HELD_OUT, len(samples) // 4)
    inside, outside = measure(samples.part(0, edge)), measure(samples.part(edge, len(samples)))
    extents = {tensor: extent.merge(outside[tensor]) for tensor, extent in inside.items()}
    write = write or partial(_write_static, settings)
    candidates = _Candidates(model, place, placement, inside, weight_extents(model, placement), write)
    judges = list(samples.part(max(0, 2 * edge - len(samples)), len(samples)))
    errors = _compare(candidates, judges, progress)
    best, off = min(ALPHAS, key=lambda candidate: errors[candidate]), errors[None]
    if errors[best] > (1.0 - LEAST_GAIN) * off:
        return Smoothed(model=model, alpha=None, note=f"not smoothed: no strength lowers the output error of {off:.2g}")
    note = f"smoothed with alpha {best:g}: 1 - cosine of the output falls from {off:.2g} to {errors[best]:.2g}"
    return Smoothed(model=smooth(model, placement, extents, best), alpha=best, note=note)


def _why_not(placement: Placement, samples: Samples, settings: Int8Settings, alpha: float | None) -> str:
    if alpha == 0.0:
        return "not smoothed: alpha is 0"
    if not smoothable_layers(placement):
        return "not smoothed: no MatMul or Gemm reads a tensor that is made in float"
    if any(settings.axis_of(layer) is None for layer in smoothable_layers(placement)):
        return "not smoothed: weights have one scale per tensor"
    if alpha is None and len(samples) < 4:
        return "not smoothed: at least 4 samples are needed to choose a strength"
    return ""


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Quantizes a model with different strengths, from one measurement."""

    model: Model
    place: Callable[[Model], Placement]
    placement: Placement
    extents: Mapping[str, FeatureExtent]
    weights: Mapping[str, NDArray[np.float64]]
    write: Write

    def quantized(self, alpha: float | None) -> Model:
        divisors = smoothing_divisors(self.extents, self.weights, alpha) if alpha is not None else {}
        model = divide_features(self.model, divisors, self.placement.layers)
        placement = self.place(model)
        before = {layer.node: layer.source for layer in self.placement.layers}
        sources = {layer.source: before[layer.node] for layer in placement.layers}
        statistics = {}
        for name in placement.measured:
            tensor = sources.get(name, name)
            statistics[name] = _scaled(self.extents[tensor], divisors.get(tensor))
        return self.write(model, placement, statistics)


def _write_static(
    settings: Int8Settings, model: Model, placement: Placement, statistics: Mapping[str, TensorStatistics]
) -> Model:
    plan = make_int8_plan(placement, statistics, replace(settings, method="MAX_MIN"))
    return apply_int8(model, round_int8(plan, model))


def _compare(candidates: _Candidates, judges: Sequence[Feeds], progress: Progress) -> dict[float | None, float]:
    """Return the error of the quantized model's output for every strength, and for none."""
    wanted = outputs_of(candidates.model, judges)
    errors: dict[float | None, float] = {}
    for index, alpha in enumerate((None, *ALPHAS)):
        errors[alpha] = output_error(wanted, outputs_of(candidates.quantized(alpha), judges))
        progress(Step("choose smoothing", index + 1, len(ALPHAS) + 1, "none" if alpha is None else f"alpha {alpha:g}"))
    return errors


def _scaled(extent: FeatureExtent, divisor: NDArray[np.float64] | None) -> TensorStatistics:
    by = 1.0 if divisor is None else divisor
    return TensorStatistics(low=float((extent.low / by).min()), high=float((extent.high / by).max()), count=1, rounds=1)


def _divisor(activation: NDArray[np.float64], weight: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    used = (activation > 0.0) & (weight > 0.0)
    divisor = np.ones_like(activation)
    divisor[used] = activation[used] ** alpha / weight[used] ** (1.0 - alpha)
    if used.any():
        divisor[used] /= np.exp(np.log(divisor[used]).mean())
    return np.clip(divisor, 1.0 / _FAR, _FAR)


def _per_feature(_index: int, outputs: Sequence[NDArray[Any]]) -> FeatureExtent:
    values = outputs[0].reshape(-1, outputs[0].shape[-1])
    return _finite(FeatureExtent(values.min(axis=0), values.max(axis=0)))


def _overall(_index: int, outputs: Sequence[NDArray[Any]]) -> FeatureExtent:
    return _finite(FeatureExtent(outputs[0].min(), outputs[0].max()))


def _finite(extent: FeatureExtent) -> FeatureExtent:
    if not np.isfinite(extent.largest).all():  # NaN survives min and max
        raise FloatingPointError("NaN or infinity")
    return extent
