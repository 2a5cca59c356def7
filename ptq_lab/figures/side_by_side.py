"""Several runs side by side as HTML without scripts: tables with bars, and small pictures of changed answers."""

from __future__ import annotations

from base64 import b64encode

from ptq_lab.figures.tables import render
from ptq_lab.report.side_by_side import SideBySide, fact_rows, flip_words, layer_cells

ROWS = 100  # layers that are shown, the worst first


def side_by_side_html(runs: SideBySide) -> str:
    """Return several runs as one piece of HTML; names are escaped.

    Parameters
    ----------
    runs : SideBySide

    Returns
    -------
    str
        At most 100 layers, the worst first, and the pictures inside.

    Examples
    --------
    >>> from ptq_lab.report.side_by_side import RunColumn
    >>> from ptq_lab.report.tables import Summary
    >>> summary = Summary(model="m.onnx", quant_type="WEIGHT_QUANT", bits=8, bytes_before=1000, bytes_after=400,
    ...                   layers=1, layers_quantized=1, cosine_mean=1.0, cosine_min=1.0, sqnr_db=38.0,
    ...                   compared_on="", seconds={})
    >>> html = side_by_side_html(SideBySide(runs=(RunColumn(name="<a>", summary=summary),) * 2))
    >>> "&lt;a&gt;" in html, "<script" in html
    (True, False)
    """
    names = [run.name for run in runs.runs]
    top = max((row.worst for row in runs.layers), default=0.0) or 1.0
    layers = [
        {
            "node": row.node,
            "op": row.op_type,
            "cells": [
                {"share": (error or 0.0) / top, "text": text, "float": bits is None}
                for bits, error, text in zip(row.bits, row.errors, layer_cells(row, runs), strict=True)
            ],
        }
        for row in runs.layers[:ROWS]
    ]
    flips = [
        {
            "picture": b64encode(flip.picture).decode("ascii"),
            "sample": flip.sample,
            "words": flip_words(flip, names),
        }
        for flip in runs.flips
    ]
    return render(
        "side_by_side",
        runs=runs,
        names=names,
        facts=fact_rows(runs),
        layers=layers,
        hidden=len(runs.layers) - len(layers),
        flips=flips,
    )
