"""What a search for mixed bits chooses from, whatever the storage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ptq_lab.plan import QuantPlan
from ptq_lab.progress import Progress, silent
from ptq_lab.search.allocate import Tables
from ptq_lab.search.sensitivity import Sensitivity

Read = Callable[[str], NDArray[np.float32]]


class Choices(Protocol):
    """What can be chosen for each weight: the label of a column in the tables of costs."""

    def by_rule(self, target: float, *, progress: Progress) -> QuantPlan:
        """Return the plan in which every weight makes the same relative error."""
        ...

    def tables(self, sensitivity: Sensitivity) -> Tables:
        """Return what every choice costs and weighs."""
        ...

    def rounded(self, labels: Mapping[str, int], *, progress: Progress = silent) -> QuantPlan:
        """Return the plan with codes that some choices give."""
        ...
