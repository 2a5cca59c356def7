"""Notebooks for the browser tests of live parts: written, opened, run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nbformat

LOAD = "%load_ext ptq_lab\nimport ptq_lab"
IDLE = "window.jupyterapp.shell.currentWidget?.sessionContext.session?.kernel?.status === 'idle'"
ALL_DONE = """() => {
  const cells = window.jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model);
  return cells.every(cell => cell.executionState === "idle" && cell.executionCount > 0);
}"""


def open_and_run(visit: Any, lab: Any, name: str, cells: Sequence[str], *, parts: int) -> Any:
    """Run cells of code in a new notebook of JupyterLab; return the page once its live parts are there."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in (LOAD, *cells)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, lab.folder / name)
    page = visit.page
    page.goto(f"{lab.url}/lab/tree/{name}?reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    page.wait_for_function(IDLE, timeout=60_000)
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_function(ALL_DONE, timeout=90_000)
    page.wait_for_function(f"document.querySelectorAll('.ptq-lesson').length === {parts}", timeout=30_000)
    return page


CONTRASTS = """root => {
  const parse = text => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const over = ([r, g, b, a], [x, y, z]) => [r * a + x * (1 - a), g * a + y * (1 - a), b * a + z * (1 - a)];
  const luminance = channels => channels.map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour[3] === 1) return colour.slice(0, 3);
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll(root)]
    .filter(e => !["STYLE", "TITLE", "OPTION"].includes(e.tagName.toUpperCase()) && e.getClientRects().length)
    .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))
    .map(e => {
      const ground = behind(e), style = getComputedStyle(e);
      const ink = over(parse(e instanceof SVGElement ? style.fill : style.color), ground);
      const pair = [luminance(ink), luminance(ground)];
      return [(Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05), e.textContent.slice(0, 40)];
    });
}"""
"""Contrast and text of every element below a selector that holds text."""
