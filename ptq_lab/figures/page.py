"""The report as one HTML file that works offline, without scripts too, and can be mailed to anybody."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from ptq_lab import __version__
from ptq_lab.figures import activations, bits, channels, coding, confusion, depth, errors, steps, tables, weights
from ptq_lab.figures.causes import view_causes
from ptq_lab.figures.harms import view_harm
from ptq_lab.figures.layers import draw_layers
from ptq_lab.figures.panels import Panel, StillPanel, still_panels
from ptq_lab.figures.ranges import draw_ranges
from ptq_lab.figures.sizes import draw_sizes, size_parts
from ptq_lab.report.coding_text import CODING_CAPTION, CODING_HEADERS, coded_rows, coding_cells, total_cells
from ptq_lab.report.depth_text import PAIR_HEADERS
from ptq_lab.report.files import replacing
from ptq_lab.report.harm import layer_errors_of, worst_activations, worst_weights
from ptq_lab.report.tables import Report

FIRST = 6
"""Small pictures of one kind that are seen at once; the others are folded."""

_WHOLE_NAME = 400  # characters: a table of the page wraps names and cuts none

Pictures = tuple[str, Sequence[tuple[str, str]], Sequence[StillPanel], Sequence[StillPanel]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A figure: its number and title on the page, its JSON, and the picture that stands there without scripts."""

    number: int
    title: str
    json: str
    still: str


def write_page(report: Report, path: str | Path) -> Path:
    """Write tables and figures as one self-contained HTML file of about 5 MB.

    plotly's script is inside, once, and accounts for nearly all of the size. Every figure has a still picture that
    stands in its place where scripts are off. The file appears under its name only when it is complete.

    Parameters
    ----------
    report : Report
        The tables of a finished run.
    path : str or Path
        The file to write; its folder must exist. A file already there is replaced.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    OutputError
        If the file cannot be written there.

    Examples
    --------
    >>> import tempfile
    >>> from ptq_lab.report.tables import LayerRow, OutputRow, Report, Summary, Table
    >>> summary = Summary(model="m.onnx", quant_type="WEIGHT_QUANT", bits=8, bytes_before=1000,
    ...                   bytes_after=400, layers=0, layers_quantized=0, cosine_mean=1.0,
    ...                   cosine_min=1.0, sqnr_db=38.0, compared_on="", seconds={})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_page(Report(summary, Table(LayerRow), Table(OutputRow)), f"{folder}/report.html").name
    'report.html'
    """
    path = Path(path)
    page = tables.render(
        "page",
        titles=sections(report),
        view=tables.view_report(report),
        causes=view_causes(report.explanation) if report.explanation is not None else None,
        predictions=report.predictions,
        harm=view_harm(report),
        steps=steps.view_steps(report),
        parts=size_parts(report),
        pair_headers=PAIR_HEADERS,
        pairs=report.pairs,
        coding=_coding(report),
        figures=_figures(report),
        distributions=_distributions(report),
        channels=_channels(report),
        config=_config(report.manifest),
        record=_record(report.manifest),
        record_json=_record_json(report.manifest),
        plotly_js=get_plotlyjs(),
        version=__version__,
    )
    with replacing(path, what="the report") as stream:
        stream.write(page)
    return path


def sections(report: Report) -> dict[str, str]:
    """Return anchor and title of every section that the page of a report has, in order."""
    there: dict[str, tuple[str, object]] = {
        "summary": ("Summary", True),
        "performance": ("Performance", report.performance),
        "diagnosis": ("Diagnosis", True),
        "predictions": ("Predictions", report.predictions),
        "layers": ("Layers", report.layers),
        "steps": ("Steps", report.steps),
        "depth": ("Error along depth", layer_errors_of(report)),
        "distributions": ("Distributions", report.weights or any(row.histogram for row in report.activations)),
        "ranges": ("Ranges", report.activations or report.products or report.weights),
        "sizes": ("Sizes", True),
        "outputs": ("Outputs", report.outputs),
        "pairs": ("Pairs of layers", report.pairs),
        "configuration": ("Configuration", _config(report.manifest)),
        "manifest": ("Manifest", report.manifest),
    }
    return {anchor: title for anchor, (title, content) in there.items() if content}


