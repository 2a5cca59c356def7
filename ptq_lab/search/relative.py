"""The original's rule in a plain file: each weight gets the fewest bits that keep its own relative error small."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ptq_lab.numerics import quantize_weight, weight_error
from ptq_lab.plan import QuantPlan, TensorPlan
from ptq_lab.progress import Progress, Step, silent

FALLBACK = 8  # bits where no width meets the target, as in the original
_WIDEST = 16


def fewest_bits(
    plan: QuantPlan,
    read: Callable[[str], NDArray[np.float32]],
    target: float,
    *,
    pins: Mapping[str, int] | None = None,
    progress: Progress = silent,
) -> QuantPlan:
    """Give every weight the smallest width at which its relative error is within a target.

    Parameters
    ----------
    plan : QuantPlan
        Whose entries say along which axis, and whether weights are corrected.
    read : callable
        Tensor name to float32 weight.
    target : float
        Largest ``||w - decoded|| / ||w||`` (``init_scale``), between 0 and 1.
    pins : mapping of str to int, optional
        Weights whose width is given.
    progress : Progress
        Told once per weight.

    Notes
    -----
    The original gives a tensor one step and codes its multiples by their entropy. Packed, such codes take as many
    bits as the largest needs, 8 to 9 at the default target; with a scale per channel 7 are enough.
    """
    entries, pins = [], pins or {}
    for index, entry in enumerate(plan.entries):
        values = read(entry.tensor)
        pinned = entry.tensor in pins
        entries.append(_rounded(entry, values, pins[entry.tensor]) if pinned else _fewest(entry, values, target))
        progress(Step("quantize", index + 1, len(plan.entries), entry.tensor))
    return replace(plan, entries=tuple(entries))


def _fewest(entry: TensorPlan, values: NDArray[np.float32], target: float) -> TensorPlan:
    """Round a weight at the width that is expected to do, then at its neighbours."""
    tried: dict[int, tuple[TensorPlan, float]] = {}

    def at(bits: int) -> tuple[TensorPlan, float]:
        if bits not in tried:
            rounded = _rounded(entry, values, bits)
            assert rounded.weight is not None  # it has just been rounded
            tried[bits] = rounded, weight_error(values, rounded.weight)
        return tried[bits]

    error = at(FALLBACK)[1]
    bits = FALLBACK + math.ceil(math.log2(error / target)) if error > 0.0 else 1
    bits = min(max(bits, 1), _WIDEST)
    while bits < _WIDEST and at(bits)[1] > target:
        bits += 1
    while bits > 1 and at(bits - 1)[1] <= target:
        bits -= 1
    return at(bits)[0] if at(bits)[1] <= target else at(FALLBACK)[0]


def _rounded(entry: TensorPlan, values: NDArray[np.float32], bits: int) -> TensorPlan:
    return replace(entry, bits=bits, weight=quantize_weight(values, bits=bits, axis=entry.axis, correct=entry.correct))
