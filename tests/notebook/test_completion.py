"""Tab in cells of ours: sections, keys, values, names of the model, options of the line; and nothing of Python."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.completer import provisionalcompleter

from ptq_lab import demo
from ptq_lab.notebook.completion import Completer
from tests import models

Complete = Callable[..., list[str]]
MODEL = "%%quantize demo.model_path\n"
COMMON = f"{MODEL}[common_quant_param]\n"
SECONDS = 0.02  # an answer, once the model is known


@pytest.fixture
def complete(shell: Any) -> Complete:
    """Return what a shell offers at the ``|`` of a cell, or at its end."""

    def offered(cell: str) -> list[str]:
        at = cell.index("|") if "|" in cell else len(cell)
        with provisionalcompleter():
            found = list(shell.Completer.completions(cell.replace("|", "", 1), at))
        return [each.text for each in found]

    return offered


@pytest.mark.parametrize(
    ("cell", "first", "among"),
    [
        (f"{MODEL}[", "[common_quant_param]", "[ptq_lab.layer_bits]"),
        (f"{MODEL}[full", "[full_quant_param]", "[full_quant_param]"),
        (f"{COMMON}bit", "bit_num=", "bit_num="),
        (f"{COMMON}", "quant_type=", "[weight_quant_param]"),
        (f"{COMMON}quant_type=", "WEIGHT_QUANT", "DYNAMIC_QUANT"),
        (f"{COMMON}quant_type=F", "FULL_QUANT", "FULL_QUANT"),
        (f"{COMMON}bit_num=", "0", "16"),
        (f"{COMMON}enable_encode=", "true", "false"),
        (f"{COMMON}skip_quant_node=stem/", "stem/Conv", "stem/Conv"),
        (f"{COMMON}skip_quant_node=stem/Conv,type:G", "type:Gemm", "type:Gemm"),
        (f"{COMMON}skip_quant_node=", "stem/Conv", "block1/*"),
        (f"{MODEL}[ptq_lab.layer_bits]\nblock1/", "block1/depthwise/Conv=", "block1/*="),
        (f"{MODEL}[ptq_lab.layer_bits]\ntype:Co", "type:Conv=", "type:Conv="),
        (f"{MODEL}[ptq_lab.layer_bits]\nstem/Conv=", "1", "16"),
        (f"{MODEL}[data_preprocess_param]\ncalibrate_path=", "image:", "image:"),
        (f"{MODEL}[registry]\n", "plugin_path=", "disable_fusion="),
        ("%%quantize ", "demo.model_path", "--samples"),
        ("%%quantize {", "{demo.model_path}", "{demo.model_path}"),
        ("%%quantize demo.model_path --sam", "--samples", "--samples"),
        ("%%quantize demo.model_path -", "-o", "--dry-run"),
        ("%%quantize demo.model_path ", "--output", "--eval"),
        ("%%quantize demo.model_path --fp16 ", "on", "off"),
        ("%%quantize demo.model_path --fp16=o", "--fp16=on", "--fp16=off"),
        ("%%quantize demo.model_path --inputDataFormat NC", "NCHW", "NCHW"),
        ("%%quantize demo.model_path --samples ", "demo.calib_path", "demo.calib_path"),
        ("%%quantize demo.model_path --eval ", "demo.eval_path", "demo.evaluate"),
        ("%%quantize demo.model_path --optimize g", "general", "gpu_oriented"),
        ("%%quantize demo.model_path --inputShape ", "image:1,1,16,16", "image:1,1,16,16"),
        ("%%quantize demo.model_path -r ", "result", "result"),
    ],
)
def test_what_is_offered_starts_with_the_likeliest(complete: Complete, cell: str, first: str, among: str) -> None:
    offered = complete(cell)
    assert offered[0] == first
    assert among in offered


def test_the_text_behind_the_cursor_counts_as_well(complete: Complete) -> None:
    assert "quant_type=" not in complete(f"{COMMON}|\nquant_type=WEIGHT_QUANT\n")
    assert complete(f"{MODEL}[full|]\n") == ["[full_quant_param"]
    assert "[weight_quant_param]" not in complete(f"{MODEL}[|\n[weight_quant_param]\n")


@pytest.mark.parametrize(
    "cell",
    [
        f"{MODEL}[nonsense]\nimp",
        f"{MODEL}[nonsense]\n",
        f"{COMMON}imp",
        f"{COMMON}quant_type=imp",
        f"{COMMON}# imp",
        f"{COMMON}# ",
        f"{COMMON}nonsense=pri",
        f"{COMMON}skip_quant_node=no such node",
        f"{MODEL}pri",
        "%%quantize --check\npri",
        "%%quantize no_such_model.onnx\n[common_quant_param]\nskip_quant_node=pri",
        "%%quantize demo.model_path --output pri",
        "%%quantize demo.model_path --optimize pri",
    ],
)
def test_names_of_python_never_come_through(complete: Complete, cell: str) -> None:
    offered = complete(cell)
    assert offered
    assert not {"print", "import", "property", "%precision", "demo"} & set(offered)


def test_other_cells_are_left_to_python(complete: Complete) -> None:
    assert "print" in complete("x = 1\npri")
    assert "common_quant_param]" not in complete("x = [")
    assert "%%quantize" in complete("%%quantiz")


def test_files_are_offered_by_their_kind(complete: Complete, tmp_path: Path) -> None:
    for name in ("a.onnx", "b.npz", "c.txt", "my model.onnx"):
        (tmp_path / name).touch()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "deep.onnx").touch()
    assert [text for text in complete("%%quantize ") if "." in text and "demo" not in text] == [
        '"my model.onnx"',
        "a.onnx",
    ]
    assert complete("%%quantize im") == ["images/"]
    assert complete("%%quantize images/") == ["images/deep.onnx"]
    assert complete("%%quantize a.onnx --samples ")[1:3] == ["b.npz", "images/"]
    assert complete(f"{COMMON}debug_info_save_path=im") == ["images/"]
    assert complete(f"{MODEL}[data_preprocess_param]\ncalibrate_path=image:im") == ["image:images/"]


def test_a_pattern_is_kept_and_shows_what_it_matches(complete: Complete) -> None:
    offered = complete(f"{COMMON}skip_quant_node=block1/*")
    assert offered[0] == "block1/*"
    assert len(offered) > 2
    assert all(name.startswith("block1/") for name in offered)


def test_names_with_a_comma_are_quoted(shell: Any, complete: Complete) -> None:
    tiny = models.gemm().proto
    tiny.graph.node[0].name = "one,two"
    shell.user_ns["tiny"] = tiny
    assert complete("%%quantize tiny\n[common_quant_param]\nskip_quant_node=one") == ['"one,two"']


def test_a_file_that_changes_is_read_again(complete: Complete, tmp_path: Path) -> None:
    for name in ("first", "second"):
        proto = models.conv_relu().proto
        proto.graph.node[0].name = f"{name}_node"
        onnx.save(proto, tmp_path / "m.onnx")
        offered = complete("%%quantize m.onnx\n[common_quant_param]\nskip_quant_node=")
        assert f"{name}_node" in offered
        (tmp_path / "m.onnx").unlink()
    assert "second_node" not in complete("%%quantize m.onnx\n[common_quant_param]\nskip_quant_node=")


@pytest.mark.parametrize("name", sorted(models.WIRINGS))
def test_offered_names_are_those_that_a_run_knows(name: str, tmp_path: Path) -> None:
    from ptq_lab import load_model
    from ptq_lab.graph.outline import outline_file, outline_model, outline_proto

    proto = models.WIRINGS[name]().proto
    onnx.save(proto, tmp_path / "m.onnx")
    model = load_model(tmp_path / "m.onnx")
    wanted = [(node.name, node.op_type) for node in model.graph]
    for outline in (outline_file(tmp_path / "m.onnx"), outline_proto(proto), outline_model(model)):
        assert list(outline.nodes) == wanted
        assert [each for each, _ in outline.inputs] == [spec.name for spec in model.inputs]


@given(
    text=st.text(alphabet='[]=#,"*:\n abq_', max_size=60),
    at=st.integers(0, 60),
)
def test_every_place_of_every_text_has_an_answer(text: str, at: int) -> None:
    lines = f"%%quantize m.onnx\n{text}".split("\n")
    line = min(1 + text[:at].count("\n"), len(lines) - 1)
    column = min(at, len(lines[line]))
    found = Completer({}).answer(lines, line, column)
    assert found is not None
    fragment, offers = found
    assert offers
    assert lines[line][:column].endswith(fragment)


def test_answers_come_within_a_blink_once_the_model_is_known(shell: Any) -> None:
    completer = Completer(shell.user_ns)
    lines = ["%%quantize demo.model_path", "[common_quant_param]", "skip_quant_node=blo"]
    completer.answer(lines, 2, len(lines[2]))
    times = []
    for _ in range(9):
        start = time.perf_counter()
        completer.answer(lines, 2, len(lines[2]))
        times.append(time.perf_counter() - start)
    assert sorted(times)[4] < SECONDS


def test_line_magics_offer_finished_runs(shell: Any, cell: Any, complete: Complete) -> None:
    for name in ("first", "second"):
        shell.outputs_of(cell(f"demo.model_path --quiet -r {name}"))
    assert complete("%quantize_compare ") == ["first", "second", "-r"]
    assert complete("%quantize_compare first ") == ["second", "-r"]
    assert complete("%quantize_doctor ") == ["-v"]
    assert "first" in complete("%%quantize demo.model_path -r ")
    assert "first.model_path" in complete("%%quantize ")


def test_a_kernel_answers_over_its_protocol(kernel: Any) -> None:
    cell = f"{COMMON}skip_quant_node=stem/Co"
    answer = kernel.complete(cell)
    assert answer["matches"] == ["stem/Conv"]
    assert cell[answer["cursor_start"] : answer["cursor_end"]] == "stem/Co"
    [kind] = [each["type"] for each in answer["metadata"]["_jupyter_types_experimental"]]
    assert kind == "node"
    assert kernel.complete("%%quantize demo.model_path\n[comm")["matches"] == ["[common_quant_param]"]


def test_the_demo_is_what_the_tests_take_it_for() -> None:
    assert demo.load("digits_cnn").model_path.suffix == ".onnx"


def test_magics_of_live_parts_offer_models_their_own_options_and_their_choices(shell: Any, complete: Complete) -> None:
    assert "demo.model_path" in complete("%quantize_explore ")
    assert complete("%quantize_explore demo.model_path --") == ["--samples", "--config", "--result"]
    assert complete("%quantize_form demo.model_path --template ") == ["weight", "mixed", "full", "dynamic"]
    assert "--fp16" not in complete("%quantize_form demo.model_path --")
    assert "demo.calib_path" in complete("%quantize_explore demo.model_path --samples ")
