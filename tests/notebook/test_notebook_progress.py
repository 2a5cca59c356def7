"""The progress line: silent for short jobs, throttled for long ones, gone at the end of all."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import Any

import pytest

from ptq_lab.notebook.progress import ProgressBar, TerminalLine, Tick, bar_html, progress_line, say
from ptq_lab.progress import Step


class Recorder:
    def __init__(self) -> None:
        self.drawn: list[Tick] = []
        self.left: list[str] = []

    def draw(self, tick: Tick) -> None:
        self.drawn.append(tick)

    def leave(self, text: str) -> None:
        self.left.append(text)


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


def test_a_short_job_draws_nothing_and_leaves_nothing() -> None:
    line = Recorder()
    run(line, steps=10, seconds_each=0.01)
    assert (line.drawn, line.left) == ([], [])


def test_a_long_job_of_many_steps_draws_seven_times_a_second_at_most() -> None:
    line = Recorder()
    run(line, steps=1000, seconds_each=0.01)
    times = [tick.elapsed for tick in line.drawn]
    assert 50 <= len(times) <= 70
    assert min(later - earlier for earlier, later in pairwise(times)) >= 0.149
    assert line.left == ["done in 10.0 s"]


def test_the_time_that_is_left_follows_the_pace_of_the_stage() -> None:
    line = Recorder()
    run(line, steps=10, seconds_each=1.0)
    assert [tick.left for tick in line.drawn[:3]] == [None, pytest.approx(4.0), pytest.approx(14 / 3)]
    assert line.drawn[-1].left is None


def test_a_stage_that_comes_again_starts_anew() -> None:
    line, now = Recorder(), 0.0
    with ProgressBar(line, clock=lambda: now) as progress:
        for done in (1, 2, 3, 1, 2):
            now += 2.0
            progress(Step("search", done, 4))
    assert [tick.left for tick in line.drawn] == [None, 2.0, pytest.approx(4 / 3), None, 2.0]


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), ValueError("broken")])
def test_interrupts_and_errors_pass_through_and_say_how_far_the_job_came(fault: BaseException) -> None:
    line = Recorder()
    with pytest.raises(type(fault)):
        run(line, steps=4, seconds_each=1.0, fault=fault)
    assert len(line.drawn) == 4
    assert line.left == ["stopped after 4.0 s in quantize 4 of 4"]


def test_a_terminal_line_is_overwritten_in_place_and_ends_as_one_line() -> None:
    stream = Terminal()
    run(TerminalLine(stream), steps=3, seconds_each=1.0)
    parts = stream.getvalue().split("\r")
    assert parts[1].startswith("quantize 1 of 3, 1.0 s, layer0")
    assert parts[-1].rstrip(" \n") == "done in 3.0 s"
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().endswith("\n")
    assert len(parts[-1].rstrip("\n")) >= len(parts[-2].rstrip())  # nothing of the longer line before stays


def test_a_stream_that_is_no_terminal_stays_empty() -> None:
    stream = io.StringIO()
    run(TerminalLine(stream), steps=3, seconds_each=1.0)
    assert stream.getvalue() == ""


def test_names_of_tensors_are_escaped_in_the_bar() -> None:
    assert "<b>" not in bar_html(Tick(Step("quantize", 1, 2, "<b>w</b>"), 1.0))
    assert 'value="1" max="2"' in bar_html(Tick(Step("quantize", 1, 2), 1.0))
    assert "max=" not in bar_html(Tick(Step("load", 0, 0), 1.0))


def test_a_step_without_a_total_has_no_rest() -> None:
    assert say(Tick(Step("load", 0, 0), 1.0)) == "load, 1.0 s"
    assert say(Tick(Step("search", 7, 0), 1.0)) == "search 7, 1.0 s"


def test_a_shell_without_a_kernel_gets_the_terminal_line(shell: Any) -> None:
    assert isinstance(progress_line(shell), TerminalLine)
