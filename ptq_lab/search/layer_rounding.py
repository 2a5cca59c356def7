"""One layer, made better step by step: each step is kept only if the layer's output on held-out samples gains by it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ptq_lab.numerics import QuantizedWeight, dequantize_weight
from ptq_lab.numerics.blocked import fit_blocks
from ptq_lab.numerics.outcome import Outcome
from ptq_lab.numerics.rounding import Steps, descend, fit_range, hand_on
from ptq_lab.numerics.targets import RIDGE, Moments, choose_aim
from ptq_lab.search.layer_inputs import Linear, Read
from ptq_lab.search.stored_steps import store_steps, stretch

Array = NDArray[np.float32]
Exact = NDArray[np.float64]
Ways = list[tuple[Exact, Exact]]  # gains and biases of all outputs

FOLDS = 3
HELD_OUT = 8  # one sample in so many judges the steps and shapes none of them
FEW_ROWS = 12  # positions per input below which stronger ridges are tried
RIDGES = (0.01, 0.1, 1.0)
MANY_ROWS = 64  # positions per input from which an eighth more of them teaches rounding nothing
DAMPED = 2  # positions per input below which rounding trusts the covariance less
DAMPING = 0.1
_ROUNDINGS = ("gptq", "descent")
ROUNDED_BITS = 8  # wider codes are as good as their neighbours


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Which steps are tried.

    Attributes
    ----------
    ranges : bool
        Ranges by what an error costs, instead of from minimum to maximum.
    bias : bool
        Biases from the means of the outputs.
    after_activation : bool
        Gains and biases from what comes out behind the activation.
    gptq : bool
        Rounding errors handed on to other weights.
    descent : bool
        Sweeps over single weights.
    refit : bool
        Scales and offsets from the codes.
    blend : float or None
        How far targets make up for earlier layers, 0..1; ``None``: chosen per layer on folds.
    positions : int
        Of a layer's input, over all samples; layers with many inputs take more.
    offsets : int
        Up to this width channels have an offset beside their scale; wider codes do without.
    """

    ranges: bool = True
    bias: bool = True
    after_activation: bool = True
    gptq: bool = False
    descent: bool = False
    refit: bool = True
    blend: float | None = 0.0
    positions: int = 4096
    offsets: int = 16

    @property
    def rounds(self) -> bool:
        """Whether codes are chosen by what a layer reads."""
        return self.gptq or self.descent


@dataclass(frozen=True, slots=True)
class StepTaken:
    """What one step did to one layer: its output error on held-out samples, relative to the output."""

    step: str
    before: float
    after: float

    @property
    def kept(self) -> bool:
        """Whether it was an improvement."""
        return self.after < self.before


@dataclass(frozen=True, slots=True)
class LayerSteps:
    """All steps of one layer, and the blend of its target; or why there were none."""

    node: str
    steps: tuple[StepTaken, ...] = ()
    blend: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """The last step that helped.

    Attributes
    ----------
    step : str
    weight : QuantizedWeight
        Its codes before gains.
    plain, given : ndarray of float32, shape (N, C)
        What the layer gives with them, and with gains; without its bias.
    ways : ndarray of int, shape (C,)
        Which way each output got its gain and bias.
    """

    step: str
    weight: QuantizedWeight
    plain: Array
    given: Array
    ways: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Solved:
    """What became of a layer: its weight and bias."""

    weight: QuantizedWeight
    bias: Array | None
    taken: LayerSteps


