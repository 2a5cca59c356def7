"""Which layers hurt most: everything known about a layer in one row, the most harmful first."""

from __future__ import annotations

from dataclasses import dataclass

from ptq_lab.report.findings import Explanation
from ptq_lab.report.rows import ErrorRow, LayerRow
from ptq_lab.report.tables import ActivationRow, Report
from ptq_lab.report.weight_outlines import WeightOutline


@dataclass(frozen=True, slots=True)
class HarmRow:
    """A layer with its errors.

    Attributes
    ----------
    layer : LayerRow
    here, there : ErrorRow or None
        On calibration and on evaluation samples, if that was looked at.
    """

    layer: LayerRow
    here: ErrorRow | None = None
    there: ErrorRow | None = None


def layer_errors_of(report: Report) -> Explanation | None:
    """Return what is known of the errors of layers: an explanation, or those of a comparison, which has no causes.

    Examples
    --------
    >>> from ptq_lab.report.tables import OutputRow, Summary, Table
    >>> summary = Summary(model="m.onnx", quant_type="", bits=8, bytes_before=1, bytes_after=1, layers=0,
    ...                   layers_quantized=0, cosine_mean=1.0, cosine_min=1.0, sqnr_db=38.0, compared_on="", seconds={})
    >>> layer_errors_of(Report(summary, Table(LayerRow), Table(OutputRow))) is None
    True
    """
    if report.explanation is not None:
        return report.explanation if report.explanation.errors else None
    return Explanation(report.errors, ()) if report.errors else None


def by_harm(report: Report) -> tuple[HarmRow, ...]:
    """Return every layer, the most harmful first; those that stayed float come last.

    Harm is that of :attr:`ErrorRow.harm` where layers were looked at, and the error of the weight otherwise.

    Examples
    --------
    >>> from ptq_lab.report.tables import OutputRow, Summary, Table
    >>> def row(node, error):
    ...     return LayerRow(node=node, op_type="Conv", tensor=f"{node}.w", shape=(8, 3, 3, 3), bits=8, storage="int8",
    ...                     granularity="per-tensor", bytes_before=864, bytes_after=280, relative_error=error)
    >>> summary = Summary(model="m.onnx", quant_type="WEIGHT_QUANT", bits=8, bytes_before=1000, bytes_after=400,
    ...                   layers=2, layers_quantized=2, cosine_mean=1.0, cosine_min=1.0, sqnr_db=38.0, compared_on="",
    ...                   seconds={})
    >>> report = Report(summary, Table(LayerRow, [row("a", 0.01), row("b", 0.02)]), Table(OutputRow))
    >>> [each.layer.node for each in by_harm(report)]
    ['b', 'a']
    """
    found = layer_errors_of(report)
    here = {row.node: row for row in found.errors} if found is not None else {}
    there = {row.node: row for row in found.evaluated} if found is not None else {}
    rows = [HarmRow(layer, here.get(layer.node), there.get(layer.node)) for layer in report.layers]
    return tuple(sorted(rows, key=_place))


def worst_weights(report: Report) -> tuple[WeightOutline, ...]:
    """Return the outlines of all weights, those of the most harmful layers first."""
    place = {row.layer.node: index for index, row in enumerate(by_harm(report))}
    return tuple(sorted(report.weights, key=lambda outline: place.get(outline.node, len(place))))


def worst_activations(report: Report) -> tuple[ActivationRow, ...]:
    """Return the activations that were counted: first those of which most is cut off, then those of harmful readers."""
    place = {row.layer.node: index for index, row in enumerate(by_harm(report))}
    last = len(place)

    def order(row: ActivationRow) -> tuple[float, int]:
        return -round(row.clip_share or 0.0, 3), min((place.get(node, last) for node in row.readers), default=last)

    return tuple(sorted((row for row in report.activations if row.histogram), key=order))


def _place(row: HarmRow) -> tuple[bool, float, float]:
    harm = row.here.harm if row.here is not None else 0.0
    return not row.layer.quantized, -harm, -(row.layer.relative_error or 0.0)
