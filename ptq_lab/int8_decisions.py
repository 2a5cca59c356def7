"""What FULL_QUANT decides before it reads a sample: how hard to try, where integers flow, how wide weights are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ptq_lab.config import QuantConfig
from ptq_lab.devices import Preset, preset
from ptq_lab.errors import ConfigError, Problem
from ptq_lab.flags import Flags
from ptq_lab.graph import (
    Model,
    Placement,
    fold_batchnorm,
    match_nodes,
    place_integers,
    raise_opset,
    required_opset,
)
from ptq_lab.graph.flow import Flow
from ptq_lab.int8 import Int8Settings, integer_entries
from ptq_lab.int8_weights import Shaped, choose_widths
from ptq_lab.plan import QuantPlan, TensorPlan
from ptq_lab.search.equalize import Equalized
from ptq_lab.search.smooth import Smoothed


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard to try.

    Attributes
    ----------
    corrects : bool
        Equalise, smooth and correct biases, unless the configuration says otherwise.
    correction_samples : int
        How many samples the means for bias correction come from.
    methods : tuple of str
        Range methods to try, if the configuration names none.
    searches : bool
        Search weight scales, too, and keep of all that was tried what is best on samples that took no part in it.
    """

    corrects: bool
    correction_samples: int = 32
    methods: tuple[str, ...] = ("MAX_MIN",)
    searches: bool = False


EFFORTS = {
    "fast": Effort(corrects=False),
    "balanced": Effort(corrects=True),
    "best": Effort(corrects=True, correction_samples=128, methods=("MAX_MIN", "MSE"), searches=True),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """Everything the user asked for: the target, the configuration, the flags, and how hard to try."""

    device: Preset
    config: QuantConfig
    flags: Flags
    effort: Effort

    @property
    def methods(self) -> tuple[str, ...]:
        """The range methods to try: the one asked for, or what the effort affords."""
        if self.config.lab.activation_quant_method:
            return (self.config.lab.activation_quant_method,)
        given = ("full_quant_param", "activation_quant_method") in self.config.given
        return (self.config.full.activation_quant_method,) if given else self.effort.methods

    def wants(self, section: str, key: str, value: bool) -> bool:
        """Return a switch: as written, or as the effort implies."""
        return value if (section, key) in self.config.given else value and self.effort.corrects


@dataclass(frozen=True, slots=True)
class Decided:
    """What is decided before any sample is read.

    Attributes
    ----------
    model : Model
        Float, BatchNormalization folded.
    placement : Placement
        Where integers will flow.
    flow : Flow
        The operators that may carry them.
    skipped : dict of str to str
        Nodes to leave in float, with the pattern that says so.
    notes : tuple of str
        What is to be said.
    widths : mapping of str to int
        Of weights that are not stored in 8 bits, by tensor.
    shaped : Shaped or None
        What the quality ladder made of the weights; then `model` is the one with rounded weights.
    """

    model: Model
    placement: Placement
    flow: Flow
    skipped: dict[str, str]
    notes: tuple[str, ...]
    widths: Mapping[str, int] = field(default_factory=dict)
    shaped: Shaped | None = None

    def settings(self, device: Preset, method: str, *, per_channel: bool) -> Int8Settings:
        """Return the settings of an integer plan, with the widths of weights."""
        return replace(device.settings(method=method, per_channel=per_channel), bits=self.widths)

    def entries(self, device: Preset, *, per_channel: bool) -> tuple[TensorPlan, ...]:
        """Return what will happen to the weight of every integer layer."""
        return integer_entries(self.placement, self.settings(device, "", per_channel=per_channel))

    @property
    def before(self) -> Model:
        """The float model whose weights were not touched."""
        return self.model if self.shaped is None else self.shaped.before

    def place(self, model: Model) -> Placement:
        """Return where integers will flow in a model of the same nodes."""
        return place_integers(model, self.skipped, self.flow)

    def smoothed(self, moved: Smoothed) -> Decided:
        """Return the decisions for the model after smoothing, whose integer layers read other tensors."""
        return replace(self, model=moved.model, placement=self.place(moved.model), notes=(*self.notes, moved.note))

    def carrying(self, shaped: Shaped) -> Decided:
        """Return the decisions for the model whose weights are what their codes stand for."""
        return replace(self, model=shaped.model, placement=self.place(shaped.model), shaped=shaped)

    def equalized(self, equal: Equalized) -> Decided:
        """Return the decisions for the model after equalisation, which may have moved its clips."""
        placement = place_integers(equal.model, self.skipped, self.flow)
        notes = (*self.notes, equal.note) if equal.note else self.notes
        return replace(self, model=equal.model, placement=placement, notes=notes)


def decide_integers(original: Model, config: QuantConfig) -> Decided:
    """Decide where integers will flow in a model, for the device that is asked for."""
    device = preset(config.full.target_device)
    nodes = ((node.name or "", node.op_type) for node in original.graph)
    matches = match_nodes(config.common.skip_quant_node, nodes)
    folded = fold_batchnorm(original)
    flow = replace(device.flow, everything=True) if config.lab.quantize_ops == "all" else device.flow
    placement = place_integers(folded, matches.nodes, flow)
    if not placement.layers:
        without = place_integers(folded, {}, flow) if matches.nodes else placement
        if without.layers:
            message = f"leaves none of the {len(without.layers)} layers that can compute in int8"
            raise refusal("skip_quant_node", message)
        raise refusal("quant_type", "FULL_QUANT finds no layer in this model that can compute in int8")
    decided = Decided(folded, placement, flow, matches.nodes, tuple(map(str, matches.unmatched)))
    return _with_widths(decided, device, config)


def _with_widths(decided: Decided, device: Preset, config: QuantConfig) -> Decided:
    """Decide how wide weights are stored, and raise the opset to what unpacks them."""
    settings = device.settings(method="", per_channel=config.full.per_channel)
    widths = choose_widths(decided.placement, settings, config)
    decided = replace(decided, widths=widths.bits, notes=(*decided.notes, *widths.notes))
    entries = decided.entries(device, per_channel=config.full.per_channel)
    needed = required_opset(QuantPlan(entries)) if widths.narrow else 0
    if needed <= decided.model.opset:
        return decided
    raised = raise_opset(decided.model, needed)
    note = f"opset raised from {decided.model.opset} to {raised.opset} to unpack weights (outputs verified)"
    return replace(decided, model=raised, placement=decided.place(raised), notes=(*decided.notes, note))


def refusal(key: str, message: str) -> ConfigError:
    """Return the error of an option that this model or device does not allow."""
    section = "common_quant_param" if key in ("quant_type", "skip_quant_node") else "full_quant_param"
    return ConfigError([Problem(section=section, key=key, message=message)])
