"""What a front end gets from a real kernel, message by message."""

from __future__ import annotations

import re
from typing import Any

import pytest

PLOTLY = "application/vnd.plotly.v1+json"
SLOW = """
import time
from ptq_lab import pipeline
from ptq_lab.progress import Step
real = pipeline.quantize
def slow(*arguments, progress, **options):
    for i in range(4):
        time.sleep(0.2)
        progress(Step("quantize", i + 1, 4))
    {then}
    return real(*arguments, progress=progress, **options)
pipeline.quantize = slow
"""


@pytest.fixture
def slow(kernel: Any) -> Any:
    """Return a switch that makes the core slow enough for a bar to be seen, and take it back afterwards."""
    yield lambda then="pass": kernel.run(SLOW.format(then=then))
    kernel.run("pipeline.quantize = real")


def test_the_report_and_both_figures_come_as_bundles_that_need_no_script(kernel: Any, cell: Any) -> None:
    answer = kernel.run(cell("{demo.model_path} -r result"))
    assert answer.status == "ok"
    assert "execute_result" not in answer.messages
    report, *figures = answer.bundles
    assert set(report) == {"text/plain", "text/html"}
    assert [set(figure) for figure in figures] == [{PLOTLY, "text/html", "text/plain"}] * 2
    assert all("<script" not in bundle["text/html"] for bundle in answer.bundles)
    assert all(figure[PLOTLY]["data"] for figure in figures)
    assert kernel.run("print(result.report.summary.bits)").outputs[0]["text"] == "8\n"


def test_a_wrong_configuration_is_one_line_per_problem_and_stops_run_all(kernel: Any) -> None:
    wrong = "[common_quant_param]\nquant_type=WEIGHT_QUANT\nbit_num=32\nbit_nums=3\n"
    answer = kernel.run("%%quantize {demo.model_path}\n" + wrong)
    assert answer.status == "error"
    assert answer.error["ename"] == "ConfigError"
    lines = "\n".join(answer.error["traceback"]).splitlines()
    assert all("line " in line for line in lines)
    assert any("bit_num" in line and "32" in line for line in lines)
    assert "Traceback" not in "".join(lines)
    assert answer.outputs == []


def test_a_missing_model_is_one_line_without_a_traceback(kernel: Any, cell: Any) -> None:
    answer = kernel.run(cell("missing.onnx"))
    assert (answer.status, answer.error["ename"]) == ("error", "ModelError")
    assert len("\n".join(answer.error["traceback"]).splitlines()) == 1


def test_a_wrong_first_line_stops_run_all(kernel: Any, cell: Any) -> None:
    answer = kernel.run(cell("{demo.model_path} --nonsense"))
    assert (answer.status, answer.outputs[0]["name"]) == ("error", "stderr")
    assert answer.outputs[0]["text"].strip().count("\n") == 0


def test_the_bar_of_a_slow_run_becomes_one_line_above_the_report(kernel: Any, cell: Any, slow: Any) -> None:
    slow()
    answer = kernel.run(cell("{demo.model_path} --show-code"))
    assert answer.status == "ok"
    assert "update_display_data" in answer.messages
    assert "clear_output" not in answer.messages
    assert "ptq_lab.quantize(" in answer.outputs[0]["text"]
    line, *report = answer.bundles
    assert re.fullmatch(r"done in \d+\.\d s", line["text/plain"])
    assert "<progress" not in line["text/html"]
    assert len(report) == 3


def test_the_line_of_an_earlier_cell_is_left_alone(kernel: Any, cell: Any, slow: Any) -> None:
    slow()
    ids = [
        output["transient"]["display_id"]
        for _ in range(2)
        for output in kernel.run(cell("{demo.model_path}")).outputs
        if output["transient"]
    ]
    assert len(set(ids)) == 2


def test_an_interrupt_ends_the_run_and_says_how_far_it_came(kernel: Any, cell: Any, slow: Any) -> None:
    slow("import os, signal; os.kill(os.getpid(), signal.SIGINT); time.sleep(5)")
    answer = kernel.run(cell("{demo.model_path} -r never"))
    assert (answer.status, answer.error["ename"]) == ("error", "Interrupted")
    [said] = answer.error["traceback"]
    assert re.fullmatch(r"stopped after \d+\.\d s in quantize 4 of 4; nothing was written", said)
    assert [bundle["text/plain"] in said for bundle in answer.bundles] == [True]
    assert kernel.run("never").error["ename"] == "NameError"


def test_quiet_says_nothing_at_all_even_when_slow(kernel: Any, cell: Any, slow: Any) -> None:
    slow()
    answer = kernel.run(cell("{demo.model_path} -r result --quiet"))
    assert answer.status == "ok"
    assert [kind for kind in answer.messages if kind not in ("status", "execute_input")] == []
