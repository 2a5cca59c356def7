"""Names of nodes, short enough for a picture and still unlike each other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from ptq_lab.report.formats import NAME_WIDTH

_HEADS = (1 / 3, 1 / 2, 2 / 3, 5 / 6)  # how much of a cut name is its beginning, in the order in which they are tried


def telling_names(names: Sequence[str], width: int = NAME_WIDTH) -> tuple[str, ...]:
    """Return names as they are if all of them fit, else without the folders that they share at both ends.

    What is still too long is cut in the middle. Different names stay different, if need be by a number at their end.

    Examples
    --------
    >>> telling_names(["/net/layers.0/self/query/Conv", "/net/layers.10/self/query/Conv"], 20)
    ('layers.0', 'layers.10')
    >>> telling_names(["/net/layers.0/attention/self/query/MatMul", "/net/layers.1/mlp/up/MatMul"], 20)
    ('layer...n/self/query', 'layers.1/mlp/up')
    >>> telling_names(["conv"])
    ('conv',)
    """
    every = dict.fromkeys(names)
    whole = list(every) if all(len(name) <= width for name in every) else _without_shared(list(every))
    short = next((cut for cut in (_cut(whole, width, head) for head in _HEADS) if len(set(cut)) == len(cut)), None)
    if short is None:
        short = [f"{name} #{index}" for index, name in enumerate(_cut(whole, width - 5, _HEADS[0]))]
    place = dict(zip(every, short, strict=True))
    return tuple(place[name] for name in names)


def _without_shared(names: list[str]) -> list[str]:
    if len(names) < 2:
        return names
    parts = [name.split("/") for name in names]
    shortest = min(map(len, parts))
    head = min(_shared(parts), shortest - 1)
    tail = min(_shared([part[::-1] for part in parts]), shortest - 1 - head)
    return ["/".join(part[head : len(part) - tail]) for part in parts]


def _shared(parts: list[list[str]]) -> int:
    """Return how many parts all names have in common from the first on."""
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*parts, strict=False)))


def _cut(names: list[str], width: int, head: float) -> list[str]:
    kept = width - 3
    first = int(kept * head)
    return [name if len(name) <= width else f"{name[:first]}...{name[len(name) - (kept - first) :]}" for name in names]
