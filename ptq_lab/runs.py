"""Several finished runs side by side: their settings, what they cost, and what they answer differently."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ptq_lab.calibration import Samples
from ptq_lab.calibration.preview import draw_sample
from ptq_lab.config import QuantConfig
from ptq_lab.config.options import GROUPS, value_of
from ptq_lab.errors import ConfigError, Problem, PtqLabError
from ptq_lab.evaluation import Top1
from ptq_lab.flags import parse_input_shape
from ptq_lab.graph import Model
from ptq_lab.inputs import open_judge
from ptq_lab.progress import Progress, silent
from ptq_lab.report.answering import Answers, answer_samples
from ptq_lab.report.layer_errors import measure_layer_errors
from ptq_lab.report.side_by_side import Flip, LayerErrors, RunColumn, SettingRow, SideBySide
from ptq_lab.result import QuantResult
from ptq_lab.runtime import Sessions

FEW, MANY = 8, 256  # samples on which layers, and answers, are looked at
PICTURES = 12  # flips that are shown
SIDE = 56  # pixels of a thumbnail
MOST = 8  # runs that fit beside each other
UNSET = "unset"
OVERFIT = "the error on evaluation is more than twice that on calibration"


def side_by_side(runs: Mapping[str, QuantResult], *, progress: Progress = silent) -> SideBySide:
    """Compare finished runs: settings that differ, sizes, metrics, errors by layer, and answers that changed.

    Parameters
    ----------
    runs : mapping of str to QuantResult
        Two to eight results of :func:`ptq_lab.quantize` by the names to show. A run whose file was deleted or written
        over since is looked at as it was.
    progress : Progress
        Told once per sample.

    Returns
    -------
    SideBySide
        It prints as text; ``to_html()`` gives HTML.

    Raises
    ------
    ConfigError
        If these are not two to eight results.

    Notes
    -----
    Layers and answers are only compared between runs of the same model. Answers are looked at on up to 256 samples of
    the first evaluation data that a run was given, or else on its calibration samples.

    Examples
    --------
    >>> from ptq_lab import demo, quantize
    >>> digits = demo.load("digits_cnn")
    >>> runs = {}
    >>> for bits in (8, 2):
    ...     settings = {"common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": bits}}
    ...     runs[f"bits{bits}"] = quantize(digits.model_path, settings, samples=digits.calib_path)
    >>> seen = side_by_side(runs)
    >>> [(row.key, row.values) for row in seen.settings]
    [('bit_num', ('8', '2'))]
    >>> seen.runs[0].calibration < seen.runs[1].calibration
    True
    """
    _check(runs)
    results, sessions = list(runs.values()), Sessions()
    looks = [_look(result, sessions, progress) for result in results]
    same = len({result.manifest["model"]["sha256"] for result in results}) == 1
    notes = [] if same else ["the runs quantize different models, so layers and answers are not compared"]
    what = "was deleted or written over since; the run is looked at as it was"
    looked = zip(runs.items(), looks, strict=True)
    notes += [f"{name}: {run.model_path.name} {what}" for (name, run), look in looked if not look.intact]
    seen, layers = _Seen(), tuple[LayerErrors, ...]()
    if same:
        seen = _answers(results[0].run.original, looks, sessions, progress)
        layers = _layers(results, looks, progress)
        notes += seen.notes
    columns = tuple(
        RunColumn(
            name=name,
            summary=result.report.summary,
            calibration=look.calibration,
            evaluation=look.evaluation,
            changed=seen.changed[index] if seen.changed else None,
        )
        for index, ((name, result), look) in enumerate(zip(runs.items(), looks, strict=True))
    )
    notes += [f"{run.name}: {OVERFIT}" for run in columns if run.overfits]
    return SideBySide(
        runs=columns,
        settings=(*_settings(results), *_calls(results)),
        layers=layers,
        flips=seen.flips,
        flipped=seen.flipped,
        looked_at=seen.count,
        seen_on=seen.origin,
        notes=tuple(notes),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """What one run says on its own samples; its model as the run wrote it, and whether the file still is that."""

    model: Model
    intact: bool
    calibration: float | None
    evaluation: float | None
    labelled: Top1 | None
    common: Samples


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What the models answer."""

    flips: tuple[Flip, ...] = ()
    flipped: int = 0
    count: int = 0
    origin: str = ""
    changed: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def _check(runs: object) -> None:
    if not isinstance(runs, Mapping):
        message = f"runs: {type(runs).__name__} given; a mapping from names to results of ptq_lab.quantize wanted"
        raise ConfigError([Problem(message=message)])
    wrong = [f"{name} is {type(run).__name__}" for name, run in runs.items() if not isinstance(run, QuantResult)]
    if wrong:
        raise ConfigError([Problem(message=f"runs: {', '.join(wrong)}; results of ptq_lab.quantize wanted")])
    if not 2 <= len(runs) <= MOST:
        raise ConfigError([Problem(message=f"runs: {len(runs)} given; 2 to {MOST} can stand side by side")])


def _is_intact(result: QuantResult) -> bool:
    """Tell whether the file of a run is still what the run wrote."""
    if not all(file.is_file() for file in result.files):
        return False
    now = Model(result.model.ir_model, result.model.label, result.model_path, result.model.data)
    return bool(now.digest() == result.manifest["quantized"]["sha256"])


