"""Size against error for every choice of widths of one model, in closed form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ptq_lab.config import load_config
from ptq_lab.edits import Widths
from ptq_lab.errors import ConfigError, PlanError, Problem
from ptq_lab.graph import required_opset
from ptq_lab.plan import QuantPlan
from ptq_lab.report.tables import Table
from ptq_lab.report.text import format_bytes
from ptq_lab.report.widths import FrontPoint, Prediction, WidthRow
from ptq_lab.search.file_size import FileSizes
from ptq_lab.search.front import Front, fit_error, fit_size, pareto_front
from ptq_lab.search.sensitivity import Sensitivity

_SECTION = "ptq_lab.mixed_bit"
_BEST = "best for its size"
_FRONTS = 4  # that are remembered: one per opset, one by average width
_BYTE = 1e-6  # of a byte: a size in millions of bytes comes back a little smaller
_ROUNDING = 1e-9  # relative: sums of sizes in another order

Columns = NDArray[np.int64]
Sizes = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a choice of widths may cost; all have to hold.

    Attributes
    ----------
    file : float
        Bytes of the file, a whole number.
    bits : float
        Average per weight that is quantized.
    error : float
        Expected ``1 - cosine``.
    file_key : str
        The option that limits the file, for messages.
    """

    file: float = math.inf
    bits: float = math.inf
    error: float = math.inf
    file_key: str = "target_size_mb"


@dataclass(frozen=True, slots=True, eq=False)
class _Chosen:
    """A choice of widths as rows (what is quantized) and columns (how wide) of the tables."""

    rows: Columns
    columns: Columns
    pinned: NDArray[np.bool_]


def read_limits(given: Mapping[str, float | None], size: int, widths: Sequence[int]) -> Limits:
    """Turn a budget of ``[ptq_lab.mixed_bit]`` into limits.

    Parameters
    ----------
    given : mapping of str to float or None
        Options of the section that limit size or cosine; at least one that is not ``None``.
    size : int
        Bytes of the float model.
    widths : sequence of int
        That weights may have.

    Raises
    ------
    ConfigError
        If there is none, or one is out of range.

    Examples
    --------
    >>> read_limits({"compression_ratio": 4}, 1000, [4, 8]).file
    250
    """
    options = {key: value for key, value in given.items() if value is not None}
    if not options:
        message = "a budget needs a limit: target_size_mb, average_bits, compression_ratio or min_cosine"
        raise ConfigError([Problem(section=_SECTION, message=message)])
    mixed = {"quant_type": "WEIGHT_QUANT", "bit_num": 0}
    budget = load_config({"common_quant_param": mixed, _SECTION: {**options, "bits": widths}}).budget
    sizes = [(1e6 * budget.target_size_mb, "target_size_mb")] if budget.target_size_mb else []
    if budget.compression_ratio:
        sizes.append((size / budget.compression_ratio, "compression_ratio"))
    file, key = min(sizes, default=(math.inf, "target_size_mb"))
    error = 1.0 - budget.min_cosine if budget.min_cosine is not None else math.inf
    file = math.floor(file + _BYTE) if file < math.inf else file
    return Limits(file=file, bits=budget.average_bits or math.inf, error=error, file_key=key)


