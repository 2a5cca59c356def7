"""What mixed bits may cost: the limits of a configuration as numbers, and what limits them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ptq_lab.config import QuantConfig
from ptq_lab.graph import Model

AUTO_TUNE_COSINE = 0.995


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What an allocation may cost: every limit has to hold.

    Attributes
    ----------
    file : float
        Bytes of the whole file.
    bits : float
        Average width of a weight; scales are not counted.
    error : float
        ``1 - cosine`` of the output.
    drop : float
        Of the metric.
    seconds : float
        For the search.
    """

    file: float = math.inf
    bits: float = math.inf
    error: float = math.inf
    drop: float = math.inf
    seconds: float = math.inf

    @property
    def bounds_size(self) -> bool:
        """Whether there is a limit on size."""
        return min(self.file, self.bits) < math.inf

    @property
    def bounds_loss(self) -> bool:
        """Whether there is a limit on what is lost."""
        return min(self.error, self.drop) < math.inf


def limits_output(config: QuantConfig) -> bool:
    """Tell whether widths follow from the output, by a budget or ``auto_tune``, instead of from ``init_scale``."""
    given = config.budget
    sizes = (given.target_size_mb, given.compression_ratio, given.average_bits)
    losses = (given.min_cosine, given.max_metric_drop)
    return config.mixed_bit.auto_tune or any(limit is not None for limit in (*sizes, *losses))


def budget_of(config: QuantConfig, original: Model) -> Budget | None:
    """Return what a configuration allows, or ``None`` if it names no limit but the error of each weight.

    ``auto_tune`` is a limit of its own, and gives way to any that is named.
    """
    if not limits_output(config):
        return None
    given = config.budget
    sizes = [1e6 * given.target_size_mb] if given.target_size_mb is not None else []
    sizes += [original.size / given.compression_ratio] if given.compression_ratio is not None else []
    budget = Budget(
        file=min(sizes, default=math.inf),
        bits=given.average_bits if given.average_bits is not None else math.inf,
        error=1.0 - given.min_cosine if given.min_cosine is not None else math.inf,
        drop=given.max_metric_drop if given.max_metric_drop is not None else math.inf,
        seconds=given.time_limit_s if given.time_limit_s is not None else math.inf,
    )
    named = budget.bounds_size or budget.bounds_loss
    return budget if named else replace(budget, error=1.0 - AUTO_TUNE_COSINE)