def _look(result: QuantResult, sessions: Sessions, progress: Progress) -> _Look:
    run, intact = result.run, _is_intact(result)
    model = result.model if intact else Model(result.model.ir_model, result.model.label)
    measure = partial(answer_samples, sessions(run.original), [sessions(model)], limit=MANY, progress=progress)
    labelled = _labelled(result)
    calibration = None if run.samples.random else measure(run.samples).errors[0]
    evaluation = measure(labelled.samples).errors[0] if labelled is not None else None
    common = labelled.samples if labelled is not None else run.samples
    return _Look(
        model=model,
        intact=intact,
        calibration=calibration,
        evaluation=evaluation,
        labelled=labelled,
        common=common,
    )


def _labelled(result: QuantResult) -> Top1 | None:
    """Return the labelled samples behind the metric of a run, if they can still be read."""
    run = result.run
    shapes = parse_input_shape(run.flags["input_shape"])
    try:
        judge = open_judge(run.original, result.config, run.evaluate, shapes, run.flags["input_data_format"])
    except PtqLabError:  # deleted since the run, which knew them
        return None
    return judge.function if judge is not None and isinstance(judge.function, Top1) else None


def _answers(original: Model, looks: Sequence[_Look], sessions: Sessions, progress: Progress) -> _Seen:
    chosen = next((look for look in looks if look.labelled is not None), looks[0])
    found = answer_samples(
        sessions(original),
        [sessions(look.model) for look in looks],
        chosen.common,
        limit=MANY,
        picture=partial(draw_sample, side=SIDE),
        labelled=chosen.labelled is not None,
        progress=progress,
    )
    count = len(found.classes)
    if not count:
        return _Seen(notes=("the model gives no class scores, so no answers are compared",))
    changed = tuple(sum(row[0] != row[index + 1] for row in found.classes) for index in range(len(looks)))
    every = _flips(found, chosen)
    origin = chosen.common.origin if count == len(chosen.common) else f"the first {count} of {chosen.common.origin}"
    return _Seen(flips=every[:PICTURES], flipped=len(every), count=count, origin=origin, changed=changed)


def _flips(found: Answers, chosen: _Look) -> tuple[Flip, ...]:
    flips = [
        Flip(
            sample=Path(chosen.common.place(index)).name,
            label=chosen.labelled.labels[index] if chosen.labelled is not None else None,
            answer=row[0],
            answers=row[1:],
            picture=found.pictures[index],
        )
        for index, row in enumerate(found.classes)
        if index in found.pictures
    ]
    return tuple(sorted(flips, key=lambda flip: -sum(answer != flip.answer for answer in flip.answers)))


def _layers(results: Sequence[QuantResult], looks: Sequence[_Look], progress: Progress) -> tuple[LayerErrors, ...]:
    few = list(islice(looks[0].common, FEW))
    rows: dict[str, str] = {}
    errors: list[dict[str, float | None]] = []
    for result, look in zip(results, looks, strict=True):
        table = measure_layer_errors(result.run.prepared, look.model, result.plan, few, progress=progress)
        rows |= {row.node: row.op_type for row in table}
        errors.append({row.node: _relative(row.isolated_sqnr_db) for row in table})
    bits = [{node: entry.bits for entry in result.plan.entries for node in entry.nodes} for result in results]
    found = [
        LayerErrors(
            node=node,
            op_type=op_type,
            bits=tuple(of_run.get(node) for of_run in bits),
            errors=tuple(of_run.get(node) for of_run in errors),
        )
        for node, op_type in rows.items()
    ]
    return tuple(sorted(found, key=lambda row: -row.worst))


def _relative(sqnr_db: float | None) -> float | None:
    """Return a signal-to-noise ratio as a relative error."""
    if sqnr_db is None or math.isnan(sqnr_db):
        return None
    return math.pow(10.0, -sqnr_db / 20.0)


def _settings(results: Sequence[QuantResult]) -> tuple[SettingRow, ...]:
    """Return the options whose values differ, in the order of their declarations; then pinned widths."""
    configs = [result.config for result in results]
    rows = []
    for section, group in GROUPS.items():
        for key in group.options():
            values = tuple(_written(config, section, key) for config in configs)
            if len(set(values)) > 1:
                rows.append(SettingRow(section=section, key=key, values=values))
    pins = [dict(config.layer_bits) for config in configs]
    for name in dict.fromkeys(name for pinned in pins for name in pinned):
        values = tuple(str(pinned.get(name, UNSET)) for pinned in pins)
        if len(set(values)) > 1:
            rows.append(SettingRow(section="ptq_lab.layer_bits", key=name, values=values))
    return tuple(rows)


def _written(config: QuantConfig, section: str, key: str) -> str:
    value = value_of(config, section, key)
    return UNSET if value is None or value == () else str(GROUPS[section].options()[key].kind.write(value))


def _calls(results: Sequence[QuantResult]) -> tuple[SettingRow, ...]:
    """Return what differs in how the runs were called."""
    calls: list[dict[str, Any]] = [
        {**result.run.flags, "samples": result.run.samples.origin, "evaluate": result.report.summary.metric}
        for result in results
    ]
    rows = []
    for name in calls[0]:
        values = tuple(UNSET if call[name] in (None, "") else str(call[name]) for call in calls)
        if name != "executor" and len(set(values)) > 1:
            rows.append(SettingRow(section="", key=name, values=values))
    return tuple(rows)
