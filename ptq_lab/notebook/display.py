"""How the core's types look in a notebook: bundles with a script-free twin of everything.

The types themselves know nothing of IPython. Formatters for them are installed when the extension loads and
removed when it unloads.
"""

# mypy: disallow-untyped-calls=False
# (IPython's display functions carry no types.)

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import Field, fields, replace
from html import escape
from typing import TYPE_CHECKING, Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.display import publish_display_data

from ptq_lab.errors import Problem
from ptq_lab.figures.causes import explanation_html
from ptq_lab.figures.coding import coding_html, coding_text, draw_coding
from ptq_lab.figures.confusion import confusion_html, confusion_text, draw_confusion
from ptq_lab.figures.depth import depth_html, depth_text, draw_depth
from ptq_lab.figures.errors import draw_errors, errors_html, errors_text
from ptq_lab.figures.front import draw_front, front_html, front_text
from ptq_lab.figures.layers import draw_layers, layers_text
from ptq_lab.figures.lessons import Line, lesson_html, lines_html
from ptq_lab.figures.ranges import draw_ranges, ranges_text
from ptq_lab.figures.side_by_side import side_by_side_html
from ptq_lab.figures.sizes import draw_sizes, sizes_text
from ptq_lab.figures.steps import draw_steps, steps_html, steps_table_html, steps_text
from ptq_lab.figures.tables import (
    facts_html,
    layers_html,
    plan_html,
    problems_html,
    ranges_html,
    report_html,
    sizes_html,
    threshold_html,
    widths_html,
)
from ptq_lab.figures.thresholds import Counts, draw_threshold, threshold_text
from ptq_lab.notebook.displayed import remember
from ptq_lab.notebook.lessons import KINDS, STILL, lesson_bundle, show_lesson
from ptq_lab.report.coding_text import coded_rows
from ptq_lab.report.findings import Explanation, explanation_text
from ptq_lab.report.formats import text_table
from ptq_lab.report.harm import layer_errors_of
from ptq_lab.report.side_by_side import SideBySide, side_by_side_text
from ptq_lab.report.tables import ActivationRow, LayerRow, ProductRow, Report, Table
from ptq_lab.report.text import brief, left_float, render_text
from ptq_lab.report.widths import FrontData, widths_text

if TYPE_CHECKING:
    from ptq_lab.demo import Demo
    from ptq_lab.explorer import MixedBitExplorer
    from ptq_lab.plan import QuantPlan
    from ptq_lab.result import QuantResult

Bundle = dict[str, Any]
PLOTLY = "application/vnd.plotly.v1+json"
TEXT_LAYERS = 40


def report_bundle(report: Report, *, written_to: str = "") -> Bundle:
    """Return summary and tables of a report by mime type: ``text/plain`` and script-free ``text/html``."""
    causes = "" if report.explanation is None else explanation_html(report.explanation, pictures=False)
    steps = steps_table_html(report) if report.steps else ""
    return {
        "text/plain": render_text(report, written_to=written_to, max_layers=TEXT_LAYERS),
        "text/html": report_html(report, written_to=written_to) + steps + causes,
    }


def explanation_bundle(found: Explanation) -> Bundle:
    """Return a diagnosis by mime type: causes, errors along the depth, and the most harmful layers."""
    return {"text/plain": explanation_text(found), "text/html": explanation_html(found)}


def figure_bundles(report: Report) -> tuple[Bundle, ...]:
    """Return each figure of a report by mime type: plotly for front ends that draw, twins for all others."""
    layers = _figure_bundle(draw_layers(report), layers_html(report), layers_text(report))
    sizes = _figure_bundle(draw_sizes(report), sizes_html(report), sizes_text(report))
    bundles = [layers]
    if report.activations:
        bundles.append(_figure_bundle(draw_ranges(report), ranges_html(report), ranges_text(report)))
    if report.steps:
        bundles.append(steps_bundle(report))
    found = layer_errors_of(report)
    if found is not None:
        bundles.append(_figure_bundle(draw_depth(found), depth_html(found), depth_text(found)))
        bundles.append(_figure_bundle(draw_errors(found), errors_html(found), errors_text(found)))
    if report.predictions is not None:
        seen = report.predictions
        bundles.append(_figure_bundle(draw_confusion(seen), confusion_html(seen), confusion_text(seen)))
    bundles.append(sizes)
    if coded_rows(report.layers):
        bundles.append(_figure_bundle(draw_coding(report), coding_html(report), coding_text(report)))
    return tuple(bundles)


def steps_bundle(report: Report) -> Bundle:
    """Return the error of each layer before and after the steps that made its weights better, by mime type."""
    return _figure_bundle(draw_steps(report), steps_html(report), steps_text(report))


