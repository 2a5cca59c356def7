"""The editor extension in real front ends: a configuration is a language there, and nothing else is disturbed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.browser.conftest import Visit

pytestmark = pytest.mark.browser

MAGIC = "%%quantize model.onnx\n"
CONFIG = "[common_quant_param]\nquant_type=WEIGHT_QUANT\nbit_num=4\n"
PYTHON = "x = 1  # bit_num=80\n[common_quant_param] = [x]\n"

# The panel of the notebook, and the editor of one of its cells.
SETUP = """() => {
  const app = window.jupyterapp;
  window.panel = () => app.shell.currentWidget;
  window.cell = index => panel().content.widgets[index];
  window.view = index => cell(index).editor.editor;
  window.fill = (index, text, at) => {
    cell(index).model.sharedModel.setSource(text);
    panel().content.activeCellIndex = index;
    panel().content.mode = 'edit';
    cell(index).editor.focus();
    const position = at ?? view(index).state.doc.length;
    view(index).dispatch({ selection: { anchor: position } });
  };
}"""
READY = "window.jupyterapp?.shell?.currentWidget?.content?.widgets?.[1]?.editor?.editor !== undefined"
LANGUAGE = "index => view(index).contentDOM.getAttribute('data-language')"
LINTS = "index => [...view(index).dom.querySelectorAll('.cm-lintRange')].map(e => e.textContent)"


class Book:
    """An open notebook with a cell for configurations and one for Python."""

    def __init__(self, visit: Visit, front: Any) -> None:
        self.visit, self.page, self.front = visit, visit.page, front

    def open(self, name: str) -> None:
        cells = [nbformat.v4.new_code_cell(MAGIC + CONFIG), nbformat.v4.new_code_cell(PYTHON)]
        notebook = nbformat.v4.new_notebook(cells=cells)
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, self.front.folder / name)
        self.page.goto(self.front.page(name))
        self.page.wait_for_function(READY, timeout=60_000)
        self.page.evaluate(SETUP)

    def fill(self, text: str, *, cell: int = 0, at: int | None = None) -> None:
        self.page.evaluate("([cell, text, at]) => fill(cell, text, at)", [cell, text, at])

    def text(self, cell: int = 0) -> str:
        return str(self.page.evaluate("cell => view(cell).state.doc.toString()", cell))

    def language(self, cell: int = 0) -> str:
        return str(self.page.evaluate(LANGUAGE, cell))

    def wait_for_language(self, language: str, cell: int = 0) -> None:
        self.page.wait_for_function(f"([cell, name]) => ({LANGUAGE})(cell) === name", arg=[cell, language])

    def wait_for_lints(self, expected: list[str], cell: int = 0) -> None:
        found = f"([cell, texts]) => JSON.stringify(({LINTS})(cell)) === texts"
        text = json.dumps(expected, separators=(",", ":"), ensure_ascii=False)
        try:
            self.page.wait_for_function(found, arg=[cell, text], timeout=5_000)
        except Exception:  # tell what was found instead of a time-out
            assert self.page.evaluate(LINTS, cell) == expected

    def complete(self) -> list[str]:
        """Ask for completion at the cursor and return what is offered."""
        kind = "notebook" if self.page.evaluate("!!panel().content.widgets") else "file"
        self.page.evaluate(f"window.jupyterapp.commands.execute('completer:invoke-{kind}')")
        self.page.wait_for_selector(".jp-Completer:not(.lm-mod-hidden) .jp-Completer-item")
        labels = self.page.locator(".jp-Completer:not(.lm-mod-hidden) .jp-Completer-match").all_inner_texts()
        return [str(label) for label in labels]


@pytest.fixture(scope="module")
def book(browser: Any, front: Any) -> Iterator[Book]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    visit = Visit(page=context.new_page())
    visit.allow_loopback_only()
    visit.collect_console_errors()
    made = Book(visit, front)
    made.open("editor.ipynb")
    yield made
    assert visit.foreign == []
    assert visit.errors == []
    context.close()


def test_a_magic_cell_is_highlighted_and_the_python_cell_beside_it_is_not_touched(book: Book) -> None:
    book.fill(MAGIC + CONFIG)
    book.wait_for_language("ptq-ini")
    book.wait_for_language("python", 1)
    colours = book.page.evaluate(
        """() => [...view(0).contentDOM.querySelectorAll('.cm-line')].slice(0, 3)
          .map(line => getComputedStyle(line.querySelector('span') ?? line).color)"""
    )
    assert len(set(colours)) == 3  # magic, section, key
    assert book.page.evaluate(LINTS, 1) == []


def test_a_cell_follows_its_first_line_to_python_and_back(book: Book) -> None:
    book.fill(MAGIC + "bit_nums=1\n")
    book.wait_for_language("ptq-ini")
    book.fill("print(1)\nbit_nums=1\n")
    book.wait_for_language("python")
    book.wait_for_lints([])
    book.fill("\n" + MAGIC + CONFIG + "bit_nums=1\n")
    book.wait_for_language("ptq-ini")
    book.wait_for_lints(["bit_nums"])
    book.fill("%%writefile some.cfg\n" + CONFIG + "bit_nums=1\n")
    book.wait_for_lints(["bit_nums"])
    book.fill("%%writefile setup.cfg\n[metadata]\nname=x\n")
    book.wait_for_language("ptq-ini")
    book.wait_for_lints([])


def test_problems_are_underlined_while_typing_and_a_fix_is_one_click(book: Book) -> None:
    book.fill(MAGIC + "[common_quant_param]\nquant_type=WEIGHT_QUANT\nbit_nums=8\n")
    book.wait_for_lints(["bit_nums"])
    book.page.hover(".cm-lintRange-error")
    tip = book.page.locator(".cm-tooltip-lint")
    tip.wait_for()
    assert "[common_quant_param] bit_nums: unknown option; did you mean bit_num?" in tip.inner_text()
    book.page.get_by_role("button", name="Replace with bit_num").click()
    assert book.text().endswith("bit_num=8\n")
    book.wait_for_lints([])


def test_a_fix_is_a_key_away(book: Book) -> None:
    text = MAGIC + "[common_quant_param]\nquant_type=weight_quant"
    book.fill(text)
    book.wait_for_lints(["weight_quant"])
    book.page.keyboard.press("Alt+.")
    book.page.wait_for_function("view(0).state.doc.toString().endsWith('quant_type=WEIGHT_QUANT')")


def test_completion_offers_sections_keys_and_values_with_documentation(book: Book) -> None:
    book.fill(MAGIC + "[")
    sections = book.complete()
    assert {"common_quant_param", "ptq_lab.mixed_bit", "ptq_lab.layer_bits"} <= set(sections)
    book.page.keyboard.press("Escape")
    book.fill(MAGIC + "[common_quant_param]\nquant_type=WEIGHT_QUANT\nb")
    assert book.complete()[0] == "bit_num"
    book.page.wait_for_selector(".jp-Completer-docpanel")
    assert "Bits per weight" in book.page.locator(".jp-Completer-docpanel").inner_text()
    book.page.keyboard.press("Enter")
    book.page.wait_for_function("view(0).state.doc.toString().endsWith('bit_num=')")
    book.fill(MAGIC + "[common_quant_param]\nquant_type=")
    assert book.complete()[:3] == ["WEIGHT_QUANT", "FULL_QUANT", "DYNAMIC_QUANT"]
    book.page.keyboard.press("Escape")


def test_a_whole_configuration_is_one_completion(book: Book) -> None:
    book.fill(MAGIC + "mix")
    assert book.complete()[0] == "mixed (a whole configuration)"
    book.page.keyboard.press("Enter")
    book.page.wait_for_function("view(0).state.doc.toString().includes('[mixed_bit_weight_quant_param]')")
    book.wait_for_lints([])


def test_python_cells_get_no_completion_of_ours(book: Book) -> None:
    book.page.keyboard.press("Escape")
    book.fill("import sys\nsy", cell=1)
    labels = book.page.evaluate(
        """async () => {
          window.jupyterapp.commands.execute('completer:invoke-notebook');
          await new Promise(done => setTimeout(done, 1500));
          const shown = document.querySelectorAll('.jp-Completer:not(.lm-mod-hidden) .jp-Completer-match');
          return [...shown].map(each => each.textContent);
        }"""
    )
    assert not any("quant_param" in label or "configuration" in label for label in labels)
    book.page.keyboard.press("Escape")
    book.fill(PYTHON, cell=1)


def test_the_pointer_on_a_key_explains_it(book: Book) -> None:
    book.fill(MAGIC + CONFIG)
    book.wait_for_language("ptq-ini")
    place = book.page.evaluate(
        "() => { const box = view(0).coordsAtPos(view(0).state.doc.line(4).from + 2); return [box.left, box.top + 4]; }"
    )
    book.page.mouse.move(5, 5)
    book.page.mouse.move(*place, steps=5)
    tip = book.page.locator(".ptq-hover")
    tip.wait_for()
    text = tip.inner_text()
    assert "0..16" in text
    assert "Default" in text
    assert "Bits per weight" in text
    book.page.mouse.move(5, 5)


def test_lines_are_commented_out_with_a_hash(book: Book) -> None:
    book.fill(MAGIC + CONFIG)
    book.page.keyboard.press("Control+/")
    book.fill(MAGIC + "bit_num=4")
    book.page.keyboard.press("Control+/")
    assert book.text() == MAGIC + "# bit_num=4"
    book.page.keyboard.press("Control+/")
    assert book.text() == MAGIC + "bit_num=4"


def test_a_section_can_be_folded(book: Book) -> None:
    book.fill(MAGIC + CONFIG + "\n[weight_quant_param]\nper_channel=true\n", at=len(MAGIC) + 3)
    book.wait_for_language("ptq-ini")
    book.page.locator(".cm-foldGutter span[title='Fold line']:visible").first.click()
    book.page.wait_for_selector(".cm-foldPlaceholder")
    shown = book.page.evaluate("view(0).contentDOM.innerText")
    assert "quant_type" not in shown
    assert "per_channel" in shown
    book.page.locator(".cm-foldPlaceholder").click()


def test_odd_text_is_checked_without_an_error(book: Book) -> None:
    book.fill(MAGIC + "[common_quant_param]\nquant_type=WEIGHT_QUANT\nbit_num=\U0001f600\n")
    book.wait_for_lints(["\U0001f600"])
    book.fill(MAGIC + "[common_quant_param]\nquant_type=WEIGHT_QUANT\n[mixed_bit_wei", at=5)
    book.wait_for_lints(["[", "mixed_bit_we", "i"])  # no bracket at the end, and an unknown name in between
    lines = "".join(f"bit_nums{number}=1\n" for number in range(5000))
    book.fill(MAGIC + "[common_quant_param]\n" + lines, at=30)
    book.page.wait_for_selector(".cm-lintRange-error")
    book.fill(MAGIC + CONFIG)
    book.wait_for_lints([])


def test_a_key_press_is_checked_within_a_tenth_of_a_second_and_python_is_not_slowed(book: Book) -> None:
    body = "".join(f"# {number}\nskip_quant_node=node_{number}\n" for number in range(98))
    book.fill(MAGIC + CONFIG + body)
    book.wait_for_language("ptq-ini")
    book.page.wait_for_selector(".cm-lintRange-warning")
    times = book.page.evaluate(TYPING)
    assert sorted(times["lint"])[len(times["lint"]) // 2] <= 100
    # What the extension adds to a key press in a Python cell is one look at the first line.
    assert times["python"] < 8


TYPING = """async () => {
  const editor = view(0);
  const lint = [];
  for (let round = 0; round < 5; round++) {
    const end = editor.state.doc.length;
    const start = performance.now();
    editor.dispatch({ changes: { from: end, insert: `bad_key${round}=1\\n` }, userEvent: 'input.type' });
    while (![...editor.dom.querySelectorAll('.cm-lintRange-error')].some(e => e.textContent === `bad_key${round}`)) {
      await new Promise(done => setTimeout(done, 2));
      if (performance.now() - start > 3000) break;
    }
    lint.push(performance.now() - start);
    editor.dispatch({ changes: { from: end, to: editor.state.doc.length } });
    await new Promise(done => setTimeout(done, 150));
  }
  const python = view(1);
  const start = performance.now();
  for (let key = 0; key < 200; key++) {
    python.dispatch({ changes: { from: 0, insert: 'x' }, userEvent: 'input.type' });
  }
  const each = (performance.now() - start) / 200;
  python.dispatch({ changes: { from: 0, to: 200 } });
  return { lint, python: each };
}"""


FILE_MODEL = "window.jupyterapp.shell.currentWidget.content.editor.model"
FILE_TYPES = {"PTQ config": "text/x-ptq-config", "TTCN_CFG": "text/x-ttcn-cfg"}  # the latter is Lab's idea of .cfg


@pytest.fixture
def page(browser: Any, front: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    visit = Visit(page=context.new_page())
    visit.allow_loopback_only()
    visit.collect_console_errors()
    yield visit.page
    assert visit.foreign == []
    assert visit.errors == []
    context.close()


def test_a_configuration_file_gets_the_same_services(page: Any, front: Any) -> None:
    (front.folder / "some.cfg").write_bytes((CONFIG + "bit_nums=1\n").replace("\n", "\r\n").encode())
    page.goto(front.page("some.cfg"))
    page.wait_for_selector(".cm-content[data-language=ptq-ini]", timeout=60_000)
    page.wait_for_selector(".cm-lintRange-error")
    assert page.locator(".cm-lintRange-error").inner_text() == "bit_nums"


def test_a_configuration_has_a_type_and_a_name_of_its_own_as_long_as_it_is_one(page: Any, front: Any) -> None:
    (front.folder / "named.cfg").write_text(CONFIG)
    page.goto(front.page("named.cfg"))
    page.wait_for_selector(".cm-content[data-language=ptq-ini]", timeout=60_000)
    bar = page.locator("#jp-main-statusbar .jp-StatusBar-Item")
    for text, name in ((CONFIG, "PTQ config"), ("[metadata]\nname=x\n", "TTCN_CFG"), ("[ptq_lab]\n", "PTQ config")):
        page.evaluate(f"text => {FILE_MODEL}.sharedModel.setSource(text)", text)
        page.wait_for_function(f"type => {FILE_MODEL}.mimeType === type", arg=FILE_TYPES[name])
        if front.app == "lab":  # the other front end has no such bar
            bar.filter(has_text=name).wait_for()


def test_a_file_of_another_program_is_left_alone(page: Any, front: Any) -> None:
    (front.folder / "setup.cfg").write_text("[metadata]\nname = x\nbit_nums=1\n")
    page.goto(front.page("setup.cfg"))
    page.wait_for_selector(".jp-FileEditor .cm-content[data-language]", timeout=60_000)
    page.wait_for_timeout(1000)
    assert page.locator(".jp-FileEditor .cm-content").first.get_attribute("data-language") != "ptq-ini"
    assert page.locator(".cm-lintRange").count() == 0


def test_a_model_shows_what_it_is_made_of_and_how_it_is_quantized(page: Any, front: Any, quantized: Path) -> None:
    (front.folder / "q.onnx").write_bytes(quantized.read_bytes())
    page.goto(front.page("q.onnx"))
    page.wait_for_selector(".ptq-onnx table", timeout=60_000)
    text = page.locator(".ptq-onnx").inner_text()
    assert "by ptq_lab" in text
    assert "stem/weight" in text
    assert "Opset" in text
    assert "input" in text


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import ptq_lab

    path = tmp_path_factory.mktemp("quantized") / "q.onnx"
    ptq_lab.quantize(ptq_lab.demo.load("digits_cnn").model_path, CONFIG, path)
    return path


def test_a_corrupt_model_gets_one_clear_line(page: Any, front: Any, quantized: Path) -> None:
    data = quantized.read_bytes()
    (front.folder / "cut.onnx").write_bytes(data[: len(data) // 2])
    page.goto(front.page("cut.onnx"))
    error = page.locator(".ptq-onnx-error")
    error.wait_for(timeout=60_000)
    assert "not a complete ONNX model" in error.inner_text()


def test_a_model_of_three_gigabytes_is_not_loaded(page: Any, front: Any) -> None:
    with (front.folder / "huge.onnx").open("wb") as file:
        file.truncate(3 * 10**9)  # no bytes are written
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/files/" in request.url else None)
    page.goto(front.page("huge.onnx"))
    stub = page.locator(".ptq-onnx-stub")
    stub.wait_for(timeout=60_000)
    assert "3,000 MB" in stub.inner_text()
    assert asked == []
    page.get_by_role("button", name="Read the summary").click()
    page.locator(".ptq-onnx-error").wait_for()
    (front.folder / "huge.onnx").unlink()
