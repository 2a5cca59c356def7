"""Live parts of lessons on the kernel's side: their states, their answers, and their twins without scripts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ptq_lab import lesson
from ptq_lab.notebook.lessons import KINDS, lesson_bundle
from ptq_lab.notebook.widgets import lessons as parts

VIEW = "application/vnd.jupyter.widget-view+json"
LESSONS: dict[str, Callable[[], Any]] = {
    "number line": lesson.number_line,
    "granularity": lesson.granularity,
    "widths": lesson.widths,
    "inspector": lambda: lesson.inspect("digits_cnn", "block1/depthwise/Conv"),
    "inspector of an activation": lambda: lesson.inspect("photo_denoiser", "layer3/Conv (activation)"),
    "pictures": lesson.pictures,
    "classes": lambda: lesson.pictures("digits_cnn"),
}
every_lesson = pytest.mark.parametrize("begin", LESSONS.values(), ids=LESSONS)


def part_of(made: Any) -> Any:
    return getattr(parts, KINDS[type(made)].part)(made)


@every_lesson
def test_script_and_state_of_a_part_stay_small(begin: Any) -> None:
    part = part_of(begin())
    assert len(part._esm.encode()) < 20_000
    assert len(json.dumps(part.get_state(), default=str).encode()) <= 50_000


@every_lesson
def test_a_lesson_stays_readable_without_scripts(begin: Any) -> None:
    made = begin()
    bundle = lesson_bundle(made)
    assert set(bundle) == {"text/plain", "text/html"}
    assert "<script" not in bundle["text/html"]
    assert len(bundle["text/html"]) < 100_000
    assert bundle["text/plain"] == str(made)


def test_granularity_answers_every_width_of_every_layer() -> None:
    part = part_of(lesson.granularity("digits_cnn"))
    for serial, (tensor, _) in enumerate(part.layers[:4]):
        part.choice = {"layer": tensor, "bits": 2 + serial, "serial": serial + 1}
        assert (part.view["layer"], part.view["bits"], part.view["serial"]) == (tensor, 2 + serial, serial + 1)
        assert len(json.dumps(part.get_state(), default=str)) < 50_000


def test_the_inspector_answers_a_tensor_a_width_and_a_channel() -> None:
    part = part_of(lesson.inspect("digits_cnn"))
    tensor = part.layers[-1][0]
    part.choice = {"tensor": tensor, "bits": 3, "channel": 2, "serial": 1}
    assert (part.view["tensor"], part.view["bits"], part.view["channel"]) == (tensor, 3, 2)
    assert len(part.view["thresholds"]) == 100
    part.choice = {"tensor": part.layers[0][0], "bits": None, "channel": -1, "serial": 2}
    assert part.view["bits"] == 8


def test_a_model_with_many_tensors_offers_those_around_the_first_choice() -> None:
    names = tuple((f"tensor{at}", f"node{at} (weight)") for at in range(1000))
    for first in (0, 500, 999):
        menu = parts._menu(names, f"tensor{first}")
        assert len(menu) == parts.MENU
        assert [f"tensor{first}", f"node{first} (weight)"] in menu
    assert len(parts._menu(names[:5], "tensor3")) == 5


def test_a_question_that_cannot_be_answered_is_answered_with_the_reason() -> None:
    part = part_of(lesson.inspect("digits_cnn"))
    part.choice = {"tensor": part.layers[0][0], "bits": 4, "channel": 10_000, "serial": 1}
    assert "no channel 10000" in part.view["error"]
    part.choice = {"tensor": part.layers[0][0], "bits": 4, "channel": 0, "serial": 2}
    assert "error" not in part.view


def test_pictures_travel_as_messages_and_never_as_state(monkeypatch: pytest.MonkeyPatch) -> None:
    part = part_of(lesson.pictures())
    sent: list[tuple[dict[str, Any], list[bytes]]] = []
    monkeypatch.setattr(part, "send", lambda content, buffers=(): sent.append((content, list(buffers))))
    before = json.dumps(part.get_state(), default=str)
    part._on_question(part, {"sample": 1, "variant": "3", "factor": 16}, [])
    part._on_question(part, {"sample": 999, "variant": "3", "factor": 16}, [])
    (content, buffers), (refusal, nothing) = sent
    assert (content["sample"], content["factor"], len(buffers)) == (1, 16, 4)
    assert all(png.startswith(b"\x89PNG") for png in buffers)
    assert "no sample 999" in refusal["error"]
    assert nothing == []
    assert json.dumps(part.get_state(), default=str) == before


def test_a_cell_shows_the_live_part_and_its_twin_as_two_outputs(shell: Any) -> None:
    *_, live, twin = shell.outputs_of("import ptq_lab\nptq_lab.lesson.number_line(0.7)")
    assert VIEW in live.data
    assert "text/html" not in live.data
    assert 'class="ptq-stays"' in twin.data["text/html"]
    assert "scale 0.4286" in twin.data["text/html"]
    assert "scale 0.4286" in twin.data["text/plain"]


def test_unloading_the_extension_takes_the_live_parts_away(shell: Any) -> None:
    shell.outputs_of("%unload_ext ptq_lab")
    *_, plain = shell.outputs_of("import ptq_lab\nptq_lab.lesson.number_line(0.7)")
    assert VIEW not in plain.data


def test_a_real_kernel_publishes_a_view_of_a_widget_and_text_below_it(kernel: Any) -> None:
    answer = kernel.run("ptq_lab.inspect(demo, 'block1/depthwise/Conv')")
    assert answer.status == "ok"
    live, twin = answer.bundles
    assert VIEW in live
    assert "best threshold" in twin["text/plain"]
    assert "comm_open" in answer.messages
