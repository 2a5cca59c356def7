"""Ctrl-C at the command line: one line and exit code 130, whenever it comes."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Sends SIGINT to its own process when a module is about to be imported, then runs the entry point.
INTERRUPTED_AT = """
import os, signal, sys

class CtrlC:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, {handler})
sys.meta_path.insert(0, CtrlC())
sys.argv = ["ptq-lab", *{arguments!r}]
from ptq_lab.__main__ import run
run()
"""


def interrupted(
    module: str, *arguments: str, handler: str = "signal.default_int_handler"
) -> subprocess.CompletedProcess[str]:
    code = INTERRUPTED_AT.format(module=module, arguments=arguments, handler=handler)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("module", ["click", "numpy", "onnxruntime", "ptq_lab.pipeline", "ptq_lab.cli.main"])
def test_ctrl_c_while_the_command_line_is_imported_is_one_line(module: str) -> None:
    done = interrupted(module, "convert", "--modelFile=m.onnx", "--outputFile=q.onnx")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "ptq-lab: interrupted; nothing was written\n")


def test_ctrl_c_while_a_command_runs_is_the_same_line() -> None:
    done = interrupted("importlib.readers", "template", "weight")
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.strip() == "ptq-lab: interrupted; nothing was written"


def test_a_process_that_ignores_ctrl_c_goes_on_ignoring_it() -> None:
    done = interrupted("numpy", "--version", handler="signal.SIG_IGN")
    assert (done.returncode, done.stderr) == (0, "")
    assert "ptq-lab" in done.stdout


def test_python_m_ptq_lab_is_the_same_entry() -> None:
    done = subprocess.run([sys.executable, "-m", "ptq_lab", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ptq-lab")