def _figures(report: Report) -> dict[str, Drawn]:
    """Draw what the page shows, by name."""
    found, seen = layer_errors_of(report), report.predictions
    widths = {row.bits for row in report.layers if row.quantized}
    wanted: list[tuple[str, object, Callable[[Any], go.Figure], Callable[[Any], str]]] = []
    if seen is not None:
        wanted.append(("confusion", seen, confusion.draw_confusion, confusion.confusion_html))
    if report.layers:
        wanted.append(("layers", report, draw_layers, tables.layers_html))
    if report.steps:
        wanted.append(("steps", report, steps.draw_steps, steps.steps_html))
    if found is not None:
        wanted.append(("depth", found, depth.draw_depth, depth.depth_html))
        wanted.append(("errors", found, errors.draw_errors, errors.errors_html))
    if report.activations:
        wanted.append(("ranges", report, draw_ranges, tables.ranges_html))
    wanted.append(("sizes", report, draw_sizes, lambda _: ""))  # the table above it says the same
    if coded_rows(report.layers):
        wanted.append(("coding", report, coding.draw_coding, _coding_picture))
    if len(widths) > 1:
        wanted.append(("bits", report, bits.draw_bits, bits.bits_html))
    return {name: _drawn(number, draw(data), still(data)) for number, (name, data, draw, still) in enumerate(wanted, 1)}


def _drawn(number: int, figure: go.Figure, still: str) -> Drawn:
    """Take the title out of a figure: the page sets it, where it can wrap."""
    title = unescape(figure.layout.title.text)
    figure.update_layout(title=None, margin={"t": 40})
    return Drawn(number=number, title=title, json=_script_data(figure), still=_bare(still))


def _distributions(report: Report) -> list[Pictures]:
    spread = weights.weight_panels(worst_weights(report))
    seen = activations.activation_panels(worst_activations(report))
    return _folded([(weights.TITLE, weights.LEGEND, spread), (activations.TITLE, activations.LEGEND, seen)])


def _channels(report: Report) -> list[Pictures]:
    return _folded([(channels.TITLE, channels.LEGEND, channels.channel_panels(worst_weights(report)))])


def _folded(kinds: Sequence[tuple[str, Sequence[tuple[str, str]], Sequence[Panel]]]) -> list[Pictures]:
    return [
        (title, legend, still_panels(panels[:FIRST]), still_panels(panels[FIRST:]))
        for title, legend, panels in kinds
        if panels
    ]


def _coding(report: Report) -> dict[str, Any]:
    """Return the table of entropy-coded layers, without any nothing."""
    rows = coded_rows(report.layers)
    if not rows:
        return {}
    cells = [*(coding_cells(row, _WHOLE_NAME) for row in rows), total_cells(rows)]
    return {"headers": CODING_HEADERS, "cells": cells, "caption": CODING_CAPTION}


def _coding_picture(report: Report) -> str:
    return coding.coding_html(report, numbers=False)  # the page has a table of them


def _config(manifest: Mapping[str, Any]) -> str:
    return str(manifest.get("config", {}).get("text", "")).strip()


def _record(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what identifies a run, in words."""
    if not manifest:
        return []
    rows = [
        (f"{name} {manifest[name]['name']}", f"SHA-256 {manifest[name]['sha256']}") for name in ("model", "quantized")
    ]
    samples, versions = manifest["samples"], manifest["versions"]
    rows.append((f"samples: {samples['origin']}", f"SHA-256 {samples['sha256']}"))
    rows.append(("configuration", f"SHA-256 {manifest['config']['sha256']}"))
    rows.append(("versions", ", ".join(f"{name} {number}" for name, number in versions.items())))
    return rows


def _record_json(manifest: Mapping[str, Any]) -> str:
    return json.dumps({name: value for name, value in manifest.items() if name != "plan"}, indent=2)


def _script_data(figure: go.Figure) -> str:
    """Return the figure as JSON that cannot end the script element around it."""
    return str(figure.to_json()).replace("<", "\\u003c")


def _bare(html: str) -> str:
    """Return a piece of HTML without its style sheet, which the page has already."""
    start, end = html.find("<style>"), html.find("</style>")
    return html if start < 0 else html[:start] + html[end + len("</style>") :]
