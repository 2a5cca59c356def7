"""The configuration editor without a page: form and text say the same, problems are those of ``ptq-lab check``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import ptq_lab
from ptq_lab import ConfigEditor
from ptq_lab.checking import check
from ptq_lab.config import TEMPLATES, template
from ptq_lab.config.options import GROUPS
from ptq_lab.notebook.widgets.parts import script

TEXT = "[common_quant_param]\nquant_type=WEIGHT_QUANT\nbit_num=4\nmin_quant_weight_channel=0\n"


def say(editor: ConfigEditor, do: str, **more: Any) -> dict[str, Any]:
    editor.answer({"do": do, "seq": "1", **more})
    return dict(editor.said)


def put(editor: ConfigEditor, name: str, value: str | None) -> None:
    section, _, key = name.rpartition(".")
    say(editor, "put", section=section, key=key, value=value)


def test_the_form_has_every_declared_option_and_nothing_else() -> None:
    shown = {(section["name"], option["key"]) for section in ConfigEditor().form for option in section["options"]}
    assert shown == {(section, key) for section, group in GROUPS.items() for key in group.options()}


def test_editing_the_form_changes_the_text_and_keeps_comments() -> None:
    editor = ConfigEditor("# mine\n[common_quant_param]\nquant_type=WEIGHT_QUANT  # why\n")
    put(editor, "common_quant_param.bit_num", "4")
    put(editor, "mixed_bit_weight_quant_param.init_scale", "0.05")
    assert editor.text == (
        "# mine\n[common_quant_param]\nquant_type=WEIGHT_QUANT  # why\nbit_num=4\n"
        "\n[mixed_bit_weight_quant_param]\ninit_scale=0.05\n"
    )
    assert editor.state["values"]["common_quant_param.bit_num"] == "4"
    put(editor, "mixed_bit_weight_quant_param.init_scale", None)
    put(editor, "common_quant_param.bit_num", "")
    assert "init_scale" not in editor.text
    assert "bit_num" not in editor.state["values"]


def test_editing_the_text_changes_the_form_and_what_applies() -> None:
    editor = ConfigEditor(TEXT)
    assert editor.state["blocked"]["full_quant_param"] == "needs quant_type=FULL_QUANT"
    say(editor, "text", text=TEXT.replace("WEIGHT_QUANT", "FULL_QUANT").replace("=4", "=8"))
    assert editor.state["values"]["common_quant_param.quant_type"] == "FULL_QUANT"
    assert "full_quant_param" not in editor.state["blocked"]
    assert editor.state["blocked"]["weight_quant_param"] == "needs quant_type=WEIGHT_QUANT"
    assert editor.state["seq"] == "1"


@pytest.mark.parametrize(
    "text",
    ["", "x", "x=1\n", "[", "[a\n", "[common_quant_param]\nbit_num=\n", "[common_quant_param]\nbit_num=99\nquant=3\n",
     TEXT * 2, "\ufeff" + TEXT.replace("\n", "\r\n"), "[ptq_lab.nothing]\nx=1\n", "ünïcode=☃\n",
     *map(template, TEMPLATES)],
)  # fmt: skip
def test_problems_are_exactly_those_of_check(text: str) -> None:
    editor = ConfigEditor(text)
    expected = check(text if "\n" in text else f"{text}\n")
    assert editor.problems == expected
    assert [problem["text"] for problem in editor.state["problems"]] == [str(problem) for problem in expected]


def test_names_are_checked_against_the_model_and_the_model_is_read_once(
    model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ptq_lab.notebook.widgets import editor as module

    reads = []
    load = module.load_model
    monkeypatch.setattr(module, "load_model", lambda source: reads.append(source) or load(source))
    editor = ConfigEditor(f"{TEXT}skip_quant_node=/d/Conv\n", model_file)
    assert any(problem.key == "skip_quant_node" for problem in editor.problems)
    put(editor, "common_quant_param.skip_quant_node", "/c/Conv")
    assert not editor.problems
    assert len(reads) == 1


def test_a_broken_model_is_said_beside_its_path_and_the_text_is_still_checked(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    editor = ConfigEditor("[common_quant_param]\nbit_num=99\n", tmp_path / "broken.onnx")
    assert "broken.onnx" in editor.state["model"]
    assert editor.problems
    said = say(editor, "run")
    assert said["bad"]
    assert "\n" not in said["text"]


def test_run_quantizes_keeps_the_result_and_reports(tmp_path: Path) -> None:
    demo = ptq_lab.demo.load("digits_cnn")
    editor = ConfigEditor(TEXT, demo.model_path, samples=demo.calib_path, output=tmp_path / "q.onnx")
    said = say(editor, "run")
    assert not said.get("bad")
    assert "done in" in said["text"]
    assert editor.result is not None
    assert editor.result.model_path == tmp_path / "q.onnx"
    assert {entry.bits for entry in editor.result.plan.entries} == {4}


@pytest.mark.parametrize(
    ("text", "model", "says"),
    [
        (TEXT, None, "no model is named"),
        (TEXT, "nowhere.onnx", "nowhere.onnx"),
        ("[common_quant_param]\nquant_type=WEIGHT\nbit_num=77\n", "nowhere.onnx", "WEIGHT_QUANT"),
    ],
)
def test_a_run_that_cannot_be_is_refused_in_one_line(text: str, model: str | None, says: str) -> None:
    editor = ConfigEditor(text, model)
    said = say(editor, "run")
    assert said["bad"]
    assert says in said["text"]
    assert "\n" not in said["text"]
    assert editor.result is None


def test_a_message_that_makes_no_sense_harms_nothing() -> None:
    editor = ConfigEditor(TEXT)
    for message in ({}, {"do": "close"}, {"do": "text"}, {"do": "put"}, {"do": "text", "text": "x" * 300_000}):
        editor.answer(message)
        assert editor.said["bad"]
        assert editor.text == TEXT


def test_a_value_with_a_line_break_stays_on_its_line() -> None:
    editor = ConfigEditor(TEXT)
    put(editor, "common_quant_param.skip_quant_node", "a\n[ptq_lab]\neffort=best")
    assert "effort" not in editor.state["values"].get("ptq_lab.effort", "")
    assert editor.text.count("\n") == TEXT.count("\n") + 1


def test_closing_during_a_run_breaks_nothing(tmp_path: Path) -> None:
    demo = ptq_lab.demo.load("digits_cnn")
    editor = ConfigEditor(TEXT, demo.model_path, output=tmp_path / "q.onnx")
    editor.observe(lambda _: editor.close(), names=["said"])
    say(editor, "run")
    assert editor.result is not None
    assert (tmp_path / "q.onnx").exists()


def test_its_state_is_small() -> None:
    editor = ConfigEditor(template("weight"))
    put(editor, "common_quant_param.bit_num", "99")
    assert len(json.dumps(editor.get_state(), default=str).encode()) < 50_000
    assert len(script("editor").encode()) < 20_000


def test_the_magic_starts_from_a_template_and_leaves_the_editor_in_the_variable(shell: Any) -> None:
    outputs = shell.outputs_of("%quantize_form demo.model_path --template full --samples demo.calib_path -r editor")
    editor = shell.user_ns["editor"]
    assert editor.text == template("full")
    assert editor.first_line == "%%quantize demo.model_path --samples demo.calib_path"
    bundles = [output.data for output in outputs]
    assert any("application/vnd.jupyter.widget-view+json" in bundle for bundle in bundles)
    twin = next(bundle["text/html"] for bundle in bundles if "ptq-stays" in bundle.get("text/html", ""))
    assert "quant_type=FULL_QUANT" in twin
    assert "<script" not in twin


def test_the_cell_it_hands_out_runs(shell: Any) -> None:
    shell.outputs_of("%quantize_form demo.model_path --samples demo.calib_path -r editor")
    editor = shell.user_ns["editor"]
    shell.outputs_of(f"{editor.first_line} --quiet -r result\n{editor.text}")
    assert shell.user_ns["result"].plan.entries


def test_editing_the_form_survives_saving_the_text_as_a_file(shell: Any, tmp_path: Path) -> None:
    (tmp_path / "c.cfg").write_text(TEXT)
    shell.outputs_of("%quantize_form --config c.cfg -r editor")
    editor = shell.user_ns["editor"]
    assert editor.text == TEXT
    editor.text = TEXT.replace("4", "6")
    assert ptq_lab.load_config(editor.text).common.bit_num == 6


def test_a_wrong_line_shows_how_to_write_it(shell: Any) -> None:
    from IPython.core.error import UsageError

    for line in ("%quantize_form --template x", "%quantize_form --template full --config c.cfg", "%quantize_explore",
                 "%quantize_explore m.onnx -r 1x", "%quantize_form 'a"):  # fmt: skip
        with pytest.raises(UsageError, match=r"usage: %quantize_"):
            shell.outputs_of(line)
