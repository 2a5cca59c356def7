"""Steps as the choice to make: codes are entropy-coded, so what counts is how coarse each weight's one step is.

An entropy coder charges a rare large code little, so nothing has to be cut off and no channel needs a scale of its own:
at equal error, one step for a tensor takes fewer coded bits than a grid per channel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ptq_lab.numerics import QuantizedWeight, find_step, quantize_step, quantize_weight, weight_error
from ptq_lab.numerics.coding import encode_array
from ptq_lab.numerics.entropy import code_entropy, count_levels, entropy_of
from ptq_lab.numerics.loss import channel_error
from ptq_lab.numerics.similarity import power_of
from ptq_lab.numerics.step import step_costs, unit_step
from ptq_lab.plan import Coding, QuantPlan, TensorPlan
from ptq_lab.progress import Progress, Step, silent
from ptq_lab.search.allocate import Tables, lay_out
from ptq_lab.search.choices import Read
from ptq_lab.search.relative import FALLBACK
from ptq_lab.search.sensitivity import Sensitivity

LABELS = tuple(range(37))  # quarters of an octave, from an error as large as the weight down to 0.2 %
_PER_OCTAVE = 4
_MOST_STEPS = 1 << 15  # from zero to the largest value, so that codes fit 16 bits

_ROUNDS = 24  # of making a step finer until no error is larger
_FINER = 0.98  # a round makes it at least so much finer
_SLACK = 1.01  # of an error: as near as a step is found

StepOf = Callable[[TensorPlan, NDArray[np.float32]], float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodedSteps:
    """Entropy-coded codes: the label says how fine the step is, in quarters of an octave.

    Attributes
    ----------
    plan : QuantPlan
        The weights; its own widths do not matter.
    read : callable
        Tensor name to float32 weight.
    pins : mapping of str to int
        Weights whose width is given; they keep their grids per channel.
    """

    plan: QuantPlan
    read: Read
    pins: Mapping[str, int]

    def by_rule(self, target: float, *, progress: Progress) -> QuantPlan:
        """Return the plan in which each weight has the one step at which its relative error is a target.

        Where no step keeps within the target, the weight gets 8 bits per channel, as in the original.
        """

        def step_of(entry: TensorPlan, values: NDArray[np.float32]) -> float | None:
            found = find_step(values, target)
            return found.step if found.met else None

        return self._stepped(step_of, progress)

    def tables(self, sensitivity: Sensitivity) -> Tables:
        """Return what every step costs and weighs, from the gains that were measured."""
        noise, bits = np.zeros((2, len(self.plan.entries), len(LABELS)))
        allowed = np.ones(noise.shape, bool)
        for index, entry in enumerate(self.plan.entries):
            values = self.read(entry.tensor)
            if entry.tensor in self.pins:
                weight = quantize_weight(values, bits=self.pins[entry.tensor], axis=entry.axis, correct=entry.correct)
                noise[index] = weight_error(values, weight) ** 2 * power_of(values)
                bits[index] = code_entropy(weight.codes)
                allowed[index, 1:] = False
            else:
                steps = unit_step(values) * np.array([_fraction(label) for label in LABELS])
                noise[index], bits[index] = step_costs(values, steps)
                allowed[index] = np.abs(values).max() < steps * _MOST_STEPS
        counts = np.array([[math.prod(entry.shape)] for entry in self.plan.entries], np.float64)
        sizes = np.ceil(bits * counts / 8) + [[8.0 * _channels(entry, self.pins)] for entry in self.plan.entries]
        known = replace(sensitivity, widths=LABELS, noise=noise)
        return lay_out(self.plan, known, sizes, allowed, bits)

    def rounded(self, labels: Mapping[str, int], *, progress: Progress = silent) -> QuantPlan:
        """Return the plan with codes of some steps."""

        def step_of(entry: TensorPlan, values: NDArray[np.float32]) -> float:
            return unit_step(values) * _fraction(labels[entry.tensor])

        return self._stepped(step_of, progress)

    def _stepped(self, step_of: StepOf, progress: Progress) -> QuantPlan:
        """Give every weight the codes of its step, or of a width where that is pinned or no step does."""
        entries = []
        for index, entry in enumerate(self.plan.entries):
            values = self.read(entry.tensor)
            width = self.pins.get(entry.tensor)
            step = step_of(entry, values) if width is None else None
            made = _with_step(entry, values, step) if step is not None else None
            entries.append(made or _with_width(entry, values, width or FALLBACK))
            progress(Step("quantize", index + 1, len(self.plan.entries), entry.tensor))
        return replace(self.plan, entries=tuple(entries))


def count_codes(plan: QuantPlan) -> QuantPlan:
    """Return a plan with codes that also says what entropy coding makes of them; steps that were chosen stay."""
    return replace(plan, entries=tuple(map(_counted, plan.entries)))


def choose_grids(plan: QuantPlan, read: Read, *, keep: Collection[str] = ()) -> tuple[QuantPlan, str]:
    """Give each weight one step for the tensor where that takes fewer coded bytes at no larger error.

    Parameters
    ----------
    plan : QuantPlan
        With codes of a given width: they say how large an error may be.
    read : callable
        Tensor name to float32 weight.
    keep : collection of str
        Weights whose grids stay.

    Returns
    -------
    plan : QuantPlan
        Its entries say what entropy coding makes of them.
    note : str
        What was chosen; empty if nothing could be.

    Notes
    -----
    The step makes neither the relative error of the tensor nor the mean one of its channels larger than the grids do.
    The first alone would be met by steps in which small channels vanish: on MobileNet at 6 bits that multiplies the
    error of the output, although every tensor keeps its own.
    """
    entries, steps = [], 0
    before = after = 0.0
    for entry in map(_counted, plan.entries):
        assert entry.weight is not None  # it has been counted
        chosen = None if entry.tensor in keep or not entry.correct else _cheaper_step(entry, read(entry.tensor))
        made = chosen or entry
        assert made.weight is not None
        steps += chosen is not None
        before, after = before + _coded_bytes(entry.weight), after + _coded_bytes(made.weight)
        entries.append(made)
    note = ""
    if steps:
        note = (
            f"one step for the tensor instead of a grid of the width for {steps} of {len(entries)} weights, each at no "
        )
        note += f"larger error: {before / 1e6:.3g} MB of codes and scales become {after / 1e6:.3g} MB"
    return replace(plan, entries=tuple(entries)), note


def _cheaper_step(entry: TensorPlan, values: NDArray[np.float32]) -> TensorPlan | None:
    """Return the entry with one step that makes no larger errors in fewer bytes, or ``None`` if there is none."""
    assert entry.weight is not None  # its error is what is kept to
    limit, axis = weight_error(values, entry.weight), entry.channel_axis
    channels = channel_error(values, entry.weight, axis)
    found = find_step(values, limit) if limit > 0.0 else None
    if found is None or not found.met:
        return None
    step = found.step
    for _ in range(_ROUNDS):
        made = _with_step(entry, values, step)
        if made is None or made.weight is None or _coded_bytes(made.weight) >= _coded_bytes(entry.weight):
            return None
        error = channel_error(values, made.weight, axis)
        if error <= _SLACK * channels and weight_error(values, made.weight) <= _SLACK * limit:
            return made
        step *= min(_FINER, channels / error if error else _FINER)
    return None


def _coded_bytes(weight: QuantizedWeight) -> float:
    """Return about how many bytes a weight takes in a container."""
    numbers = (weight.scale, weight.offset) if weight.offset.any() else (weight.scale,)
    return code_entropy(weight.codes) * weight.codes.size / 8 + sum(
        len(part) for one in numbers for part in encode_array(one)
    )


def _fraction(label: int) -> float:
    return float(2.0 ** (-label / _PER_OCTAVE))


def _channels(entry: TensorPlan, pins: Mapping[str, int]) -> int:
    return entry.channels if entry.tensor in pins else 1


def _with_step(entry: TensorPlan, values: NDArray[np.float32], step: float) -> TensorPlan | None:
    """Return the entry with the codes of one step, or ``None`` if they need more than 16 bits."""
    if np.abs(values).max() >= step * _MOST_STEPS:
        return None
    weight = quantize_step(values, step)
    return replace(entry, bits=weight.bits, weight=weight, coding=_coding(weight, step))


def _with_width(entry: TensorPlan, values: NDArray[np.float32], bits: int) -> TensorPlan:
    weight = quantize_weight(values, bits=bits, axis=entry.axis, correct=entry.correct)
    return replace(entry, bits=bits, weight=weight, coding=_coding(weight))


def _counted(entry: TensorPlan) -> TensorPlan:
    assert entry.weight is not None  # the plan has codes
    return replace(entry, coding=_coding(entry.weight, entry.coding.step if entry.coding is not None else None))


def _coding(weight: QuantizedWeight, step: float | None = None) -> Coding:
    counts = count_levels(weight.codes)
    return Coding(entropy=entropy_of(counts), levels=int(np.count_nonzero(counts)), step=step)
