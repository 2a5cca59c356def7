"""Ctrl-C at the command line: one line and exit code 130, whenever it comes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ptq_lab
from ptq_lab import demo

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


# Sends SIGINT to its own process while reports are saved, the model being there already; then once more. The
# handler is set, for a background job inherits an ignored SIGINT.
LATE = """
import os, signal, sys
import ptq_lab.result, shutil, tempfile

signal.signal(signal.SIGINT, signal.default_int_handler)

def interrupt(*_, **__):
    os.kill(os.getpid(), signal.SIGINT)
    import time; time.sleep(5)

{patch}
sys.argv = ["ptq-lab", *{arguments!r}]
from ptq_lab.__main__ import run
run()
"""
AFTER = "ptq_lab.result.QuantResult.save = interrupt"
DURING = """
import ptq_lab.report.compare as compare
compare.compare_outputs = interrupt
really = tempfile.TemporaryDirectory.cleanup
def twice(self):
    if ".ptq_lab-" in self.name:
        interrupt()
    really(self)
tempfile.TemporaryDirectory.cleanup = twice
"""


def late(patch: str, folder: Path) -> subprocess.CompletedProcess[str]:
    digits = demo.load("digits_cnn")
    arguments = [f"--modelFile={digits.model_path}", f"--configFile={digits.config_path}", "--outputFile=q"]
    code = LATE.format(patch=patch, arguments=["convert", *arguments, "--report=reports"])
    names = {"PYTHONPATH": str(Path(ptq_lab.__file__).parent.parent)}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=folder, env=os.environ | names
    )


def test_ctrl_c_after_the_model_is_written_does_not_deny_it(tmp_path: Path) -> None:
    done = late(AFTER, tmp_path)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.splitlines()[-1] == "ptq-lab: interrupted; q.onnx was already written, its report was not"
    assert (tmp_path / "q.onnx").exists()


def test_ctrl_c_twice_leaves_no_draft_behind_and_is_one_line(tmp_path: Path) -> None:
    done = late(DURING, tmp_path)
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1] == "ptq-lab: interrupted; nothing was written"
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
