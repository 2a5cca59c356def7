"""Why a result is off: its layers one by one, on the samples it was made with and on those it is judged on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from ptq_lab.calibration import Samples
from ptq_lab.config import QuantConfig
from ptq_lab.graph import Model
from ptq_lab.plan import QuantPlan
from ptq_lab.progress import Progress, silent
from ptq_lab.report.diagnosis import diagnose
from ptq_lab.report.facts import Facts, activation_facts, channel_facts
from ptq_lab.report.findings import Explanation
from ptq_lab.report.layer_errors import measure_layer_errors
from ptq_lab.report.rows import ErrorRow
from ptq_lab.report.tables import Table
from ptq_lab.result import QuantResult
from ptq_lab.runtime import Feeds

SAMPLES = 8  # that layers and activations are looked at on
INPUTS = 64  # that the channels of an input are looked at on


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is looked at.

    Attributes
    ----------
    prepared, model : Model
        The float model as the plan speaks of it, and what became of it.
    plan : QuantPlan
    config : QuantConfig
    samples : Samples
        What the model was calibrated or compared on.
    evaluated : Samples, sequence of {input name: array}, or None
        What it is judged on, if anything is known of that.
    kernel_notes : tuple of str
        Layers that do not run as integers.
    """

    prepared: Model
    model: Model
    plan: QuantPlan
    config: QuantConfig
    samples: Samples
    evaluated: Samples | Sequence[Feeds] | None = None
    kernel_notes: tuple[str, ...] = ()


def explain(
    result: QuantResult, *, evaluated: Iterable[Feeds] | None = None, progress: Progress = silent
) -> Explanation:
    """Look at every layer of a result, and say what causes its error; the result's report holds it from then on.

    Parameters
    ----------
    result : QuantResult
        As :func:`ptq_lab.quantize` returned it.
    evaluated : iterable of {input name: array}, optional
        Inputs of an evaluation: layers are looked at on them too, and calibration is compared with them. Without any,
        the labelled samples that the result was evaluated on, if it was.
    progress : Progress

    Examples
    --------
    >>> from ptq_lab import demo, quantize
    >>> digits = demo.load("digits_cnn")
    >>> result = quantize(digits.model_path, {"common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": 2}})
    >>> explain(result).causes[0].kind
    'too few bits'
    >>> result.report.explanation.by_harm[0].op_type
    'Conv'
    """
    run = result.run
    subject = Subject(
        prepared=run.prepared,
        model=result.model,
        plan=result.plan,
        config=result.config,
        samples=run.samples,
        evaluated=run.judged if evaluated is None else list(islice(evaluated, INPUTS)),
        kernel_notes=result.report.summary.kernel_notes,
    )
    found = look(subject, progress=progress)
    result.hold(found)
    return found


def look(subject: Subject, *, progress: Progress = silent) -> Explanation:
    """Return why a model is off that may not have become a result yet."""
    plan, prepared, config = subject.plan, subject.prepared, subject.config
    few = list(islice(subject.samples, SAMPLES))
    errors = measure_layer_errors(prepared, subject.model, plan, few, progress=progress)
    judged, there = spread(subject.evaluated or (), SAMPLES), Table(ErrorRow)
    if judged:
        there = measure_layer_errors(prepared, subject.model, plan, judged, progress=progress)
    static = config.common.quant_type == "FULL_QUANT"
    facts = Facts(
        plan=plan,
        model=prepared,
        errors={row.node: row for row in errors},
        evaluated_errors={row.node: row for row in there},
        activations=activation_facts(plan, prepared, few) if static else {},
        inputs=channel_facts(list(islice(subject.samples, INPUTS))),
        evaluated=channel_facts(spread(subject.evaluated or (), INPUTS)),
        per_channel=config.full.per_channel if static else config.weight.per_channel,
        corrects=config.full.bias_correction if static else config.weight.bias_correction,
        everything=static and config.lab.quantize_ops == "all",
        quant_type=config.common.quant_type or "",
        picture_format=config.preprocess.image_to_format or "",
        kernel_notes=subject.kernel_notes,
        skipped=config.common.skip_quant_node,
    )
    looked_at, evaluated_on = _origin(subject.samples, len(few)), _origin(subject.evaluated, len(judged))
    return Explanation(errors, diagnose(facts), there, looked_at, evaluated_on)


def spread(samples: Samples | Sequence[Feeds], count: int) -> list[Feeds]:
    """Return some samples from all over; evaluation data are often sorted by class.

    Examples
    --------
    >>> spread([{"x": number} for number in range(9)], 3)
    [{'x': 0}, {'x': 4}, {'x': 8}]
    """
    return list(_spread(samples, count))


def _spread(samples: Samples | Sequence[Feeds], count: int) -> Iterator[Feeds]:
    last, count = len(samples) - 1, min(count, len(samples))
    for number in range(count):
        index = round(number * last / max(1, count - 1))
        yield next(iter(samples.part(index, index + 1))) if isinstance(samples, Samples) else samples[index]


def _origin(samples: Samples | Sequence[Feeds] | None, count: int) -> str:
    if not samples:
        return ""
    source = samples.origin if isinstance(samples, Samples) else f"{len(samples)} samples given by the caller"
    return source if count == len(samples) else f"{count} of {source}"


__all__ = ["Explanation", "Subject", "explain", "look", "spread"]
