"""One line of progress under a running cell, and one line that remains of it.

Short jobs show nothing at all. Drawing is throttled, so that a notebook does not fill with messages. When a long job
ends, its line says how long every stage took; when it fails or is interrupted, how far it came.
"""

# mypy: disallow-untyped-calls=False
# (IPython's display functions carry no types.)

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from types import TracebackType
from typing import Protocol, Self, TextIO

from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display, update_display

from ptq_lab.progress import Step
from ptq_lab.report.text import format_seconds, shorten

DELAY = 0.3
INTERVAL = 0.15
FORESEEN = 1.0  # seconds of a stage after which its rest can be told
_BOX = (
    '<div style="display:flex;gap:10px;align-items:center;font-size:13px;'
    'font-family:var(--jp-ui-font-family,sans-serif);color:var(--jp-content-font-color2,#767676)">'
)


@dataclass(frozen=True, slots=True)
class Tick:
    """A step of a job and its times in seconds: since the job started, and until the stage ends if that can be told."""

    step: Step
    elapsed: float
    left: float | None = None


class Interrupted(KeyboardInterrupt):
    """The user stopped a cell; IPython shows the message alone."""

    def _render_traceback_(self, *args: object) -> list[str]:
        return [str(self)]


class Line(Protocol):
    """Where the one line of progress is drawn."""

    def draw(self, tick: Tick) -> None:
        """Show a step, replacing what was shown before."""

    def leave(self, text: str) -> None:
        """Replace what was drawn by the line that remains."""


class ProgressBar:
    """A :data:`ptq_lab.progress.Progress` for the time of one ``with`` block.

    Parameters
    ----------
    line : Line
        Where to draw.
    clock : callable
        Returns seconds.

    Examples
    --------
    >>> with ProgressBar(TerminalLine(sys.stderr)) as progress:
    ...     progress(Step("quantize", 1, 2))  # too early to be worth a line
    """

    def __init__(self, line: Line, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._line = line
        self._clock = clock
        self._started = clock()
        self._drawn_at: float | None = None
        self._stages: dict[str, float] = {}  # when each was first heard of
        self._last: Step | None = None

    def __enter__(self) -> Self:
        return self

    def __call__(self, step: Step) -> None:
        """Draw `step` unless the job is young or the last drawing is recent."""
        now = self._clock()
        # A stage that comes again, as in a search, starts anew.
        if self._last is None or self._last.stage != step.stage or step.done < self._last.done:
            self._stages[step.stage] = now
        self._last = step
        due = self._started + DELAY if self._drawn_at is None else self._drawn_at + INTERVAL
        if now >= due:
            self._line.draw(Tick(step, now - self._started, self._left(step, now)))
            self._drawn_at = now

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn_at is not None:
            self._line.leave(self.where if kind else f"done in {format_seconds(self._clock() - self._started)}")

    @property
    def where(self) -> str:
        """How long it took so far, and how far it came."""
        elapsed = format_seconds(self._clock() - self._started)
        return f"stopped after {elapsed}{f' in {_count(self._last)}' if self._last else ''}"

    def _left(self, step: Step, now: float) -> float | None:
        spent = now - self._stages[step.stage]
        if spent < FORESEEN or not 0 < step.done < step.total:
            return None
        return spent / step.done * (step.total - step.done)


class NotebookLine:
    """A bar in the output of the running cell that becomes a line of text; other outputs are left alone."""

    def __init__(self) -> None:
        self._id = ""

    def draw(self, tick: Tick) -> None:
        """Publish the bar, or update it."""
        self._show(say(tick), bar_html(tick))

    def leave(self, text: str) -> None:
        """Put the line where the bar was."""
        self._show(text, f"{_BOX}<span>{escape(text)}</span></div>")
        self._id = ""

    def _show(self, text: str, html: str) -> None:
        bundle = {"text/plain": text, "text/html": html}
        if self._id:
            update_display(bundle, display_id=self._id, raw=True)
            return
        self._id = f"ptq_lab-{uuid.uuid4().hex}"  # an id that came twice would change the line of an earlier cell
        display(bundle, display_id=self._id, raw=True)


class TerminalLine:
    """One line on a terminal that is written over again and again; nothing where output is not a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._width = 0

    def draw(self, tick: Tick) -> None:
        """Write the line from its start, blanks over the rest of the previous one."""
        if self._stream.isatty():
            self._write(say(tick), "")

    def leave(self, text: str) -> None:
        """Write the line that remains, and end it."""
        if self._width:
            self._write(text, "\n")
            self._width = 0

    def _write(self, text: str, end: str) -> None:
        self._stream.write(f"\r{text.ljust(self._width)}{end}")
        self._stream.flush()
        self._width = len(text)


def progress_line(shell: InteractiveShell) -> Line:
    """Return the line that fits the front end: behind a kernel there is a notebook or a console."""
    return NotebookLine() if hasattr(shell, "kernel") else TerminalLine(sys.stderr)


def say(tick: Tick) -> str:
    """Return a step as one short line.

    Examples
    --------
    >>> say(Tick(Step("quantize", 3, 12, "conv1.weight"), 4.2, 12.6))
    'quantize 3 of 12, 4.2 s, 12.6 s left, conv1.weight'
    """
    left = f", {format_seconds(tick.left)} left" if tick.left is not None else ""
    detail = f", {shorten(tick.step.detail)}" if tick.step.detail else ""
    return f"{_count(tick.step)}, {format_seconds(tick.elapsed)}{left}{detail}"


def bar_html(tick: Tick) -> str:
    """Return a step as a bar and its line; the bar has no length while the total is unknown."""
    step = tick.step
    value = f' value="{step.done}" max="{step.total}"' if step.total else ""
    bar = f'<progress{value} style="width:180px;accent-color:#2f7fc1" aria-label="{escape(step.stage)}"></progress>'
    return f"{_BOX}{bar}<span>{escape(say(tick))}</span></div>"


def _count(step: Step) -> str:
    return f"{step.stage}{f' {step.done} of {step.total}' if step.total else f' {step.done}' if step.done else ''}"
