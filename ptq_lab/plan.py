"""The plan: per tensor what happens to it, how, and why, as frozen data that can be printed and edited.

A plan is made in two steps. `make_plan` decides (widths, axes, storage; it reads no weight), and
`round_weights` fills in codes and scales. Every improvement is another *plan -> plan* step, and an edit
such as `with_bits` clears what it invalidates, so that `round_weights` knows what to redo. Rewriting the
graph decides nothing.
"""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq_lab.entries import NATIVE, ActivationPlan, Coding, DynamicPlan, TensorPlan
from ptq_lab.errors import ModelError, PlanError
from ptq_lab.graph import DynamicLayer, Placement, Rules, Skip, Targets, match_nodes
from ptq_lab.numerics import QuantizedWeight, quantize_blocks, quantize_step, quantize_symmetric, quantize_weight
from ptq_lab.progress import Progress, Step, silent

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class QuantPlan:
    """What happens to every weight of a model.

    Attributes
    ----------
    entries : tuple of TensorPlan
        Weights to quantize, in the order of the graph.
    skips : tuple of Skip
        Weights that stay float, each with its reason.
    activations : tuple of ActivationPlan
        Grids of the tensors that carry codes, when activations are quantized too.
    placement : Placement or None
        Where integers flow, when activations are quantized too.
    biases : mapping of str to ndarray
        Layer node to its float bias after corrections; not compared, not in JSON.
    dynamic : DynamicPlan or None
        The products of integers, when activations are quantized at run time.
    """

    entries: tuple[TensorPlan, ...]
    skips: tuple[Skip, ...] = ()
    activations: tuple[ActivationPlan, ...] = ()
    placement: Placement | None = None
    biases: Mapping[str, NDArray[np.float32]] = field(default_factory=dict, compare=False, repr=False)
    dynamic: DynamicPlan | None = None

    def __getitem__(self, tensor: str) -> TensorPlan:
        for entry in self.entries:
            if entry.tensor == tensor:
                return entry
        hint = _did_you_mean(tensor, [entry.tensor for entry in self.entries])
        raise PlanError(f"the plan quantizes no tensor named {tensor!r}{hint}", tensor=tensor)

    def with_bits(self, bits: int | Mapping[str, int]) -> QuantPlan:
        """Return the plan with other widths: one for all, or one per name of a tensor, or per pattern of nodes.

        Raises
        ------
        PlanError
            If a width is no whole number in 1..16, a name is not in the plan or two of them disagree about a
            weight, or activations are quantized too.
        """
        self._require_weights_only("its width is 8 bits throughout")
        if not isinstance(bits, Mapping):
            _check_width("with_bits", bits)
        named = bits if isinstance(bits, Mapping) else {entry.tensor: bits for entry in self.entries}
        wanted: dict[str, int] = {}
        for name, width in named.items():
            _check_width(name, width)
            for entry in self.meant(name):
                if wanted.setdefault(entry.tensor, int(width)) != width:
                    message = f"{name}: {width} bits for {entry.tensor}, but {wanted[entry.tensor]} by another name"
                    raise PlanError(f"{message}; name it once", tensor=entry.tensor)
        changed = {
            entry
            for entry in self.entries
            if entry.tensor in wanted and (entry.bits != wanted[entry.tensor] or entry.has_single_step)
        }
        entries = (
            replace(e, bits=wanted[e.tensor], coding=None, weight=None) if e in changed else e for e in self.entries
        )
        stale = {node for entry in changed for node in entry.nodes}
        biases = {node: bias for node, bias in self.biases.items() if node not in stale}
        return replace(self, entries=tuple(entries), biases=biases)

    def skipping(self, *patterns: str) -> QuantPlan:
        """Return the plan without the nodes that the patterns mean (as in ``skip_quant_node``).

        Raises
        ------
        PlanError
            If a pattern is no text or matches no node of the plan, or activations are quantized too.
        """
        self._require_weights_only("quantize again with skip_quant_node")
        if wrong := [pattern for pattern in patterns if not isinstance(pattern, str)]:
            raise PlanError(f"skipping: {wrong[0]!r} is no pattern; write skipping('conv1', 'type:Add')")
        found = match_nodes(patterns, ((node, entry.op_type) for entry in self.entries for node in entry.nodes))
        if found.unmatched:
            raise PlanError(str(found.unmatched[0].message) + "; " + found.unmatched[0].hint)
        out = [entry for entry in self.entries if any(node in found.nodes for node in entry.nodes)]
        skips = [
            Skip(
                node=entry.node,
                op_type=entry.op_type,
                tensor=entry.tensor,
                shape=entry.shape,
                bytes=entry.bytes_before,
                reason="taken out of the plan",
                setting="plan.skipping",
            )
            for entry in out
        ]
        kept = tuple(entry for entry in self.entries if entry not in out)
        return QuantPlan(kept, (*self.skips, *skips))

    def diff(self, other: QuantPlan) -> tuple[str, ...]:
        """Return one line per tensor that the two plans treat differently."""
        mine = {entry.tensor: entry for entry in self.entries}
        theirs = {entry.tensor: entry for entry in other.entries}
        return tuple(
            f"{tensor}: {_describe(mine.get(tensor))} -> {_describe(theirs.get(tensor))}"
            for tensor in dict.fromkeys((*mine, *theirs))
            if mine.get(tensor) != theirs.get(tensor)
        )

    def to_json(self) -> str:
        """Return the decisions as JSON text; codes and scales follow from them and the model."""
        record = {
            "entries": [_plain(entry) for entry in self.entries],
            "skips": [asdict(skip) for skip in self.skips],
            "activations": [asdict(activation) for activation in self.activations],
            "dynamic": None if self.dynamic is None else asdict(self.dynamic),
        }
        return json.dumps(record, indent=2)

    @classmethod
    def from_json(cls, text: str) -> QuantPlan:
        """Return the plan that :meth:`to_json` wrote; where integers flow is found again from the model.

        Raises
        ------
        PlanError
            If the text is anything else.
        """
        try:
            data = json.loads(text)
            entries = tuple(map(_entry, data["entries"]))
            activations = tuple(ActivationPlan(**activation) for activation in data.get("activations", ()))
            skips = tuple(Skip(**_tuples(skip)) for skip in data["skips"])
            return cls(entries, skips, activations, dynamic=_dynamic(data.get("dynamic")))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise PlanError(f"the text is not a plan that to_json wrote ({type(error).__name__}: {error})") from error

    def __str__(self) -> str:
        head = f"{'node':32} {'operator':14} {'shape':>18} {'bits':>4}  {'storage':22} {'bytes':>22}"
        kept = (_line(skip.node, skip.op_type, skip.shape, "-", f"float: {skip.reason}", "") for skip in self.skips)
        weights = [head, *map(_entry_line, self.entries), *kept]
        lines = [*weights, *_activation_lines(self.activations), *_product_lines(self.dynamic)]
        return "\n".join(line.rstrip() for line in lines)

    def meant(self, name: str) -> list[TensorPlan]:
        """Return the weight of this name, or else the weights of the nodes that the name or pattern means.

        Raises
        ------
        PlanError
            If there is none; the message has the nearest name, or says why it stays float.
        """
        if not isinstance(name, str):
            raise PlanError(f"{name!r} is no name of a tensor or node, which are texts", tensor=str(name))
        found = [entry for entry in self.entries if entry.tensor == name]
        if not found:
            nodes = match_nodes(
                (name,), ((node, entry.op_type) for entry in self.entries for node in entry.nodes)
            ).nodes
            found = [entry for entry in self.entries if any(node in nodes for node in entry.nodes)]
        if not found:
            if kept := [skip for skip in self.skips if name in (skip.tensor, skip.node)]:
                raise PlanError(f"{name}: stays float, so it has no width ({kept[0].reason})", tensor=kept[0].tensor)
            hint = _did_you_mean(name, [known for entry in self.entries for known in (entry.tensor, *entry.nodes)])
            raise PlanError(f"the plan quantizes no tensor or node named {name!r}{hint}", tensor=str(name))
        return found

    def _require_weights_only(self, hint: str) -> None:
        if self.activations or self.placement is not None or self.dynamic is not None:
            raise PlanError(f"the layers of a plan for integer arithmetic depend on each other; {hint}")


