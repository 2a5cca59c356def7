"""Report tables as HTML that needs no script, follows the notebook's theme and escapes every name.

The markup lives in ``templates/``; this file only says what goes in. Each piece carries its own small style
sheet, scoped to one class, so that it reads the same wherever a notebook is opened or exported.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from functools import cache
from math import isnan, log10
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup, escape

from ptq_lab.figures import style
from ptq_lab.figures.layers import still_labels
from ptq_lab.figures.outlines import view_outline
from ptq_lab.figures.ranges import RANGE_WIDTH, SEEN_WIDTH, value_span
from ptq_lab.figures.sizes import size_parts
from ptq_lab.figures.thresholds import BARS, Counts, fold_counts, heading
from ptq_lab.figures.views import ActivationView, Card, LayerView, ProductView, ReportView, SampleView
from ptq_lab.report import dynamic_text, text
from ptq_lab.report.tables import ActivationRow, LayerRow, Preview, ProductRow, Report, Summary
from ptq_lab.report.widths import WidthRow

if TYPE_CHECKING:
    from ptq_lab.plan import QuantPlan


def report_html(report: Report, *, written_to: str = "") -> str:
    """Return summary, outputs and layers (folded) as one script-free piece of HTML.

    Examples
    --------
    >>> from ptq_lab.report.tables import LayerRow, OutputRow, Report, Summary, Table
    >>> summary = Summary(model="<m>.onnx", quant_type="WEIGHT_QUANT", bits=8, bytes_before=1000,
    ...                   bytes_after=400, layers=0, layers_quantized=0, cosine_mean=1.0,
    ...                   cosine_min=1.0, sqnr_db=38.0, compared_on="", seconds={})
    >>> html = report_html(Report(summary, Table(LayerRow), Table(OutputRow)))
    >>> "&lt;m&gt;.onnx" in html, "<script" in html
    (True, False)
    """
    return render("report", view=view_report(report, written_to))


def sizes_html(report: Report) -> str:
    """Return the numbers of :func:`ptq_lab.figures.sizes.draw_sizes` as a table with bars."""
    return render("sizes", parts=size_parts(report), summary=report.summary)


def layers_html(report: Report) -> str:
    """Return :func:`ptq_lab.figures.layers.draw_layers` as a still picture (SVG); all of it is in its tool tips."""
    top_size = max((max(row.bytes_before, row.bytes_after) for row in report.layers), default=1) or 1
    top_error = max((row.relative_error or 0.0 for row in report.layers), default=0.0)
    step = 800 / max(1, len(report.layers))
    bars = [_picture_bar(row, i * step, step, (top_size, top_error)) for i, row in enumerate(report.layers)]
    return render(
        "layers",
        bars=bars,
        labels=still_labels([row.node for row in report.layers], [(i + 0.5) * step for i in range(len(bars))]),
        ink=style.INK,
        label=f"Relative error and bytes of {len(report.layers)} layers of {report.summary.model}",
        top_error=text.format_percent(top_error),
        top_size=text.format_bytes(top_size),
    )


def ranges_html(report: Report) -> str:
    """Return :func:`ptq_lab.figures.ranges.draw_ranges` as a still picture (SVG); all of it is in its tool tips."""
    low, high = value_span(report.activations)
    step, unit = 800 / max(1, len(report.activations)), 190 / ((high - low) or 1.0)
    bars = [_range_bar(row, (i + 0.5) * step, step, high, unit) for i, row in enumerate(report.activations)]
    return render(
        "ranges",
        bars=bars,
        labels=still_labels([row.tensor for row in report.activations], [(i + 0.5) * step for i in range(len(bars))]),
        ink=style.INK,
        codes=style.CODES,
        seen=style.FLOAT,
        low=f"{low:.4g}",
        high=f"{high:.4g}",
        zero=round(24 + high * unit, 1),
        label=f"Ranges of {len(report.activations)} activation tensors of {report.summary.model}",
    )


def threshold_html(histogram: Counts, low: float, high: float, *, title: str = "") -> str:
    """Return :func:`ptq_lab.figures.thresholds.draw_threshold` as a still picture (SVG)."""
    slots = fold_counts(histogram, low, high, BARS)
    top = log10(1 + max(slot.count for slot in slots)) or 1.0
    span, step = (histogram.high - histogram.low) or 1.0, 800 / len(slots)
    bars = [
        {
            "x": round(i * step, 1),
            "y": round(180 - 150 * log10(1 + slot.count) / top, 1),
            "width": round(step, 1),
            "height": round(150 * log10(1 + slot.count) / top, 1),
            "colour": style.CODES if slot.kept else style.FLOAT,
        }
        for i, slot in enumerate(slots)
        if slot.count
    ]
    inside = [min(max(end, histogram.low), histogram.high) for end in (low, high)]
    return render(
        "threshold",
        bars=bars,
        ends=[round(800 * (end - histogram.low) / span, 1) for end in inside],
        ink=style.INK,
        heading=heading(slots, title),
        low=f"{histogram.low:.4g}",
        high=f"{histogram.high:.4g}",
    )


def plan_html(plan: QuantPlan) -> str:
    """Return a plan as tables: what stays float and why, then what gets how many bits."""
    before = sum(entry.bytes_before for entry in plan.entries)
    after = sum(entry.bytes_after for entry in plan.entries)
    return render("plan", plan=plan, before=before, after=after)


def widths_html(title: str, rows: Sequence[WidthRow]) -> str:
    """Return a choice of widths as a table with a bar for every width."""
    return render("widths", title=title, rows=rows)


def problems_html(title: str, lines: Iterable[str]) -> str:
    """Return remarks about a configuration as a list, folded when there are more than three."""
    return render("problems", title=title, lines=tuple(lines))


def facts_html(title: str, description: str, rows: Iterable[tuple[str, str]]) -> str:
    """Return a heading, a sentence and a list of labelled values."""
    return render("facts", title=title, text=description, rows=tuple(rows))


def render(template: str, **values: object) -> str:
    """Fill ``templates/<template>.html.j2``; everything is escaped unless it is marked safe."""
    return _PICTURE.sub(_apart, environment().get_template(f"{template}.html.j2").render(**values))


_PICTURE = re.compile(r"<svg.*?</svg>", re.DOTALL)
_WORDS = re.compile(r"</(title|text)>(?!;)")


def _apart(picture: re.Match[str]) -> str:
    """Put a semicolon behind all words of a picture, where nobody sees it while it is one.

    A notebook that is not trusted takes all tags of SVG out and leaves their words, which would run together.
    """
    return _WORDS.sub(r"</\1>; ", picture[0])


@cache
def environment() -> jinja2.Environment:
    """Return the templates of this room, with the number formats of the text report as filters."""
    loader = jinja2.PackageLoader("ptq_lab.figures", "templates")
    made = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {"bytes": text.format_bytes, "shape": text.format_shape, "decibel": text.format_decibel}
    made.filters |= {"shorten": text.shorten, "percent": text.format_percent}
    made.globals["colours"] = {"CODES": style.CODES, "FLOAT": style.FLOAT, "INK": style.INK}
    made.filters["breakable"] = _breakable
    made.globals["tint"] = _tint
    made.globals["performance_headers"] = dynamic_text.DOCUMENT_HEADERS
    made.globals["lowest"] = dynamic_text.LOWEST
    for name, file in (("css", "style.css"), ("more_css", "panels.css")):
        made.globals[name] = loader.get_source(made, file)[0]
    return made


def _breakable(name: str) -> Markup:
    """Return a name whose lines may end behind a slash; nothing is added that a copy would hold."""
    return Markup("/<wbr>").join(map(escape, name.split("/")))


def _tint(share: float, same: bool) -> str:
    """Return the colour of a cell of a confusion matrix: the more samples, the stronger."""
    return style.pale(style.CODES if same else style.FLOAT, round(0.12 + 0.38 * share, 2))


def view_report(report: Report, written_to: str = "") -> ReportView:
    """Turn a report into the words and shares that the templates lay out."""
    shown_as_card = ("size", "layers", "output", report.summary.metric or "metric")
    top_size = max((row.bytes_after for row in report.layers), default=1) or 1
    top_error = max((row.relative_error or 0.0 for row in report.layers), default=1.0) or 1.0
    return ReportView(
        summary=report.summary,
        how=text.title(report.summary).removeprefix(f"{report.summary.model}: "),
        complete=_is_complete(report),
        left=text.left_float(report),
        cards=_cards(report.summary),
        facts=[fact for fact in text.facts(report.summary, written_to) if fact[0] not in shown_as_card],
        layers=[_view_layer(row, top_size, top_error) for row in report.layers],
        outputs=report.outputs,
        activations=[_view_activation(row) for row in report.activations],
        sample=_view_sample(report.preview) if report.preview is not None else None,
        performance=dynamic_text.performance_cells(report.performance),
        performance_caption=dynamic_text.performance_caption(report),
        products=_view_products(report.products),
        products_caption=dynamic_text.products_caption(report.products),
    )


def _is_complete(report: Report) -> bool:
    said = report.summary.left_float or report.summary.kernel_notes
    return not said and all(row.quantized for row in report.layers)


def _cards(summary: Summary) -> list[Card]:
    words = dict(text.facts(summary))
    ratio = summary.compression_ratio
    cards = [
        Card(
            label="file size",
            value=f"{ratio:.2f}× smaller" if ratio >= 1 else f"{1 / ratio:.2f}× larger",
            detail=f"{text.format_bytes(summary.bytes_before)} → {text.format_bytes(summary.bytes_after)}",
            share=min(1.0, 1 / ratio),
        ),
        Card(
            label="weights quantized",
            value=f"{summary.layers_quantized} of {summary.layers}",
            detail="stored as codes",
            share=summary.layers_quantized / max(1, summary.layers),
        ),
    ]
    if summary.integer_total is not None:
        cards.append(_integer_card(summary, summary.integer_total))
    if summary.products:
        cards.append(_products_card(summary))
    if not isnan(summary.cosine_mean):
        noise = text.format_decibel(summary.sqnr_db)
        cards.append(
            Card(
                label="output cosine, mean",
                value=f"{summary.cosine_mean:.5f}",
                detail=f"min {summary.cosine_min:.4f}, SQNR {noise}{'' if noise == 'exact' else ' dB'}",
            )
        )
    label = summary.metric or "metric"
    if label in words and summary.metric_after is not None:
        before, _, change = words[label].partition(" -> ")[2].partition(", ")
        cards.append(Card(label=label, value=before, detail=f"was {summary.metric_before:.4f}, {change}"))
    return cards


def _integer_card(summary: Summary, total: int) -> Card:
    integer = summary.integer_layers or 0
    return Card(
        label="layers run as int8",
        value=f"{integer} of {total}",
        detail=_time_taken(summary) or "integer kernels",
        share=integer / max(1, total),
    )


def _products_card(summary: Summary) -> Card:
    detail = _time_taken(summary) or "activations quantized at run time"
    return Card(label="products in int8", value=str(summary.products), detail=detail)


def _time_taken(summary: Summary) -> str:
    return "" if summary.latency_ratio is None else f"takes {summary.latency_ratio:.2f} of float32's time"


def _view_layer(row: LayerRow, top_size: int, top_error: float) -> LayerView:
    cells: dict[str, Any] = dict(zip(text.LAYER_HEADERS, text.layer_cells(row), strict=True))
    return LayerView(
        node=cells["node"],
        title=f"{row.node}, weight {row.tensor}",
        op_type=row.op_type,
        shape=cells["shape"],
        quantized=row.quantized,
        bits=row.bits,
        granularity=cells["granularity"],
        storage=row.storage,
        before=cells["before"],
        after=cells["after"],
        error=cells["error"],
        sqnr=cells["SQNR"],
        reason=row.reason,
        size_share=row.bytes_after / top_size,
        error_share=(row.relative_error or 0.0) / top_error,
    )


def _view_activation(row: ActivationRow) -> ActivationView:
    return ActivationView(
        title=row.tensor,
        node=text.shorten(row.node) or "model input",
        cells=text.activation_cells(row),
        readers=", ".join(text.shorten(reader) for reader in row.readers) or "float operators",
        outline=view_outline(row),
    )


def _view_products(rows: Sequence[ProductRow]) -> list[ProductView]:
    worst = dynamic_text.worst_product(rows)
    return [
        ProductView(
            title=row.tensor,
            cells=dynamic_text.product_cells(row),
            readers=", ".join(text.shorten(reader) for reader in row.readers),
            worst=row is worst,
        )
        for row in rows
    ]


def _view_sample(preview: Preview) -> SampleView:
    return SampleView(
        picture=b64encode(preview.png).decode("ascii"),
        words=text.describe_sample(preview),
        warnings=preview.warnings,
    )


def _range_bar(row: ActivationRow, middle: float, step: float, top: float, unit: float) -> dict[str, object]:
    is_seen = row.observed_low is not None and row.observed_high is not None
    seen_low, seen_high = row.observed_low or 0.0, row.observed_high or 0.0
    cut = "" if row.clip_share is None else f", {text.format_percent(row.clip_share)} cut off"
    return {
        "title": f"{row.tensor}: {row.low:.4g} to {row.high:.4g} ({row.method}){cut}",
        "x": round(middle - step * RANGE_WIDTH / 2, 1),
        "y": round(24 + (top - row.high) * unit, 1),
        "width": round(step * RANGE_WIDTH, 1),
        "height": round((row.high - row.low) * unit, 1),
        "seen_x": round(middle - step * SEEN_WIDTH / 2, 1),
        "seen_y": round(24 + (top - seen_high) * unit, 1),
        "seen_width": round(step * SEEN_WIDTH, 1),
        "seen_height": round((seen_high - seen_low) * unit, 1) if is_seen else None,
    }


def _picture_bar(row: LayerRow, x: float, step: float, tops: tuple[int, float]) -> dict[str, object]:
    top_size, top_error = tops
    error = None if row.relative_error is None else 98 * row.relative_error / (top_error or 1.0)
    before, after = 94 * row.bytes_before / top_size, 94 * row.bytes_after / top_size
    fate = f"error {text.format_percent(row.relative_error)}" if row.quantized else f"float: {row.reason}"
    return {
        "title": f"{row.node}: {fate}, {text.format_bytes(row.bytes_after)}",
        "x": round(x + 0.1 * step, 1),
        "middle": round(x + 0.5 * step, 1),
        "width": round(0.8 * step, 1),
        "error": None if error is None else round(error, 1),
        "error_y": round(120 - (error or 0.0), 1),
        "before": round(before, 1),
        "before_y": round(239 - before, 1),
        "after": round(after, 1),
        "after_y": round(239 - after, 1),
        "colour": style.CODES if row.quantized else style.FLOAT,
    }
