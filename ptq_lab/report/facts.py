"""What a diagnosis looks at: activations and weights in numbers, gathered in one pass over a few samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ptq_lab.graph import Model, observe
from ptq_lab.plan import ActivationPlan, QuantPlan
from ptq_lab.report.rows import ErrorRow
from ptq_lab.runtime import Feeds, open_session, run_session

_BULK = 0.999  # share of the values that a range should resolve well


@dataclass(frozen=True, slots=True)
class ActivationFacts:
    """One activation, over all samples looked at.

    Attributes
    ----------
    reach, bulk : float
        The largest magnitude that the codes cover, and the one that 99.9 % of the values stay within.
    clipped : float
        Share of the values outside the range of the codes.
    channel : int or None
        The channel that holds the largest magnitude, if it stands out from the others.
    channel_ratio : float
        Its reach over that of the median channel.
    """

    reach: float
    bulk: float
    clipped: float
    channel: int | None
    channel_ratio: float

    @property
    def stretch(self) -> float:
        """How many times larger the range is than nearly all values need."""
        return self.reach / self.bulk if self.bulk > 0.0 else 1.0


@dataclass(frozen=True, slots=True)
class ChannelFacts:
    """What the channels of an input hold, shape (C,) each.

    Attributes
    ----------
    mean, deviation : ndarray
        Over all samples.
    tint : ndarray
        How far a channel lies above the mean of all channels of its sample, averaged over samples: brightness, in which
        samples differ most, is taken out.
    doubt : ndarray
        Standard error of `tint`.
    """

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    tint: NDArray[np.float64]
    doubt: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that the rules of a diagnosis read.

    Attributes
    ----------
    plan : QuantPlan
    model : Model
        The float model whose layers the plan quantizes.
    errors : mapping of str to ErrorRow
        By node, on calibration samples.
    evaluated_errors : mapping of str to ErrorRow
        The same on evaluation samples; empty without any.
    activations : mapping of str to ActivationFacts
        By tensor; those that carry codes.
    inputs : mapping of str to ChannelFacts
        Of the calibration samples, by input.
    evaluated : mapping of str to ChannelFacts
        The same of other inputs, e.g. those of an evaluation; empty without any.
    per_channel, corrects, everything : bool
        Whether the configuration asks for a scale per channel, for bias correction, and for codes everywhere.
    quant_type : str
    picture_format : str
        Order of the channels in which the configuration reads pictures; empty if it reads none.
    kernel_notes : tuple of str
        Layers that do not run as integers.
    skipped : tuple of str
        What the configuration leaves in float already.
    """

    plan: QuantPlan
    model: Model
    errors: Mapping[str, ErrorRow]
    evaluated_errors: Mapping[str, ErrorRow] = field(default_factory=dict)
    activations: Mapping[str, ActivationFacts] = field(default_factory=dict)
    inputs: Mapping[str, ChannelFacts] = field(default_factory=dict)
    evaluated: Mapping[str, ChannelFacts] = field(default_factory=dict)
    per_channel: bool = True
    corrects: bool = True
    everything: bool = False
    quant_type: str = ""
    picture_format: str = ""
    kernel_notes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    def harm(self, node: str) -> float:
        """Return how much error a layer makes by itself, 0 if unknown; see :attr:`ErrorRow.harm`."""
        row = self.errors.get(node)
        return row.harm if row is not None else 0.0


def activation_facts(plan: QuantPlan, model: Model, samples: Sequence[Feeds]) -> dict[str, ActivationFacts]:
    """Look at every activation that carries codes, on a few samples.

    Magnitudes are kept of every sample at 4,096 places per tensor; the largest ones of all values.
    """
    grids = {each.tensor: each for each in plan.activations}
    known = {value.name for node in model.graph for value in node.outputs} | {spec.name for spec in model.inputs}
    names = [name for name in grids if name in known]
    if not names or not samples:
        return {}
    observed, outputs = observe(model, names)
    session = open_session(observed)
    seen = {name: _Seen(grids[name]) for name in names}
    for feeds in samples:
        values = run_session(session, feeds)
        for name, (output,) in outputs.items():
            seen[name].add(values[output])
    return {name: each.facts() for name, each in seen.items()}


def channel_facts(samples: Sequence[Feeds], *, axis: int = 1) -> dict[str, ChannelFacts]:
    """Return mean and deviation of every channel of the inputs that are pictures: four axes, floats."""
    found: dict[str, ChannelFacts] = {}
    for name in samples[0] if samples else ():
        arrays = [np.asarray(feeds[name]) for feeds in samples]
        if arrays[0].ndim != 4 or arrays[0].dtype.kind != "f":
            continue
        flat = np.concatenate([np.moveaxis(each, axis, 0).reshape(each.shape[axis], -1) for each in arrays], axis=1)
        means = np.array([each.mean(axis=tuple({0, 1, 2, 3} - {axis}), dtype=np.float64) for each in arrays])
        tints = means - means.mean(axis=1, keepdims=True)
        found[name] = ChannelFacts(
            mean=flat.mean(axis=1, dtype=np.float64),
            deviation=flat.std(axis=1, dtype=np.float64),
            tint=tints.mean(axis=0),
            doubt=tints.std(axis=0) / np.sqrt(len(arrays)),
        )
    return found


class _Seen:
    """Running totals of one activation."""

    def __init__(self, grid: ActivationPlan) -> None:
        self._low, self._high = grid.low, grid.high
        self._parts: list[NDArray[np.float32]] = []
        self._channels: NDArray[np.float32] | None = None
        self._outside = self._count = 0

    def add(self, values: NDArray[np.float32]) -> None:
        if not values.size:
            return
        size = np.abs(values)
        self._outside += int(np.count_nonzero((values < self._low) | (values > self._high)))
        self._count += values.size
        flat = size.reshape(-1)
        self._parts.append(flat[:: max(1, flat.size // 4096)].copy())
        axis = 1 if values.ndim == 4 else values.ndim - 1
        largest = size.max(axis=tuple(each for each in range(values.ndim) if each != axis)) if values.ndim > 1 else None
        if largest is not None and (self._channels is None or self._channels.shape == largest.shape):
            self._channels = largest if self._channels is None else np.maximum(self._channels, largest)

    def facts(self) -> ActivationFacts:
        sizes = np.concatenate(self._parts) if self._parts else np.zeros(1, np.float32)
        bulk = float(np.quantile(sizes, _BULK))
        channels, reach = self._channels, max(abs(self._low), abs(self._high))
        channel, ratio = None, 1.0
        if channels is not None and channels.size > 2:
            median = float(np.median(channels))
            ratio = float(channels.max()) / median if median > 0.0 else 1.0
            channel = int(channels.argmax()) if ratio > 3.0 else None
        return ActivationFacts(reach, bulk, self._outside / max(1, self._count), channel, ratio)
