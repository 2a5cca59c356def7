"""A real JupyterLab in a real browser: the report is seen, in both themes, and nothing leaves the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.browser.contrast import CONTRASTS

pytestmark = pytest.mark.browser

CELLS = (
    "%load_ext ptq_lab\nimport ptq_lab\ndemo = ptq_lab.demo.load('digits_cnn')",
    "%%quantize {demo.model_path} --samples {demo.calib_path} --eval {demo.eval_path} -r result\n"
    "[common_quant_param]\nquant_type=WEIGHT_QUANT\nbit_num=4\nmin_quant_weight_channel=16\n",
)
ALL_DONE = """() => {
  const cells = window.jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model);
  return cells.every(cell => cell.executionState === "idle" && cell.executionCount > 0);
}"""


def run_all(visit: Any, lab: Any, name: str) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in CELLS])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, lab.folder / name)
    page = visit.page
    page.goto(f"{lab.url}/lab/tree/{name}?reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    page.wait_for_function("window.jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === 'idle'")
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_function(ALL_DONE, timeout=60_000)
    page.wait_for_selector(".js-plotly-plot .main-svg", timeout=60_000)


@pytest.mark.parametrize(("theme", "light"), [("JupyterLab Light", "true"), ("JupyterLab Dark", "false")])
def test_running_a_cell_shows_summary_charts_and_table_without_leaving_the_machine(
    visit: Any, lab: Any, tmp_path: Path, theme: str, light: str
) -> None:
    lab.set("apputils-extension/themes", {"theme": theme})
    run_all(visit, lab, f"report_{light}.ipynb")
    page = visit.page
    page.wait_for_selector(f"body[data-jp-theme-light='{light}']", state="attached")

    report = page.locator(".ptq[role=region]")
    assert "Left in float" in report.inner_text()
    assert "smaller" in report.inner_text()
    page.wait_for_function("document.querySelectorAll('.js-plotly-plot .main-svg .bars path').length > 10")
    assert page.locator(".js-plotly-plot").count() == 4
    report.get_by_text("layers as a table").click()
    assert report.locator("tbody tr").first.is_visible()
    assert report.locator("tbody tr").count() > 5

    picture = tmp_path / f"lab_{light}.png"
    page.screenshot(path=picture)
    assert picture.stat().st_size > 20_000
    assert visit.foreign == []
    assert visit.errors == []


def test_the_text_of_the_report_can_be_read_on_a_dark_page(visit: Any, lab: Any) -> None:
    lab.set("apputils-extension/themes", {"theme": "JupyterLab Dark"})
    run_all(visit, lab, "contrast.ipynb")
    visit.page.wait_for_selector("body[data-jp-theme-light='false']", state="attached")
    ratios = visit.page.evaluate(CONTRASTS, ".ptq *")
    assert len(ratios) > 20
    assert [item for item in ratios if item[0] < 4.4] == []


@pytest.fixture(scope="module")
def report_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a run of which everything is known."""
    import ptq_lab

    demo, folder = ptq_lab.demo.load("digits_cnn"), tmp_path_factory.mktemp("page")
    config = {"common_quant_param": {"quant_type": "FULL_QUANT"}, "full_quant_param": {"per_channel": False}}
    result = ptq_lab.quantize(demo.model_path, config, samples=demo.calib_path, evaluate=demo.eval_path, explain=True)
    return result.report.to_html(folder / "report.html").as_uri()


LABELS = "[...document.querySelectorAll('text.heatmap-label, .heatmap-label text')].map(e => getComputedStyle(e).fill)"
FIGURES = ("Predictions", "Layers", "Error along depth", "Ranges", "Sizes")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_page_draws_its_figures_and_can_be_read_in_both_schemes(
    visit: Any, report_page: str, tmp_path: Path, scheme: str
) -> None:
    page = visit.page
    page.emulate_media(color_scheme=scheme)
    page.goto(report_page)
    page.wait_for_function("document.querySelectorAll('.js-plotly-plot .main-svg').length > 10")
    assert page.locator(".js-plotly-plot").count() == 6
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    ratios = page.evaluate(CONTRASTS, ".ptq *")
    assert len(ratios) > 200
    assert [item for item in ratios if item[0] < 4.5] == []
    ink = page.evaluate("getComputedStyle(document.querySelector('h2')).color")
    assert set(page.evaluate(LABELS)) == {ink}  # numbers on tinted cells need the strongest contrast
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 23, 26)"}[scheme]
    assert visit.foreign == []
    assert visit.errors == []


def test_the_contents_of_the_report_page_lead_to_its_sections(visit: Any, report_page: str) -> None:
    page = visit.page
    page.set_viewport_size({"width": 1280, "height": 700})
    page.goto(report_page)
    for name in FIGURES:
        page.get_by_role("navigation").get_by_role("link", name=name, exact=True).click()
        page.wait_for_timeout(50)
        assert page.get_by_role("heading", name=name, exact=True).bounding_box()["y"] < 700
    assert visit.errors == []


def test_with_scripts_off_the_report_page_shows_pictures_and_tables(browser: Any, report_page: str) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, java_script_enabled=False)
    page = context.new_page()
    page.goto(report_page)
    assert page.locator(".js-plotly-plot").count() == 0
    assert page.locator(".plot svg").count() >= 3
    assert page.locator(".plot table").count() >= 2
    assert page.locator("#diagnosis").inner_text().strip()
    assert page.locator("#layers tbody tr").first.is_visible()
    context.close()
