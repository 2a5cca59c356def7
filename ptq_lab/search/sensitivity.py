"""What an error in each weight does to the output: one run per weight, and every width follows in closed form."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ptq_lab.graph import Model
from ptq_lab.numerics import QuantizedWeight, dequantize_weight, quantize_step, quantize_weight, weight_error
from ptq_lab.numerics.similarity import power_of
from ptq_lab.numerics.step import unit_step
from ptq_lab.numerics.width_errors import width_errors
from ptq_lab.plan import QuantPlan, TensorPlan
from ptq_lab.progress import Progress, Step, silent
from ptq_lab.runtime import CPU, Feeds
from ptq_lab.search.trials import Trials

PROBE_BITS = 6  # wide enough that errors add up, narrow enough to be seen
WIDTHS = tuple(range(1, 17))
_STRONG = 0.02  # an output error at which a probe is repeated with more bits
_MOST_STEPS = 1 << 15  # from zero to the largest value
_QUIET = 1e-9  # what single precision makes of no change at all


@dataclass(frozen=True, slots=True, eq=False)
class Sensitivity:
    """How the output error depends on the width of each weight.

    Attributes
    ----------
    tensors : tuple of str
    widths : tuple of int
        What the columns of `noise` stand for.
    gains : ndarray of float64, shape (L,)
        Output error, ``1 - cosine``, per unit of ``||w - decoded||**2``.
    noise : ndarray of float64, shape (L, W)
        ``||w - decoded||**2`` at every width.
    power : ndarray of float64, shape (L,)
        ``||w||**2``.
    measured : int
        How many gains were measured, from the first on; the others are guessed from them.
    runs : int
        How often the model ran all samples.
    """

    tensors: tuple[str, ...]
    widths: tuple[int, ...]
    gains: NDArray[np.float64]
    noise: NDArray[np.float64]
    power: NDArray[np.float64]
    measured: int
    runs: int

    @property
    def costs(self) -> NDArray[np.float64]:
        """Expected output error of every weight at every width, shape (L, W); they add up while they are small."""
        return self.gains[:, None] * self.noise


def measure_sensitivity(
    model: Model,
    plan: QuantPlan,
    samples: Sequence[Feeds],
    *,
    providers: Sequence[str] = CPU,
    executor: Executor | None = None,
    deadline: float = math.inf,
    single_step: bool = False,
    progress: Progress = silent,
) -> Sensitivity:
    """Round one weight after the other to a probing width, and see how far the outputs move.

    Parameters
    ----------
    model : Model
        The float model.
    plan : QuantPlan
        Whose entries say which weights, along which axis, and whether they are corrected.
    samples : sequence of {input name: array}
        A few; 8 tell the order of the weights.
    providers : sequence of str
        onnxruntime execution providers.
    executor : concurrent.futures.Executor, optional
        Threads among which the weights are shared out.
    deadline : float
        Reading of ``time.monotonic`` at which measuring ends. Weights that were not reached by then, or when the user
        interrupts, get the median gain per relative error.
    single_step : bool
        Probe with one step for the tensor instead of a grid per channel: that spreads the error over all channels
        alike, which is worse for small ones. The noise at the widths is not looked at then, and is left 0.
    progress : Progress
        Told once per weight.

    Notes
    -----
    The error of a rounded weight is nearly noise, and noise from several layers adds up in power; so the output error
    grows with ``gain * ||w - decoded||**2``, and one probe gives the gain. A probe that moves the output far is
    repeated with more bits, where it still grows in proportion.
    """
    trials = Trials(model, [entry.tensor for entry in plan.entries], samples, providers=providers)
    way = _STEPPED if single_step else _DIVIDED
    probe = partial(_probe, model.weight, trials, way)
    mapped: Iterable[_Probed] = (executor.map if executor is not None else map)(probe, plan.entries)
    rows: list[_Probed] = []
    with suppress(KeyboardInterrupt):  # what is measured so far is worth going on with; a second one ends the run
        for index, row in enumerate(mapped):
            rows.append(row)
            progress(Step("sensitivity", index + 1, len(plan.entries), plan.entries[index].tensor))
            if time.monotonic() > deadline:
                break
    missing = [_guess(model.weight(entry.tensor), entry, rows, way) for entry in plan.entries[len(rows) :]]
    every = [*rows, *missing]
    return Sensitivity(
        tensors=tuple(entry.tensor for entry in plan.entries),
        widths=WIDTHS,
        gains=np.array([row.gain for row in every]),
        noise=np.array([row.noise for row in every]).reshape(len(every), len(WIDTHS)),
        power=np.array([row.power for row in every]),
        measured=len(rows),
        runs=trials.runs,
    )


@dataclass(frozen=True, slots=True)
class _Way:
    """How a weight is rounded for a probe, and what widths would cost it."""

    rounded: Callable[[TensorPlan, NDArray[np.float32], int], QuantizedWeight]
    noise: Callable[[TensorPlan, NDArray[np.float32]], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class _Probed:
    gain: float
    noise: NDArray[np.float64]
    power: float


def _probe(read: Callable[[str], NDArray[np.float32]], trials: Trials, way: _Way, entry: TensorPlan) -> _Probed:
    """Measure one weight."""
    values = read(entry.tensor)
    power = power_of(values)
    for bits in (PROBE_BITS, PROBE_BITS + 4):
        rounded = way.rounded(entry, values, bits)
        made = weight_error(values, rounded) ** 2 * power
        moved = trials.error({entry.tensor: dequantize_weight(rounded)})
        if moved <= _STRONG:
            break
    return _Probed(max(moved, _QUIET) / made if made > 0.0 else 0.0, way.noise(entry, values), power)


def _divided(entry: TensorPlan, values: NDArray[np.float32], bits: int) -> QuantizedWeight:
    """Round as a plan does."""
    return quantize_weight(values, bits=bits, axis=entry.axis, correct=entry.correct)


def _width_noise(entry: TensorPlan, values: NDArray[np.float32]) -> NDArray[np.float64]:
    return width_errors(values, WIDTHS, axis=entry.axis, correct=entry.correct)


def _stepped(entry: TensorPlan, values: NDArray[np.float32], bits: int) -> QuantizedWeight:
    """Round to one step for the tensor: as fine as the width makes a tensor without outliers."""
    step = 2.0 * unit_step(values) / 2**bits
    return quantize_step(values, max(step, float(np.abs(values).max()) / _MOST_STEPS))


def _no_noise(entry: TensorPlan, values: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.zeros(len(WIDTHS))


_DIVIDED, _STEPPED = _Way(_divided, _width_noise), _Way(_stepped, _no_noise)


def _guess(values: NDArray[np.float32], entry: TensorPlan, known: Sequence[_Probed], way: _Way) -> _Probed:
    """Take a weight to be as sensitive to a relative error as the median of those that were measured."""
    power = power_of(values)
    relative = float(np.median([row.gain * row.power for row in known])) if known else 1.0
    return _Probed(relative / power if power > 0.0 else 0.0, way.noise(entry, values), power)


def changes_of(plan: QuantPlan, read: Callable[[str], NDArray[np.float32]]) -> Mapping[str, NDArray[np.float32]]:
    """Return every weight of a plan as it will be decoded."""
    changes = {}
    for entry in plan.entries:
        weight = entry.weight
        if weight is None:
            weight = quantize_weight(read(entry.tensor), bits=entry.bits, axis=entry.axis, correct=entry.correct)
        changes[entry.tensor] = dequantize_weight(weight)
    return changes
