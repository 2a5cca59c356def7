"""Where the error comes from: every quantized layer by itself, and after everything before it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq_lab.graph import Model
from ptq_lab.graph.segment import cut_segment
from ptq_lab.graph.watch import WatchedLayer, layers_alone, made_inside, watched_layers
from ptq_lab.numerics import cosine, sqnr_db
from ptq_lab.numerics.similarity import dot
from ptq_lab.plan import QuantPlan
from ptq_lab.progress import Progress, Step, silent
from ptq_lab.report.rows import ErrorRow
from ptq_lab.report.table import Table
from ptq_lab.runtime import CPU, Feeds, open_session, run_session

MUCH_WORSE = 3.0
"""How many times larger a layer's error is on evaluation samples when it is called much larger."""

CHANNEL_AXIS = {"Conv": 1, "ConvTranspose": 1}
"""Axis of a layer's output along which a bias acts; the last one for others."""

_WORTH = 1e-4  # 1 - cosine on evaluation samples below which no ratio is worth a word


def measure_layer_errors(
    original: Model,
    quantized: Model,
    plan: QuantPlan,
    samples: Sequence[Feeds],
    *,
    providers: Sequence[str] = CPU,
    progress: Progress = silent,
) -> Table[ErrorRow]:
    """Measure the output of every quantized layer twice: with its own rounding alone, and with all before it.

    Parameters
    ----------
    original : Model
        The float model whose layers the plan quantizes.
    quantized : Model
        What became of it; layers and tensors have kept their names.
    plan : QuantPlan
    samples : sequence of {input name: array}
        Read once; memory does not grow with their number.
    providers : sequence of str
        onnxruntime execution providers.
    progress : Progress
        Told once per sample.

    Returns
    -------
    Table of ErrorRow
        In the order of the graph; layers whose tensors are not in both models are left out.

    Notes
    -----
    *Isolated*: the quantized model is cut open at the inputs of all its layers, and every layer reads what the float
    model computed there. *Accumulated*: the quantized model as it is. Both against the float output, in front of any
    activation function.
    """
    layers = list(watched_layers(original, quantized, set(_nodes(plan))))
    seen = {layer.node: (ErrorTotals(), ErrorTotals()) for layer in layers}
    names = [layer.output for layer in layers]
    runs = _Runs(original, quantized, layers, providers)
    for index, feeds in enumerate(samples):
        wanted, alone, after = runs.run(feeds)
        for layer in layers:
            axis = CHANNEL_AXIS.get(layer.op_type, -1)
            seen[layer.node][0].add(wanted[layer.output], alone[layer.output], axis)
            seen[layer.node][1].add(wanted[layer.output], after[layer.output], axis)
        progress(Step("layer errors", index + 1, len(samples), f"{len(names)} layers"))
    return Table(ErrorRow, (error_row(layer, *seen[layer.node]) for layer in layers))


def worse_on_evaluation(errors: Iterable[ErrorRow], evaluated: Iterable[ErrorRow]) -> tuple[tuple[str, float], ...]:
    """Return the layers whose own error is much larger on evaluation samples, with how many times, the largest first.

    Examples
    --------
    >>> def row(cosine):
    ...     return ErrorRow(node="conv", op_type="Conv", tensor="y", isolated_cosine=cosine, isolated_sqnr_db=None,
    ...                     accumulated_cosine=None, accumulated_sqnr_db=None)
    >>> [(node, round(times)) for node, times in worse_on_evaluation([row(0.999)], [row(0.99)])]
    [('conv', 10)]
    >>> worse_on_evaluation([row(0.999)], [row(0.998)])
    ()
    """
    seen = {row.node: row.harm for row in errors if row.isolated_cosine is not None}
    times = {
        row.node: row.harm / max(seen[row.node], _WORTH / MUCH_WORSE)
        for row in evaluated
        if row.node in seen and row.harm > _WORTH
    }
    return tuple(sorted(((node, x) for node, x in times.items() if x >= MUCH_WORSE), key=lambda item: -item[1]))