class Balance:
    """Costs and sizes of every weight at every width, and what follows from them.

    Parameters
    ----------
    plan : QuantPlan
        All weights.
    sensitivity : Sensitivity
        Of the same weights, in the same order.
    file_sizes : FileSizes
        For all widths of the sensitivity.
    extra : int
        Bytes of what else is written into the file.
    allowed : sequence of int
        Widths that a budget may give to a weight that is not pinned.
    """

    def __init__(
        self,
        plan: QuantPlan,
        sensitivity: Sensitivity,
        file_sizes: FileSizes,
        *,
        extra: int,
        allowed: Sequence[int],
    ) -> None:
        self._plan, self._sensitivity, self._extra = plan, sensitivity, extra
        self.allowed = tuple(allowed)
        self._file_sizes = file_sizes
        widths = sensitivity.widths
        wide = [plan.with_bits(bits) for bits in widths]
        self._widths = np.array(widths)
        self._weights = np.array([math.prod(entry.shape) for entry in plan.entries], np.float64)
        self._floats = np.array([entry.bytes_before for entry in plan.entries], np.float64)
        self._codes: Sizes = np.array([[entry.bytes_after for entry in each.entries] for each in wide], np.float64).T
        decoding = np.array([file_sizes.decoding[bits] for bits in widths])
        self._stored: Sizes = self._codes + decoding
        self._opsets = np.array(
            [[required_opset(replace(plan, entries=(entry,))) for entry in each.entries] for each in wide]
        ).T
        self._costs = sensitivity.costs
        self._free = np.isin(self._widths, self.allowed)
        self._fronts: dict[tuple[object, ...], Front] = {}

    def rows(self, widths: Widths) -> Table[WidthRow]:
        """Return a row per weight."""
        rows = []
        for index, entry in enumerate(self._plan.entries):
            is_float, column = widths.stays_float(entry), self._column(widths.bits[entry.tensor])
            noise, power = self._sensitivity.noise[index, column], self._sensitivity.power[index]
            rows.append(
                WidthRow(
                    node=entry.node,
                    op_type=entry.op_type,
                    tensor=entry.tensor,
                    shape=entry.shape,
                    bits=None if is_float else widths.bits[entry.tensor],
                    pinned=entry.tensor in widths.pins,
                    bytes_before=entry.bytes_before,
                    bytes_after=entry.bytes_before if is_float else int(self._codes[index, column]),
                    relative_error=None if is_float else math.sqrt(noise / power) if power > 0.0 else 0.0,
                    output_error=0.0 if is_float else float(self._costs[index, column]),
                    gain=float(self._sensitivity.gains[index]),
                )
            )
        return Table(WidthRow, rows)

    def predict(self, widths: Widths) -> Prediction:
        """Return what a choice is expected to cost."""
        chosen = self._chosen(widths)
        costs = np.zeros(len(self._weights))
        costs[chosen.rows] = self._costs[chosen.rows, chosen.columns]
        weights = self._weights[chosen.rows]
        bits = float(weights @ self._widths[chosen.columns] / weights.sum()) if chosen.rows.size else math.nan
        return Prediction(
            cosine=1.0 - _bounded(float(costs.sum())),
            bytes=int(self._codes[chosen.rows, chosen.columns].sum()),
            file_bytes=int(self._file_bytes(chosen.rows, chosen.columns[None, :])[0]),
            average_bits=bits,
            errors=dict(zip(self._sensitivity.tensors, costs.tolist(), strict=True)),
        )

    def point(self, widths: Widths, label: str) -> FrontPoint:
        """Return a choice as a point."""
        chosen = self._chosen(widths)
        return self._points(chosen.rows, chosen.columns[None, :], [label])[0]

    def front(self, widths: Widths) -> tuple[FrontPoint, ...]:
        """Return the best choices for the file, from the smallest on; what is pinned or float stays as it is."""
        chosen = self._chosen(widths)
        found = []
        for _, front in self._levels(chosen):
            steps = np.tile(front.start, (len(front.moves) + 1, 1))
            for index, move in enumerate(front.moves, start=1):
                steps[index:, move.layer] = move.column
            found.append(steps)
        columns = np.concatenate(found)
        sizes = self._file_bytes(chosen.rows, columns)
        errors = np.minimum(1.0, self._costs[chosen.rows, columns].sum(axis=1))  # as _bounded
        order = np.lexsort((errors, sizes))
        best_before = np.minimum.accumulate(np.append(np.inf, errors[order]))[:-1]
        kept = order[errors[order] < best_before]
        return tuple(self._points(chosen.rows, columns[kept], [_BEST] * len(kept)))

    def fit(self, widths: Widths, limits: Limits) -> dict[str, int]:
        """Return the best widths within limits, by tensor; the smallest file if only the error is limited.

        Raises
        ------
        ConfigError
            If there are none; the message says what can be reached.
        PlanError
            If every weight stays float.
        """
        chosen = self._chosen(widths)
        if not chosen.rows.size:
            raise PlanError("every layer stays float, so there is nothing to fit; unpin() takes them back")
        columns = self._by_error(chosen, limits) if limits.error < math.inf else self._by_size(chosen, limits)
        bits = self._widths[columns].tolist()
        return {self._sensitivity.tensors[row]: width for row, width in zip(chosen.rows.tolist(), bits, strict=True)}

    def _by_error(self, chosen: _Chosen, limits: Limits) -> Columns:
        fronts = [front for _, front in self._levels(chosen)]
        found = [columns for front in fronts if (columns := fit_error(front, limits.error)) is not None]
        wanted = f"a cosine of {1 - limits.error:.10g}"
        if not found:
            best = 1.0 - _bounded(min(float(front.errors[-1]) for front in fronts))
            message = f"no choice is expected to keep {wanted}; the most exact one: {best:.6f}"
            raise _refusal("min_cosine", message + self._with_widths(chosen), "allow more bits, or a lower cosine")
        columns = min(found, key=lambda each: self._size(chosen, each))
        if not self._fits(chosen, columns, limits):
            size, average = self._size(chosen, columns), self._average(chosen, columns)
            message = (
                f"the smallest file expected to keep {wanted} has {format_bytes(size)}, {average:.2f} bits per weight"
            )
            key = limits.file_key if size > limits.file else "average_bits"
            raise _refusal(key, message, "allow a larger file, or a lower cosine")
        return columns

    def _by_size(self, chosen: _Chosen, limits: Limits) -> Columns:
        tried = [*self._within_file(chosen, limits), *self._within_bits(chosen, limits)]
        fitting = [columns for columns in tried if self._fits(chosen, columns, limits)]
        if not fitting:  # both are limited, and what is best for one is too much for the other
            every = (front.columns(point) for _, front in self._levels(chosen) for point in range(len(front.moves) + 1))
            fitting = [columns for columns in every if self._fits(chosen, columns, limits)]
        if not fitting:
            message = f"no choice is within both {limits.file_key} and average_bits{self._with_widths(chosen)}"
            raise _refusal(limits.file_key, message, "loosen one of them")
        return min(fitting, key=lambda columns: float(self._costs[chosen.rows, columns].sum()))

    def _within_file(self, chosen: _Chosen, limits: Limits) -> list[Columns]:
        if limits.file == math.inf:
            return []
        levels = self._levels(chosen)
        tried = [fit_size(front, limits.file - fixed) for fixed, front in levels]
        found = [columns for columns in tried if columns is not None]
        if not found:
            ends = [front.columns(point) for _, front in levels for point in (0, len(front.moves))]
            sizes = [self._size(chosen, columns) for columns in ends]
            low, high = format_bytes(min(sizes)), format_bytes(max(sizes))
            message = f"{format_bytes(int(limits.file))} cannot be reached; the file takes {low} to {high}"
            raise _refusal(limits.file_key, message + self._with_widths(chosen), "allow fewer bits, or a larger file")
        return found

    def _within_bits(self, chosen: _Chosen, limits: Limits) -> list[Columns]:
        if limits.bits == math.inf:
            return []
        front = self._front(chosen, np.outer(self._weights, self._widths), self._free)
        weights = float(self._weights[chosen.rows].sum())
        columns = fit_size(front, limits.bits * weights * (1.0 + _ROUNDING))
        if columns is None:
            low, high = front.sizes[0] / weights, front.sizes[-1] / weights
            message = f"{limits.bits:g} cannot be reached; the average is {low:.2f} to {high:.2f}"
            raise _refusal("average_bits", message + self._with_widths(chosen), "allow fewer bits, or a higher average")
        return [columns]

    def _fits(self, chosen: _Chosen, columns: Columns, limits: Limits) -> bool:
        within = self._size(chosen, columns) <= limits.file
        return within and self._average(chosen, columns) <= limits.bits * (1.0 + _ROUNDING)

    def _size(self, chosen: _Chosen, columns: Columns) -> int:
        return int(self._file_bytes(chosen.rows, columns[None, :])[0])

    def _average(self, chosen: _Chosen, columns: Columns) -> float:
        weights = self._weights[chosen.rows]
        return float(weights @ self._widths[columns] / weights.sum())

    def _file_bytes(self, rows: Columns, columns: Columns) -> Sizes:
        """Return the size of the file for each line of columns, shape (P, rows)."""
        floats = self._floats.sum() - self._floats[rows].sum()
        stored = self._stored[rows, columns].sum(axis=1) + floats + self._extra
        opsets = self._opsets[rows, columns].max(axis=1, initial=0)
        smallest = min(self._file_sizes.rest)
        rest = np.array([self._file_sizes.rest[max(smallest, int(opset))] for opset in opsets], np.float64)
        return np.asarray(np.ceil(stored + rest), np.float64)

    def _points(self, rows: Columns, columns: Columns, labels: Sequence[str]) -> list[FrontPoint]:
        bits = np.zeros((len(columns), len(self._weights)), np.int64)
        bits[:, rows] = self._widths[columns]
        found = zip(
            labels,
            bits.tolist(),
            self._codes[rows, columns].sum(axis=1).tolist(),
            self._file_bytes(rows, columns).tolist(),
            self._costs[rows, columns].sum(axis=1).tolist(),
            strict=True,
        )
        whole = len(rows) == len(self._weights)
        return [
            FrontPoint(
                label=label,
                bits=tuple(each) if whole else tuple(width or None for width in each),
                bytes=int(codes),
                file_bytes=int(size),
                error=_bounded(error),
            )
            for label, each, codes, size, error in found
        ]

    def _chosen(self, widths: Widths) -> _Chosen:
        kept = [index for index, entry in enumerate(self._plan.entries) if not widths.stays_float(entry)]
        tensors = [self._sensitivity.tensors[index] for index in kept]
        columns = [self._column(widths.bits[tensor]) for tensor in tensors]
        pinned = [tensor in widths.pins for tensor in tensors]
        return _Chosen(np.array(kept, np.int64), np.array(columns, np.int64), np.array(pinned, np.bool_))

    def _levels(self, chosen: _Chosen) -> list[tuple[float, Front]]:
        """Return the front of what each opset can store, with the bytes of the file that no width changes.

        A graph may grow when it is raised to the opset that a width needs; for a small model doing without that width
        is then worth it.
        """
        floats = float(self._floats.sum() - self._floats[chosen.rows].sum())
        rest, found = self._file_sizes.rest, []
        pinned = self._opsets[chosen.rows, chosen.columns].max(where=chosen.pinned, initial=0)
        for opset in sorted(rest):
            storable = self._free & (self._opsets[chosen.rows] <= opset)
            if not (storable.any(axis=1) | chosen.pinned).all():
                continue
            largest = max(size for level, size in rest.items() if level <= max(opset, pinned, min(rest)))
            found.append((floats + largest + self._extra, self._front(chosen, self._stored, storable)))
        return found

    def _front(self, chosen: _Chosen, sizes: Sizes, storable: NDArray[np.bool_]) -> Front:
        """Return the front of the quantized weights; the last ones are remembered, a slider asks for them again."""
        pinned_at = np.where(chosen.pinned, chosen.columns, -1)
        columns = np.arange(len(self._widths))
        allowed = np.where(chosen.pinned[:, None], columns == pinned_at[:, None], storable)
        key = (sizes is self._stored, chosen.rows.tobytes(), allowed.tobytes())
        if key not in self._fronts:
            if len(self._fronts) > _FRONTS:
                self._fronts.pop(next(iter(self._fronts)))
            self._fronts[key] = pareto_front(self._costs[chosen.rows], sizes[chosen.rows], allowed)
        return self._fronts[key]

    def _column(self, bits: int) -> int:
        return self._sensitivity.widths.index(bits)

    def _with_widths(self, chosen: _Chosen) -> str:
        pinned = int(chosen.pinned.sum())
        also = f" and {pinned} pinned" if pinned else ""
        return f" with bits={','.join(map(str, self.allowed))}{also}"


def _bounded(error: float) -> float:
    """Return an expected error; sums over many coarse weights mean no more than that nothing is left."""
    return min(1.0, error)


def _refusal(key: str, message: str, hint: str) -> ConfigError:
    return ConfigError([Problem(section=_SECTION, key=key, message=message, hint=hint)])
