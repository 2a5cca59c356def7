"""Runs the command line in this process and keeps what it said."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ptq_lab import demo
from ptq_lab.cli import main


@dataclass(frozen=True)
class Said:
    """Exit code and both streams of one run."""

    code: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run ``ptq-lab`` with arguments, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run_it(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["ptq-lab", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return Said(int(stop.value.code or 0), captured.out, captured.err)

    return run_it


@pytest.fixture
def digits() -> demo.Demo:
    """The classifier demo."""
    return demo.load("digits_cnn")


@pytest.fixture
def eight_bits(tmp_path: Path) -> Path:
    """A configuration file: all weights to 8 bits."""
    path = tmp_path / "eight.cfg"
    path.write_text("[common_quant_param]\nquant_type=WEIGHT_QUANT\nbit_num=8\nmin_quant_weight_channel=0\n")
    return path