class _Runs:
    """The three ways a sample goes: in float, layer by layer from float inputs, and through the quantized model."""

    def __init__(
        self, original: Model, quantized: Model, layers: Sequence[WatchedLayer], providers: Sequence[str]
    ) -> None:
        outputs = list(dict.fromkeys(layer.output for layer in layers))
        sources = list(dict.fromkeys(name for layer in layers for name in layer.sources))
        inner = made_inside(original, sources)
        opened, self._given = layers_alone(quantized, inner, outputs)
        wanted = list(dict.fromkeys([*outputs, *inner]))
        self._floats = open_session(cut_segment(original, [], wanted), providers=providers)
        self._alone = open_session(opened, providers=providers)
        self._after = open_session(cut_segment(quantized, [], outputs), providers=providers)

    def run(self, feeds: Feeds) -> tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]:
        wanted = run_session(self._floats, _for(self._floats, feeds))
        given = {slot: wanted[name] for name, slot in self._given.items()}
        alone = run_session(self._alone, _for(self._alone, {**feeds, **given}))
        return wanted, alone, run_session(self._after, _for(self._after, feeds))


def _for(session: Any, feeds: Mapping[str, Any]) -> dict[str, Any]:
    return {value.name: feeds[value.name] for value in session.get_inputs()}


class ErrorTotals:
    """Running totals of one comparison of what a layer gives."""

    def __init__(self) -> None:
        self._signal = self._noise = self._cosine = 0.0
        self._shift: NDArray[np.float64] | float = 0.0
        self._of_channels: NDArray[np.float64] | float = 0.0  # (2, C): power of the signal, and of the error
        self._count = self._samples = 0

    def add(self, wanted: NDArray[Any], got: NDArray[Any], axis: int) -> None:
        """Compare once more; results of different shapes are left out."""
        if wanted.shape != got.shape or not wanted.size:
            return
        self._samples += 1
        if not (np.isfinite(wanted).all() and np.isfinite(got).all()):
            self._noise = np.inf  # as far apart as can be: nothing is added to the cosine
            return
        error = got - wanted
        self._count += wanted.size
        self._cosine += min(1.0, cosine(wanted, got))
        self._signal += dot(wanted.reshape(-1), wanted.reshape(-1))
        self._noise += dot(error.reshape(-1), error.reshape(-1))
        others = tuple(each for each in range(error.ndim) if each != axis % error.ndim)
        self._shift = self._shift + error.sum(axis=others, dtype=np.float64)
        powers = [np.square(values, dtype=np.float64).sum(axis=others) for values in (wanted, error)]
        self._of_channels = self._of_channels + np.array(powers)

    @property
    def cosine(self) -> float | None:
        """Mean over what was compared."""
        return self._cosine / self._samples if self._samples else None

    @property
    def sqnr(self) -> float | None:
        """Power of the signal over power of the error, in dB."""
        return sqnr_db(self._signal, self._noise) if self._samples else None

    @property
    def channel_error(self) -> float | None:
        """Error power over signal power of each channel (at most 1), averaged: small channels count like large ones."""
        if not self._samples:
            return None
        if np.isinf(self._noise):
            return 1.0
        signal, noise = np.asarray(self._of_channels, np.float64)
        return (
            float(np.minimum(1.0, noise[signal > 0.0] / signal[signal > 0.0]).mean()) if (signal > 0.0).any() else 0.0
        )

    @property
    def shift_share(self) -> float | None:
        """Share of the error's power that a bias per channel would take away."""
        if not self._samples or self._noise <= 0.0 or np.isinf(self._noise):
            return None
        shift = np.asarray(self._shift, np.float64)
        return float(min(1.0, (shift**2).sum() * shift.size / self._count / self._noise))


def error_row(layer: WatchedLayer, alone: ErrorTotals, after: ErrorTotals) -> ErrorRow:
    """Return what was found about a layer by itself, and after all before it."""
    return ErrorRow(
        node=layer.node,
        op_type=layer.op_type,
        tensor=layer.output,
        isolated_cosine=alone.cosine,
        isolated_sqnr_db=alone.sqnr,
        accumulated_cosine=after.cosine,
        accumulated_sqnr_db=after.sqnr,
        channel_error=alone.channel_error,
        shift_share=alone.shift_share,
    )


def _nodes(plan: QuantPlan) -> Iterable[str]:
    for entry in plan.entries:
        yield from entry.nodes
    if plan.dynamic is not None:
        yield from (layer.node for layer in plan.dynamic.layers)
