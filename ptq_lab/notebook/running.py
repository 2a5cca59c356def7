"""A long run in a cell: its progress, its log, and what to say when the user stops it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from IPython.core.interactiveshell import InteractiveShell

from ptq_lab.notebook.progress import Interrupted, ProgressBar, progress_line
from ptq_lab.output import Stamp
from ptq_lab.progress import Progress, silent

LOG = 2  # the verbosity that shows it


@contextmanager
def running(shell: InteractiveShell, verbosity: int, output: str | None = None) -> Iterator[Progress]:
    """Yield what a run tells its progress to.

    Parameters
    ----------
    shell : InteractiveShell
    verbosity : int
        0: nothing is drawn; 1: the progress of long runs; 2: the log of the library as well.
    output : str, optional
        The file that the run writes.

    Raises
    ------
    Interrupted
        If the user stops the run: how far it came, and whether the file was written.
    """
    before = Stamp.of(output) if output else None
    bar = ProgressBar(progress_line(shell))
    try:
        with _log(verbosity >= LOG), bar:
            yield bar if verbosity else silent
    except KeyboardInterrupt:
        raise Interrupted(f"{bar.where}; {_written(before)}") from None


@contextmanager
def _log(wanted: bool) -> Iterator[None]:
    """Print the library's log for the time of a block."""
    if not wanted:
        yield
        return
    log, handler = logging.getLogger("ptq_lab"), logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    level, propagated = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False  # whoever has set up logging would see every line twice
    try:
        yield
    finally:
        log.setLevel(level)
        log.propagate = propagated
        log.removeHandler(handler)


def _written(before: Stamp | None) -> str:
    if before is not None and before.is_old():
        return f"{before.path} was already written, and has no report here"
    return "nothing was written"
