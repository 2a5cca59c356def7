"""Why a quantized model is off: causes with their evidence, and the edit of the configuration that would help."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ptq_lab.graph.model import constant, shape_of
from ptq_lab.plan import TensorPlan
from ptq_lab.report.facts import ChannelFacts, Facts
from ptq_lab.report.layer_errors import worse_on_evaluation

FAR_OFF, FEW_BITS = "low cosine", "too few bits"
_SPREAD = 4.0  # largest channel over the median one, from which one scale for all wastes two bits
_STRETCH = 4.0  # range over what 99.9 % of the values need
_CLIPPED = 0.005
_MISMATCH = 8.0  # of the scales of two operands: the smaller one keeps five bits
_MEETING = ("Add", "Sub", "Concat")
_MASK = -1000.0  # what a mask adds to scores that shall not count: -10000, or the lowest number there is
_WORST = 2  # layers that are proposed for float because of nothing but their cosine
_SHIFTED = 0.1  # share of an error that a bias would take away, from which a correction is worth a try
_FEW_BITS = 5
_SINGLE = 4  # layers that are named one by one where one width is too small for many
_DIFFERENT = 0.5  # of a deviation, by which the inputs of calibration and evaluation may differ
_SAME = 0.5  # of the deviation of the evaluation, at least, if inputs are to look alike; twice that at most
_TINTED = 0.15  # of a deviation, by which exchanged channels differ at least
_DOUBTS = 3.0  # standard errors from which a difference is none of chance
_SEEN = 1e-4  # 1 - cosine of a layer by itself, below which it is none of the causes
_BAD = 1e-3  # 1 - cosine of a layer by itself, from which it is worth a word


@dataclass(frozen=True, slots=True, order=True)
class Edit:
    """A change of the configuration: a section, a key, and its new value."""

    section: str
    key: str
    value: str

    def __str__(self) -> str:
        return f"[{self.section}] {self.key}={self.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """A reason for the error.

    Attributes
    ----------
    kind : str
        Which one, in a few words; the same for every occurrence.
    nodes : tuple of str
        Where, worst first.
    evidence : str
        What was seen, in numbers.
    harm : float
        How much error it is taken to explain, to rank by: the sum of ``1 - cosine`` of the layers concerned.
    edits : tuple of Edit
        What would help.
    """

    kind: str
    nodes: tuple[str, ...]
    evidence: str
    harm: float
    edits: tuple[Edit, ...] = ()

    def __str__(self) -> str:
        where = ", ".join(self.nodes[:3]) + (f" and {len(self.nodes) - 3} more" if len(self.nodes) > 3 else "")
        help_ = "; try " + ", ".join(map(str, self.edits)) if self.edits else ""
        return f"{self.kind} ({where}): {self.evidence}{help_}" if where else f"{self.kind}: {self.evidence}{help_}"


Rule = Callable[[Facts], Iterator[Cause]]


def diagnose(facts: Facts) -> tuple[Cause, ...]:
    """Return the causes that explain an error, the most harmful first.

    Parameters
    ----------
    facts : Facts
    """
    causes = sorted((cause for rule in RULES for cause in rule(facts)), key=lambda cause: -cause.harm)
    return tuple(_joined(causes))


def _joined(causes: Sequence[Cause]) -> list[Cause]:
    """Give the edit of what is only known to be far off to the cause that is known for the same layer."""
    joined: list[Cause] = []
    for cause in causes:
        known = [other for other in joined if other.kind == FEW_BITS and other.nodes == cause.nodes]
        if cause.kind == FAR_OFF and known:
            joined[joined.index(known[0])] = replace(known[0], edits=(*known[0].edits, *cause.edits))
        else:
            joined.append(cause)
    return joined


def _one_scale(facts: Facts) -> Iterator[Cause]:
    """One scale for channels of very different sizes."""
    spreads = {}
    for entry in facts.plan.entries:
        if entry.axis is None and len(entry.shape) > 1 and facts.harm(entry.node) > _BAD:
            spread = _channel_spread(facts, entry)
            if spread > _SPREAD:
                spreads[entry.node] = spread
    if not spreads:
        return
    nodes = sorted(spreads, key=lambda node: -facts.harm(node) * spreads[node])
    depthwise = _is_depthwise(facts, nodes[0])
    kind = "per-tensor weight ranges of depthwise layers" if depthwise else "per-tensor weight ranges"
    section = "full_quant_param" if facts.quant_type == "FULL_QUANT" else "weight_quant_param"
    yield Cause(
        kind=kind,
        nodes=tuple(nodes),
        evidence=f"one scale serves channels whose ranges differ {max(spreads.values()):.0f} times from the median",
        harm=sum(map(facts.harm, nodes)),
        edits=(Edit(section, "per_channel", "true"),),
    )


def _too_few_bits(facts: Facts) -> Iterator[Cause]:
    """Weights rounded more coarsely than the layer can bear: the worst one by one, the rest together."""
    found = [entry for entry in facts.plan.entries if entry.bits < _FEW_BITS and facts.harm(entry.node) > _BAD]
    found.sort(key=lambda entry: -facts.harm(entry.node))
    for entry in found[:_SINGLE]:
        yield Cause(
            kind=FEW_BITS,
            nodes=(entry.node,),
            evidence=f"{entry.bits} bits alone: {_loss(facts, entry.node)}",
            harm=facts.harm(entry.node),
            edits=(Edit("ptq_lab.layer_bits", entry.node, "8"),),
        )
    rest = found[_SINGLE:]
    if rest:
        widths = {entry.bits for entry in facts.plan.entries}
        yield Cause(
            kind="too few bits in many layers",
            nodes=tuple(entry.node for entry in rest),
            evidence=f"{len(rest)} more layers of fewer than {_FEW_BITS} bits, the worst: {_loss(facts, rest[0].node)}",
            harm=facts.harm(rest[0].node),
            edits=(Edit("common_quant_param", "bit_num", "8"),) if len(widths) == 1 else (),
        )


def _stretched(facts: Facts) -> Iterator[Cause]:
    """Ranges that a few values have made much larger than all others need; those of an input spread to what follows."""
    harms = {
        activation: max(map(facts.harm, _readers(facts, activation.tensor)), default=0.0)
        for activation in facts.plan.activations
        if activation.tensor in facts.activations and facts.activations[activation.tensor].stretch > _STRETCH
    }
    if not harms:
        return
    order = sorted(harms, key=lambda activation: (bool(activation.node), -harms[activation]))
    seen = facts.activations[order[0].tensor]
    where = f" in channel {seen.channel}" if seen.channel is not None else ""
    yield Cause(
        kind="activation range stretched by outliers",
        nodes=tuple(activation.node or activation.tensor for activation in order),
        evidence=f"{order[0].tensor} reaches {seen.reach:.4g}{where}, 99.9 % of it stay within {seen.bulk:.4g}",
        harm=max(harms.values()),
        edits=(Edit("full_quant_param", "activation_quant_method", "REMOVAL_OUTLIER"),),
    )


def _clipped(facts: Facts) -> Iterator[Cause]:
    """Ranges that cut off more than a few values."""
    for activation in facts.plan.activations:
        seen = facts.activations.get(activation.tensor)
        if seen is not None and seen.clipped > _CLIPPED:
            outside = f"outside {activation.low:.4g} .. {activation.high:.4g}"
            yield Cause(
                kind="saturation",
                nodes=(activation.node or activation.tensor,),
                evidence=f"{seen.clipped:.1%} of {activation.tensor} lie {outside}",
                harm=max(map(facts.harm, _readers(facts, activation.tensor)), default=0.0),
                edits=(Edit("full_quant_param", "activation_quant_method", "MAX_MIN"),),
            )


def _mismatched(facts: Facts) -> Iterator[Cause]:
    """Operands of very different ranges that meet in one sum: the steps of the larger one swallow the smaller."""
    scales = {activation.tensor: activation.scale for activation in facts.plan.activations}
    found: dict[bool, dict[str, float]] = {True: {}, False: {}}
    for node in facts.model.graph:
        if node.op_type not in _MEETING:
            continue
        names = [value.name or "" for value in node.inputs if value is not None and value.name in scales]
        sizes = [scales[name] for name in names]
        if len(sizes) > 1 and max(sizes) > _MISMATCH * min(sizes):
            masked = any(_is_mask(facts, name) for name in names)
            found[masked][node.name or ""] = max(sizes) / min(sizes)
    for masked, ratios in found.items():
        nodes = tuple(sorted(ratios, key=lambda node: -ratios[node]))
        if nodes:
            harm = [_harm_behind(facts, node) for node in nodes]
            # who reads a masked sum would quantize it again, mask and all
            behind = [reader for node in nodes for reader in _readers_of(facts, node)] if masked else []
            yield Cause(
                kind="mask bias among the operands" if masked else "mismatched ranges of operands",
                nodes=nodes,
                evidence=f"the steps of the operands differ up to {max(ratios.values()):.0f} times",
                harm=sum(harm) + masked,  # a drowned mask lets padding through, which no single layer shows
                edits=(_skipping(facts, *nodes, *behind),),
            )


def _everything(facts: Facts) -> Iterator[Cause]:
    """Operators that carry codes though nothing is computed faster by it."""
    if facts.everything and facts.plan.placement is not None:
        needed = {layer.source for layer in facts.plan.placement.layers}
        others = [each for each in facts.plan.activations if each.node and each.tensor not in needed]
        yield Cause(
            kind="operators quantized that gain nothing",
            nodes=tuple(each.node for each in others),
            evidence=f"{len(others)} tensors are rounded that no integer layer reads",
            harm=0.5,
            edits=(Edit("ptq_lab", "quantize_ops", "default"),),
        )


def _shifted(facts: Facts) -> Iterator[Cause]:
    """Errors with a mean, which a bias would take away."""
    if facts.corrects:
        return
    rows = [
        row for row in facts.errors.values() if (row.shift_share or 0.0) > _SHIFTED and facts.harm(row.node) > _SEEN
    ]
    if rows:
        rows.sort(key=lambda row: -facts.harm(row.node))
        section = "full_quant_param" if facts.quant_type == "FULL_QUANT" else "weight_quant_param"
        yield Cause(
            kind="bias shift",
            nodes=tuple(row.node for row in rows),
            evidence=f"{max(row.shift_share or 0.0 for row in rows):.0%} of the error is the same for a whole channel",
            harm=sum(facts.harm(row.node) * (row.shift_share or 0.0) for row in rows) / 2,
            edits=(Edit(section, "bias_correction", "true"),),
        )


def _other_inputs(facts: Facts) -> Iterator[Cause]:
    """Calibration inputs that do not look like those of the evaluation."""
    for name, here in facts.inputs.items():
        there = facts.evaluated.get(name)
        if there is None or there.mean.shape != here.mean.shape:
            continue
        unit = float(np.mean(there.deviation)) or 1.0
        apart = float(np.abs(here.mean - there.mean).max()) / unit
        wider = float(np.mean(here.deviation)) / unit
        if _SAME < wider < 1 / _SAME and _is_turned(here, there):
            yield Cause(
                kind="channels in another order (RGB, BGR)",
                nodes=(name,),
                evidence=f"tints {_numbers(here.tint)} of calibration, {_numbers(there.tint)} of evaluation",
                harm=1.0,
                edits=_other_order(facts),
            )
        elif apart > _DIFFERENT or not _SAME < wider < 1 / _SAME:
            yield Cause(
                kind="calibration does not look like evaluation",
                nodes=(name,),
                evidence=f"means {_numbers(here.mean)} against {_numbers(there.mean)}, deviations {wider:.2g} times",
                harm=1.0 + apart,
                edits=(Edit("data_preprocess_param", "normalize_mean", "as in training"),),
            )


def _is_turned(here: ChannelFacts, there: ChannelFacts) -> bool:
    """Tell whether the first of three channels differs as much one way as the last the other way.

    That is the trace of exchanged channels, before or after each of them was normalised.
    """
    if here.tint.size != 3:
        return False
    first, middle, last = here.tint - there.tint
    turn = abs(first - last) / 2
    doubt = float(np.sqrt(here.doubt**2 + there.doubt**2).max())
    clear = turn > max(_DOUBTS * doubt, _TINTED * float(np.mean(there.deviation)))
    return bool(clear and max(abs(first + last) / 2, abs(middle)) < 0.4 * turn)


def _other_order(facts: Facts) -> tuple[Edit, ...]:
    """Return the edit that exchanges the channels, if the configuration says how pictures are read."""
    other = {"RGB": "BGR", "BGR": "RGB"}.get(facts.picture_format)
    return (Edit("data_preprocess_param", "image_to_format", other),) if other else ()


def _worse_there(facts: Facts) -> Iterator[Cause]:
    """Layers that do much worse on evaluation samples than on those of calibration."""
    found = worse_on_evaluation(facts.errors.values(), facts.evaluated_errors.values())
    if found:
        node, times = found[0]
        here, there = facts.harm(node), facts.evaluated_errors[node].harm
        yield Cause(
            kind="larger error on evaluation samples",
            nodes=tuple(node for node, _ in found),
            evidence=f"error {there:.2g} on evaluation samples, {times:.0f} times the {here:.2g} of calibration; "
            "calibrate on more samples, like those of the evaluation",
            harm=sum(facts.evaluated_errors[node].harm - facts.harm(node) for node, _ in found),
        )


def _low_cosine(facts: Facts) -> Iterator[Cause]:
    """Layers that are simply far off."""
    worst = sorted(facts.errors, key=lambda node: -facts.harm(node))[:_WORST]
    for node in worst:
        if facts.harm(node) > _BAD:
            yield Cause(
                kind=FAR_OFF,
                nodes=(node,),
                evidence=f"the layer alone: {_loss(facts, node)}",
                harm=facts.harm(node) / 4,  # the last resort: what is known better comes first
                edits=(_skipping(facts, node),),
            )


def _fallback(facts: Facts) -> Iterator[Cause]:
    """Layers that were meant to be integers and are not."""
    for note in facts.kernel_notes:
        yield Cause(kind="int8 layer runs in float", nodes=(), evidence=note, harm=0.0)


RULES: tuple[Rule, ...] = (
    _one_scale,
    _too_few_bits,
    _stretched,
    _clipped,
    _mismatched,
    _everything,
    _shifted,
    _other_inputs,
    _worse_there,
    _low_cosine,
    _fallback,
)
"""Everything that is looked for; to add a cause, add a function and a line."""


def _skipping(facts: Facts, *nodes: str) -> Edit:
    """Leave nodes in float, besides those that are left there already."""
    return Edit("common_quant_param", "skip_quant_node", ",".join(dict.fromkeys([*facts.skipped, *nodes])))


def _channel_spread(facts: Facts, entry: TensorPlan) -> float:
    values = np.abs(facts.model.weight(entry.tensor))
    reach = values.max(axis=tuple(axis for axis in range(values.ndim) if axis != entry.channel_axis))
    median = float(np.median(reach[reach > 0.0])) if (reach > 0.0).any() else 0.0
    return float(reach.max()) / median if median > 0.0 else 1.0


def _is_depthwise(facts: Facts, node: str) -> bool:
    for each in facts.model.graph:
        if each.name == node and each.op_type == "Conv":
            tensor = constant(each.inputs[1])
            return tensor is not None and shape_of(tensor)[1] == 1 and each.attributes.get_int("group", 1) > 1
    return False


def _readers(facts: Facts, tensor: str) -> tuple[str, ...]:
    return tuple(
        node.name or "" for node in facts.model.graph if any(v is not None and v.name == tensor for v in node.inputs)
    )


def _readers_of(facts: Facts, name: str) -> list[str]:
    """Return the nodes that read what a node makes."""
    outputs = [value.name or "" for node in facts.model.graph if node.name == name for value in node.outputs]
    return [reader for output in outputs for reader in _readers(facts, output)]


def _harm_behind(facts: Facts, name: str) -> float:
    """Return the harm of the worst layer that reads what a node makes, directly or through one other node."""
    first = _readers_of(facts, name)
    readers = [*first, *(reader for node in first for reader in _readers_of(facts, node))]
    return max(map(facts.harm, readers), default=_BAD)


def _is_mask(facts: Facts, tensor: str) -> bool:
    """Tell whether an operand reaches as far down as the bias of a mask does."""
    return any(each.tensor == tensor and each.low < _MASK for each in facts.plan.activations)


def _loss(facts: Facts, node: str) -> str:
    """Return in words what a layer loses by itself."""
    row = facts.errors[node]
    words = f"cosine {row.isolated_cosine:.4f}"
    if row.channel_error is None or 0.5 * row.channel_error <= 1.0 - (row.isolated_cosine or 0.0):
        return words
    return f"{words}, and a channel loses {row.channel_error:.1%} of its power on average"


def _numbers(values: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:.3g}" for value in values) + ")"
