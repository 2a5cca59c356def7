"""One layer, made better step by step: each step is kept only if the layer's output on held-out samples gains by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ptq_lab.numerics import QuantizedWeight, dequantize_weight
from ptq_lab.numerics.blocked import fit_blocks, round_scales
from ptq_lab.numerics.outcome import Outcome
from ptq_lab.numerics.rounding import Steps, descend, fit_range, hand_on
from ptq_lab.numerics.targets import RIDGE, Moments, choose_aim
from ptq_lab.search.layer_inputs import Linear, Read

Array = NDArray[np.float32]

FOLDS = 3
HELD_OUT = 8  # one sample in so many judges the steps and shapes none of them
FEW_ROWS = 12  # positions per input below which stronger ridges are tried
RIDGES = (0.01, 0.1, 1.0)
DAMPED = 2  # positions per input below which rounding trusts the covariance less
DAMPING = 0.1
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
        given = self.given(dequantize_weight(weight))
        weight, given, bias = self._with_bias(weight, given)
        error = self._judge(given, bias)
        self.taken.append(StepTaken(step, self.error, error))
        if error < self.error:
            self.weight, self.bias, self.error = weight, bias, error

    def _with_bias(self, weight: QuantizedWeight, given: Array) -> tuple[QuantizedWeight, Array, Array | None]:
        """Return a weight with the gain and the bias that serve each output best on held-out samples."""
        if self.layer.bias is None or not self.recipe.bias:
            return weight, given, self.layer.bias
        fitted, held = self.outcome.part(~self.judges), self.outcome.part(self.judges)
        seen, judged = given[~self.judges], given[self.judges]
        channels = given.shape[1]
        gain, bias = np.ones(channels), fitted.shift(seen)
        least = held.errors(judged + bias.astype(np.float32))
        others = [(np.ones(channels), self.layer.bias.astype(np.float64))]
        if self.recipe.after_activation and weight.axis is not None:
            others.append(fitted.fit(seen))
        for other_gain, other_bias in others:
            errors = held.errors(judged * other_gain.astype(np.float32) + other_bias.astype(np.float32))
            better = errors < least
            gain, bias = np.where(better, other_gain, gain), np.where(better, other_bias, bias)
            least = np.minimum(errors, least)
        if (gain != 1.0).any():
            weight = _stretched(weight, gain.astype(np.float32))
            given = self.given(dequantize_weight(weight))
        return weight, given, bias.astype(np.float32)

    def solve(self) -> Solved:
        """Try the steps of the recipe, one after the other."""
        if self.recipe.bias and self.layer.bias is not None:
            self.offer("bias", self.weight)
        if self.recipe.ranges and self.layer.alone:
            self._ranges()
        if self.recipe.rounds and self.layer.alone and self.weight.bits <= ROUNDED_BITS:
            self._round(self._moments())
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

    def _round(self, moments: list[Moments]) -> None:
        target = self._target(moments)
        damped = int((~self.judges).sum()) < DAMPED * self.float_rows.shape[1]
        covariance = _sum(moments).covariance(centred=self._centred, ridge=DAMPING if damped else RIDGE)
        importance = np.diagonal(covariance, axis1=1, axis2=2).astype(np.float32)[:, :, None]
        steps = self._range(target, importance)
        if self.recipe.gptq:
            steps = hand_on(target, covariance, steps)
            self.offer("gptq", self._stored(steps))
        if self.recipe.descent:
            refits = self.recipe.refit and self.weight.axis is not None and not self.weight.block
            self.offer("descent", self._stored(descend(target, covariance, steps, refits=refits)))

    def _target(self, moments: list[Moments]) -> Array:
        """Return the weights to round towards."""
        blend, ridge = self.recipe.blend, RIDGE
        if blend is None:
            few = int((~self.judges).sum()) < FEW_ROWS * self.float_rows.shape[1]
            ridges = RIDGES if few else (RIDGE,)
            aim = choose_aim(moments, self._judge_fold, centred=self._centred, ridges=ridges)
            blend, ridge = aim.blend, aim.ridge
        self.blend = blend
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
        read, found = self.read, []
        for fold in range(FOLDS):
            rows = self._folds == fold
            inputs = read.inputs[:, rows]
            missing = np.asarray((read.floats[:, rows] - inputs) @ self.float_rows, np.float32)
            if read.shortcut is not None and read.wanted_shortcut is not None:  # make up for what is added, too
                missing += self._grouped(read.wanted_shortcut[rows] - read.shortcut[rows])
            weights = None if self.outcome.weights is None else self.outcome.weights[rows]
            found.append(Moments.of(inputs, missing, weights))
        return found

    def _grouped(self, flat: Array) -> Array:
        """Arrange (N, channels) as (groups, N, rows)."""
        return np.swapaxes(flat.reshape(len(flat), self.layer.groups, -1), 0, 1)

    def _stored(self, steps: Steps) -> QuantizedWeight:
        """Return codes and grid as a weight stores them."""
        if self.weight.block:
            return self._stored_blocks(steps)
        per_channel = self.weight.axis is not None
        scale = steps.scale.reshape(-1) if per_channel else steps.scale.reshape(-1)[0]
        low = steps.offset.reshape(-1) if per_channel else steps.offset.reshape(-1)[0]
        offset = np.asarray(low + scale * self._top, np.float32)
        exact = np.asarray(scale, np.float64)
        zero_point = np.clip(np.rint(-offset / exact), -(2**30), 2**30).astype(np.int32)
        return QuantizedWeight(
            codes=(self.layer.whole(steps.codes) - self._top).astype(self.weight.codes.dtype),
            bits=self.weight.bits,
            axis=self.weight.axis,
            scale=np.asarray(scale, np.float32),
            offset=offset,
            step=exact,
            zero_point=zero_point,
            spread_correction=np.ones_like(exact),
            mean_correction=offset + zero_point * exact,
        )

    def _stored_blocks(self, steps: Steps) -> QuantizedWeight:
        """Return codes with a scale for each block, and no offsets, as a weight stores them."""
        scale = np.swapaxes(steps.scale[:, :: self.weight.block], 1, 2).reshape(self.weight.scale.shape)
        zeros = np.zeros((len(scale), 1), np.float32)
        return replace(
            self.weight,
            codes=(self.layer.whole(steps.codes) - self._top).astype(self.weight.codes.dtype),
            scale=np.ascontiguousarray(scale),
            offset=zeros,
            step=scale.astype(np.float64),
            mean_correction=np.zeros(scale.shape),
        )


def _stretched(weight: QuantizedWeight, factor: Array) -> QuantizedWeight:
    """Return a weight whose channels are multiplied by a factor each."""
    if not weight.block:
        return replace(weight, scale=weight.scale * factor, offset=weight.offset * factor)
    scale = round_scales(weight.scale * factor[:, None])
    return replace(weight, scale=scale, offset=weight.offset * factor[:, None])


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