def make_plan(targets: Targets, *, bits: int, per_channel: bool = True, correct: bool = True) -> QuantPlan:
    """Decide width, granularity and storage of every target; reads no weight.

    Parameters
    ----------
    targets : Targets
    bits : int
        Width of all codes, 1..16.
    per_channel : bool
        One scale per output channel, or one per tensor.
    correct : bool
        Give every channel back its mean and spread.
    """
    entries = (
        TensorPlan(
            tensor=target.tensor,
            nodes=target.nodes,
            op_type=target.op_type,
            shape=target.shape,
            bits=bits,
            axis=target.axis if per_channel else None,
            channel_axis=target.axis,
            correct=correct,
            by_row=target.by_row,
            bytes_before=target.bytes,
        )
        for target in targets.targets
    )
    return QuantPlan(tuple(entries), targets.skips)


def round_weights(
    plan: QuantPlan, read: Callable[[str], NDArray[np.float32]], *, progress: Progress = silent
) -> QuantPlan:
    """Round every weight that has no codes yet to the nearest point of its grid.

    Parameters
    ----------
    plan : QuantPlan
    read : callable
        Tensor name to float32 weight, e.g. ``model.weight``.
    progress : Progress
        Told once per tensor.

    Raises
    ------
    ModelError
        If a weight holds NaN or infinity.
    """
    entries = []
    for index, entry in enumerate(plan.entries):
        entries.append(entry if entry.weight is not None else _round(entry, read(entry.tensor)))
        progress(Step("quantize", index + 1, len(plan.entries), entry.tensor))
    return replace(plan, entries=tuple(entries))


