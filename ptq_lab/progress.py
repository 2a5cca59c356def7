"""How long work tells where it is: one small value, one callable.

The core calls a `Progress` once per sample or per layer. The notebook turns it into a bar, the command
line into a line on stderr, a test into a list. To cancel, the callable raises; nothing here catches it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One tick of a long job.

    Attributes
    ----------
    stage : str
        What is being done, e.g. ``"quantize"``, ``"compare"``.
    done, total : int
        Units finished and units in all (layers, samples); ``total`` is 0 when it is not known.
    detail : str
        What the tick was about, e.g. a tensor name.

    Examples
    --------
    >>> Step("quantize", 3, 12, "conv1.weight")
    Step(stage='quantize', done=3, total=12, detail='conv1.weight')
    """

    stage: str
    done: int
    total: int
    detail: str = ""


Progress = Callable[[Step], None]


def silent(step: Step) -> None:
    """Ignore every step: the progress of somebody who does not want to hear."""
