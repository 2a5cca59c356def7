"""Mixed bits by hand and by budget: change widths, see at once what to expect, run it to be sure, write it down."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

from ptq_lab.balance import Balance, read_limits
from ptq_lab.calibration import Samples
from ptq_lab.calibration.cache import Memory
from ptq_lab.config import QuantConfig, load_config
from ptq_lab.edits import History, Layers, Widths, names_of
from ptq_lab.errors import ModelError
from ptq_lab.flags import Flags, InputShape, parse_input_shape
from ptq_lab.graph import Model, load_model
from ptq_lab.inputs import Layout, open_data
from ptq_lab.mixed_bits import PROBES
from ptq_lab.pipeline import Config, Source, quantize
from ptq_lab.plan import QuantPlan, TensorPlan
from ptq_lab.progress import Progress, silent
from ptq_lab.recipe import fixed_config, recipe_bytes, thin_weights, weights_only, write_recipe
from ptq_lab.report.tables import Table
from ptq_lab.report.widths import FrontData, FrontPoint, Prediction, WidthRow, widths_text
from ptq_lab.result import QuantResult
from ptq_lab.search.file_size import measure_file_sizes
from ptq_lab.search.recall import recall_sensitivity
from ptq_lab.search.relative import fewest_bits
from ptq_lab.search.sensitivity import WIDTHS
from ptq_lab.search.verifier import Decoded, Verifier
from ptq_lab.weight_quant import pinned_plan

JUDGES = 8  # samples that a choice is verified on: others than those of the gains, if there are enough
RULE = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)  # relative errors of the original's rule that a picture shows
_DEFAULT = {"common_quant_param": {"quant_type": "WEIGHT_QUANT", "min_quant_weight_channel": 0}}


class MixedBitExplorer:
    """Widths of the weights of one model, to be changed by hand or by a budget; made by :func:`explore`.

    Every edit can be undone. A width set by hand is pinned: :meth:`fit` leaves it alone until :meth:`unpin`.

    Attributes
    ----------
    original : Model
    notes : tuple of str
        What the user should know about the samples and the sensitivities.
    """

    def __init__(
        self,
        original: Model,
        plan: QuantPlan,
        pins: Iterable[str],
        config: QuantConfig,
        samples: Samples,
        *,
        flags: Flags,
        progress: Progress = silent,
        remarks: Iterable[str] = (),
    ) -> None:
        self.original = original
        self._plan, self._config, self._samples, self._flags = plan, config, samples, flags
        memory, probes, providers = Memory(), samples.take(PROBES), config.lab.providers
        sensitivity = recall_sensitivity(
            original, plan, probes, memory=memory, providers=providers, executor=flags.executor, progress=progress
        )
        self._history = History(Widths({entry.tensor: entry.bits for entry in plan.entries}, frozenset(pins)))
        sizes, extra = measure_file_sizes(original, plan, WIDTHS), recipe_bytes(original, config, plan)
        self._balance = Balance(plan, sensitivity, sizes, extra=extra, allowed=config.budget.bits)
        self._size = original.size  # of a model in memory that takes as long as writing it
        self._decoded = Decoded(original)
        first = PROBES if len(samples) >= 2 * PROBES else 0
        self._judge = self._verifier(samples.part(first, min(len(samples), first + JUDGES)))
        self._rule: dict[float, Widths] = {}
        self._verified: dict[tuple[int | None, ...], FrontPoint] = {}
        guessed = len(sensitivity.tensors) - sensitivity.measured
        self.notes = (
            *remarks,
            *samples.notes,
            *(("there are no samples: measured on seeded random inputs; real ones do better",) * samples.random),
            *((f"interrupted: {guessed} sensitivities were guessed from the others",) * (guessed > 0)),
            *(("sensitivities reused from the cache",) * memory.reused),
        )

    def __repr__(self) -> str:
        return f"MixedBitExplorer({self.original.label}: {len(self._plan.entries)} weights, {self.predict()})"

    def __str__(self) -> str:
        return f"{self.original.label}: {self.predict()}\n{widths_text(tuple(self.layers))}"

    @property
    def widths(self) -> Widths:
        """The current choice."""
        return self._history.current

    @property
    def plan(self) -> QuantPlan:
        """The current choice as a plan, without codes and without what stays float."""
        return self.widths.quantized(self._plan)

    @property
    def samples(self) -> Samples | None:
        """What the model was given to measure it; ``None`` if it was made up."""
        return None if self._samples.random else self._samples

    @property
    def layers(self) -> Table[WidthRow]:
        """One row per weight, in the order of the graph."""
        return self._balance.rows(self.widths)

    def set_bits(self, layer: Layers, bits: int) -> Prediction:
        """Give one or several layers a width, and pin it; a layer that stayed float is quantized again.

        Parameters
        ----------
        layer : str or iterable of str
            Names of weights, or of nodes for all their weights.
        bits : int
            1..16.

        Raises
        ------
        PlanError
            If a name means nothing here (the message has the nearest one), or the width is none.
        """
        entries = self._meant(layer)
        self._plan.with_bits({entry.tensor: bits for entry in entries})  # refuses what is no width
        floats = [entry for entry in entries if self.widths.stays_float(entry)]
        return self._go_on(self.widths.freed(floats).pinned((entry.tensor for entry in entries), int(bits)))

    def pin(self, layer: Layers) -> Prediction:
        """Keep layers at the width they have, whatever the budget; raises as :meth:`set_bits`."""
        return self._go_on(self.widths.pinned(entry.tensor for entry in self._meant(layer)))

    def unpin(self, layer: Layers | None = None) -> Prediction:
        """Leave layers to the budget again, also those that stayed float; without names, all of them."""
        entries = self._plan.entries if layer is None else self._meant(layer)
        return self._go_on(self.widths.freed(entries))

    def skip(self, layer: Layers) -> Prediction:
        """Keep layers in float, as ``skip_quant_node`` does: all weights of a node; raises as :meth:`set_bits`."""
        return self._go_on(self.widths.in_float(self._plan, names_of(layer)))

    def take(self, point: FrontPoint) -> Prediction:
        """Take over the widths of a point, except where layers are pinned or stay float.

        Raises
        ------
        PlanError
            If the point is of another model.
        """
        return self._go_on(self.widths.taking(self._plan, point.bits))

    def fit(
        self,
        *,
        target_size_mb: float | None = None,
        average_bits: float | None = None,
        compression_ratio: float | None = None,
        min_cosine: float | None = None,
    ) -> Prediction:
        """Find the best widths within a budget, by prediction alone; pinned layers keep theirs.

        Parameters
        ----------
        target_size_mb : float, optional
            Largest file, in millions of bytes.
        average_bits : float, optional
            Per weight that is quantized.
        compression_ratio : float, optional
            How many times smaller than the float model.
        min_cosine : float, optional
            The smallest file that is expected to keep it; :meth:`verify` tells whether it does.

        Raises
        ------
        ConfigError
            If no limit is given, one is out of range, or they cannot be kept; the message says what can be reached.
        """
        names = ("target_size_mb", "average_bits", "compression_ratio", "min_cosine")
        given = dict(zip(names, (target_size_mb, average_bits, compression_ratio, min_cosine), strict=True))
        widths = {*self._balance.allowed, *(self.widths.bits[tensor] for tensor in self.widths.pins)}
        limits = read_limits(given, self._size, sorted(widths))
        bits = self._balance.fit(self.widths, limits)
        return self._go_on(replace(self.widths, bits={**self.widths.bits, **bits}))

    def predict(self, widths: Widths | None = None) -> Prediction:
        """Return what the current choice, or another one, is expected to cost; nothing is run."""
        return self._balance.predict(widths or self.widths)

    def verify(self, samples: Any = None) -> float:
        """Return the cosine that the current choice really has, as a mean over samples.

        Parameters
        ----------
        samples : folder, .npz, mapping or iterable, optional
            Instead of the explorer's own: 8 that the sensitivities were not measured on, if there are enough.

        Raises
        ------
        SampleError, InferenceError
        """
        if samples is not None:
            data = open_data(self.original, self._config, samples, self._flags.shapes, None)
            return 1.0 - self._verifier(data).error(self.plan)
        error = self._judge.error(self.plan)
        point = replace(self._balance.point(self.widths, "verified"), measured=error)
        self._verified[point.bits] = point
        return 1.0 - error

    @property
    def front(self) -> tuple[FrontPoint, ...]:
        """The best allocations from the smallest to the most exact, with what is pinned or float as it is."""
        return self._balance.front(self.widths)

    @property
    def verified(self) -> tuple[FrontPoint, ...]:
        """All choices that were run on the explorer's own samples, by size."""
        return tuple(sorted(self._verified.values(), key=lambda point: point.file_bytes))

    def uniform(self, bits: int, *, verify: bool = False) -> FrontPoint:
        """Return the point of one width for all weights.

        Parameters
        ----------
        bits : int
            1..16.
        verify : bool
            Run it too.
        """
        self._plan.with_bits(bits)  # refuses what is no width
        return self._compare(Widths(dict.fromkeys(self.widths.bits, int(bits))), f"{bits} bits", verify)

    def original_rule(self, init_scale: float, *, verify: bool = False) -> FrontPoint:
        """Return the point of the original's rule: the fewest bits that keep each weight's relative error.

        Parameters
        ----------
        init_scale : float
            The relative error, between 0 and 1.
        verify : bool
            Run it too.

        Raises
        ------
        ConfigError
            If `init_scale` is outside (0, 1).
        """
        load_config({"mixed_bit_weight_quant_param": {"init_scale": init_scale}})  # refuses what is out of range
        if init_scale not in self._rule:
            found = fewest_bits(self._plan, self.original.weight, init_scale)
            self._rule[init_scale] = Widths({entry.tensor: entry.bits for entry in found.entries})
        return self._compare(self._rule[init_scale], f"init_scale {init_scale:g}", verify)

    def picture(self, *, verify: bool = False) -> FrontData:
        """Return what :func:`ptq_lab.figures.draw_front` draws; `verify` runs what is compared with, too."""
        return FrontData(
            model=self.original.label,
            curve=self.front,
            uniform=tuple(self.uniform(bits, verify=verify) for bits in self._balance.allowed),
            rule=tuple(self.original_rule(scale, verify=verify) for scale in RULE),
            current=self._balance.point(self.widths, "now"),
            verified=self.verified,
        )

    def undo(self) -> bool:
        """Take the last edit back; return whether there was one."""
        return self._history.undo()

    def redo(self) -> bool:
        """Repeat the edit that was undone last; return whether there was one."""
        return self._history.redo()

    def widget(self) -> Any:
        """Return the live part that edits this explorer in a notebook; displaying it shows it (extra ``lab``)."""
        from ptq_lab.notebook.widgets.explorer import ExplorerPart  # needed in a notebook only

        return ExplorerPart(self)

    @property
    def steps(self) -> tuple[int, int]:
        """How many edits can be undone, and how many repeated."""
        return self._history.steps

    def to_config(self) -> str:
        """Return INI text that gives every weight the width it has now."""
        return write_recipe(self._config, self._plan, self.widths)

    def quantize(
        self,
        output: str | os.PathLike[str] | None = None,
        *,
        samples: Any = None,
        evaluate: Any = None,
        progress: Progress | None = None,
    ) -> QuantResult:
        """Write the model with exactly these widths, and measure what they cost.

        Parameters
        ----------
        output, samples, evaluate, progress
            As for :func:`ptq_lab.quantize`; without samples, the explorer's own are compared on.
        """
        return quantize(
            self.original,
            fixed_config(self._config, self._plan, self.widths),
            output,
            samples=self._samples if samples is None else samples,
            evaluate=evaluate,
            progress=progress,
            input_shape=self._flags.shapes,
        )

    def _verifier(self, samples: Samples) -> Verifier:
        tensors = [entry.tensor for entry in self._plan.entries]
        return Verifier(self.original, tensors, list(samples), self._decoded, providers=self._config.lab.providers)

    def _compare(self, widths: Widths, label: str, verify: bool) -> FrontPoint:
        point = self._balance.point(widths, label)
        return replace(point, measured=self._judge.error(widths.quantized(self._plan))) if verify else point

    def _meant(self, layer: Layers) -> list[TensorPlan]:
        found = [entry for name in names_of(layer) for entry in self._plan.meant(name)]
        return list({entry.tensor: entry for entry in found}.values())

    def _go_on(self, widths: Widths) -> Prediction:
        self._history.go_on(widths)
        return self.predict()


