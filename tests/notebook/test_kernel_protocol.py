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
    code, line, *report = answer.bundles
    assert "ptq_lab.quantize(" in code["text/plain"]
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


INTERRUPT_AT = """
import os, signal
from ptq_lab.notebook.progress import ProgressBar
told, counts = ProgressBar.__call__, {{}}
def interrupting(self, step):
    counts[step.stage] = counts.get(step.stage, 0) + 1
    if counts[step.stage] == {at}.get(step.stage):
        os.kill(os.getpid(), signal.SIGINT)
    told(self, step)
ProgressBar.__call__ = interrupting
"""
SEARCH = (
    "%%quantize {demo.model_path} --samples {demo.calib_path} -o searched.onnx -r searched\n"
    "[common_quant_param]\nquant_type=WEIGHT_QUANT\nbit_num=0\nmin_quant_weight_channel=0\n"
    "[ptq_lab.mixed_bit]\naverage_bits=4\n"
)


@pytest.fixture
def interrupt(kernel: Any) -> Any:
    """Return a switch that interrupts the kernel at steps of a run, and take it back afterwards."""
    yield lambda **at: kernel.run(INTERRUPT_AT.format(at=at))
    kernel.run("ProgressBar.__call__ = told")


def test_one_interrupt_of_a_search_keeps_what_was_measured_and_goes_on(kernel: Any, interrupt: Any) -> None:
    kernel.run("import os; os.environ['PTQ_LAB_CACHE'] = 'off'")
    interrupt(sensitivity=5)
    answer = kernel.run(SEARCH)
    assert answer.status == "ok"
    assert "stopped after 5 of 16 weights" in " ".join(
        " ".join(bundle["text/plain"] for bundle in answer.bundles).split()
    )
    printed = kernel.run("print(searched.report.summary.bits, __import__('os').path.exists('searched.onnx'))")
    assert printed.outputs[0]["text"] == "0 True\n"


def test_a_second_interrupt_ends_it_and_nothing_is_written(kernel: Any, interrupt: Any) -> None:
    kernel.run("import os; os.environ['PTQ_LAB_CACHE'] = 'off'")
    kernel.run("os.path.exists('searched.onnx') and os.remove('searched.onnx')")
    interrupt(sensitivity=5, compare=2)
    answer = kernel.run(SEARCH)
    assert (answer.status, answer.error["ename"]) == ("error", "Interrupted")
    assert re.search(r"in compare 1 of \d+; nothing was written$", answer.error["traceback"][0])
    left = kernel.run("print([name for name in os.listdir() if 'searched' in name or name.startswith('.ptq_lab')])")
    assert left.outputs[0]["text"] == "[]\n"


def test_an_interrupt_after_the_file_is_there_does_not_deny_it(kernel: Any, cell: Any, slow: Any) -> None:
    kernel.run(
        "real_result = pipeline.QuantResult\n"
        "def late(*arguments):\n    import os, signal, time\n    os.kill(os.getpid(), signal.SIGINT); time.sleep(5)\n"
        "pipeline.QuantResult = late"
    )
    answer = kernel.run(cell("{demo.model_path} -o late.onnx"))
    kernel.run("pipeline.QuantResult = real_result")
    assert answer.error["ename"] == "Interrupted"
    assert answer.error["traceback"][0].endswith("late.onnx was already written, and has no report here")
    assert kernel.run("print(__import__('os').path.exists('late.onnx'))").outputs[0]["text"] == "True\n"


@pytest.mark.parametrize(
    ("line", "setup", "says"),
    [
        ("thing", "thing = 5", "thing: holds a value of type int; the path of an .onnx file"),
        ("thing", "thing = None", "thing: holds None;"),
        ("demo", "", "demo: holds a value of type Demo; the path of an .onnx file"),
        ("demo", "", "did you mean demo.model_path?"),
        ("result", "", "result: is a finished run; its quantized model is result.model_path"),
        ("demo.model_pat", "", "demo.model_pat: no such file, and no variable of this name"),
        ("gone.onnx", "gonne = 1", "gone.onnx: no such file"),
        ("demo.model_path --samples thing", "thing = 5", "samples: int given"),
        ("demo.model_path --samples thing", "thing = [None]", "sample 0: is NoneType"),
        ("demo.model_path --eval thing", "thing = 5", "evaluate: int 5 given"),
        ("demo.model_path --inputShape nonsense", "", "'nonsense' is not a name with sizes"),
        ("{demo.model_path} -o /no/such/folder/q.onnx", "", "the folder /no/such/folder does not exist"),
    ],
)
def test_what_a_name_holds_is_said_in_one_line(kernel: Any, cell: Any, line: str, setup: str, says: str) -> None:
    kernel.run(f"{setup}\nresult = globals().get('result')")
    if line == "result":
        kernel.run(cell("demo.model_path --quiet -r result"))
    answer = kernel.run(cell(line))
    assert answer.status == "error"
    [said] = answer.error["traceback"]
    assert says in said
    assert "\n" not in said


def test_a_model_that_is_deleted_between_cells_is_said_and_its_result_still_shows(kernel: Any, cell: Any) -> None:
    kernel.run("import shutil, os; shutil.copy(demo.model_path, 'mine.onnx')")
    assert kernel.run(cell("mine.onnx -r before --quiet")).status == "ok"
    kernel.run("os.remove('mine.onnx'); os.remove(before.model_path)")
    assert "mine.onnx: no such file" in kernel.run(cell("mine.onnx")).error["traceback"][0]
    assert "smaller" in kernel.run("before").bundles[0]["text/plain"]
    assert kernel.run("%quantize_compare before before before").status == "error"  # one name is one run


def test_quiet_says_nothing_at_all_even_when_slow(kernel: Any, cell: Any, slow: Any) -> None:
    slow()
    answer = kernel.run(cell("{demo.model_path} -r result --quiet"))
    assert answer.status == "ok"
    assert [kind for kind in answer.messages if kind not in ("status", "execute_input")] == []
