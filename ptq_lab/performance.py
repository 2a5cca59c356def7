"""What a quantized model costs to run here, beside the float model and, if asked for, other forms of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ptq_lab.calibration import Samples, random_samples
from ptq_lab.config import QuantConfig
from ptq_lab.errors import InferenceError
from ptq_lab.flags import Flags
from ptq_lab.graph import Model, Rules, apply_plan, find_targets, raise_opset, required_opset, save_model, store_half
from ptq_lab.plan import make_plan, round_weights
from ptq_lab.report.build import overall
from ptq_lab.report.compare import measure
from ptq_lab.report.performance import Form, measure_performance
from ptq_lab.report.rows import PerformanceRow
from ptq_lab.report.tables import Table
from ptq_lab.report.text import format_shape
from ptq_lab.runtime import Feeds, Sessions

SEQUENCE = 128  # steps of a made-up sample: shorter texts say little about speed


@dataclass(frozen=True, slots=True)
class Performance:
    """The performance table, and the shapes of what was run."""

    rows: Table[PerformanceRow]
    timed_on: str

    @property
    def latency_ratio(self) -> float:
        """Time of the quantized model over that of the float model."""
        return 1.0 + self.rows[1].latency_change


def look_at_performance(
    original: Model,
    quantized: Form,
    config: QuantConfig,
    flags: Flags,
    data: Samples,
    *,
    sessions: Sessions,
    folded: Model | None = None,
) -> Performance | None:
    """Measure the forms of a model that the configuration asks for; ``None`` if it asks for none.

    Parameters
    ----------
    original : Model
        In a file or not.
    quantized : Form
        In a file.
    config : QuantConfig
        Its ``[ptq_lab] performance``: ``auto`` means DYNAMIC_QUANT, and weights that stay small at run time, only;
        ``full`` adds FP16 and 8-bit weights.
    flags : Flags
    data : Samples
        What a row's cosine and latency are measured on.
    sessions : Sessions
        Where the models may be open already.
    folded : Model, optional
        The same weights in the form that becomes float at load, to be measured beside.
    """
    wanted = config.lab.performance
    if wanted == "off" or (wanted == "auto" and config.common.quant_type != "DYNAMIC_QUANT" and folded is None):
        return None
    with _other_forms(original, data, config, wanted=wanted == "full", folded=folded) as others:
        forms = [Form(name="float32", arithmetic="float32", model=original), quantized, *others]
        if data.random:
            longer = random_samples(original.inputs, count=1, input_shape=flags.shapes, sequence=SEQUENCE)
            with suppress(InferenceError):  # longer than the model can take
                return _measured(forms, next(iter(longer)), sessions)
        return _measured(forms, next(iter(data)), sessions)


def _measured(forms: Sequence[Form], feeds: Feeds, sessions: Sessions) -> Performance:
    timed_on = ", ".join(f"{name} {format_shape(array.shape)}" for name, array in feeds.items())
    return Performance(measure_performance(forms, feeds, sessions=sessions), timed_on)


@contextmanager
def _other_forms(
    original: Model, data: Samples, config: QuantConfig, *, wanted: bool, folded: Model | None
) -> Iterator[list[Form]]:
    """Write the float model in 16 bits, and with weights in 8, and compare their outputs."""
    models = {} if folded is None else {"same weights, float at load": folded}
    if wanted:
        targets = find_targets(original, Rules(skip=config.common.skip_quant_node))
        plan = round_weights(make_plan(targets, bits=8), original.weight)
        models["FP16"] = store_half(original)[0]
        models["WEIGHT_QUANT, 8 bits"] = apply_plan(raise_opset(original, required_opset(plan)), plan)
    with tempfile.TemporaryDirectory() as folder:
        forms = []
        for index, (name, model) in enumerate(models.items()):
            written = save_model(model, Path(folder) / f"{index}.onnx")
            cosine, _, _ = overall(measure(original, written, data, providers=config.lab.providers).outputs)
            forms.append(Form(name=name, arithmetic="float32", model=written, cosine=cosine))
        yield forms
