"""The magics in JupyterLab and in Notebook 7: seen, completed, saved, reopened without a kernel, exported."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbconvert import HTMLExporter

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
PLOTLY = "application/vnd.plotly.v1+json"
CELLS = (
    "%load_ext ptq_lab\nimport ptq_lab\ndemo = ptq_lab.demo.load('digits_cnn')",
    "%%quantize {demo.model_path} --samples {demo.calib_path} --eval {demo.eval_path} -r four\n"
    "[common_quant_param]\nquant_type=WEIGHT_QUANT\nbit_num=4\nmin_quant_weight_channel=16\n",
    "%%quantize {demo.model_path} --samples {demo.calib_path} --eval {demo.eval_path} -r two --quiet\n"
    "[common_quant_param]\nquant_type=WEIGHT_QUANT\nbit_num=2\nmin_quant_weight_channel=16\n",
    "%quantize_compare four two",
    "%quantize_doctor",
)
DONE = """() => {
  const cells = window.jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model);
  return cells.every(cell => !cell.sharedModel.source
    || cell.type !== "code" || (cell.executionState === "idle" && cell.executionCount > 0));
}"""
KERNEL_IDLE = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
# plotly's renderer shows the stored picture of a chart until somebody touches it.
DRAWN = """count => {
  const charts = [...document.querySelectorAll(".jp-RenderedPlotly")];
  return charts.length === count
    && charts.every(chart => chart.querySelector(".main-svg") || chart.querySelector("img")?.naturalWidth > 100);
}"""
CELL_LIMIT, FILE_LIMIT = 400_000, 1_000_000


def open_notebook(visit: Any, front: Any, name: str) -> None:
    visit.page.goto(front.page(name))
    visit.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)


def run_all(visit: Any, front: Any, name: str) -> None:
    open_notebook(visit, front, name)
    visit.page.wait_for_function(KERNEL_IDLE, timeout=60_000)
    visit.page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    visit.page.wait_for_function(DONE, timeout=120_000)
    visit.page.wait_for_selector(".js-plotly-plot .main-svg", timeout=60_000)


def write(front: Any, name: str, cells: tuple[str, ...]) -> Path:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path: Path = front.folder / name
    nbformat.write(notebook, path)
    return path


def save(visit: Any) -> None:
    visit.page.wait_for_timeout(1500)  # pictures of charts are added to outputs a moment after they are drawn
    visit.page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    visit.page.wait_for_function("!window.jupyterapp.shell.currentWidget.model.dirty", timeout=30_000)


def stop_kernels(front: Any) -> None:
    with urllib.request.urlopen(f"{front.url}/api/sessions") as answer:
        sessions = json.load(answer)
    for session in sessions:
        request = urllib.request.Request(f"{front.url}/api/sessions/{session['id']}", method="DELETE")
        urllib.request.urlopen(request).close()


def test_report_comparison_and_doctor_are_seen_and_nothing_leaves_the_machine(visit: Any, front: Any) -> None:
    write(front, "magics.ipynb", CELLS)
    run_all(visit, front, "magics.ipynb")
    page = visit.page
    assert "Left in float" in page.locator(".ptq[role=region]").first.inner_text()
    assert page.locator(".js-plotly-plot").count() == 4
    beside = page.locator(".ptq[aria-label='Runs side by side: four, two']")
    assert "answers changed" in beside.inner_text()
    assert beside.locator("figure img").count() > 0
    assert all(beside.locator("figure img").evaluate_all("images => images.map(image => image.naturalWidth > 8)"))
    assert beside.locator("tbody tr").count() > 20
    doctor = page.get_by_text("everything is in place")
    assert doctor.count() > 0
    assert "a Jupyter server (JupyterLab or Notebook)" in page.locator(".jp-Notebook").inner_text()
    assert (visit.foreign, visit.errors) == ([], [])


def test_tab_offers_names_of_the_model_and_nothing_of_python(visit: Any, front: Any) -> None:
    text = "%%quantize demo.model_path\n[common_quant_param]\nskip_quant_node=block1/"
    write(front, "tab.ipynb", (CELLS[0], text))
    open_notebook(visit, front, "tab.ipynb")
    page = visit.page
    page.wait_for_function(KERNEL_IDLE, timeout=60_000)
    page.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Shift+Enter")
    page.wait_for_function(
        "window.jupyterapp.shell.currentWidget.content.widgets[0].model.executionCount > 0", timeout=60_000
    )
    page.locator(".jp-CodeCell .cm-content").nth(1).click()
    page.keyboard.press("Control+End")
    page.keyboard.press("Tab")
    page.wait_for_selector(".jp-Completer-item", timeout=20_000)
    offered = page.locator(".jp-Completer-item .jp-Completer-match").all_inner_texts()
    assert "block1/depthwise/Conv" in offered
    assert "block1/*" in offered
    assert not [name for name in offered if name in {"print", "property", "import"} or name.startswith("%")]
    page.keyboard.press("Enter")
    written = page.locator(".jp-CodeCell .cm-content").nth(1).inner_text()
    assert re.search(r"skip_quant_node=block1/[\w/*]+", written)
    assert (visit.foreign, visit.errors) == ([], [])


def test_the_saved_quickstart_is_small_and_shows_without_a_kernel_and_exported(
    visit: Any, front: Any, tmp_path: Path
) -> None:
    source = (ROOT / "notebooks" / "01_quickstart.ipynb").read_text(encoding="utf-8")
    path: Path = front.folder / "quickstart.ipynb"
    path.write_text(source, encoding="utf-8")
    run_all(visit, front, "quickstart.ipynb")
    visit.page.wait_for_function("document.querySelectorAll('.js-plotly-plot').length === 7")
    save(visit)
    saved = nbformat.read(path, as_version=4)
    sizes = [len(json.dumps(cell.get("outputs", []))) for cell in saved.cells]
    assert max(sizes) <= CELL_LIMIT
    assert path.stat().st_size <= FILE_LIMIT
    assert sum(size > 10_000 for size in sizes) >= 2

    stop_kernels(front)
    front.set("docmanager-extension/plugin", {"autosave": False})
    context = visit.page.context
    visit.page = context.new_page()
    visit.allow_loopback_only()
    open_notebook(visit, front, "quickstart.ipynb")
    visit.page.wait_for_function(DRAWN, arg=7, timeout=60_000)
    assert visit.page.locator(".ptq[role=region]").count() == 2
    assert "smaller" in visit.page.locator(".ptq[role=region]").first.inner_text()
    assert (visit.foreign, visit.errors) == ([], [])

    html, _ = HTMLExporter().from_notebook_node(saved)
    bundles = [output.data for cell in saved.cells for output in cell.get("outputs", []) if "data" in output]
    tables = [bundle["text/html"] for bundle in bundles if "<table" in bundle.get("text/html", "")]
    assert len(tables) >= 4
    assert html.count("<table") == sum(table.count("<table") for table in tables)
    assert all(_rows(table) <= _rows(html) for table in tables)


def _rows(html: str) -> set[str]:
    """Return the titles of all rows: names of layers, with their weights."""
    return set(re.findall(r'<td title="([^"]*)"', html))