def explore(
    model: Source,
    samples: Any = None,
    config: Config | None = None,
    *,
    executor: Executor | None = None,
    progress: Progress | None = None,
    input_shape: InputShape | None = None,
    input_data_format: Layout | None = None,
) -> MixedBitExplorer:
    """Measure what each weight does to the output, and return what lets one choose widths with that.

    Parameters
    ----------
    model : path, onnx.ModelProto or Model
        The float model; it is not changed.
    samples : folder, .npz, mapping or iterable, optional
        The first 8 measure, others verify; seeded random inputs if there are none here or in the configuration.
    config : INI text, path, dict of dicts, or QuantConfig, optional
        Which weights are meant, and the widths a budget may choose from (``[ptq_lab.mixed_bit] bits``). Without it,
        all weights that can be quantized.
    executor : concurrent.futures.Executor, optional
        Threads among which the weights are shared out.
    progress : callable, optional
        Told once per weight.
    input_shape, input_data_format
        As for :func:`ptq_lab.quantize`.

    Raises
    ------
    ConfigError, ModelError, SampleError, InferenceError

    Notes
    -----
    One run of the model per weight. Results are cached by content, as calibration statistics are.

    Examples
    --------
    >>> from ptq_lab import demo
    >>> digits = demo.load("digits_cnn")
    >>> explorer = explore(digits.model_path, digits.calib_path)
    >>> explorer.fit(average_bits=4).average_bits <= 4
    True
    >>> explorer.verify() > 0.99
    True
    """
    options = weights_only(load_config(config if config is not None else _DEFAULT))
    original = load_model(model)
    flags = Flags(shapes=parse_input_shape(input_shape), executor=executor)
    data = open_data(original, options, samples, flags.shapes, input_data_format)
    plan, pins, problems = pinned_plan(original, options)
    if not plan.entries:
        raise ModelError(f"{original.label}: no weight can be quantized, so there are no widths to choose")
    remarks = (*map(str, problems), *thin_weights(options, plan) * (config is None))
    return MixedBitExplorer(
        original, plan, pins, options, data, flags=flags, progress=progress or silent, remarks=remarks
    )
