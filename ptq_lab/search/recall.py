"""A sensitivity that is measured once: kept on disk by the content of everything that shapes it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial

import numpy as np

from ptq_lab.calibration import Samples
from ptq_lab.calibration.cache import Arrays, Memory
from ptq_lab.calibration.recall import content_key
from ptq_lab.graph import Model
from ptq_lab.plan import QuantPlan
from ptq_lab.progress import Progress, Step, silent
from ptq_lab.runtime import CPU
from ptq_lab.search.sensitivity import PROBE_BITS, WIDTHS, Sensitivity, measure_sensitivity

FORMAT = 3
"""Of the entries and of what they mean; raise it when `measure_sensitivity` measures anything differently."""


def recall_sensitivity(
    model: Model,
    plan: QuantPlan,
    samples: Samples,
    *,
    memory: Memory,
    providers: Sequence[str] = CPU,
    executor: Executor | None = None,
    deadline: float = math.inf,
    single_step: bool = False,
    progress: Progress = silent,
) -> Sensitivity:
    """Return what :func:`measure_sensitivity` returns, measured now or by an earlier run.

    Parameters
    ----------
    model : Model
        The float model.
    plan : QuantPlan
        The weights; their widths do not matter.
    samples : Samples
        All of them are run.
    memory : Memory
        Where results are kept. One that ran out of time is not.
    providers, executor, deadline, single_step, progress
        As for :func:`measure_sensitivity`; the result depends on the providers and the way of probing only.
    """
    grids = [(entry.tensor, list(entry.shape), entry.axis, entry.correct) for entry in plan.entries]
    facts = {
        "what": f"sensitivity {FORMAT}",
        "grids": grids,
        "widths": WIDTHS,
        "probe": PROBE_BITS,
        "single_step": single_step,
        "providers": list(providers),
    }
    measure = partial(
        measure_sensitivity,
        model,
        plan,
        list(samples),
        providers=providers,
        executor=executor,
        deadline=deadline,
        single_step=single_step,
        progress=progress,
    )

    def recalled(arrays: Arrays) -> Sensitivity:
        found = unpack_sensitivity(arrays)
        if found.tensors != tuple(entry.tensor for entry in plan.entries):
            raise ValueError
        return found

    before = memory.measured
    found = memory.recall(
        partial(content_key, model, samples, facts),
        measure,
        pack=pack_sensitivity,
        unpack=recalled,
        worth=lambda result: result.measured == len(result.tensors),
    )
    if memory.measured == before:
        progress(Step("sensitivity", len(plan.entries), len(plan.entries), "from the cache"))
    return found


def pack_sensitivity(found: Sensitivity) -> Arrays:
    """Return a sensitivity as plain arrays."""
    return {
        "tensors": np.array(found.tensors),
        "widths": np.array(found.widths),
        "gains": found.gains,
        "noise": found.noise,
        "power": found.power,
        "counts": np.array([found.measured, found.runs]),
    }


def unpack_sensitivity(arrays: Arrays) -> Sensitivity:
    """Return the sensitivity that :func:`pack_sensitivity` was given.

    Raises
    ------
    KeyError, ValueError, IndexError, TypeError
        If the arrays are something else.
    """
    tensors, widths = tuple(arrays["tensors"].tolist()), tuple(arrays["widths"].tolist())
    measured, runs = arrays["counts"].tolist()
    gains, noise, power = (arrays[name].astype(np.float64) for name in ("gains", "noise", "power"))
    if gains.shape != (len(tensors),) or noise.shape != (len(tensors), len(widths)) or power.shape != gains.shape:
        raise ValueError
    return Sensitivity(tensors, widths, gains, noise, power, measured, runs)
