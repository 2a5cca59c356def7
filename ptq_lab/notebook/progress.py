"""One line of progress under a running cell, which leaves nothing behind.

Short jobs show nothing at all. Drawing is throttled, so that a notebook does not fill with messages, and the
line goes away on success, on errors and on an interrupt alike.
"""

# mypy: disallow-untyped-calls=False
# (IPython's display functions carry no types.)

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from html import escape
from types import TracebackType
from typing import Protocol, Self, TextIO

from IPython.core.interactiveshell import InteractiveShell
from IPython.display import clear_output, display, update_display

from ptq_lab.progress import Step
from ptq_lab.report.text import format_seconds, shorten

DELAY = 0.3
INTERVAL = 0.15
DISPLAY_ID = "ptq_lab-progress"


class Line(Protocol):
    """Where the one line of progress is drawn."""

    def draw(self, step: Step, elapsed: float) -> None:
        """Show `step`, replacing what was shown before; `elapsed` is in seconds."""

    def clear(self) -> None:
        """Take away what was drawn."""


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

    def __enter__(self) -> Self:
        return self

    def __call__(self, step: Step) -> None:
        """Draw `step` unless the job is young or the last drawing is recent."""
        now = self._clock()
        due = self._started + DELAY if self._drawn_at is None else self._drawn_at + INTERVAL
        if now >= due:
            self._line.draw(step, now - self._started)
            self._drawn_at = now

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn_at is not None:
            self._line.clear()


class NotebookLine:
    """A bar in the output of the running cell; clearing it clears the output of the cell so far."""

    def __init__(self) -> None:
        self._drawn = False

    def draw(self, step: Step, elapsed: float) -> None:
        """Publish the bar, or update it."""
        bundle = {"text/plain": say(step, elapsed), "text/html": bar_html(step, elapsed)}
        if self._drawn:
            update_display(bundle, display_id=DISPLAY_ID, raw=True)
        else:
            display(bundle, display_id=DISPLAY_ID, raw=True)
        self._drawn = True

    def clear(self) -> None:
        """Remove the bar; an emptied display would stay in the saved notebook."""
        clear_output()
        self._drawn = False


class TerminalLine:
    """One line on a terminal that is written over again and again; nothing where output is not a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._width = 0

    def draw(self, step: Step, elapsed: float) -> None:
        """Write the line from its start, blanks over the rest of the previous one."""
        if not self._stream.isatty():
            return
        text = say(step, elapsed)
        self._stream.write(f"\r{text.ljust(self._width)}")
        self._stream.flush()
        self._width = len(text)

    def clear(self) -> None:
        """Blank the line and go back to its start."""
        if self._width:
            self._stream.write(f"\r{' ' * self._width}\r")
            self._stream.flush()
            self._width = 0


def progress_line(shell: InteractiveShell) -> Line:
    """Return the line that fits the front end: behind a kernel there is a notebook or a console."""
    return NotebookLine() if hasattr(shell, "kernel") else TerminalLine(sys.stderr)


def say(step: Step, elapsed: float) -> str:
    """Return a step as one short line.

    Examples
    --------
    >>> say(Step("quantize", 3, 12, "conv1.weight"), 4.2)
    'quantize 3 of 12, 4.2 s, conv1.weight'
    """
    count = f" {step.done} of {step.total}" if step.total else f" {step.done}" if step.done else ""
    detail = f", {shorten(step.detail)}" if step.detail else ""
    return f"{step.stage}{count}, {format_seconds(elapsed)}{detail}"


def bar_html(step: Step, elapsed: float) -> str:
    """Return a step as a bar and its line; the bar has no length while the total is unknown."""
    value = f' value="{step.done}" max="{step.total}"' if step.total else ""
    return (
        '<div style="display:flex;gap:10px;align-items:center;font-size:13px;'
        'font-family:var(--jp-ui-font-family,sans-serif);color:var(--jp-content-font-color2,#767676)">'
        f'<progress{value} style="width:180px;accent-color:#2f7fc1"></progress>'
        f"<span>{escape(say(step, elapsed))}</span></div>"
    )
