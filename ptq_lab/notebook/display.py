"""How the core's types look in a notebook: bundles with a script-free twin of everything.

The types themselves know nothing of IPython. Formatters for them are installed when the extension loads and
removed when it unloads.
"""

# mypy: disallow-untyped-calls=False
# (IPython's display functions carry no types.)

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.display import publish_display_data

from ptq_lab.errors import Problem
from ptq_lab.figures.front import draw_front, front_html, front_text
from ptq_lab.figures.layers import draw_layers, layers_text
from ptq_lab.figures.ranges import draw_ranges, ranges_text
from ptq_lab.figures.sizes import draw_sizes, sizes_text
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
from ptq_lab.notebook.lessons import KINDS, show_lesson
from ptq_lab.report.tables import Report
from ptq_lab.report.text import render_text
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
    return {
        "text/plain": render_text(report, written_to=written_to, max_layers=TEXT_LAYERS),
        "text/html": report_html(report, written_to=written_to),
    }


def figure_bundles(report: Report) -> tuple[Bundle, ...]:
    """Return each figure of a report by mime type: plotly for front ends that draw, twins for all others."""
    layers = _figure_bundle(draw_layers(report), layers_html(report), layers_text(report))
    sizes = _figure_bundle(draw_sizes(report), sizes_html(report), sizes_text(report))
    if not report.activations:
        return layers, sizes
    return layers, _figure_bundle(draw_ranges(report), ranges_html(report), ranges_text(report)), sizes


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


def show_result(result: QuantResult, *, temporary: bool = False) -> None:
    """Publish the remarks on the configuration, then the report without them, then its figures."""
    place = f"{result.model_path} (temporary; -o or .save(folder) keeps it)" if temporary else str(result.model_path)
    remarks = result.config.problems
    said = {str(problem) for problem in remarks}
    summary = result.report.summary
    rest = replace(summary, notes=tuple(note for note in summary.notes if note not in said))
    report = replace(result.report, summary=rest)
    if remarks:
        show(problems_bundle(remarks))
    show(report_bundle(report, written_to=place), *figure_bundles(report))


def show_plan(plan: QuantPlan, remarks: Sequence[Problem]) -> None:
    """Publish the remarks on the configuration, then the plan."""
    if remarks:
        show(problems_bundle(remarks))
    show(plan_bundle(plan))


def show(*bundles: Bundle) -> None:
    """Publish every bundle as one output of the running cell."""
    for bundle in bundles:
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
        Report: report_bundle,
        QuantResult: result_bundle,
        QuantPlan: plan_bundle,
        Demo: demo_bundle,
        FrontData: front_bundle,
        MixedBitExplorer: explorer_bundle,
    }


def _html_printer(bundle_of: Callable[[Any], Bundle]) -> Callable[[Any], str]:
    def html(value: object) -> str:
        return str(bundle_of(value)["text/html"])

    return html


def _text_printer(bundle_of: Callable[[Any], Bundle]) -> Callable[[Any, Any, bool], None]:
    def pretty(value: object, printer: Any, cycle: bool) -> None:
        printer.text(bundle_of(value)["text/plain"])

    return pretty


def _figure_bundle(figure: Any, html: str, text: str) -> Bundle:
    drawing = json.loads(figure.to_json())
    return {PLOTLY: drawing | {"config": {"displaylogo": False}}, "text/html": html, "text/plain": f"\n{text}"}
