"""The cell magic as an adapter: what reaches the core, what comes back to the user's names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from IPython.core.error import UsageError

from ptq_lab.errors import ConfigError, ModelError
from ptq_lab.plan import QuantPlan
from ptq_lab.report.text import format_bytes

PLOTLY = "application/vnd.plotly.v1+json"


def test_the_result_is_shown_once_with_its_figures_and_bound_to_the_name(shell: Any, cell: Any) -> None:
    outputs = shell.outputs_of(cell("{demo.model_path} -o q.onnx -r result"))
    assert [PLOTLY in output.data for output in outputs] == [False, True, True]
    assert "smaller" in outputs[0].data["text/plain"]
    assert shell.user_ns["result"].model_path.resolve() == Path("q.onnx").resolve()
    onnx.checker.check_model("q.onnx")


def test_without_a_name_the_result_is_still_in_the_underscore(shell: Any, cell: Any) -> None:
    shell.outputs_of(cell("demo.model_path"))
    assert shell.user_ns["_"].report.summary.bits == 8
    assert shell.user_ns["_"] is shell.user_ns["Out"][shell.execution_count - 1]


@pytest.mark.parametrize("first", ["{path}", "$path", "path", '"{path}"', "demo.model_path"])
def test_every_way_to_name_a_path_in_a_variable_reaches_the_same_model(shell: Any, cell: Any, first: str) -> None:
    shell.user_ns["path"] = shell.user_ns["demo"].model_path
    shell.outputs_of(cell(f"{first} --quiet -r result"))
    assert shell.user_ns["result"].report.summary.model == "model.onnx"


def test_a_model_in_memory_and_samples_in_memory_are_found_by_their_names(shell: Any, cell: Any) -> None:
    import numpy as np

    found = shell.user_ns["demo"]
    with np.load(found.calib_path) as arrays:
        shell.user_ns["some"] = [{name: arrays[name][i : i + 1] for name in arrays.files} for i in range(4)]
    shell.user_ns["proto"] = onnx.load(found.model_path)
    shell.outputs_of(cell("proto --samples some --quiet -r result"))
    assert shell.user_ns["result"].report.summary.model == "<ModelProto>"
    assert "4" in shell.user_ns["result"].report.summary.compared_on


def test_a_file_wins_over_a_variable_of_the_same_name(shell: Any, cell: Any) -> None:
    Path("proto").write_bytes(shell.user_ns["demo"].model_path.read_bytes())
    shell.user_ns["proto"] = "no model at all"
    shell.outputs_of(cell("proto --quiet -r result"))
    assert shell.user_ns["result"].report.summary.model == "proto"


def test_labelled_data_and_functions_give_the_metric(shell: Any, cell: Any) -> None:
    shell.outputs_of(cell("demo.model_path --eval demo.eval_path --quiet -r by_data"))
    shell.outputs_of(cell("demo.model_path --eval demo.evaluate --quiet -r by_function"))
    before = [shell.user_ns[name].report.summary.metric_before for name in ("by_data", "by_function")]
    assert before[0] == pytest.approx(before[1])
    assert before[0] > 0.9


def test_quiet_shows_nothing_and_still_assigns(shell: Any, cell: Any) -> None:
    assert shell.outputs_of(cell("demo.model_path --quiet -r result")) == []
    assert shell.user_ns["result"].report.layers


def test_braces_in_the_configuration_are_left_alone(shell: Any) -> None:
    shell.user_ns["bits"] = 4
    with pytest.raises(ConfigError, match=r"\{bits\}"):
        shell.outputs_of("%%quantize demo.model_path\n[common_quant_param]\nquant_type=WEIGHT_QUANT\nbit_num={bits}\n")


def test_check_accepts_a_good_configuration_without_a_model(shell: Any, cell: Any) -> None:
    assert [output.data["text/plain"] for output in shell.outputs_of(cell("--check"))] == ["no problems\n"]


def test_check_raises_every_error_at_once_with_its_line(shell: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        shell.outputs_of("%%quantize --check\n[common_quant_param]\nquant_type=WEIGHT\nbit_num=32\n")
    assert [problem.line for problem in caught.value.problems if problem.level == "error"] == [2, 3]


def test_check_looks_at_the_model_it_is_given(shell: Any, cell: Any) -> None:
    outputs = shell.outputs_of(cell("{demo.model_path} --check") + "skip_quant_node=stem/Con\n")
    assert "the nearest names are stem/Conv" in outputs[0].data["text/plain"]


def test_check_shows_warnings_and_goes_on(shell: Any, cell: Any) -> None:
    outputs = shell.outputs_of(cell("--check") + "[comon_quant_param]\nbit_num=8\n")
    assert "warning" in outputs[0].data["text/plain"]
    assert "comon_quant_param" in outputs[0].data["text/html"]


def test_remarks_on_the_configuration_are_said_once_above_the_result(shell: Any, cell: Any) -> None:
    outputs = shell.outputs_of(cell("demo.model_path") + "[comon_quant_param]\nbit_num=8\n")
    assert "smaller" in outputs[1].data["text/plain"]
    texts = [output.data["text/plain"] for output in outputs]
    assert ["comon_quant_param" in text for text in texts] == [True, False, False, False]


def test_a_result_without_a_place_of_its_own_is_called_temporary(shell: Any, cell: Any) -> None:
    said = [shell.outputs_of(cell(f"demo.model_path {rest}"))[0].data["text/plain"] for rest in ("", "-o q.onnx")]
    assert ["temporary" in text for text in said] == [True, False]


def test_dry_run_shows_the_plan_and_writes_nothing(shell: Any, cell: Any, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*.onnx"))
    outputs = shell.outputs_of(cell("demo.model_path -o q.onnx --dry-run -r plan"))
    assert isinstance(shell.user_ns["plan"], QuantPlan)
    assert all(entry.node in outputs[0].data["text/html"] for entry in shell.user_ns["plan"].entries)
    assert set(tmp_path.rglob("*.onnx")) == before


def test_dry_run_shows_the_pinned_width_of_a_layer(shell: Any, cell: Any) -> None:
    pinned = "\n[ptq_lab.layer_bits]\ntype:Gemm=3\n"
    outputs = shell.outputs_of(cell("demo.model_path --dry-run -r plan") + pinned)
    bits = {entry.op_type: entry.bits for entry in shell.user_ns["plan"].entries}
    assert bits["Gemm"] == 3
    assert bits["Conv"] != 3
    assert "uint8 lanes 2+1" in outputs[0].data["text/html"] + outputs[0].data["text/plain"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "no model given"),
        ("m.onnx --nonsense", "nonsense"),
        ("m.onnx --fp16 maybe", "fp16"),
        ("m.onnx -r 3x", "not the name of a variable"),
        ("m.onnx -r class", "not the name of a variable"),
        ("'m.onnx", "quotation"),
        ("--check -r result", "--check"),
        ("{missing.path}", r"\{missing\.path\} has no value"),
        ("{demo.model_path} --samples {missing}", r": \{missing\} has no value"),
        ("{demo.model_path} --samples {value}", r": \{value\} has no value"),
        ("{demo.model_path} --samples 'a{b'", "cannot be replaced by a value; check the braces"),
        ("{missing}/{demo.name}.onnx --samples {demo.calib_path}", r": \{missing\} has no value"),
        ("$demo -o $missing", r": \$missing has no value"),
        ("$demo -o {missing}", r": \{missing\} has no value"),
        ("{demo.model_path} -o $missing.onnx", r": \$missing\.onnx has no value"),
    ],
)
def test_a_wrong_first_line_is_one_line_that_says_what_is_wrong(shell: Any, cell: Any, line: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        shell.outputs_of(cell(line))
    assert "\n" not in str(caught.value)


def test_a_missing_model_is_the_error_of_the_core(shell: Any, cell: Any) -> None:
    with pytest.raises(ModelError, match=r"missing\.onnx"):
        shell.outputs_of(cell("missing.onnx"))


@pytest.mark.parametrize("text", ["%%quantize -h", "%%quantize --help\n", "%%quantize m.onnx -h\n[section]\n"])
def test_asking_for_help_shows_the_options_with_and_without_a_body(shell: Any, text: str) -> None:
    [output] = shell.outputs_of(text)
    for said in ("%quantize", "--samples", "Quantize an ONNX model", "Only show the plan"):
        assert said in output.data["text/plain"]


def test_the_help_lists_every_option(shell: Any) -> None:
    text = shell.magics_manager.magics["cell"]["quantize"].__doc__
    for option in (
        "--output",
        "--result",
        "--samples",
        "--eval",
        "--fp16",
        "--check",
        "--dry-run",
        "--quiet",
    ):
        assert option in text


def test_a_transformer_is_previewed_and_quantized_dynamically(shell: Any) -> None:
    from ptq_lab import demo as demos

    shell.user_ns["words"] = demos.load("digits_transformer")
    ini = "[common_quant_param]\nquant_type=DYNAMIC_QUANT\n[ptq_lab]\nperformance=off\n"
    shell.outputs_of(f"%%quantize words.model_path --dry-run -r plan\n{ini}")
    shell.outputs_of(f"%%quantize words.model_path -o q.onnx --quiet -r result\n{ini}")
    assert shell.user_ns["plan"] == shell.user_ns["result"].plan
    assert shell.user_ns["result"].report.summary.products == 17
    onnx.checker.check_model("q.onnx")


def test_explain_shows_the_diagnosis_in_the_report_and_two_more_figures(shell: Any, cell: Any) -> None:
    outputs = shell.outputs_of(cell("demo.model_path --explain -r result"))
    assert "diagnosis" in outputs[0].data["text/plain"]
    assert 'aria-label="Diagnosis"' in outputs[0].data["text/html"]
    assert [PLOTLY in output.data for output in outputs] == [False, True, True, True, True]
    assert shell.user_ns["result"].report.explanation is not None


def test_an_explanation_at_the_end_of_a_cell_is_shown_as_a_diagnosis_with_pictures(shell: Any, cell: Any) -> None:
    shell.outputs_of(cell("demo.model_path --quiet -r result"))
    found = shell.user_ns["result"].explain()
    data, _ = shell.display_formatter.format(found)
    assert "<svg" in data["text/html"]
    assert "<script" not in data["text/html"]
    assert data["text/plain"].startswith("diagnosis")


def test_a_cell_says_what_its_file_replaced(shell: Any, cell: Any) -> None:
    shell.outputs_of("%config PTQLab.report = 'none'")
    (first,) = shell.outputs_of(cell("demo.model_path -o q.onnx -r first"))
    assert "replaced" not in first.data["text/plain"]
    (second,) = shell.outputs_of(cell("demo.model_path -o q.onnx -r second", bits=16))
    size = format_bytes(shell.user_ns["first"].report.summary.bytes_after)
    cosine = f"cosine {shell.user_ns['first'].report.summary.cosine_mean:.6f}"
    said = f"q.onnx replaced first (WEIGHT_QUANT, 8 bits, {size}, {cosine})"
    assert second.data["text/plain"].endswith(said)
    (third,) = shell.outputs_of(cell("demo.model_path -o q"))
    assert "q.onnx replaced second (WEIGHT_QUANT, 16 bits" in third.data["text/plain"]
    (fourth,) = shell.outputs_of(cell("demo.model_path -o q"))
    assert "q.onnx replaced the run before (WEIGHT_QUANT, 8 bits" in fourth.data["text/plain"]
    Path("q.onnx").write_bytes(b"something else")
    shell.outputs_of("%config PTQLab.report = 'short'")
    (fifth,) = shell.outputs_of(cell("demo.model_path -o q.onnx"))
    assert "q.onnx, which replaced a file of 14 B" in " ".join(fifth.data["text/plain"].split())