@dataclass(slots=True, eq=False)
class LayerWork:
    """A layer with what it reads, and the best that was found for it so far."""

    layer: Linear
    read: Read
    float_rows: Array
    recipe: Recipe
    weight: QuantizedWeight
    outcome: Outcome = field(init=False)
    judges: NDArray[np.bool_] = field(init=False)
    bias: Array | None = field(init=False)
    error: float = field(init=False)
    taken: list[StepTaken] = field(default_factory=list)
    blend: float = 0.0
    ridge: float = RIDGE
    kept: Kept | None = None

    def __post_init__(self) -> None:
        layer, read = self.layer, self.read
        wanted = _flat(read.floats @ self.float_rows)
        wanted = wanted if layer.bias is None else wanted + layer.bias
        shortcuts = {"wanted_shortcut": read.wanted_shortcut, "shortcut": read.shortcut}
        known = not layer.shortcut or read.shortcut is not None
        low, high = (layer.low, layer.high) if known else (-np.inf, np.inf)
        weights = _token_weights(wanted) if layer.node.op_type == "MatMul" else None
        self.outcome = Outcome(wanted=wanted, low=low, high=high, weights=weights, **shortcuts)
        order = np.unique(read.samples, return_inverse=True)[1]
        self.judges = order % HELD_OUT == HELD_OUT - 1
        self.bias = layer.bias
        if self._recoded:
            self.weight = self._stored(self._range(self.float_rows, None))
        self.error = self._judge(self.given(dequantize_weight(self.weight)), self.bias)

    def given(self, weight: Array) -> Array:
        """Return what the layer gives with a weight, without its bias, shape (N, C)."""
        return _flat(self.read.inputs @ self.layer.rows(weight))

    def _judge(self, given: Array, bias: Array | None) -> float:
        held = self.outcome.part(self.judges)
        power = np.square(held.target).mean(dtype=np.float64)
        errors = held.errors(given[self.judges] if bias is None else given[self.judges] + bias)
        return float(errors.mean() / power) if power > 0.0 else float(errors.mean())

    def offer(self, step: str, weight: QuantizedWeight) -> None:
        """Take a weight, with the bias that suits it, if that lowers the held-out error."""
        codes, plain = weight, self.given(dequantize_weight(weight))
        offered = self._ways(codes, plain, ~self.judges)
        ways = self._best_ways(plain, offered)
        weight, given, bias = self._with_bias(codes, plain, offered, ways)
        error = self._judge(given, bias)
        self.taken.append(StepTaken(step, self.error, error))
        if error < self.error:
            self.weight, self.bias, self.error = weight, bias, error
            self.kept = Kept(step, codes, plain, given, ways)

    def _best_ways(self, given: Array, offered: Ways) -> NDArray[np.int64]:
        """Return which of the ways to a gain and a bias serves each output best on held-out samples."""
        if not offered:
            return np.zeros(given.shape[1], np.int64)
        held, judged = self.outcome.part(self.judges), given[self.judges]
        errors = [held.errors(judged * gain.astype(np.float32) + bias.astype(np.float32)) for gain, bias in offered]
        return np.asarray(np.argmin(errors, axis=0), np.int64)

    def _ways(self, weight: QuantizedWeight, given: Array, shaping: NDArray[np.bool_]) -> Ways:
        """Return gains and biases: of the mean, as they were, and behind the activation; none where none may change."""
        if self.layer.bias is None or not self.recipe.bias:
            return []
        fitted, seen = self.outcome.part(shaping), given[shaping]
        ones = np.ones(given.shape[1])
        ways = [(ones, fitted.shift(seen)), (ones, self.layer.bias.astype(np.float64))]
        if self.recipe.after_activation and weight.axis is not None:
            ways.append(fitted.fit(seen))
        return ways

    def _with_bias(
        self, weight: QuantizedWeight, given: Array, offered: Ways, ways: NDArray[np.int64]
    ) -> tuple[QuantizedWeight, Array, Array | None]:
        """Return a weight with gains and a bias, of the way that each output takes."""
        if not offered:
            return weight, given, self.layer.bias
        gains, biases = (np.stack(each) for each in zip(*offered, strict=True))
        gain, bias = (np.take_along_axis(each, ways[None], axis=0)[0] for each in (gains, biases))
        if (gain != 1.0).any():
            weight = stretch(weight, gain.astype(np.float32))
            given = self.given(dequantize_weight(weight))
        return weight, given, bias.astype(np.float32)

    def solve(self) -> Solved:
        """Try the steps of the recipe, one after the other."""
        if self.recipe.bias and self.layer.bias is not None:
            self.offer("bias", self.weight)
        if self.recipe.ranges and self.layer.alone:
            self._ranges()
        moments: list[Moments] = []
        if self.recipe.rounds and self.layer.alone and self.weight.bits <= ROUNDED_BITS:
            moments = self._moments()
            self._round(moments)
        self._use_all(moments)
        taken = LayerSteps(self.layer.name, tuple(self.taken), self.blend)
        return Solved(self.weight, self.bias, taken)

    def _ranges(self) -> None:
        power = np.square(self.read.inputs).mean(axis=1, dtype=np.float64)
        if self._centred:
            power -= np.square(self.read.inputs.mean(axis=1, dtype=np.float64))
        importance = np.maximum(power, 1e-12 + 1e-3 * power.mean()).astype(np.float32)[:, :, None]
        for name, weights in (("range of power 2.4", None), ("range by inputs", importance)):
            self.offer(name, self._stored(self._range(self.float_rows, weights)))

    def _range(self, rows: Array, importance: Array | None) -> Steps:
        if self.weight.block:
            return fit_blocks(rows, self.weight.bits, self.weight.block, importance)
        if self.weight.axis is not None:
            return fit_range(rows, self.weight.bits, importance, free=self._free)
        scale, offset = self.weight.scale, self.weight.offset - self.weight.scale * self._top
        shape = (rows.shape[0], 1, rows.shape[2])
        grid = (np.full(shape, scale, np.float32), np.full(shape, offset, np.float32))
        codes = np.clip(np.rint((rows - grid[1]) / grid[0]), 0, 2**self.weight.bits - 1)
        return Steps(codes.astype(np.float32), *grid, self.weight.bits)

    def _use_all(self, moments: list[Moments]) -> None:
        """Do what was decided once more, with the samples that decided it; what they say must not make it worse."""
        if self.kept is None:
            return
        weight, plain = self.kept.weight, self.kept.plain
        if self.kept.step in _ROUNDINGS and self.judges.size < MANY_ROWS * self.float_rows.shape[1]:
            total = _sum([*moments, self._moment(self.judges)])
            target = self.float_rows
            if self.blend != 0.0:
                target = target + np.float32(self.blend) * total.move(centred=self._centred, ridge=self.ridge)
            found = self._rounded(target, self._covariance(total, self.judges.size))
            weight = next(rounded for step, rounded in found if step == self.kept.step)
            plain = self.given(dequantize_weight(weight))
        offered = self._ways(weight, plain, np.ones_like(self.judges))
        weight, given, bias = self._with_bias(weight, plain, offered, self.kept.ways)
        after, before = (
            float(self.outcome.errors(each if shift is None else each + shift).mean())
            for each, shift in ((given, bias), (self.kept.given, self.bias))
        )
        if after <= before:
            self.weight, self.bias = weight, bias

    def _round(self, moments: list[Moments]) -> None:
        target = self._target(moments)
        for step, weight in self._rounded(target, self._covariance(_sum(moments), int((~self.judges).sum()))):
            self.offer(step, weight)

    def _rounded(self, target: Array, covariance: Exact) -> Iterator[tuple[str, QuantizedWeight]]:
        """Yield what one way of rounding after the other makes of a target."""
        importance = np.diagonal(covariance, axis1=1, axis2=2).astype(np.float32)[:, :, None]
        steps = self._range(target, importance)
        if self.recipe.gptq:
            steps = hand_on(target, covariance, steps)
            yield "gptq", self._stored(steps)
        if self.recipe.descent:
            refits = self.recipe.refit and self.weight.axis is not None and not self.weight.block
            yield "descent", self._stored(descend(target, covariance, steps, refits=refits))

    def _covariance(self, total: Moments, positions: int) -> Exact:
        """Return how inputs vary together; of few positions behind a pooling, what is in front of it tells as much."""
        damped = positions < DAMPED * self.float_rows.shape[1]
        covariance = total.covariance(centred=self._centred, ridge=DAMPING if damped else RIDGE)
        pooled = self.read.pooled
        if not damped or pooled is None:
            return covariance
        moments = Moments.of(pooled, np.zeros((*pooled.shape[:2], 1), np.float32))
        wider = moments.covariance(centred=self._centred, ridge=RIDGE)
        share = np.trace(covariance, axis1=1, axis2=2) / np.trace(wider, axis1=1, axis2=2)
        return np.asarray(0.5 * covariance + 0.5 * share[:, None, None] * wider)

    def _target(self, moments: list[Moments]) -> Array:
        """Return the weights to round towards."""
        blend, ridge = self.recipe.blend, RIDGE
        if blend is None:
            few = int((~self.judges).sum()) < FEW_ROWS * self.float_rows.shape[1]
            ridges = RIDGES if few else (RIDGE,)
            aim = choose_aim(moments, self._judge_fold, centred=self._centred, ridges=ridges)
            blend, ridge = aim.blend, aim.ridge
        self.blend, self.ridge = blend, ridge
        if blend == 0.0:
            return self.float_rows
        move = _sum(moments).move(centred=self._centred, ridge=ridge)
        return self.float_rows + np.float32(blend) * move

    def _judge_fold(self, fold: int, move: Array, blends: Sequence[float]) -> list[float]:
        """Return the error of a fold with weights moved by what the other folds say, and their mean, for each blend."""
        rows, others = self._folds == fold, (self._folds >= 0) & (self._folds != fold)
        held = self.outcome.part(rows)
        parts = [_flat(self.read.inputs[:, rows] @ each) for each in (self.float_rows, move)]
        if self._centred:
            weights = None if self.outcome.weights is None else self.outcome.weights[others, 0]
            mean = np.average(self.read.inputs[:, others], axis=1, weights=weights, keepdims=True)
            seen = [_flat(mean @ each) for each in (self.float_rows, move)]
            parts = [part - each.astype(np.float32) for part, each in zip(parts, seen, strict=True)]
            parts[0] += self.outcome.part(others).shift(np.zeros_like(seen[0], np.float32)).astype(np.float32)
        return [float(held.errors(parts[0] + np.float32(blend) * parts[1]).sum()) for blend in blends]

    @property
    def _folds(self) -> NDArray[np.int64]:
        """The fold of each position; -1 for those held out."""
        order = np.unique(self.read.samples, return_inverse=True)[1]
        return np.where(self.judges, -1, (order // 2) % FOLDS)

    @property
    def _free(self) -> bool:
        """Whether channels have offsets; of two levels one would have to be zero without."""
        return not self.weight.block and (self.weight.bits <= self.recipe.offsets or self.weight.bits == 1)

    @property
    def _recoded(self) -> bool:
        """Whether the codes that were there have offsets that are not to be stored."""
        return self.layer.alone and self.weight.axis is not None and not self._free and not self.weight.block

    @property
    def _centred(self) -> bool:
        return self.layer.bias is not None and self.recipe.bias

    @property
    def _top(self) -> np.float32:
        return np.float32(2 ** (self.weight.bits - 1))

    def _moments(self) -> list[Moments]:
        """Measure the inputs, and what float weights lack with them, fold by fold."""
        return [self._moment(self._folds == fold) for fold in range(FOLDS)]

    def _moment(self, rows: NDArray[np.bool_]) -> Moments:
        read = self.read
        inputs = read.inputs[:, rows]
        missing = np.asarray((read.floats[:, rows] - inputs) @ self.float_rows, np.float32)
        if read.shortcut is not None and read.wanted_shortcut is not None:  # make up for what is added, too
            missing += self._grouped(read.wanted_shortcut[rows] - read.shortcut[rows])
        weights = None if self.outcome.weights is None else self.outcome.weights[rows]
        return Moments.of(inputs, missing, weights)

    def _grouped(self, flat: Array) -> Array:
        """Arrange (N, channels) as (groups, N, rows)."""
        return np.swapaxes(flat.reshape(len(flat), self.layer.groups, -1), 0, 1)

    def _stored(self, steps: Steps) -> QuantizedWeight:
        """Return codes and grid as a weight stores them."""
        return store_steps(steps, self.layer.whole(steps.codes), self.weight)


def _sum(moments: list[Moments]) -> Moments:
    total = moments[0]
    for each in moments[1:]:
        total = total + each
    return total


def _flat(rows: Array) -> Array:
    """Arrange (groups, N, rows) as (N, channels)."""
    return np.ascontiguousarray(np.swapaxes(rows, 0, 1).reshape(rows.shape[1], -1))


def _token_weights(wanted: Array) -> Array:
    """Let a few positions with huge outputs count no more than the others: the next normalisation shrinks them."""
    power = np.square(wanted).mean(axis=1, keepdims=True, dtype=np.float64)
    weights = 1.0 / np.maximum(power, 1e-12 + 0.1 * np.median(power))
    return np.asarray(weights / weights.mean(), np.float32)
