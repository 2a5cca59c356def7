"""Take docs/report.png anew: a ``%%quantize`` cell and its report, in the JupyterLab that is installed.

Run ``python docs/take_picture.py`` from anywhere; it needs what the browser tests need, Chromium included.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

import nbformat
from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.browser.conftest import FLAGS, find_chromium, serve  # noqa: E402
from tests.browser.test_lab_report import ALL_DONE, CELLS  # noqa: E402

PICTURE = ROOT / "docs" / "report.png"
WIDTH, HEIGHT = 1060, 2400  # pixels; high enough that nothing has to be scrolled
COLOURS = 256
RUN = "window.jupyterapp.commands.execute('notebook:run-all-cells')"
IDLE = "window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"


def main() -> None:
    """Start a server, run the notebook, and write what its cells show."""
    chromium = find_chromium()
    if chromium is None:
        sys.exit("no Chromium found; PTQ_LAB_CHROMIUM names one")
    with tempfile.TemporaryDirectory() as home, serve([sys.executable, "-m", "jupyterlab"], Path(home)) as lab:
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in CELLS])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, lab.folder / "report.ipynb")
        with sync_playwright() as player:
            browser = player.chromium.launch(executable_path=chromium, args=list(FLAGS))
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            page.goto(f"{lab.url}/doc/tree/report.ipynb?reset")
            png = _run(page)
            browser.close()
    taken = Image.open(io.BytesIO(png)).convert("RGB")
    taken.quantize(COLOURS, dither=Image.Dither.NONE).save(PICTURE, optimize=True)
    print(f"{PICTURE}: {taken.width} x {taken.height}, {PICTURE.stat().st_size} bytes")


def _run(page: Page) -> bytes:
    """Run all cells, open the table of layers, and take both cells without the room around them."""
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    page.wait_for_function(IDLE, timeout=60_000)
    page.evaluate(RUN)
    page.wait_for_function(ALL_DONE, timeout=120_000)
    page.wait_for_function("document.querySelectorAll('.js-plotly-plot .main-svg .bars path').length > 10")
    page.locator(".ptq[role=region]").get_by_text("layers as a table").click()
    page.mouse.move(0, 0)
    page.wait_for_timeout(1500)  # charts find their width
    boxes = [cell.bounding_box() for cell in page.locator(".jp-Notebook .jp-CodeCell").all()]
    seen = [box for box in boxes if box is not None]
    top, bottom = seen[0]["y"], max(box["y"] + box["height"] for box in seen)
    left, right = seen[0]["x"], max(box["x"] + box["width"] for box in seen)
    return page.screenshot(clip={"x": left, "y": top, "width": right - left, "height": bottom - top})


if __name__ == "__main__":
    main()
