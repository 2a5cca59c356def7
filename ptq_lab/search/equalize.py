"""Cross-layer equalisation: channels rescaled between two layers so that 8 bits fit all of them better.

The function of the float model stays what it was on the calibration data. There are three forms:

`equalize_into_depthwise`
    For one weight scale per channel. Small channels grow towards the range of their tensor; the depthwise layer behind
    it takes the inverse into scales of its own, without any error.
`equalize_layers`
    For one weight scale per layer. The weight ranges of both layers are balanced, as far as a Clip between them allows.
`equalize_clipped`
    The same without regard to the Clip, whose bound then differs from channel to channel: a Min of codes.

`equalize` chooses among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ptq_lab.graph import Model
from ptq_lab.graph.pairs import (
    Floats,
    Pair,
    find_pairs,
    input_peaks,
    move_clips,
    output_peaks,
    pair_weights,
    scale_inputs,
    scale_outputs,
    scale_pairs,
)
from ptq_lab.numerics import TensorStatistics
from ptq_lab.search.noise import Chains, Factors

Statistics = Mapping[str, TensorStatistics]

SWEEPS = 20  # over all pairs; chains of any length have settled by then
MOST_GROWTH = 100.0  # and 1 / least: beyond it a bias would decide over the scale of its layer's weight
DEPTHWISE_MARGIN = 1.1  # over the largest value seen of a channel
CLIP_MARGIN = 1.05
STRENGTHS = (1.0, 0.75, 0.5, 0.25)  # exponents of the balancing factors
WORTH = 0.7  # of the predicted noise must be left at most for a model to be changed
WORTH_MIN = 0.5  # the same for a Min of codes in place of a Clip, compared with what the Clip allows
_AT_LIMIT = 1.0 - 1e-4  # a channel whose maximum is this part of the Clip's bound reaches it
_EPSILON = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Equalized:
    """A model with rescaled channels, and what was done to it.

    Attributes
    ----------
    model : Model
        Float; the original itself if nothing was changed.
    factors : mapping of str to ndarray, shape (C,)
        Tensor to what its channels were multiplied by; tensors that did not change are left out.
    ceilings : mapping of str to ndarray
        Tensor to what replaces the upper bound of its Clip, in real units: shape (C,), or (1,) for a common bound.
    note : str
        The same in one sentence; empty if nothing was changed.
    """

    model: Model
    factors: Factors = field(default_factory=dict)
    ceilings: Mapping[str, Floats] = field(default_factory=dict)
    note: str = ""


def equalize(model: Model, statistics: Statistics, *, per_channel: bool, ceilings: bool = True) -> Equalized:
    """Equalise a model in the form that suits its weight scales.

    Parameters
    ----------
    model : Model
        Float, BatchNormalization folded; not changed.
    statistics : mapping of str to TensorStatistics
        Of the tensors of :func:`ptq_lab.graph.pairs.find_pairs`, per channel; pairs without are left alone.
    per_channel : bool
        Whether weights will have one scale per output channel, or one per layer.
    ceilings : bool
        Whether a Clip may be replaced by bounds per channel, which become a Min of codes.

    Notes
    -----
    Per layer, a model is left alone unless the predicted noise falls to `WORTH`; Clips are replaced only if that
    halves what remains with them, for a Min takes time.

    Examples
    --------
    >>> from onnx import helper, numpy_helper
    >>> from ptq_lab.graph import load_model
    >>> nodes = [
    ...     helper.make_node("Conv", ["x", "v"], ["c"]),
    ...     helper.make_node("Relu", ["c"], ["h"]),
    ...     helper.make_node("Conv", ["h", "w"], ["y"]),
    ... ]
    >>> x, y = (helper.make_tensor_value_info(name, 1, [1, 1, 4]) for name in "xy")
    >>> numbers = {"v": np.array([[[1]], [[100]]], np.float32), "w": np.array([[[1], [0.01]]], np.float32)}
    >>> weights = [numpy_helper.from_array(array, name) for name, array in numbers.items()]
    >>> graph = helper.make_graph(nodes, "g", [x], [y], weights)
    >>> model = load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    >>> peaks = np.array([1.0, 100.0], np.float32)
    >>> seen = TensorStatistics(low=0.0, high=100.0, count=8, rounds=1, channel_low=0 * peaks, channel_high=peaks)
    >>> balanced = equalize(model, {"h": seen}, per_channel=False)
    >>> balanced.model.weight("v").reshape(-1).round(3).tolist()
    [1.0, 1.0]
    >>> balanced.note
    'weight ranges were balanced between layers: 1 channels of 1 tensors'
    """
    if per_channel:
        return equalize_into_depthwise(model, statistics)
    balanced = equalize_layers(model, statistics)
    freed = equalize_clipped(model, statistics) if ceilings else balanced
    if not freed.ceilings:
        return balanced
    chains = _chains(model, statistics)
    return freed if chains.noise(freed.factors) < WORTH_MIN * chains.noise(balanced.factors) else balanced


def equalize_into_depthwise(model: Model, statistics: Statistics) -> Equalized:
    """Let small activation channels in front of depthwise layers grow towards the range of their tensor.

    Parameters
    ----------
    model : Model
        Float, BatchNormalization folded; not changed.
    statistics : mapping of str to TensorStatistics
        Per channel, see :func:`equalize`.

    Notes
    -----
    Channel c is multiplied by ``top / (1.1 * peak[c])``, at least 1, where ``top`` is the largest peak of its tensor.
    So neither the range of the tensor nor what a Clip does to values seen in calibration changes.
    """
    chains = _chains(model, statistics, depthwise=True)
    factors = {}
    for pair in chains.pairs:
        peaks = chains.peaks[pair.tensor]
        grown = peaks.max(initial=0.0) / (DEPTHWISE_MARGIN * np.maximum(peaks, _EPSILON))
        factors[pair.tensor] = np.where(peaks > 0.0, np.clip(grown, 1.0, MOST_GROWTH), 1.0)
    return _equalized(model, factors, {}, "small channels in front of depthwise layers were enlarged")


def equalize_layers(model: Model, statistics: Statistics) -> Equalized:
    """Balance weight ranges between neighbouring layers without moving any Clip.

    Parameters
    ----------
    model : Model
        Float, BatchNormalization folded; not changed.
    statistics : mapping of str to TensorStatistics
        Per channel, see :func:`equalize`.

    Notes
    -----
    Source: Nagel et al. 2019, *Data-Free Quantization Through Weight Equalization and Bias Correction*, section 4.1:
    factors ``sqrt(second / first)`` of the two weight ranges of a channel, until they settle. Unlike there (and in
    MindSpore Lite, which leaves layers with a ReLU6 out), channels that reach the bound of a Clip keep their factor
    at 1, the others stay below it, and factors are drawn back to the power that predicts the least noise of weights
    *and* activations.
    """
    chains = _chains(model, statistics)
    least, most = _bounds(chains)
    factors = _tempered(chains, _balance(chains, least, most))
    return _equalized(model, factors, {}, "weight ranges were balanced between layers")


def equalize_clipped(model: Model, statistics: Statistics) -> Equalized:
    """Balance weight ranges between neighbouring layers, and give every channel a Clip of its own.

    Parameters
    ----------
    model : Model
        Float, BatchNormalization folded; not changed.
    statistics : mapping of str to TensorStatistics
        Per channel, see :func:`equalize`.

    Returns
    -------
    Equalized
        Where bounds differ, its model has a Relu and a Min in place of the Clip. Float values are limited as
        in the original, so means of activations may be taken from it; placement and the writer of codes know the form.

    Notes
    -----
    A tensor keeps a Clip, with another bound, where all channels that reach theirs have the largest range of the
    tensor: there the end of the codes does the same.
    """
    chains = _chains(model, statistics)
    unbound = {pair.tensor: (np.zeros(pair.channels), np.full(pair.channels, np.inf)) for pair in chains.pairs}
    least, most = ({tensor: ends[side] for tensor, ends in unbound.items()} for side in (0, 1))
    factors = _tempered(chains, _balance(chains, least, most))
    ceilings = {
        pair.tensor: _ceiling(pair, factors[pair.tensor], chains.peaks[pair.tensor])
        for pair in chains.pairs
        if pair.limit is not None and pair.tensor in factors
    }
    return _equalized(model, factors, ceilings, "weight ranges were balanced between layers")


def scale_statistics(statistics: Statistics, factors: Factors) -> dict[str, TensorStatistics]:
    """Return what the samples would have shown of rescaled tensors, as far as extremes go, without running them again.

    Parameters
    ----------
    statistics : mapping of str to TensorStatistics
        Per channel for every tensor of `factors`.
    factors : mapping of str to ndarray, shape (C,)
        As in `Equalized`.

    Returns
    -------
    dict of str to TensorStatistics
        Rescaled tensors have extremes only: enough for ``MAX_MIN``, while every other range method refuses them.
    """
    scaled = dict(statistics)
    for tensor, factor in factors.items():
        seen = statistics[tensor]
        assert seen.channel_low is not None  # or it had no factors
        assert seen.channel_high is not None
        low, high = (factor * seen.channel_low).astype(np.float32), (factor * seen.channel_high).astype(np.float32)
        scaled[tensor] = TensorStatistics(
            low=float(low.min()),
            high=float(high.max()),
            count=seen.count,
            rounds=seen.rounds,
            channel_low=low,
            channel_high=high,
        )
    return scaled


def _chains(model: Model, statistics: Statistics, *, depthwise: bool = False) -> Chains:
    """Return the pairs whose channels have been measured."""
    pairs, peaks = [], {}
    for pair in find_pairs(model):
        seen = statistics.get(pair.tensor)
        if seen is None or seen.channel_low is None or seen.channel_high is None or pair.depthwise < depthwise:
            continue
        largest = np.maximum(np.abs(seen.channel_low), np.abs(seen.channel_high)).astype(np.float64)
        if largest.shape == (pair.channels,):
            pairs.append(pair)
            peaks[pair.tensor] = largest
    return Chains(pairs=pairs, weights=pair_weights(model, tuple(pairs)), peaks=peaks)


def _reaches_limit(pair: Pair, peaks: Floats) -> NDArray[np.bool_]:
    return peaks >= (np.inf if pair.limit is None else pair.limit * _AT_LIMIT)


def _bounds(chains: Chains) -> tuple[Factors, Factors]:
    """Return the smallest and largest factors with which a Clip does what it did."""
    least, most = {}, {}
    for pair in chains.pairs:
        peaks = chains.peaks[pair.tensor]
        bound = _reaches_limit(pair, peaks)
        least[pair.tensor] = np.where(bound, 1.0, 0.0)
        if pair.limit is None:
            most[pair.tensor] = np.full(pair.channels, np.inf)
            continue
        room = np.maximum(pair.limit / (CLIP_MARGIN * np.maximum(peaks, _EPSILON)), 1.0)
        most[pair.tensor] = np.where(bound | (peaks == 0.0), 1.0, room)  # what was never seen might reach it
    return least, most


def _balance(chains: Chains, least: Factors, most: Factors) -> dict[str, Floats]:
    """Return the factors that make the weight ranges of each channel equal on both sides, within bounds."""
    weights = dict(chains.weights)
    factors = {pair.tensor: np.ones(pair.channels) for pair in chains.pairs}
    for _ in range(SWEEPS):
        for pair in chains.pairs:
            first, second = weights[pair.producer], weights[pair.consumer]
            made, read = output_peaks(first), input_peaks(second, pair.channels)
            used = (made > 0.0) & (read > 0.0)
            wanted = np.sqrt(np.where(used, read, 1.0) / np.where(used, made, 1.0))
            old = factors[pair.tensor]
            new = np.clip(np.clip(old * wanted, 1.0 / MOST_GROWTH, MOST_GROWTH), least[pair.tensor], most[pair.tensor])
            factors[pair.tensor] = new
            weights[pair.producer] = scale_outputs(first, new / old)
            weights[pair.consumer] = scale_inputs(second, old / new)
    return factors


def _tempered(chains: Chains, factors: Factors) -> Factors:
    """Return the power of all factors that predicts the least noise; none if that is hardly less than now."""
    candidates = [{tensor: factor**power for tensor, factor in factors.items()} for power in STRENGTHS]
    best = min(candidates, key=chains.noise)
    return best if chains.noise(best) < WORTH * chains.noise({}) else {}


def _ceiling(pair: Pair, factor: Floats, peaks: Floats) -> Floats:
    """Return the bounds of a Clip whose channels were scaled: one if that does, else one per channel."""
    assert pair.limit is not None  # the caller has looked
    bounds, bound = pair.limit * factor, _reaches_limit(pair, peaks)
    if np.all(bounds[bound] >= (peaks * factor).max() * _AT_LIMIT):
        return np.array([bounds[bound].max() if bound.any() else bounds.max()])
    return bounds


def _equalized(model: Model, factors: Factors, ceilings: Mapping[str, Floats], what: str) -> Equalized:
    changed = {tensor: factor for tensor, factor in factors.items() if np.any(factor != 1.0)}
    if not changed:
        return Equalized(model=model)
    scaled = scale_pairs(model, changed)
    each = sum(ceiling.size > 1 for ceiling in ceilings.values())
    note = f"{what}: {_count(factors.values())} channels of {len(changed)} tensors"
    return Equalized(
        model=move_clips(scaled, ceilings) if ceilings else scaled,
        factors=changed,
        ceilings=ceilings,
        note=note + (f"; {each} tensors got a bound per channel in place of a Clip" if each else ""),
    )


def _count(factors: Iterable[Floats]) -> int:
    return sum(int(np.count_nonzero(factor != 1.0)) for factor in factors)
