"""A bar on stderr where there is a terminal, a line per stage where there is none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ptq_lab.progress import Progress as Told
from ptq_lab.progress import Step


@contextmanager
def shown_progress() -> Iterator[Told]:
    """Yield a progress callable; whatever it shows in a terminal is gone when the block ends."""
    if not sys.stderr.isatty():
        yield _line_per_stage()
        return
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def show(step: Step) -> None:
            if step.stage not in tasks:
                tasks[step.stage] = bars.add_task(step.stage, total=step.total or None)
            bars.update(tasks[step.stage], completed=step.done)

        yield show


def _line_per_stage() -> Told:
    seen: set[str] = set()

    def show(step: Step) -> None:
        if step.stage not in seen:
            seen.add(step.stage)
            click.echo(f"{step.stage} ({step.total}) ..." if step.total else f"{step.stage} ...", err=True)

    return show
