"""The tensor inspector: any weight or activation of a model, its values, its grid, and what a threshold costs."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq_lab.errors import PlanError
from ptq_lab.lesson.activations import Watcher
from ptq_lab.lesson.look import HEADERS, Counted, Ends, Glass, Look, spans_of
from ptq_lab.lesson.subject import Subject, channels_first, nearest_name, open_subject
from ptq_lab.numerics import QuantSpec
from ptq_lab.plan import ActivationPlan, TensorPlan
from ptq_lab.report.formats import text_table

BITS = (2, 3, 4, 5, 6, 7, 8)
HELD = 32
"""Tensors and channels whose counts are kept, some 50 kB each."""

FUSED = ("Relu", "Clip")
"""Operators that runtimes make part of the layer in front of them; what stands between the two is never stored."""


class Inspection:
    """Looks at tensors of one model; made by :func:`inspect`.

    Attributes
    ----------
    subject : Subject
    first : str
        The tensor to start with.
    """

    def __init__(self, subject: Subject, layer: str | None = None) -> None:
        self.subject = subject
        self._grids = {each.tensor: each for each in subject.activations}
        self._made = _made_by(subject) if subject.samples is not None else {}
        self._watch = Watcher(subject.model, subject.samples) if subject.samples is not None else None
        self._counts: OrderedDict[tuple[str, int | None], Counted] = OrderedDict()
        self.first = self._meant(layer)

    @property
    def tensors(self) -> tuple[tuple[str, str], ...]:
        """Names of what can be looked at, weights first, each with words for a menu."""
        weights = [(entry.tensor, f"{entry.node} (weight)") for entry in self.subject.weights]
        return (*weights, *((tensor, f"{node} (activation)") for tensor, node in self._made.items()))

    def look(self, tensor: str | None = None, *, bits: int | None = None, channel: int | None = None) -> Look:
        """Look at one tensor.

        Parameters
        ----------
        tensor : str, optional
            A weight, an activation, a node for its weight, or the words of `tensors`.
        bits : int, optional
            2..8; otherwise the plan's, at most 8.
        channel : int, optional
            Only this one.

        Raises
        ------
        PlanError
            If there is no such tensor or channel, or the width is outside 2..8.
        InferenceError
            If the model cannot be run.
        """
        name = self.first if tensor is None else self._meant(tensor)
        if bits is not None and bits not in BITS:
            raise PlanError(f"inspect: {bits!r} bits are outside 2..8")
        if name in self._made:
            return self._activation(name, bits or 8, channel)
        return self._weight(self.subject.plan[name], bits, channel)

    def __str__(self) -> str:
        found = self.look()
        return "\n".join((found.headline, text_table(HEADERS, found.rows(), right=HEADERS[2:]), *found.sentences()))

    def _meant(self, name: str | None) -> str:
        if name is None:
            inner = (each.tensor for each in self.subject.activations if each.node)
            return next(inner, None) or self.subject.weight(None).tensor
        if name in self._made:
            return name
        if name in (menu := {words: tensor for tensor, words in self.tensors}):
            return menu[name]
        known = [word for entry in self.subject.weights for word in (entry.tensor, *entry.nodes)]
        if name not in known:
            why = "" if self._made else "; activations need samples: inspect(model, samples=...)"
            hint = nearest_name(name, [*known, *self._made])
            raise PlanError(f"inspect: there is no weight, activation or node {name!r} to look at{hint}{why}")
        return self.subject.weight(name).tensor

    def _counted(self, tensor: str, channel: int | None) -> Counted:
        """Count the values of a tensor; kept, because a slider asks for the same ones at another width."""
        key = tensor, channel
        if key not in self._counts:
            rows, rounds = self._rows(tensor)
            self._counts[key] = Counted.over(_part(rows, channel, tensor), rounds=rounds, spans=spans_of(rows))
            if len(self._counts) > HELD:
                self._counts.popitem(last=False)
        self._counts.move_to_end(key)
        return self._counts[key]

    def _rows(self, tensor: str) -> tuple[NDArray[np.float32], int]:
        """Return values with one row per channel, and from how many samples they are."""
        if tensor in self._made and self._watch is not None:
            seen = self._watch(tensor)
            return seen.values, seen.samples
        entry = self.subject.plan[tensor]
        return channels_first(self.subject.model.weight(tensor), entry.channel_axis), 1

    def _weight(self, entry: TensorPlan, bits: int | None, channel: int | None) -> Look:
        width = min(8, max(2, entry.bits)) if bits is None else bits
        counted = self._counted(entry.tensor, channel)
        glass = Glass(counted, width)
        planned = _planned(entry, width, channel)
        ends = planned or (glass.histogram.low, glass.histogram.high)
        divided = entry.axis is not None and channel is None and counted.spans is not None
        remark = "The plan gives each channel a grid of its own." if divided else ""
        return Look(
            tensor=entry.tensor,
            kind="weight",
            where=entry.node,
            bits=width,
            channel=channel,
            counts=glass.bars(),
            histogram=glass.histogram,
            thresholds=glass.thresholds(),
            chosen=glass.cut("the plan" if planned else "smallest to largest", ends),
            rivals=(),
            spans=counted.spans,
            remark=remark,
        )

    def _activation(self, tensor: str, bits: int, channel: int | None) -> Look:
        counted = self._counted(tensor, channel)
        glass = Glass(counted, bits)
        ranges = glass.method_ranges()
        name, ends = _in_use(self._grids.get(tensor), ranges)
        plural = "s" if counted.rounds > 1 else ""
        return Look(
            tensor=tensor,
            kind="activation",
            where=self._made[tensor],
            bits=bits,
            channel=channel,
            counts=glass.bars(),
            histogram=glass.histogram,
            thresholds=glass.thresholds(),
            chosen=glass.cut(name, ends),
            rivals=glass.cuts({f"{method}, here": each for method, each in ranges.items()}),
            spans=counted.spans,
            remark=f"Counted on {counted.rounds} sample{plural}; exact zeros are left out, they cost nothing.",
        )


def inspect(source: Any = "digits_cnn", layer: str | None = None, *, samples: Any = None) -> Inspection:
    """Look at weights and activations of a model: their values, their range, and what a threshold costs.

    Parameters
    ----------
    source : QuantResult, MixedBitExplorer, path, Model, Demo or name of a demo
        In a float model BatchNormalization becomes part of the weights first, as when it computes in integers.
    layer : str, optional
        The tensor or node to start with.
    samples : folder, .npz, mapping or iterable, optional
        What activations are looked at on, instead of the source's own.

    Raises
    ------
    ModelError, PlanError, SampleError
        If the model cannot be read, or has no such layer.

    Examples
    --------
    >>> found = inspect("digits_cnn", "block1/depthwise/Conv").look(bits=4)
    >>> found.kind, found.best.total <= found.thresholds[-1].total
    ('weight', True)
    """
    return Inspection(open_subject(source, samples), layer)


def _in_use(grid: ActivationPlan | None, ranges: dict[str, Ends]) -> tuple[str, Ends]:
    if grid is None:
        return "smallest to largest", ranges["MAX_MIN"]
    return f"{grid.method}, calibrated", (min(0.0, grid.low), max(0.0, grid.high))


def _part(rows: NDArray[np.float32], channel: int | None, tensor: str) -> NDArray[np.float32]:
    if channel is None:
        return rows
    if not 0 <= channel < len(rows):
        raise PlanError(f"inspect: {tensor} has no channel {channel}, only 0..{len(rows) - 1}", tensor=tensor)
    return rows[channel : channel + 1]


def _planned(entry: TensorPlan, bits: int, channel: int | None) -> Ends | None:
    """Return the range of the plan's grid where it is known at this width and covers what is looked at."""
    if entry.weight is None or bits != entry.bits or entry.symmetric or (entry.axis is not None and channel is None):
        return None
    at = 0 if entry.axis is None else channel
    step, zero = float(np.ravel(entry.weight.step)[at]), int(np.ravel(entry.weight.zero_point)[at])
    spec = QuantSpec(bits=bits)
    low, high = (spec.qmin - zero) * step, (spec.qmax - zero) * step
    return min(0.0, low), max(0.0, high)


def _made_by(subject: Subject) -> dict[str, str]:
    """Return activations by tensor with the node that makes them: those of the plan, or what its layers give."""
    if subject.activations:
        return {each.tensor: each.node or "model input" for each in subject.activations}
    nodes = {node for entry in subject.weights for node in entry.nodes}
    made = {_behind(node): node.name or "" for node in subject.model.graph if node.name in nodes}
    inputs = {spec.name: "model input" for spec in subject.model.inputs if spec.dtype.kind == "f"}
    return inputs | made


def _behind(node: Any) -> str:
    """Return what a layer gives, behind the activation function that becomes part of it."""
    value = node.outputs[0]
    readers = [use.node for use in value.uses()]
    fused = len(readers) == 1 and readers[0].op_type in FUSED and not value.is_graph_output()
    return (readers[0].outputs[0] if fused else value).name or ""
