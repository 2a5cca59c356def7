"""Two models on one sample: what is said of every tensor, before and after quantization, as rows.

``Origin`` is the float model that was quantized. ``Dequant`` is the quantized model as its file says it, node by node
(onnxruntime's fused kernels may differ from that by a step of a code): where a tensor carries codes, what these stand
for, otherwise the float tensor. Tensors of other types than float have no rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ptq_lab.graph import Model
from ptq_lab.graph.expose import (
    Stored,
    Use,
    expose,
    made_tensors,
    stored_operand,
    stored_tensor,
    uses_of,
)
from ptq_lab.graph.model import float32
from ptq_lab.graph.qdq import codes_name
from ptq_lab.numerics import dequantize_weight
from ptq_lab.numerics.description import Description, code_values, describe, describe_codes, product_sum
from ptq_lab.numerics.similarity import cosine_of
from ptq_lab.plan import ActivationPlan, QuantPlan, TensorPlan
from ptq_lab.runtime import CPU, Feeds, open_session, run_session


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsRow:
    """The values of one tensor at one node, in one of the two models.

    Attributes
    ----------
    use : Use
    kind : {"Origin", "Dequant"}
    values : Description
    clip : float
        Share of the float model's values outside the extremes of these; 0 for ``Origin``.
    cosine : float
        With the float model's values; 1 for ``Origin``; NaN if the shapes differ.
    """

    use: Use
    kind: Literal["Origin", "Dequant"]
    values: Description
    clip: float = 0.0
    cosine: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterRow:
    """The grid of one channel of a quantized tensor: ``value = (code - zero_point) * scale``, then corrected.

    Attributes
    ----------
    use : Use
    shape : tuple of int
    scale : float
        Before corrections.
    zero_point, bits : int
    spread_correction, mean_correction : float
        What a dequantized value is multiplied with, and what is added then.
    """

    use: Use
    shape: tuple[int, ...]
    scale: float
    zero_point: int
    bits: int
    spread_correction: float = 1.0
    mean_correction: float = 0.0


@dataclass(frozen=True, slots=True)
class _Pair:
    """One tensor in both models; `after` is missing where the quantized model has no counterpart."""

    before: Description
    after: Description | None = None
    clip: float = 0.0
    cosine: float = 1.0

    def rows(self, use: Use) -> Iterator[StatisticsRow]:
        yield StatisticsRow(use=use, kind="Origin", values=self.before)
        if self.after is not None:
            yield StatisticsRow(use=use, kind="Dequant", values=self.after, clip=self.clip, cosine=self.cosine)


class DebugLook:
    """Two models whose tensors are looked at, sample by sample; nothing is kept of a sample but its rows.

    Parameters
    ----------
    original, prepared, quantized : Model
        Nodes are those of `original`; `prepared` is the float model that `plan` quantizes.
    plan : QuantPlan
        With codes.
    providers : sequence of str
        onnxruntime execution providers.
    every : int
        Take quartiles of activations from every so many-th value.
    fused : bool
        Let onnxruntime fuse, and leave out what stands inside its kernels then, between a layer and its activation.
    """

    def __init__(
        self,
        original: Model,
        prepared: Model,
        quantized: Model,
        plan: QuantPlan,
        *,
        providers: Sequence[str] = CPU,
        every: int = 1,
        fused: bool = False,
    ) -> None:
        self._prepared, self._quantized, self._every = prepared, quantized, every
        self._uses = uses_of(original, prepared, fused=fused)
        self._entries = {entry.tensor: entry for entry in plan.entries}
        self._grids = {each.tensor: each for each in plan.activations}
        self._outputs = tuple(spec.name for spec in original.outputs if spec.dtype.kind == "f")
        self._fixed: dict[tuple[str, str, int], _Pair] = {}
        self._stored: dict[tuple[str, str, int], Stored] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for use in self._uses:
            if use.fixed:
                self._fixed[self._key(use)] = self._constant(use)
        made, codes = made_tensors(prepared), made_tensors(quantized)
        moving = dict.fromkeys((*(use.tensor for use in self._uses if not use.fixed), *self._outputs))
        self._moving = tuple(moving)
        self._before = {name: name for name in moving if name in made}
        self._after = {
            name: codes_name(name) if codes_name(name) in codes else name
            for name in moving
            if name in codes or codes_name(name) in codes
        }
        self._sessions = tuple(
            open_session(expose(model, tuple(names.values())), providers=providers, fuse=fused) if names else None
            for model, names in ((prepared, self._before), (quantized, self._after))
        )

    def rows(self, feeds: Feeds) -> tuple[list[StatisticsRow], dict[str, float]]:
        """Run both models on a sample.

        Returns
        -------
        rows : list of StatisticsRow
            Nodes in the order of the graph, their inputs before their outputs, ``Origin`` before ``Dequant``.
        cosines : dict of str to float
            How alike the outputs of the two models are.
        """
        before, after = (run_session(session, feeds) if session is not None else {} for session in self._sessions)
        pairs: dict[str, _Pair] = {}
        for name in self._moving:
            value = before.pop(self._before.get(name, ""), feeds.get(name))
            if value is not None and _is_float(value):
                self._shapes[name] = value.shape
                pairs[name] = self._pair(name, value, after.pop(self._after.get(name, ""), feeds.get(name)))
        rows: list[StatisticsRow] = []
        for use in self._uses:
            pair = self._fixed[self._key(use)] if use.fixed else pairs.get(use.tensor)
            rows.extend(pair.rows(use) if pair is not None else ())
        return rows, {name: pairs[name].cosine for name in self._outputs if name in pairs}

    def parameters(self) -> Iterator[ParameterRow]:
        """Give the grids of everything that is quantized; of activations after a sample was run, for their shapes."""
        for use in self._uses:
            entry, grid = self._entries.get(use.tensor), self._grids.get(use.tensor)
            stored = self._stored.get(self._key(use))
            if entry is not None:
                yield from _weight_rows(use, entry)
            elif stored is not None and stored.scale is not None:
                yield from _stored_rows(use, stored)
            elif grid is not None and not use.fixed:
                yield _grid_row(use, grid, self._shapes.get(use.tensor, ()))

    def _key(self, use: Use) -> tuple[str, str, int]:
        """Tell constants apart: a quantized weight is one for all its readers, others are looked up at each node."""
        return (use.tensor, "", 0) if use.tensor in self._entries else (use.tensor, use.node, use.index)

    def _constant(self, use: Use) -> _Pair:
        if (known := self._fixed.get(self._key(use))) is not None:
            return known
        tensor = stored_tensor(self._prepared, use.tensor)
        assert tensor is not None  # a fixed tensor is a constant
        values = float32(tensor)
        before = describe(values)
        entry = self._entries.get(use.tensor)
        if entry is not None:
            assert entry.weight is not None  # the plan has its codes
            return _compare(values, before, dequantize_weight(entry.weight))
        if stored_tensor(self._quantized, use.tensor) is tensor:
            return _Pair(before, before)
        stored = stored_operand(self._quantized, use)
        if stored is None:
            return _Pair(before)
        self._stored[self._key(use)] = stored
        return _compare(values, before, stored.values)

    def _pair(self, name: str, value: NDArray[Any], other: Any) -> _Pair:
        x = np.ascontiguousarray(value, np.float32)
        before = describe(x, every=self._every)
        if not isinstance(other, np.ndarray):
            return _Pair(before)
        grid = self._grids.get(name)
        if grid is not None and other.dtype in (np.uint8, np.int8):
            codes = np.ascontiguousarray(other)
            after = describe_codes(codes, grid.scale, grid.zero_point)
            meant = code_values(codes.dtype, grid.scale, grid.zero_point).take(codes.view(np.uint8))
            return _judged(x, before, meant, after)
        return _compare(x, before, other, every=self._every) if _is_float(other) else _Pair(before)


def _compare(x: NDArray[np.float32], before: Description, y: NDArray[Any], *, every: int = 1) -> _Pair:
    other = np.ascontiguousarray(y, np.float32)
    return _judged(x, before, other, describe(other, every=every))


def _judged(x: NDArray[np.float32], before: Description, y: NDArray[np.float32], after: Description) -> _Pair:
    if x.shape != y.shape:
        return _Pair(before, after, _clip(x, before, after), math.nan)
    if not x.size:
        return _Pair(before, after, math.nan, math.nan)
    product = product_sum(x.reshape(-1), y.reshape(-1))
    cosine = min(cosine_of(before.power, after.power, product), 1.0)
    return _Pair(before, after, _clip(x, before, after), cosine)


def _clip(x: NDArray[np.float32], before: Description, after: Description) -> float:
    if not before.size or not after.size:
        return math.nan
    low, high = np.float32(after.low), np.float32(after.high)
    if before.low >= low and before.high <= high:
        return 0.0
    return float(np.count_nonzero(x < low) + np.count_nonzero(x > high)) / before.size


def _weight_rows(use: Use, entry: TensorPlan) -> Iterator[ParameterRow]:
    weight = entry.weight
    assert weight is not None  # the plan has its codes
    numbers = (weight.step, weight.zero_point, weight.spread_correction, weight.mean_correction)
    for step, zero, spread, mean in zip(*(np.ravel(each) for each in numbers), strict=True):
        yield ParameterRow(
            use=use,
            shape=entry.shape,
            scale=float(step),
            zero_point=int(zero),
            bits=entry.bits,
            spread_correction=float(spread),
            mean_correction=float(mean),
        )


def _stored_rows(use: Use, stored: Stored) -> Iterator[ParameterRow]:
    assert stored.scale is not None  # the caller has looked
    assert stored.zero_point is not None
    for scale, zero in zip(np.ravel(stored.scale), np.ravel(stored.zero_point), strict=True):
        shape = stored.values.shape
        yield ParameterRow(use=use, shape=shape, scale=float(scale), zero_point=int(zero), bits=stored.bits)


def _grid_row(use: Use, grid: ActivationPlan, shape: tuple[int, ...]) -> ParameterRow:
    return ParameterRow(use=use, shape=shape, scale=grid.scale, zero_point=grid.zero_point, bits=8)


def _is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


__all__ = ["DebugLook", "ParameterRow", "StatisticsRow"]
