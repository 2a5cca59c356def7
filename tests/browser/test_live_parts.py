"""Live parts in a real JupyterLab: seen, operated by keyboard alone, quick, and gone without a trace of harm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.browser.test_lab_report import ALL_DONE, CONTRASTS

pytestmark = pytest.mark.browser

PICTURES = Path(__file__).parent / "pictures"
EXPLORE = (
    "%load_ext ptq_lab\nimport ptq_lab\ndemo = ptq_lab.demo.load('digits_cnn')\n"
    "explorer = ptq_lab.explore(demo.model_path, demo.calib_path)",
    "%quantize_explore explorer",
)
FORM = (
    "%load_ext ptq_lab\nimport ptq_lab\ndemo = ptq_lab.demo.load('digits_cnn')\nsamples = demo.calib_path",
    "%quantize_form demo.model_path --samples samples -r editor",
)
THEMES = pytest.mark.parametrize(("theme", "light"), [("JupyterLab Light", "true"), ("JupyterLab Dark", "false")])
UNNAMED = """() => [...document.querySelectorAll(
    ".ptq :is(input, select, textarea, button, summary, svg)")].filter(e => e.getClientRects().length)
  .filter(e => !(e.getAttribute("aria-label") || e.labels?.length))
  .filter(e => !(/BUTTON|SUMMARY/.test(e.tagName) && e.textContent.trim()))
  .map(e => e.outerHTML.slice(0, 120))"""


def open_cells(visit: Any, lab: Any, name: str, cells: tuple[str, ...], *, wait_for: str) -> Any:
    """Write a notebook, open it, run it, and wait for a live part."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, lab.folder / name)
    page = visit.page
    page.goto(f"{lab.url}/lab/tree/{name}?reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    page.wait_for_function("window.jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === 'idle'")
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_function(ALL_DONE, timeout=120_000)
    page.wait_for_selector(wait_for, timeout=60_000)
    return page


def run_cell(page: Any, code: str) -> str:
    """Add a cell at the end, run it, and return what it printed."""
    page.evaluate(
        """async code => {
          const notebook = window.jupyterapp.shell.currentWidget.content;
          notebook.activeCellIndex = notebook.widgets.length - 1;
          await window.jupyterapp.commands.execute("notebook:insert-cell-below");
          notebook.activeCell.model.sharedModel.setSource(code);
          await window.jupyterapp.commands.execute("notebook:run-cell");
        }""",
        code,
    )
    page.wait_for_function(ALL_DONE, timeout=60_000)
    return str(
        page.evaluate(
            "() => window.jupyterapp.shell.currentWidget.content.widgets.at(-1).model.outputs.toJSON()"
            ".map(output => output.text ?? '').join('')"
        )
    )


@THEMES
def test_the_explorer_is_readable_named_and_answers_the_keyboard(visit: Any, lab: Any, theme: str, light: str) -> None:
    lab.set("apputils-extension/themes", {"theme": theme})
    page = open_cells(visit, lab, f"explore_{light}.ipynb", EXPLORE, wait_for=".ptq-explorer svg path")
    page.wait_for_selector(f"body[data-jp-theme-light='{light}']", state="attached")
    page.wait_for_timeout(800)
    PICTURES.mkdir(exist_ok=True)
    page.locator(".ptq-explorer").screenshot(path=PICTURES / f"explorer_{light}.png")
    assert min(page.evaluate(CONTRASTS)) >= 4.5
    assert page.evaluate(UNNAMED) == []
    assert not page.locator(".ptq-stays").first.is_visible()


@THEMES
def test_the_editor_is_readable_and_named(visit: Any, lab: Any, theme: str, light: str) -> None:
    lab.set("apputils-extension/themes", {"theme": theme})
    page = open_cells(visit, lab, f"form_{light}.ipynb", FORM, wait_for=".ptq-editor textarea")
    page.wait_for_selector(f"body[data-jp-theme-light='{light}']", state="attached")
    page.wait_for_timeout(800)
    PICTURES.mkdir(exist_ok=True)
    page.locator(".ptq-editor").screenshot(path=PICTURES / f"editor_{light}.png")
    assert min(page.evaluate(CONTRASTS)) >= 4.5
    assert page.evaluate(UNNAMED) == []
