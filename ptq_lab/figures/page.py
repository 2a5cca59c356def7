"""The report as one HTML file that works offline, without scripts too, and can be mailed to anybody."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from ptq_lab import __version__
from ptq_lab.errors import OutputError
from ptq_lab.figures.layers import draw_layers
from ptq_lab.figures.ranges import draw_ranges
from ptq_lab.figures.sizes import draw_sizes, size_parts
from ptq_lab.figures.tables import render, view_report
from ptq_lab.report.tables import Report


def write_page(report: Report, path: str | Path) -> Path:
    """Write tables and figures as one self-contained HTML file of about 5 MB.

    plotly's script is inside, once, and accounts for nearly all of the size. Every number of a figure also
    stands in a table, so the page says the same where scripts are off. The file appears under its name only
    when it is complete.

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
    draws = (draw_layers, draw_ranges, draw_sizes) if report.activations else (draw_layers, draw_sizes)
    figures = [_script_data(draw(report)) for draw in draws]
    page = render(
        "page",
        view=view_report(report),
        parts=size_parts(report),
        figures=figures,
        plotly_js=get_plotlyjs(),
        version=__version__,
    )
    _write_whole(path, page)
    return path


def _script_data(figure: go.Figure) -> str:
    """Return the figure as JSON that cannot end the script element around it."""
    return str(figure.to_json()).replace("<", "\\u003c")


def _write_whole(path: Path, page: str) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        unfinished.write_text(page, encoding="utf-8")
        unfinished.replace(path)
    except OSError as fault:
        why = fault.strerror or str(fault)
        raise OutputError(f"{path}: the report cannot be written ({why})", path=path) from fault
    finally:
        with suppress(OSError):  # nothing is left under this name after a success
            unfinished.unlink()
