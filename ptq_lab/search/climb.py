"""From rung to rung of the quality ladder: what does not help on samples that no step has seen is dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ptq_lab.calibration import Samples
from ptq_lab.graph import Model, apply_plan
from ptq_lab.plan import QuantPlan
from ptq_lab.progress import Progress, silent
from ptq_lab.runtime import CPU, Feeds
from ptq_lab.search.judging import output_error, outputs_of
from ptq_lab.search.ladder import Improved, improve_weights
from ptq_lab.search.layer_rounding import LayerSteps, Recipe

FEWEST = 16  # samples: two of them judge the steps of a layer, four the whole
GOOD = 64  # samples from which more of them change little at 8 bits; below 5 bits 200 are better still
MOST_JUDGES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """A recipe with its name, and how many samples it looks at."""

    name: str
    recipe: Recipe
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Climbed:
    """The best plan, what was done to its layers, and what is to be said.

    ``interrupted`` tells how far a rung came that the user stopped; empty if none was.
    """

    plan: QuantPlan
    layers: tuple[LayerSteps, ...] = ()
    notes: tuple[str, ...] = ()
    interrupted: str = ""


def climb(
    plan: QuantPlan,
    model: Model,
    samples: Samples,
    rungs: Sequence[Rung],
    *,
    providers: Sequence[str] = CPU,
    progress: Progress = silent,
) -> Climbed:
    """Return the plan of the rung whose outputs are nearest to the float model's.

    Parameters
    ----------
    plan : QuantPlan
        Of weights alone, with codes: the ground; it is kept where nothing helps.
    model : Model
        The float model, BatchNormalization folded.
    samples : Samples
        At least `FEWEST`; the last ones judge the rungs, the others make them.
    rungs : sequence of Rung
    providers : sequence of str
    progress : Progress

    Raises
    ------
    InferenceError
        If onnxruntime fails.
    """
    if not rungs or not plan.entries:
        return Climbed(plan=plan)
    edge = len(samples) - max(4, min(MOST_JUDGES, len(samples) // 8))
    judges = list(samples.part(edge, len(samples)))
    wanted = outputs_of(model, judges, providers=providers)
    plans = {"nearest": Improved(plan=plan, layers=())}
    for rung in rungs:
        feeds = samples.take(min(edge, rung.samples))
        plans[rung.name] = improve_weights(plan, model, feeds, rung.recipe, providers=providers, progress=progress)
        if plans[rung.name].stopped:
            break
    errors = {
        name: output_error(wanted, outputs_of(apply_plan(model, each.plan), judges, providers=providers))
        for name, each in plans.items()
    }
    best = min(errors, key=errors.__getitem__)
    stopped = next((name for name, each in plans.items() if each.stopped), "")
    interrupted = f"{stopped} was stopped after {len(plans[stopped].layers)} layers" if stopped else ""
    notes = (_verdict(errors, best, len(judges), stopped=bool(stopped)), *_about(samples, plans[best]))
    return Climbed(plan=plans[best].plan, layers=plans[best].layers, notes=notes, interrupted=interrupted)


def unfit(samples: Samples) -> str:
    """Return why samples cannot make weights better, in one sentence; empty if they can."""
    left = "weights were rounded to the nearest step"
    if len(samples) < FEWEST:
        return f"{left}: {len(samples)} samples are too few to judge by; {FEWEST} are needed, {GOOD} or more help"
    first = next(iter(samples))
    if all(_alike(first, other) for other in samples):
        return f"{left}: all {len(samples)} samples are the same, so there is nothing to learn from them"
    return ""


def _alike(one: Feeds, other: Feeds) -> bool:
    return all(np.array_equal(array, other[name]) for name, array in one.items())


def _verdict(errors: Mapping[str, float], best: str, count: int, *, stopped: bool) -> str:
    told = ", ".join(f"{name} {error:.3g}" for name, error in errors.items())
    last = list(errors)[-1]
    dropped = "" if best == last or stopped else f"; {last} was dropped, because it did not help"
    return f"weights by {best}: 1 - cosine of the output on {count} samples that shaped no weight: {told}{dropped}"


def _about(samples: Samples, found: Improved) -> tuple[str, ...]:
    notes = []
    if len(samples) < GOOD:
        notes.append(f"{len(samples)} samples shaped the weights; {GOOD} or more help")
    silent_layers = [layer for layer in found.layers if layer.reason]
    if silent_layers:
        first = silent_layers[0]
        notes.append(f"{len(silent_layers)} layers were left as they are, e.g. {first.node}: {first.reason}")
    return tuple(notes)
