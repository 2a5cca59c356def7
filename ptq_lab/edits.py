"""Editing a choice of widths: a frozen state per edit, and the way back and forth between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ptq_lab.errors import PlanError
from ptq_lab.plan import QuantPlan, TensorPlan

Layers = str | Iterable[str]  # one name or several, of weights or of nodes


@dataclass(frozen=True, slots=True)
class Widths:
    """A choice of widths for the weights of one model.

    Attributes
    ----------
    bits : mapping of str to int
        Width of every weight, of those that stay float too: it comes back when they do.
    pins : frozenset of str
        Weights whose width a budget leaves alone.
    skipped : frozenset of str
        Nodes that stay float.

    Examples
    --------
    >>> start = Widths({"w": 8, "v": 8})
    >>> start.pinned(["w"], 4).bits["w"], start.bits["w"]
    (4, 8)
    """

    bits: Mapping[str, int]
    pins: frozenset[str] = frozenset()
    skipped: frozenset[str] = frozenset()

    def pinned(self, tensors: Iterable[str], bits: int | None = None) -> Widths:
        """Return the choice with some weights pinned, at a width or at their own."""
        tensors = tuple(tensors)
        given = {} if bits is None else dict.fromkeys(tensors, bits)
        return replace(self, bits={**self.bits, **given}, pins=self.pins | set(tensors))

    def freed(self, entries: Iterable[TensorPlan]) -> Widths:
        """Return the choice with some weights neither pinned nor float."""
        entries = tuple(entries)
        nodes = {node for entry in entries for node in entry.nodes}
        return replace(self, pins=self.pins - {entry.tensor for entry in entries}, skipped=self.skipped - nodes)

    def in_float(self, plan: QuantPlan, names: Iterable[str]) -> Widths:
        """Return the choice with the nodes of these names, or the first nodes of weights of these names, in float."""
        nodes = set(self.skipped)
        for name in names:
            entries = plan.meant(name)
            nodes.add(entries[0].node if entries[0].tensor == name else name)
        return replace(self, skipped=frozenset(nodes))

    def taking(self, plan: QuantPlan, bits: Sequence[int | None]) -> Widths:
        """Return the choice with other widths, in the order of the plan, for what is not pinned; ``None``: its own.

        Raises
        ------
        PlanError
            If there are more or fewer widths than weights.
        """
        if len(bits) != len(plan.entries):
            raise PlanError(f"{len(bits)} widths for {len(plan.entries)} weights: the point is of another model")
        pairs = zip(plan.entries, bits, strict=True)
        free = {entry.tensor: width for entry, width in pairs if width and entry.tensor not in self.pins}
        return replace(self, bits={**self.bits, **free})

    def stays_float(self, entry: TensorPlan) -> bool:
        """Tell whether a weight stays float because a node that uses it does."""
        return not self.skipped.isdisjoint(entry.nodes)

    def quantized(self, plan: QuantPlan) -> QuantPlan:
        """Return a plan with these widths, without what stays float."""
        kept = tuple(entry for entry in plan.entries if not self.stays_float(entry))
        return replace(plan, entries=kept).with_bits({entry.tensor: self.bits[entry.tensor] for entry in kept})


class History:
    """The states of an edited thing: one is current, those before it can be returned to, and those undone too.

    Examples
    --------
    >>> history = History(Widths({"w": 8}))
    >>> history.go_on(Widths({"w": 4})), history.undo(), history.redo(), history.redo()
    (True, True, True, False)
    >>> history.current.bits
    {'w': 4}
    """

    def __init__(self, start: Widths) -> None:
        self.current = start
        self._before: list[Widths] = []
        self._after: list[Widths] = []

    def go_on(self, state: Widths) -> bool:
        """Make a state the current one and forget what was undone; return whether it differs from the last one."""
        if state == self.current:
            return False
        self._before.append(self.current)
        self._after.clear()
        self.current = state
        return True

    @property
    def steps(self) -> tuple[int, int]:
        """How many edits can be undone, and how many repeated."""
        return len(self._before), len(self._after)

    def undo(self) -> bool:
        """Go back by one edit; return whether there was one."""
        return self._move(self._before, self._after)

    def redo(self) -> bool:
        """Repeat the edit that was undone last; return whether there was one."""
        return self._move(self._after, self._before)

    def _move(self, source: list[Widths], target: list[Widths]) -> bool:
        if not source:
            return False
        target.append(self.current)
        self.current = source.pop()
        return True


def names_of(layers: Layers) -> tuple[str, ...]:
    """Return one name or several as several.

    Examples
    --------
    >>> names_of("stem"), names_of(["a", "b"])
    (('stem',), ('a', 'b'))
    """
    return (layers,) if isinstance(layers, str) else tuple(layers)