@contextmanager
def refusing_nan(entry: TensorPlan, values: NDArray[np.float32]) -> Iterator[None]:
    """Say which weight it is that cannot be rounded.

    Raises
    ------
    ModelError
        For a ``ValueError`` of the block.
    """
    try:
        yield
    except ValueError as error:
        bad = int(values.size - np.isfinite(values).sum())
        raise ModelError(
            f"{entry.node} ({entry.op_type}): the weight {entry.tensor} holds {bad} NaN or infinite values "
            f"of {values.size}; repair the model, or leave the node out: skip_quant_node={entry.node}",
            node=entry.node,
            tensor=entry.tensor,
        ) from error


def _round(entry: TensorPlan, values: NDArray[np.float32]) -> TensorPlan:
    with refusing_nan(entry, values):
        if entry.coding is not None and entry.coding.step is not None:
            weight = quantize_step(values, entry.coding.step)
        elif entry.block_length:
            weight = in_blocks(entry, values)
        elif entry.symmetric:
            weight = quantize_symmetric(values, bits=entry.bits, axis=entry.axis)
        else:
            weight = quantize_weight(values, bits=entry.bits, axis=entry.axis, correct=entry.correct)
    _log.debug("%s: %d bits, %s, %s", entry.tensor, entry.bits, entry.granularity, entry.storage)
    return replace(entry, weight=weight)


def in_blocks(entry: TensorPlan, values: NDArray[np.float32], *, search: bool = False) -> QuantizedWeight:
    """Round a weight whose channels are divided; with a search, to the ranges whose errors cost least."""
    axis, block = entry.channel_axis, entry.block_length
    return quantize_blocks(values, bits=entry.bits, axis=axis, block=block, correct=entry.has_means, search=search)


def _check_width(name: str, width: object) -> None:
    if not isinstance(width, int | np.integer) or isinstance(width, bool):
        raise PlanError(f"{name}: {width!r} is no width; a whole number of bits in 1..16 wanted", tensor=str(name))
    if not 1 <= width <= 16:
        raise PlanError(f"{name}: {width} bits are outside 1..16", tensor=str(name))


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _describe(entry: TensorPlan | None) -> str:
    return "float" if entry is None else f"{entry.bits} bits {entry.granularity}{_step(entry)}"


def _step(entry: TensorPlan) -> str:
    return f" of {entry.coding.step:.4g}" if entry.coding is not None and entry.coding.step is not None else ""


def _entry_line(entry: TensorPlan) -> str:
    size = f"{entry.bytes_before:,} -> {entry.bytes_after:,}"
    return _line(entry.node, entry.op_type, entry.shape, str(entry.bits), entry.stored_as, size)


def _activation_lines(activations: tuple[ActivationPlan, ...]) -> Iterator[str]:
    if activations:
        yield f"\n{'activation':32} {'made by':32} {'low':>10} {'high':>10} {'scale':>11} {'zero':>5}  method"
    for row in activations:
        numbers = f"{row.low:>10.4g} {row.high:>10.4g} {row.scale:>11.4g} {row.zero_point:>5}"
        yield f"{row.tensor:32} {row.node or '(input)':32} {numbers}  {row.method}"


def _product_lines(dynamic: DynamicPlan | None) -> Iterator[str]:
    if dynamic is not None:
        yield f"\n{'integer product (' + dynamic.strategy + ')':32} {'operator':14} quantized at run time"
        yield from (f"{layer.node:32} {layer.op_type:14} {', '.join(layer.sources)}" for layer in dynamic.layers)


def _line(node: str, op_type: str, shape: Iterable[int], bits: str, storage: str, size: str) -> str:
    return f"{node:32} {op_type:14} {'x'.join(map(str, shape)):>18} {bits:>4}  {storage:22} {size:>22}"


def _plain(entry: TensorPlan) -> dict[str, Any]:
    record = {name: getattr(entry, name) for name in TensorPlan.__slots__ if name != "weight"}
    return record | {"coding": None if entry.coding is None else asdict(entry.coding)}


def _entry(record: dict[str, Any]) -> TensorPlan:
    coding = record.get("coding")
    return TensorPlan(**_tuples(record) | {"coding": None if coding is None else Coding(**coding)})


def _dynamic(record: dict[str, Any] | None) -> DynamicPlan | None:
    if record is None:
        return None
    return DynamicPlan(record["strategy"], tuple(DynamicLayer(**_tuples(layer)) for layer in record["layers"]))


def _tuples(record: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}


__all__ = [
    "NATIVE",
    "ActivationPlan",
    "Coding",
    "DynamicPlan",
    "QuantPlan",
    "Rules",
    "TensorPlan",
    "make_plan",
    "round_weights",
]
