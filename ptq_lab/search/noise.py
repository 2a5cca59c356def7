"""What rounding to 8 bits with one scale per layer will cost neighbouring layers, predicted without running them.

Every number is a ratio of noise to signal as the *next* layer sees it, so that channels which nobody listens to do not
count, and rescaling a channel changes only what it does to the scales.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ptq_lab.graph.pairs import Floats, Pair, scale_inputs, scale_outputs

Factors = Mapping[str, Floats]  # tensor -> what its channels are multiplied by, shape (C,)

_CODES = 127.0  # largest code of a weight
_STEPS = 255.0  # of an activation
_FLATNESS = 0.02  # mean square of an activation behind a ReLU, as a part of its squared maximum


@dataclass(frozen=True, slots=True, kw_only=True)
class Chains:
    """Pairs of layers with what is known of them.

    Attributes
    ----------
    pairs : sequence of Pair
        A layer may be the consumer of one and the producer of another.
    weights : mapping of str to ndarray, shape (out, in / groups, kernel...)
        By node.
    peaks : mapping of str to ndarray, shape (C,)
        Tensor of a pair to the largest magnitude of each channel, in real units.
    """

    pairs: Sequence[Pair]
    weights: Mapping[str, Floats]
    peaks: Mapping[str, Floats]

    def scaled(self, node: str, factors: Factors) -> Floats:
        """Return the weight of a layer once the tensors around it carry scaled values."""
        weight = self.weights[node]
        for pair in self.pairs:
            if pair.tensor in factors and pair.producer == node:
                weight = scale_outputs(weight, factors[pair.tensor])
            if pair.tensor in factors and pair.consumer == node:
                weight = scale_inputs(weight, 1.0 / factors[pair.tensor])
        return weight

    def noise(self, factors: Factors) -> float:
        """Return the predicted noise of all pairs together, each relative to its signal.

        Examples
        --------
        >>> pair = Pair(producer="a", consumer="b", activation="", tensor="t", channels=2, rank=3, limit=None,
        ...             depthwise=False)
        >>> first, second = np.array([[[1.0]], [[100.0]]]), np.array([[[1.0], [0.01]]])
        >>> chains = Chains(pairs=[pair], weights={"a": first, "b": second}, peaks={"t": np.array([1.0, 100.0])})
        >>> chains.noise({"t": np.array([10.0, 0.1])}) < 0.1 * chains.noise({})
        True
        """
        weights = {node: self.scaled(node, factors) for node in self.weights}
        return sum(self._noise(pair, weights[pair.producer], weights[pair.consumer], factors) for pair in self.pairs)

    def _noise(self, pair: Pair, first: Floats, second: Floats, factors: Factors) -> float:
        peaks = self.peaks[pair.tensor] * factors.get(pair.tensor, np.ones(1))
        alive = peaks > 0.0
        heard = np.where(alive, _sum_inputs(np.square(second), pair.channels), 0.0)  # squared gain of the next layer
        signal = float(heard @ np.square(peaks))
        energy = np.square(first).reshape(pair.channels, -1).sum(axis=1)
        loudness = float(heard @ energy)
        if signal <= 0.0 or loudness <= 0.0:
            return 0.0  # nothing gets through, so nothing can be spoilt
        rounding_first = _step_noise(np.abs(first).max() / _CODES) * first[0].size * heard.sum() / loudness
        readers = second.size / pair.channels
        rounding_second = _step_noise(np.abs(second).max() / _CODES) * readers * np.square(peaks).sum() / signal
        rounding_tensor = _step_noise(peaks.max() / _STEPS) * heard.sum() / (_FLATNESS * signal)
        return float(rounding_first + rounding_second + rounding_tensor)


def _step_noise(step: float) -> float:
    """Return the mean squared error of rounding to multiples of a step."""
    return step * step / 12.0


def _sum_inputs(values: Floats, channels: int) -> Floats:
    """Sum a weight-shaped array per input channel, shape (channels,)."""
    groups = channels // values.shape[1]
    grouped = values.reshape(groups, values.shape[0] // groups, values.shape[1], -1)
    return np.asarray(grouped.sum(axis=(1, 3)).reshape(-1))
