"""Commands, launcher, settings and the way from a widget into a cell, in real front ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ptq_lab
from ptq_lab.config import check_config, template
from tests.browser.conftest import Visit
from tests.browser.test_editor import CONFIG, LINTS, MAGIC, PYTHON, Book

pytestmark = pytest.mark.browser

IDLE = "panel().sessionContext.session?.kernel?.status === 'idle'"
SHUT_DOWN = "panel().sessionContext.shutdown()"
SEND = """text => panel().sessionContext.session.kernel.requestExecute({ code:
  `from comm import create_comm\\ncreate_comm(target_name='ptq_lab.cell', data={'text': ${JSON.stringify(text)}})`
}).done.then(() => undefined)"""


@pytest.fixture
def book(browser: Any, front: Any, request: pytest.FixtureRequest) -> Iterator[Book]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    visit = Visit(page=context.new_page())
    visit.allow_loopback_only()
    visit.collect_console_errors()
    made = Book(visit, front)
    made.open(f"{abs(hash(request.node.name))}.ipynb")
    yield made
    assert visit.foreign == []
    assert visit.errors == []
    context.close()


def run(book: Book, command: str, arguments: dict[str, Any] | None = None) -> Any:
    code = "([name, args]) => window.jupyterapp.commands.execute(name, args).then(() => undefined)"
    return book.page.evaluate(code, [command, arguments or {}])


def test_everything_works_without_a_kernel(book: Book) -> None:
    book.page.wait_for_function(IDLE, timeout=60_000)
    book.page.evaluate(SHUT_DOWN)
    book.fill(MAGIC + "[common_quant_param]\nquant_type=WEIGHT_QUANT\nbit_nums=3\nenable_encode=")
    assert book.complete() == ["true", "false"]
    book.page.keyboard.press("Escape")
    book.fill(MAGIC + "[common_quant_param]\nquant_type=WEIGHT_QUANT\nbit_nums=3\n")
    book.wait_for_lints(["bit_nums"])


def test_a_template_goes_into_a_new_cell_and_has_no_problems(book: Book) -> None:
    for kind in ("weight", "mixed", "full", "dynamic"):
        book.page.evaluate("panel().content.activeCellIndex = 0")
        run(book, "ptq-lab:insert-template", {"kind": kind})
        book.page.wait_for_function("cell(1)?.editor?.editor.state.doc.toString().startsWith('%%quantize')")
        assert template(kind).rstrip() in book.text(1)
        book.wait_for_language("ptq-ini", 1)


def test_a_widget_of_the_kernel_writes_into_the_active_magic_cell_and_never_into_python(book: Book) -> None:
    book.page.wait_for_function(IDLE, timeout=60_000)
    book.fill("%%quantize mine.onnx -r r\n" + CONFIG)
    book.page.evaluate(SEND, "[common_quant_param]\nquant_type=FULL_QUANT\n")
    book.page.wait_for_function("view(0).state.doc.toString().includes('FULL_QUANT')")
    assert book.text() == "%%quantize mine.onnx -r r\n[common_quant_param]\nquant_type=FULL_QUANT\n"
    book.page.evaluate("panel().content.activeCellIndex = 1")
    book.page.evaluate(SEND, "[common_quant_param]\nquant_type=DYNAMIC_QUANT\n")
    book.page.wait_for_function("panel().content.widgets.length === 3")
    assert book.text(1) == PYTHON
    book.page.wait_for_function("cell(2)?.editor?.editor.state.doc.toString().includes('DYNAMIC_QUANT')")


def test_a_model_is_quantized_in_a_new_notebook(book: Book) -> None:
    run(book, "ptq-lab:quantize-in-notebook", {"path": "my model.onnx"})
    path = book.front.folder / "my model_quantize.ipynb"
    cells = json.loads(path.read_text())["cells"]
    text = "".join(cells[1]["source"])
    assert text.startswith('%%quantize "my model.onnx" -o "my model_quantized.onnx" -r result\n')
    assert check_config(text.split("\n", 1)[1]) == ()
    path.unlink()


def test_the_quickstart_notebook_is_opened_as_a_copy(book: Book) -> None:
    run(book, "ptq-lab:quickstart", {"cwd": ""})
    run(book, "ptq-lab:quickstart", {"cwd": ""})
    made = sorted(file.name for file in book.front.folder.glob("ptq_quickstart*.ipynb"))
    assert made == ["ptq_quickstart.ipynb", "ptq_quickstart_2.ipynb"]
    source = json.loads((Path(ptq_lab.__file__).parents[1] / "notebooks" / "01_quickstart.ipynb").read_text())
    copied = json.loads((book.front.folder / made[0]).read_text())
    texts = [["".join(cell["source"]) for cell in each["cells"]] for each in (copied, source)]
    assert texts[0] == texts[1]
    for name in made:
        (book.front.folder / name).unlink()


def test_the_launcher_has_a_tile(book: Book) -> None:
    if book.front.app != "lab":
        pytest.skip("Notebook has no launcher")
    book.page.evaluate("window.jupyterapp.commands.execute('launcher:create').then(() => undefined)")
    book.page.wait_for_selector(".jp-LauncherCard:has-text('PTQ quickstart')")


def test_a_report_that_is_not_there_is_named(book: Book) -> None:
    run(book, "ptq-lab:open-report", {"path": "nowhere/report.html"})
    book.page.wait_for_selector("text=there is no report nowhere/report.html")


def test_a_report_opens(book: Book) -> None:
    (book.front.folder / "report.html").write_text("<p>a report</p>")
    with book.page.expect_response("**/report.html*"):
        book.page.evaluate(
            "() => { window.jupyterapp.commands.execute('ptq-lab:open-report', { path: 'report.html' }); }"
        )


def test_each_feature_can_be_switched_off(book: Book) -> None:
    book.fill(MAGIC + "bit_nums=1\n")
    book.wait_for_language("ptq-ini")
    book.page.wait_for_selector(".cm-lintRange")
    off = dict.fromkeys(("language", "completion", "hover", "lint", "launcher", "cells"), False)
    url = f"{book.front.url}/lab/api/settings/ptq-lab:plugin"
    try:
        book.page.request.put(url, data=json.dumps({"raw": json.dumps(off)}))
        book.open("off.ipynb")
        book.fill(MAGIC + "bit_nums=1\n")
        book.page.wait_for_timeout(800)
        assert book.language() != "ptq-ini"
        assert book.page.evaluate(LINTS, 0) == []
    finally:
        book.page.request.put(url, data=json.dumps({"raw": "{}"}))