def lines_bundle(
    title: str, lines: Sequence[Line], *, x_title: str, y_title: str, ticks: Sequence[tuple[float, str]] = ()
) -> Bundle:
    """Return lines over common axes by mime type: a still picture, and the same numbers as a table.

    Parameters
    ----------
    title : str
    lines : sequence of Line
    x_title, y_title : str
    ticks : sequence of (x, name)
        Names of places along the bottom.
    """
    drawing = lines_html(lines, label=title, x_title=x_title, y_title=y_title, ticks=ticks)
    names, found = dict(ticks), [dict(line.points) for line in lines]
    headers = (x_title, *(line.name for line in lines))
    rows = [
        (names.get(x, f"{x:g}"), *(f"{line[x]:.4g}" if x in line else "-" for line in found))
        for x in sorted({x for line in found for x in line})
    ]
    table = text_table(headers, rows, right=headers[1:])
    return {"text/plain": f"{title}, {y_title}\n{table}", "text/html": lesson_html(title, [], drawing=drawing)}


def threshold_bundle(histogram: Counts, low: float, high: float, *, title: str = "") -> Bundle:
    """Return the calibration histogram of one activation tensor with its range, by mime type."""
    figure = draw_threshold(histogram, low, high, title=title)
    html = threshold_html(histogram, low, high, title=title)
    return _figure_bundle(figure, html, threshold_text(histogram, low, high, title=title))


def front_bundle(data: FrontData) -> Bundle:
    """Return size against error of choices of widths by mime type."""
    return _figure_bundle(draw_front(data), front_html(data), front_text(data))


def explorer_bundle(explorer: MixedBitExplorer) -> Bundle:
    """Return the current choice of an explorer by mime type: what to expect, and a row per weight."""
    rows, prediction = tuple(explorer.layers), explorer.predict()
    title = f"{explorer.original.label}: {prediction}"
    return {"text/plain": f"{title}\n{widths_text(rows, TEXT_LAYERS)}", "text/html": widths_html(title, rows)}


def result_bundle(result: QuantResult) -> Bundle:
    """Return what a finished run shows first."""
    return report_bundle(result.report, written_to=str(result.model_path))


def side_by_side_bundle(runs: SideBySide) -> Bundle:
    """Return several runs side by side by mime type."""
    return {"text/plain": side_by_side_text(runs, max_layers=TEXT_LAYERS), "text/html": side_by_side_html(runs)}


def plan_bundle(plan: QuantPlan) -> Bundle:
    """Return a plan by mime type."""
    return {"text/plain": str(plan), "text/html": plan_html(plan)}


def demo_bundle(demo: Demo) -> Bundle:
    """Return a demo by mime type: what it is and where its files are."""
    rows = [
        ("model", str(demo.model_path)),
        ("calibration samples", str(demo.calib_path)),
        ("evaluation data", str(demo.eval_path)),
        ("configuration", str(demo.config_path)),
        ("metric", demo.metric),
    ]
    lines = [demo.title, demo.description, *(f"{label}: {value}" for label, value in rows)]
    return {"text/plain": "\n".join(lines), "text/html": facts_html(demo.title, demo.description, rows)}


def problems_bundle(problems: Sequence[Problem]) -> Bundle:
    """Return the warnings and notes about a configuration by mime type."""
    title = f"{len(problems)} remark{'' if len(problems) == 1 else 's'} on the configuration"
    lines = [f"{problem.level}: {problem}" for problem in problems]
    return {"text/plain": "\n".join(lines), "text/html": problems_html(title, lines)}


def show_result(
    result: QuantResult,
    *,
    temporary: bool = False,
    replaced: str = "",
    level: str = "full",
    max_rows: int | None = None,
) -> None:
    """Publish the remarks on the configuration, then the report without them, then its figures.

    Parameters
    ----------
    result : QuantResult
    temporary : bool
        Its file is gone with it.
    replaced : str
        What stood in the place of its file, in words; empty: nothing.
    level : {"full", "short", "none"}
        Everything; the summary without tables and figures; one line. Remarks are always shown.
    max_rows : int, optional
        Rows of each table at most.
    """
    place = f"{result.model_path} (temporary; -o or .save(folder) keeps it)" if temporary else str(result.model_path)
    place += f", which replaced {replaced}" if replaced else ""
    remarks = result.config.problems
    said = {str(problem) for problem in remarks}
    summary = result.report.summary
    rest = replace(summary, notes=tuple(note for note in summary.notes if note not in said))
    report = replace(result.report, summary=rest)
    if remarks:
        show(problems_bundle(remarks))
    if level == "none":
        gone = f"; {result.model_path.name} replaced {replaced}" if replaced else ""
        show(line_bundle(brief(summary) + gone))
    elif level == "short":
        show(report_bundle(_without_tables(report), written_to=place))
    else:
        shorter = cut(report, max_rows)
        show(report_bundle(shorter, written_to=place), *figure_bundles(shorter))


def code_bundle(text: str) -> Bundle:
    """Return code to copy by mime type."""
    return {"text/plain": text, "text/html": f"<pre>{escape(text)}</pre>"}


def line_bundle(text: str) -> Bundle:
    """Return one line of text by mime type."""
    return {"text/plain": text, "text/html": f"<p>{escape(text)}</p>"}


