"""IPython in a terminal, and in kernels' absence: the same magics as readable text."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

import ptq_lab

ROOT = Path(ptq_lab.__file__).parent.parent
INI = "[common_quant_param]\nquant_type=WEIGHT_QUANT\nbit_num=4\nmin_quant_weight_channel=0\n"
SESSION = """
from IPython.terminal.interactiveshell import TerminalInteractiveShell
from traitlets.config import Config
shell = TerminalInteractiveShell.instance(
    config=Config({{"HistoryManager": {{"enabled": False}}, "TerminalInteractiveShell": {{"simple_prompt": True}}}})
)
for cell in {cells!r}:
    shell.run_cell(cell, store_history=True)
"""
SLOW = """
import time
from ptq_lab import pipeline
real = pipeline.quantize
def slow(*arguments, progress, **options):
    from ptq_lab.progress import Step
    for i in range(4):
        time.sleep(0.2)
        progress(Step("quantize", i + 1, 4))
    return real(*arguments, progress=progress, **options)
pipeline.quantize = slow
"""


def session(folder: Path, *cells: str) -> subprocess.Popen[bytes]:
    """Start a terminal session that runs cells; stdout is a pipe, stderr a terminal."""
    names = {"PYTHONPATH": str(ROOT), "IPYTHONDIR": str(folder / "ipython"), "NO_COLOR": "1", "TERM": "dumb"}
    start = ("%load_ext ptq_lab", "import ptq_lab; demo = ptq_lab.demo.load('digits_cnn')")
    code = SESSION.format(cells=[*start, *cells])
    ours, theirs = pty.openpty()
    started = subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, env=os.environ | names, stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    started.terminal = ours  # type: ignore[attr-defined]
    return started


def said(started: subprocess.Popen[bytes]) -> tuple[str, str]:
    """Return what a session printed, and what it drew on its terminal."""
    printed = started.communicate(timeout=120)[0].decode()
    drawn = b""
    while True:
        try:
            piece = os.read(started.terminal, 65536)  # type: ignore[attr-defined]
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        drawn += piece
    os.close(started.terminal)  # type: ignore[attr-defined]
    return printed, drawn.decode()


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return said(
        session(
            tmp_path_factory.mktemp("terminal"),
            SLOW,
            f"%%quantize demo.model_path --samples demo.calib_path -r four\n{INI}",
            f"%%quantize demo.model_path --samples demo.calib_path -r eight --quiet\n{INI.replace('4', '8')}",
            "%quantize_compare four eight",
            "%quantize_doctor",
            "four",
            "%%quantize demo.model_path\n[common_quant_param]\nbit_nums=3\n",
        )
    )


def test_everything_is_text_without_markup(text: tuple[str, str]) -> None:
    printed, _ = text
    for words in (
        "in a terminal: %%quantize is ready",
        "left in float  nothing: every weight tensor is stored as codes",
        "stem/Conv",
        "answers changed",
        "1 - cosine on calibration",
        "everything is in place",
        "Out[",
        "bit_nums: unknown option; did you mean bit_num?",
    ):
        assert words in printed
    assert "<div" not in printed
    assert "Traceback" not in printed
    assert "ExpressionError" not in printed


def test_progress_is_overwritten_and_one_line_stays(text: tuple[str, str]) -> None:
    _, drawn = text
    pieces = drawn.replace("\r\n", "\n").split("\r")
    assert any(piece.startswith("quantize 2 of 4, 0.") for piece in pieces)
    assert [line for line in drawn.replace("\r", "\n").splitlines() if line.startswith("done in ")]


def test_no_line_is_wider_than_a_wide_terminal(text: tuple[str, str]) -> None:
    assert max(len(line) for line in text[0].splitlines() if "displayed last" not in line and "core" not in line) < 180
