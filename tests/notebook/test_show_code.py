"""--show-code: what it prints really runs, and gives the same model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ptq_lab

ROOT = Path(ptq_lab.__file__).parent.parent
PYTHON, SHELL = "# Python\n", "# command line\n"


def code_of(shell: Any, text: str) -> tuple[str, str]:
    """Return the Python and the command that a cell prints."""
    outputs = [output.data["text/plain"] for output in shell.outputs_of(text)]
    [printed] = [output for output in outputs if output.startswith(PYTHON)]
    python, _, command = printed.partition(SHELL)
    return python.removeprefix(PYTHON), command


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """Return what runs a shell command with `ptq-lab` and `python` of this environment."""
    tools = tmp_path / "tools"
    tools.mkdir()
    script = tools / "ptq-lab"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m ptq_lab "$@"\n')
    script.chmod(0o755)
    names = {"PYTHONPATH": str(ROOT), "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}

    def run_it(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | names, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run_it


@pytest.mark.parametrize(
    "line",
    [
        "demo.model_path -o q.onnx --samples demo.calib_path --eval demo.eval_path",
        "{demo.model_path} -o 'my model.onnx' --fp16 on --inputShape image:1,1,16,16",
        "$path --inputDataFormat NCHW --optimize none",
    ],
)
def test_both_run_and_write_the_same_bytes_as_the_cell(shell: Any, cell: Any, run: Any, line: str) -> None:
    shell.user_ns["path"] = str(shell.user_ns["demo"].model_path)
    python, command = code_of(shell, cell(f"{line} -r kept --show-code"))
    wanted = shell.user_ns["kept"].model_path.read_bytes()
    by_python = run(
        sys.executable,
        "-c",
        f"{python}\nprint(hash(kept.model_path.read_bytes()) and kept.model_path)\n"
        "open('by_python.onnx', 'wb').write(kept.model_path.read_bytes())",
    )
    assert by_python
    assert Path("by_python.onnx").read_bytes() == wanted
    output = re.search(r"--outputFile=('[^']*'|\S+)", command)
    assert output is not None
    written = Path(output[1].strip("'"))
    written.unlink(missing_ok=True)
    run("sh", "-c", command)
    assert written.read_bytes() == wanted


def test_a_check_and_a_plan_run_too(shell: Any, cell: Any, run: Any) -> None:
    python, command = code_of(shell, cell("demo.model_path --check --show-code"))
    assert run(sys.executable, "-c", python) == ""
    assert "no problems" in run("sh", "-c", command)
    python, command = code_of(shell, cell("demo.model_path --dry-run --show-code -r decided"))
    assert "stem/Conv" in run(sys.executable, "-c", f"{python}\nprint(decided)")
    assert command.startswith("# none")


def test_what_is_in_memory_keeps_its_name_and_has_no_command(shell: Any, cell: Any) -> None:
    import onnx

    shell.user_ns["proto"] = onnx.load(shell.user_ns["demo"].model_path)
    python, command = code_of(shell, cell("proto --eval demo.evaluate --show-code -r one"))
    assert command.strip() == "# none: proto, demo.evaluate lives in this notebook alone; a command reads files"
    shell.ex(python)
    assert shell.user_ns["one"].report.summary.metric == "evaluate"


@pytest.mark.parametrize("extra", ['# a "quoted" # word', '# """', "# back\\slash", "# END\nEND=1", "# naïve ü ，"])
def test_any_text_of_a_configuration_survives_both(shell: Any, cell: Any, run: Any, extra: str) -> None:
    foreign = f"[acl_init_options]\n{extra}\n"
    python, command = code_of(shell, f"{cell('demo.model_path --check --show-code')}{foreign}")
    assert "belongs to another tool" in run(sys.executable, "-c", python)
    run("sh", "-c", command)
    assert Path("model.cfg").read_text(encoding="utf-8").endswith(foreign)


def test_a_line_that_would_end_the_text_is_no_end(shell: Any) -> None:
    from argparse import Namespace

    from ptq_lab.notebook.show_code import code_of as code

    options = dict.fromkeys(("output", "samples", "evaluate", "input_shape", "input_data_format", "optimize", "result"))
    text = code(Namespace(model="m.onnx", check=True, dry_run=False, fp16="off", **options), "END\nEND_1\n", {})
    assert "<<'END_2'\nEND\nEND_1\nEND_2\n" in text


def test_a_file_that_holds_something_else_is_not_written_over(shell: Any, cell: Any, run: Any) -> None:
    Path("model.cfg").write_text("mine\n")
    _, command = code_of(shell, cell("demo.model_path --check --show-code"))
    run("sh", "-c", command)
    assert Path("model.cfg").read_text() == "mine\n"
    assert Path("model_2.cfg").exists()


def test_a_cell_that_explains_prints_code_that_explains(shell: Any, cell: Any, run: Any) -> None:
    python, command = code_of(shell, cell("demo.model_path -o q.onnx -r kept --explain --show-code"))
    causes = [cause.kind for cause in shell.user_ns["kept"].report.explanation.causes]
    assert (
        run(sys.executable, "-c", f"{python}\nprint([c.kind for c in kept.report.explanation.causes])") == f"{causes}\n"
    )
    assert "diagnosis" in run("sh", "-c", command)


def test_the_command_names_the_kind_of_file_that_the_cell_writes(shell: Any) -> None:
    text = "%%quantize demo.model_path --show-code -r kept\n[common_quant_param]\nquant_type=WEIGHT_QUANT\nbit_num=8\n"
    _, command = code_of(shell, f"{text}[ptq_lab]\nencode=entropy\n")
    assert f"--outputFile={shell.user_ns['kept'].model_path.name} " in command
    assert "--outputFile=model_quantized.ptqz " in command
