"""Widths as the choice to make: codes are packed, so what counts is how many bits each weight gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ptq_lab.plan import QuantPlan, round_weights
from ptq_lab.progress import Progress, silent
from ptq_lab.search.allocate import Tables, lay_out
from ptq_lab.search.choices import Read
from ptq_lab.search.relative import fewest_bits
from ptq_lab.search.sensitivity import Sensitivity


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedWidths:
    """Packed codes: the label is the width.

    Attributes
    ----------
    plan : QuantPlan
        The weights; its own widths do not matter.
    read : callable
        Tensor name to float32 weight.
    allowed : tuple of int
        The widths a weight may get.
    pins : mapping of str to int
        Weights whose width is given, also outside of `allowed`.
    """

    plan: QuantPlan
    read: Read
    allowed: tuple[int, ...]
    pins: Mapping[str, int]

    def by_rule(self, target: float, *, progress: Progress) -> QuantPlan:
        """Return the plan with the fewest bits that keep each relative error within a target."""
        return fewest_bits(self.plan, self.read, target, pins=self.pins, progress=progress)

    def tables(self, sensitivity: Sensitivity) -> Tables:
        """Return what every width costs and weighs."""
        columns, pins = sensitivity.widths, self.pins
        sizes = [[replace(entry, bits=bits).packed_bytes for bits in columns] for entry in self.plan.entries]
        allowed = [
            [bits == pins[e.tensor] if e.tensor in pins else bits in self.allowed for bits in columns]
            for e in self.plan.entries
        ]
        nominal = np.broadcast_to(np.asarray(columns, np.float64), sensitivity.noise.shape)
        return lay_out(self.plan, sensitivity, np.array(sizes, np.float64), np.array(allowed), nominal)

    def rounded(self, labels: Mapping[str, int], *, progress: Progress = silent) -> QuantPlan:
        """Return the plan with some widths and with codes."""
        return round_weights(self.plan.with_bits(labels), self.read, progress=progress)
