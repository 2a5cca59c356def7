"""The progress line: silent for short jobs, throttled for long ones, gone at the end of all."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import Any

import pytest

from ptq_lab.notebook.progress import ProgressBar, TerminalLine, bar_html, progress_line
from ptq_lab.progress import Step


class Recorder:
    def __init__(self) -> None:
        self.drawn: list[tuple[Step, float]] = []
        self.cleared = 0

    def draw(self, step: Step, elapsed: float) -> None:
        self.drawn.append((step, elapsed))

    def clear(self) -> None:
        self.cleared += 1


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(line: Any, *, steps: int, seconds_each: float, fault: BaseException | None = None) -> None:
    now = 0.0

    def clock() -> float:
        return now

    with ProgressBar(line, clock=clock) as progress:
        for i in range(steps):
            now += seconds_each
            progress(Step("quantize", i + 1, steps, f"layer{i}"))
        if fault:
            raise fault


def test_a_short_job_draws_nothing_and_clears_nothing() -> None:
    line = Recorder()
    run(line, steps=10, seconds_each=0.01)
    assert (line.drawn, line.cleared) == ([], 0)


def test_a_long_job_of_many_steps_draws_seven_times_a_second_at_most() -> None:
    line = Recorder()
    run(line, steps=1000, seconds_each=0.01)
    times = [elapsed for _, elapsed in line.drawn]
    assert 50 <= len(times) <= 70
    assert min(later - earlier for earlier, later in pairwise(times)) >= 0.149
    assert line.cleared == 1


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), ValueError("broken")])
def test_interrupts_and_errors_pass_through_and_leave_no_bar(fault: BaseException) -> None:
    line = Recorder()
    with pytest.raises(type(fault)):
        run(line, steps=4, seconds_each=1.0, fault=fault)
    assert len(line.drawn) == 4
    assert line.cleared == 1


def test_a_terminal_line_is_overwritten_in_place_and_blanked_at_the_end() -> None:
    stream = Terminal()
    run(TerminalLine(stream), steps=3, seconds_each=1.0)
    parts = stream.getvalue().split("\r")
    assert parts[1].startswith("quantize 1 of 3, 1.0 s, layer0")
    assert parts[-2].strip() == ""
    assert parts[-1] == ""
    assert "\n" not in stream.getvalue()


def test_a_stream_that_is_no_terminal_stays_empty() -> None:
    stream = io.StringIO()
    run(TerminalLine(stream), steps=3, seconds_each=1.0)
    assert stream.getvalue() == ""


def test_names_of_tensors_are_escaped_in_the_bar() -> None:
    assert "<b>" not in bar_html(Step("quantize", 1, 2, "<b>w</b>"), 1.0)
    assert 'value="1" max="2"' in bar_html(Step("quantize", 1, 2), 1.0)
    assert "max=" not in bar_html(Step("load", 0, 0), 1.0)


def test_a_shell_without_a_kernel_gets_the_terminal_line(shell: Any) -> None:
    assert isinstance(progress_line(shell), TerminalLine)
