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
