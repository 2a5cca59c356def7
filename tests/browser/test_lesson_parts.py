"""Live parts of lessons in a real JupyterLab: seen, moved by keys, quick, readable in both themes, and offline."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter

import ptq_lab
from ptq_lab.notebook.widgets.parts import script
from ptq_lab.numerics import QuantSpec, choose_params, dequantize_array, quantize_array
from tests.browser.contrast import CONTRASTS
from tests.browser.lessons import LOAD, open_and_run

pytestmark = pytest.mark.browser

ROOT = Path(ptq_lab.__file__).parent.parent
SCREENS = ROOT / "screens"
CELLS = {
    "number_line": "ptq_lab.lesson.number_line()",
    "handing_on": "ptq_lab.lesson.handing_on()",
    "granularity": "ptq_lab.lesson.granularity()",
    "widths": "ptq_lab.lesson.widths()",
    "inspector": "ptq_lab.inspect('photo_denoiser', 'layer3/Conv (activation)')",
    "pictures": "ptq_lab.lesson.pictures()",
    "classes": "ptq_lab.lesson.pictures('digits_cnn', bits=3)",
}
SLIDERS = {
    "number_line": ["value", "bits", "low", "high"],
    "handing_on": ["first weight", "second weight", "correlation of inputs"],
    "granularity": ["bits"],
    "widths": ["bits"],
    "inspector": ["bits", "threshold", "channel"],
    "pictures": ["weights", "sample", "difference"],
    "classes": ["weights", "sample"],
}
LISTS = {"granularity": ["layer", "draw the grid"], "widths": ["layer"], "inspector": ["tensor"]}
LIMIT = 150  # milliseconds from key press to new words, in the middle of many

PRESSES = """() => {
  window.ptqTimes = [];
  for (const part of document.querySelectorAll(".ptq-lesson")) {
    let pressed = null;
    part.addEventListener("keydown", () => { pressed = performance.now(); }, true);
    new MutationObserver(() => {
      if (pressed === null) return;
      const start = pressed;
      pressed = null;
      requestAnimationFrame(() => window.ptqTimes.push(performance.now() - start));
    }).observe(part.querySelector(".ptq-words"), { childList: true });
  }
}"""


def words_change(page: Any, part: Any, key: str) -> bool:
    """Press a key and tell whether the words of a part follow."""
    words = part.locator(".ptq-words")
    before = words.inner_text()
    page.keyboard.press(key)
    for _ in range(100):
        if words.inner_text() != before:
            return True
        page.wait_for_timeout(30)
    return False


@pytest.mark.parametrize(("theme", "light"), [("Light", "true"), ("Dark", "false")])
def test_every_part_is_seen_and_its_words_can_be_read(visit: Any, lab: Any, theme: str, light: str) -> None:
    lab.set("apputils-extension/themes", {"theme": f"JupyterLab {theme}"})
    page = open_and_run(visit, lab, f"lessons_{theme}.ipynb", list(CELLS.values()), parts=len(CELLS))
    page.wait_for_selector(f"body[data-jp-theme-light='{light}']", state="attached")
    page.wait_for_function("document.querySelectorAll('.ptq-lesson img[src^=blob]').length === 5")
    SCREENS.mkdir(parents=True, exist_ok=True)
    for name, part in zip(CELLS, page.locator(".ptq-lesson").all(), strict=True):
        part.screenshot(path=SCREENS / f"{name}_{theme.lower()}.png")
        assert part.locator(".ptq-words").inner_text().strip(), name
        assert part.locator(".ptq-fault").inner_text() == "", name
    ratios = page.evaluate(CONTRASTS, ".ptq-lesson *")
    assert len(ratios) > 150
    assert not [(ratio, text) for ratio, text in ratios if not ratio >= 4.5]
    assert page.locator(".ptq-stays:visible").count() == 0
    assert visit.foreign == []
    assert visit.errors == []


def test_every_control_has_a_name_and_answers_the_keyboard(visit: Any, lab: Any) -> None:
    page = open_and_run(visit, lab, "lessons_keys.ipynb", list(CELLS.values()), parts=len(CELLS))
    for name, part in zip(CELLS, page.locator(".ptq-lesson").all(), strict=True):
        controls = part.locator("input, select, button").count()
        named = [part.get_by_role("slider", name=each, exact=True) for each in SLIDERS[name]]
        lists = [part.get_by_role("combobox", name=each, exact=True) for each in LISTS.get(name, [])]
        others = part.get_by_role("button").count() + part.get_by_role("checkbox", name="symmetric").count()
        assert controls == len(named) + len(lists) + others, name
        for control in named:
            control.focus()
            middle = control.evaluate("e => Number(e.value) < (Number(e.min) + Number(e.max)) / 2")
            assert words_change(page, part, "ArrowRight" if middle else "ArrowLeft"), (name, control)
            assert control.evaluate("e => e === document.activeElement"), (name, control)
        for control in lists[:1]:
            control.focus()
            assert words_change(page, part, "ArrowUp" if name == "widths" else "ArrowDown"), (name, control)
        assert part.locator("svg[role=img]:not([aria-label])").count() == 0, name
        assert part.locator("img:not([alt])").count() == 0, name
    assert visit.errors == []


def test_boxes_and_buttons_answer_the_keyboard(visit: Any, lab: Any) -> None:
    cells = [CELLS["number_line"], CELLS["inspector"]]
    page = open_and_run(visit, lab, "lessons_buttons.ipynb", cells, parts=2)
    line, inspector = page.locator(".ptq-lesson").all()
    line.get_by_role("checkbox", name="symmetric").focus()
    assert words_change(page, line, "Space")
    assert "zero point 0" in line.locator(".ptq-words").inner_text()
    inspector.get_by_role("button", name="best threshold").focus()
    assert words_change(page, inspector, "Enter")
    best = inspector.locator(".ptq-words p").first.inner_text()
    inspector.get_by_role("button", name="range in use").focus()
    assert words_change(page, inspector, "Enter")
    assert inspector.locator(".ptq-words p").first.inner_text() != best


def test_a_pointer_drags_the_number_and_the_threshold(visit: Any, lab: Any) -> None:
    page = open_and_run(visit, lab, "lessons_drag.ipynb", [CELLS["number_line"], CELLS["inspector"]], parts=2)
    for part, control in zip(page.locator(".ptq-lesson").all(), ("value", "threshold"), strict=True):
        slider = part.get_by_role("slider", name=control, exact=True)
        before = slider.input_value()
        box = part.locator("svg.ptq-drag").bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.3)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.3, steps=4)
        page.mouse.up()
        assert slider.input_value() != before


def test_what_a_key_does_is_on_the_screen_at_once(visit: Any, lab: Any) -> None:
    page = open_and_run(visit, lab, "lessons_speed.ipynb", list(CELLS.values()), parts=len(CELLS))
    medians = {}
    for name, part in zip(CELLS, page.locator(".ptq-lesson").all(), strict=True):
        page.evaluate(PRESSES)
        for control in SLIDERS[name]:
            part.get_by_role("slider", name=control, exact=True).focus()
            for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowLeft", "ArrowRight"):
                words_change(page, part, key)
        medians[name] = statistics.median(page.evaluate("window.ptqTimes"))
    assert max(medians.values()) <= LIMIT, medians


def test_the_number_line_computes_what_numerics_does(visit: Any) -> None:
    rng = np.random.default_rng(7)
    cases = []
    for _ in range(400):
        low, high = -round(float(rng.uniform(0, 3)), 2), round(float(rng.uniform(0.05, 3)), 2)
        symmetric = bool(rng.integers(2))
        values = [*rng.uniform(-3, 3, 5).round(2).tolist(), 0.0, low, high]
        cases.append([low, high, int(rng.integers(1, 9)), symmetric, values])
    visit.page.goto("about:blank")
    source = script("chart", "number_line")
    answers = visit.page.evaluate(
        """async ([source, cases]) => {
          const part = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
          return cases.map(([low, high, bits, symmetric, values]) => {
            const grid = part.gridOf(low, high, bits, symmetric);
            const codes = values.map(value => part.codeOf(value, grid));
            return { grid, codes, back: codes.map(code => part.valueOf(code, grid)) };
          });
        }""",
        [source, cases],
    )
    for (low, high, bits, symmetric, values), answer in zip(cases, answers, strict=True):
        params = choose_params(low, high, QuantSpec(bits=bits, symmetric=symmetric, narrow=symmetric and bits > 1))
        codes = quantize_array(np.array(values, np.float32), params)
        assert answer["grid"]["scale"] == float(params.scale)
        assert answer["grid"]["zeroPoint"] == int(params.zero_point)
        assert (answer["grid"]["qmin"], answer["grid"]["qmax"]) == (params.spec.qmin, params.spec.qmax)
        assert answer["codes"] == codes.tolist()
        assert answer["back"] == dequantize_array(codes, params).tolist()


def executed(lab: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    cells = [nbformat.v4.new_code_cell(text) for text in (LOAD, *CELLS.values())]
    notebook = nbformat.v4.new_notebook(cells=cells)
    where = {"metadata": {"path": str(lab.folder)}}
    NotebookClient(notebook, kernel_name="python3", store_widget_state=False, resources=where).execute()
    return notebook


TWINS = (
    "scale 0.4286",
    "handed on",
    "per block of 3",
    "dB per bit measured",
    "best threshold",
    "against the true picture",
    "place",
)


def test_a_notebook_opened_again_without_its_kernel_still_shows_every_lesson(
    visit: Any, lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = executed(lab, monkeypatch)
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, lab.folder / "lessons_again.ipynb")
    visit.page.goto(f"{lab.url}/lab/tree/lessons_again.ipynb?reset")
    visit.page.wait_for_selector(".ptq-stays", timeout=60_000)
    assert visit.page.locator(".ptq-lesson").count() == 0
    shown = visit.page.locator(".ptq-stays:visible")
    assert shown.count() == len(CELLS)
    for words, twin in zip(TWINS, shown.all(), strict=True):
        assert words in twin.inner_text()
    assert visit.foreign == []


def test_an_exported_page_shows_every_lesson_offline(
    visit: Any, lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, _ = HTMLExporter(template_name="basic").from_notebook_node(executed(lab, monkeypatch))
    (tmp_path / "lessons.html").write_text(page)
    visit.page.goto((tmp_path / "lessons.html").as_uri())
    shown = visit.page.locator(".ptq-stays:visible")
    assert shown.count() == len(CELLS)
    for words, twin in zip(TWINS, shown.all(), strict=True):
        assert words in twin.inner_text()
    assert visit.page.locator(".ptq-stays img").count() == 5
    assert visit.foreign == []