def _without_tables(report: Report) -> Report:
    empty: dict[str, Any] = {field.name: type(value)(value.row_type) for field, value in _tables(report)}
    # What stayed float is told by the summary, or else by the rows.
    summary = replace(report.summary, left_float=left_float(report)) if not _complete(report) else report.summary
    return replace(report, summary=summary, **empty)


def _complete(report: Report) -> bool:
    return not report.summary.left_float and all(row.quantized for row in report.layers)


def cut(report: Report, max_rows: int | None) -> Report:
    """Return a report whose tables have so many rows at most, the worst, with a note on those that had more.

    A saved notebook stays small so, however many layers a model has.
    """
    long = [(field.name, value) for field, value in _tables(report) if max_rows is not None and len(value) > max_rows]
    if not long:
        return report
    sizes = ", ".join(f"{name} {len(table)}" for name, table in long)
    note = f"shown are the worst {max_rows} rows of each table ({sizes}); %config PTQLab.max_rows shows more"
    summary = replace(report.summary, notes=(*report.summary.notes, note))
    shorter: dict[str, Any] = {name: _worst(table, max_rows or 0) for name, table in long}
    return replace(report, summary=summary, **shorter)


def _worst(table: Table[Any], count: int) -> Table[Any]:
    """Return the rows that matter most, in their own order: what stays float, then the largest errors."""
    ranked = sorted(range(len(table)), key=lambda index: -_harm(table[index]))
    return Table(table.row_type, (table[index] for index in sorted(ranked[:count])))


def _harm(row: Any) -> float:
    if isinstance(row, LayerRow):
        return math.inf if row.relative_error is None else row.relative_error
    if isinstance(row, ActivationRow):
        return row.clip_share or 0.0
    return -row.sqnr_db if isinstance(row, ProductRow) and row.sqnr_db is not None else 0.0


def _tables(report: Report) -> list[tuple[Field[Any], Table[Any]]]:
    found = ((field, getattr(report, field.name)) for field in fields(report))
    return [(field, value) for field, value in found if isinstance(value, Table)]


def show_plan(plan: QuantPlan, remarks: Sequence[Problem]) -> None:
    """Publish the remarks on the configuration, then the plan."""
    if remarks:
        show(problems_bundle(remarks))
    show(plan_bundle(plan))


def show(*bundles: Bundle) -> None:
    """Publish every bundle as one output of the running cell."""
    for bundle in bundles:
        remember(bundle)
        publish(bundle)


def publish(bundle: Bundle) -> None:
    """Publish a bundle without remembering it: the doctor does not speak of itself."""
    publish_display_data(bundle)


def install(shell: InteractiveShell) -> None:
    """Teach a shell to display the core's types."""
    formatters = _formatters(shell)
    for kind, bundle_of in _bundles().items():
        formatters["text/html"].for_type(kind, _html_printer(bundle_of))
        formatters["text/plain"].for_type(kind, _text_printer(bundle_of))
    for kind in KINDS:
        _live_formatter(shell).for_type(kind, show_lesson)


def uninstall(shell: InteractiveShell) -> None:
    """Make a shell forget how to display the core's types."""
    formatters = _formatters(shell)
    for kind in _bundles():
        formatters["text/html"].pop(kind, None)
        formatters["text/plain"].pop(kind, None)
    for kind in KINDS:
        _live_formatter(shell).pop(kind, None)


def _live_formatter(shell: InteractiveShell) -> Any:
    """Return what publishes several outputs for one object: a live part, and its twin below it."""
    assert shell.display_formatter is not None
    return shell.display_formatter.ipython_display_formatter


def _formatters(shell: InteractiveShell) -> dict[str, Any]:
    assert shell.display_formatter is not None
    formatters: dict[str, Any] = shell.display_formatter.formatters
    return formatters


def _bundles() -> dict[type, Callable[[Any], Bundle]]:
    from ptq_lab.demo import Demo
    from ptq_lab.explorer import MixedBitExplorer
    from ptq_lab.plan import QuantPlan
    from ptq_lab.result import QuantResult

    return {
        Explanation: explanation_bundle,
        Report: report_bundle,
        QuantResult: result_bundle,
        QuantPlan: plan_bundle,
        Demo: demo_bundle,
        FrontData: front_bundle,
        MixedBitExplorer: explorer_bundle,
        SideBySide: side_by_side_bundle,
        **dict.fromkeys(STILL, lesson_bundle),
    }


def _html_printer(bundle_of: Callable[[Any], Bundle]) -> Callable[[Any], str]:
    def html(value: object) -> str:
        bundle = bundle_of(value)
        remember(bundle)
        return str(bundle["text/html"])

    return html


def _text_printer(bundle_of: Callable[[Any], Bundle]) -> Callable[[Any, Any, bool], None]:
    def pretty(value: object, printer: Any, cycle: bool) -> None:
        printer.text(bundle_of(value)["text/plain"])

    return pretty


def _figure_bundle(figure: Any, html: str, text: str) -> Bundle:
    drawing = json.loads(figure.to_json())
    return {PLOTLY: drawing | {"config": {"displaylogo": False}}, "text/html": html, "text/plain": f"\n{text}"}
