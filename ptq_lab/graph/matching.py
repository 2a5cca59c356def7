"""Which layer of one model is which layer of another: by their names first, then by what lies around them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ptq_lab.graph.found_layers import FoundLayer, FoundModel
from ptq_lab.graph.surroundings import Surroundings, paint
from ptq_lab.graph.tool_names import plain_name, telling_name

FARTHEST = 6  # layers away

NAMES: tuple[tuple[str, Callable[[FoundLayer], Iterable[str]]], ...] = (
    ("node name", lambda layer: [layer.given]),
    ("weight name", lambda layer: [telling_name(operand.tensor) for operand in layer.operands.values()]),
    ("node name without additions", lambda layer: [plain_name(layer.given)]),
    ("weight name without additions", lambda layer: [plain_name(name) for name in _weights(layer)]),
    ("output name", lambda layer: [telling_name(layer.result.name)]),
    ("output name without additions", lambda layer: [plain_name(telling_name(layer.result.name))]),
)
"""What layers are known by, in the order in which it is trusted."""

ONLY, AROUND, ORDER = "the only one of its shape", "what lies around it", "its place among equals"


@dataclass(frozen=True, slots=True)
class Pair:
    """A layer of one model, the same layer of another, and what told so."""

    first: FoundLayer
    second: FoundLayer
    how: str


@dataclass(frozen=True, slots=True)
class Matching:
    """The layers that two models share, in the order of the first, and those that only one of them has."""

    pairs: tuple[Pair, ...]
    only_first: tuple[FoundLayer, ...]
    only_second: tuple[FoundLayer, ...]

    @property
    def complete(self) -> bool:
        """Whether every layer of both has its partner."""
        return not self.only_first and not self.only_second

    def __str__(self) -> str:
        ways = Counter(pair.how for pair in self.pairs)
        how = ", ".join(f"{count} by {way}" for way, count in ways.items())
        total = len(self.pairs) + len(self.only_first)
        return f"{len(self.pairs)} of {total} layers" + (f" ({how})" if how else "")


def match_layers(first: FoundModel, second: FoundModel) -> Matching:
    """Pair the layers of two models.

    Parameters
    ----------
    first, second : FoundModel
        Layers of both; a pair is always of one kind, and its weights are of one shape where both are known.

    Returns
    -------
    Matching

    Notes
    -----
    Names are compared as they are and without what tools add to them, and count only where one layer of each model has
    them. What is left is paired by the layers around it, from far to near; layers that nothing tells apart are taken in
    the order of the graph, if both models have equally many of them.

    Examples
    --------
    >>> from ptq_lab import demo
    >>> from ptq_lab.graph import load_model
    >>> found = FoundModel.read(load_model(demo.load("digits_cnn").model_path))
    >>> print(match_layers(found, found))
    16 of 16 layers (16 by node name)
    """
    search = _Search(first, second)
    for how, names in NAMES:
        search.by_names(how, names)
    search.by_surroundings()
    return search.result()


class _Search:
    """Pairs found so far, as indices."""

    def __init__(self, first: FoundModel, second: FoundModel) -> None:
        self._layers = first.layers, second.layers
        self._around = Surroundings.of(first), Surroundings.of(second)
        self._paired: tuple[dict[int, int], dict[int, int]] = ({}, {})
        self._how: dict[int, str] = {}

    def by_names(self, how: str, names: Callable[[FoundLayer], Iterable[str]]) -> None:
        """Pair layers that alone have a name in both models."""
        first, second = (self._named(side, names) for side in (0, 1))
        for name, index in first.items():
            if name in second and index not in self._paired[0] and second[name] not in self._paired[1]:
                self._pair(index, second[name], how)

    def by_surroundings(self) -> None:
        """Pair what is left, until nothing more is found."""
        for shapes in (True, False):  # those of decoded weights may be unknown
            while self._unique(shapes) or self._equals(shapes):
                pass

    def result(self) -> Matching:
        first, second = self._layers
        pairs = [
            Pair(first[index], second[partner], self._how[index]) for index, partner in sorted(self._paired[0].items())
        ]
        left = [[layers[index] for index in self._open(side)] for side, layers in enumerate(self._layers)]
        return Matching(tuple(pairs), tuple(left[0]), tuple(left[1]))

    def _named(self, side: int, names: Callable[[FoundLayer], Iterable[str]]) -> dict[str, int]:
        found = [(name, index) for index in self._open(side) for name in set(names(self._layers[side][index])) if name]
        count = Counter(name for name, _ in found)
        return {name: index for name, index in found if count[name] == 1}

    def _unique(self, shapes: bool) -> bool:
        """Pair layers that are the only ones of their colour, starting with the nearest surroundings."""
        for rounds in range(FARTHEST + 1):
            first, second = (self._groups(side, rounds, shapes) for side in (0, 1))
            found = [
                (group[0], second[colour][0])
                for colour, group in first.items()
                if len(group) == 1 and len(second.get(colour, ())) == 1
                and (rounds or self._layers[0][group[0]].operands)  # nothing tells of a layer without weights
            ]  # fmt: skip
            if [self._pair(*pair, AROUND if rounds else ONLY) for pair in found].count(True):
                return True
        return False

    def _equals(self, shapes: bool) -> bool:
        """Pair layers of one colour in their order, where both models have equally many; those seen farthest first."""
        for rounds in range(FARTHEST, -1, -1):
            first, second = (self._groups(side, rounds, shapes) for side in (0, 1))
            for colour, group in first.items():
                others = second.get(colour, [])
                if len(group) == len(others) and self._all_fit(group, others):
                    for index, other in zip(group, others, strict=True):
                        self._pair(index, other, ORDER)
                    return True
        return False

    def _groups(self, side: int, rounds: int, shapes: bool) -> dict[str, list[int]]:
        known = {pair[side]: f"pair {number}" for number, pair in enumerate(sorted(self._paired[0].items()))}
        colours = paint(self._layers[side], self._around[side], known, rounds=rounds, shapes=shapes)
        groups: dict[str, list[int]] = {}
        for index in self._open(side):
            groups.setdefault(colours[index], []).append(index)
        return groups

    def _open(self, side: int) -> list[int]:
        return [index for index in range(len(self._layers[side])) if index not in self._paired[side]]

    def _all_fit(self, group: Sequence[int], others: Sequence[int]) -> bool:
        pairs = zip(group, others, strict=True)
        return all(_fit(self._layers[0][index], self._layers[1][other]) for index, other in pairs)

    def _pair(self, index: int, other: int, how: str) -> bool:
        if not _fit(self._layers[0][index], self._layers[1][other]):
            return False
        self._paired[0][index], self._paired[1][other] = other, index
        self._how[index] = how
        return True


def _fit(first: FoundLayer, second: FoundLayer) -> bool:
    """Tell whether two layers may be the same: of one kind, with weights of one shape as far as that is known."""
    if first.kind != second.kind:
        return False
    for role, operand in first.operands.items():
        other = second.operands.get(role)
        if other is not None and operand.shape and other.shape and operand.shape != other.shape:
            return False
    return True


def _weights(layer: FoundLayer) -> list[str]:
    return [telling_name(operand.tensor) for operand in layer.operands.values()]
