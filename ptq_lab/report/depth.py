"""How the error grows through two models that were paired: every layer alone, and after all before it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq_lab.graph.found_layers import FoundModel
from ptq_lab.graph.matching import Matching, Pair
from ptq_lab.graph.model import Model
from ptq_lab.graph.points import Point, entry_points, same_point
from ptq_lab.graph.segment import cut_open, cut_segment, given_name
from ptq_lab.graph.watch import WatchedLayer
from ptq_lab.progress import Progress, Step, silent
from ptq_lab.report.layer_errors import CHANNEL_AXIS, ErrorTotals, error_row
from ptq_lab.report.rows import ErrorRow
from ptq_lab.report.tables import Table
from ptq_lab.runtime import CPU, Feeds, open_session, run_session

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class _Watched:
    """A pair of layers: where their results can be compared, and where the second takes what the first computed."""

    pair: Pair
    wanted: Point
    got: Point
    entries: tuple[tuple[Point, Point], ...] | None

    @property
    def row(self) -> WatchedLayer:
        sources = tuple(value.name or "" for value in self.pair.first.sources)
        return WatchedLayer(self.pair.first.name, self.pair.first.op_type, sources, self.wanted.tensor)


def measure_depth(
    first: FoundModel,
    second: FoundModel,
    matching: Matching,
    samples: Iterable[Feeds],
    *,
    count: int,
    other_inputs: Collection[str] = (),
    other_outputs: Collection[str] = (),
    fuse: bool = True,
    providers: Sequence[str] = CPU,
    progress: Progress = silent,
) -> Table[ErrorRow]:
    """Compare what the paired layers of two models give.

    Parameters
    ----------
    first, second : FoundModel
        With the same inputs.
    matching : Matching
        Their layers.
    samples : iterable of {input name: array}
        Read once; memory does not grow with their number.
    count : int
        How many there are.
    other_inputs, other_outputs : collection of str
        Layers whose channels the second model has rescaled: what it computes there is in other units.
    fuse : bool
        Let onnxruntime put nodes together, as it does when the models are used.
    providers : sequence of str
        onnxruntime execution providers.
    progress : Progress
        Told once per sample.

    Returns
    -------
    Table of ErrorRow
        In the order of the first model. Lookups are left out: what they give is exact, but for the table. Layers whose
        results cannot be compared, such as those with rescaled outputs, are left out as well; one with rescaled inputs
        has no error of its own.

    Notes
    -----
    As in `measure_layer_errors`: *isolated* is the second model cut open, so that every layer reads what the first
    computed there; *accumulated* is the second model as it is. Results are compared behind bias and normalisation and
    in front of the activation, or behind it where the second model has it inside.
    """
    watched = list(_watched(first, second, matching, other_inputs, other_outputs))
    if not watched:
        return Table(ErrorRow)
    runs = _Runs(first.model, second.model, watched, lambda model: open_session(model, providers=providers, fuse=fuse))
    totals = [(ErrorTotals(), ErrorTotals()) for _ in watched]
    for index, feeds in enumerate(samples):
        for each, (alone, after), found in zip(watched, totals, runs.run(feeds), strict=True):
            axis = CHANNEL_AXIS.get(each.pair.first.kind, -1)
            wanted, isolated, accumulated = found
            if isolated is not None:
                _add(alone, wanted, isolated, axis)
            _add(after, wanted, accumulated, axis)
        progress(Step("layer errors", index + 1, count, f"{len(watched)} layers"))
    return Table(ErrorRow, (error_row(each.row, *total) for each, total in zip(watched, totals, strict=True)))


def _add(totals: ErrorTotals, wanted: Floats, got: Floats, axis: int) -> None:
    same_numbers = wanted.size == got.size and wanted.shape[-1:] == got.shape[-1:]
    totals.add(wanted, got.reshape(wanted.shape) if same_numbers else got, axis)


def _watched(
    first: FoundModel,
    second: FoundModel,
    matching: Matching,
    other_inputs: Collection[str],
    other_outputs: Collection[str],
) -> Iterable[_Watched]:
    made = {value.name for node in second.model.graph for value in node.outputs}
    results = [{layer.result for layer in found.layers} for found in (first, second)]
    for pair in matching.pairs:
        if pair.first.kind == "Gather" or pair.first.name in other_outputs:
            continue
        points = same_point(pair, first, second)
        if points is not None:
            givers, takers = entry_points(pair.first, results[0]), entry_points(pair.second, results[1])
            known = pair.first.name not in other_inputs
            yield _Watched(pair, *points, _entries(givers, takers, made) if known else None)


def _entries(
    givers: list[Point] | None, takers: list[Point] | None, made: set[str | None]
) -> tuple[tuple[Point, Point], ...] | None:
    """Return from which tensor of the first model to which of the second activations go, if that is known.

    Inputs of the model need no handing over.
    """
    if givers is None or takers is None or len(givers) != len(takers):
        return None
    return tuple((giver, taker) for giver, taker in zip(givers, takers, strict=True) if taker.tensor in made)


class _Runs:
    """The three ways a sample goes: through the first model, through the cut one, and through the second."""

    def __init__(self, first: Model, second: Model, watched: Sequence[_Watched], load: Callable[[Model], Any]) -> None:
        self._watched = watched
        self._entries = {taker.tensor: (giver, taker) for each in watched for giver, taker in each.entries or ()}
        inputs = {value.name for value in first.graph.inputs}
        givers = [giver.tensor for giver, _ in self._entries.values() if giver.tensor not in inputs]
        wanted = list(dict.fromkeys([*(each.wanted.tensor for each in watched), *givers]))
        got = list(dict.fromkeys(each.got.tensor for each in watched))
        opened = cut_open(second, {tensor: taker.dtype for tensor, (_, taker) in self._entries.items()})
        for value in opened.graph.inputs:
            value.shape = None  # the first model may hand over rows that the second has yet to make
        self._first = load(cut_segment(first, [], wanted))
        self._alone = load(cut_segment(opened, [], got))
        self._after = load(cut_segment(second, [], got))

    def run(self, feeds: Feeds) -> list[tuple[Floats, Floats | None, Floats]]:
        """Return for every pair what is wanted, what the layer alone gives, and what it gives after all before it."""
        wanted = run_session(self._first, _for(self._first, feeds))
        there = {**feeds, **wanted}
        given = {
            given_name(tensor): taker.stored(giver.real(there[giver.tensor]))
            for tensor, (giver, taker) in self._entries.items()
        }
        alone = run_session(self._alone, _for(self._alone, {**feeds, **given}))
        after = run_session(self._after, _for(self._after, feeds))
        return [
            (
                each.wanted.real(wanted[each.wanted.tensor]),
                each.got.real(alone[each.got.tensor]) if each.entries is not None else None,
                each.got.real(after[each.got.tensor]),
            )
            for each in self._watched
        ]


def _for(session: Any, feeds: Mapping[str, Any]) -> dict[str, Any]:
    return {value.name: feeds[value.name] for value in session.get_inputs()}
