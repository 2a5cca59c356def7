"""Pinned widths: which weights of a plan the names and patterns of ``[ptq_lab.layer_bits]`` mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ptq_lab.errors import Level, Problem
from ptq_lab.graph import Skip, named_by, nearest_names
from ptq_lab.plan import TensorPlan

_SECTION = "ptq_lab.layer_bits"
_NAMED = 3  # weights that stay float, or names that match nothing, which one message lists


@dataclass(frozen=True, slots=True)
class _Weights:
    """What a pattern is matched against: the names that mean a weight, those of the weight and of its nodes."""

    quantized: dict[str, tuple[str, ...]]  # name -> tensors in the plan
    floating: dict[str, tuple[Skip, ...]]  # name -> weights that stay float
    names: tuple[tuple[str, str], ...]  # (name, operator), as named_by wants them


def pinned_bits(
    layer_bits: Sequence[tuple[str, int]], entries: Sequence[TensorPlan], *, skips: Sequence[Skip] = ()
) -> tuple[dict[str, int], tuple[Problem, ...]]:
    """Return the widths that the user has fixed, and what is to be said about names that fix none.

    Parameters
    ----------
    layer_bits : sequence of (str, int)
        Node or weight name, glob, ``re:`` pattern or ``type:Operator``, and bits; later ones win over earlier ones.
        A node's name means all weights it uses, and a weight that several nodes share belongs to each of them.
    entries : sequence of TensorPlan
        The weights that will be quantized.
    skips : sequence of Skip
        The weights that stay float, so that a name that means one can say why nothing happens to it.

    Returns
    -------
    dict of str to int
        Tensor name to bits, ready for :meth:`QuantPlan.with_bits`.
    tuple of Problem
        In the order of `layer_bits`: a warning for a name that matches no weight or only weights that stay float, a
        note for one whose weights all get their bits from later ones. Many names that match nothing share one warning,
        which comes first.

    Raises
    ------
    ConfigError
        If a regular expression is not one.

    Examples
    --------
    >>> conv = TensorPlan(tensor="w", nodes=("stem",), op_type="Conv", shape=(8, 3), bits=8, axis=0,
    ...                   channel_axis=0, bytes_before=96)
    >>> bits, problems = pinned_bits([("type:Conv", 4), ("sten", 2)], [conv])
    >>> bits
    {'w': 4}
    >>> print(problems[0])
    [ptq_lab.layer_bits] sten: matches no node and no weight; the nearest name is stem
    """
    weights = _weights(entries, skips)
    decided: dict[str, str] = {}  # tensor -> the pattern that counts
    hits: dict[str, tuple[str, ...]] = {}
    problems: dict[str, Problem] = {}
    lost: list[str] = []
    for pattern, _ in layer_bits:
        found = named_by(pattern, weights.names)
        hits[pattern] = tuple(dict.fromkeys(t for name in found for t in weights.quantized.get(name, ())))
        decided |= dict.fromkeys(hits[pattern], pattern)
        if not found:
            lost.append(pattern)
        elif not hits[pattern]:
            problems[pattern] = _stays_float(pattern, [s for name in found for s in weights.floating[name]])
    for pattern, tensors in hits.items():
        if winners := _overridden(pattern, tensors, decided):
            message = f"has no effect, because later lines decide about all it matches: {', '.join(winners)}"
            problems[pattern] = _problem(pattern, message, level="note", hint="of two lines the later one wins")
    bits = dict(layer_bits)
    if len(lost) <= _NAMED:
        hints = {pattern: nearest_names(pattern, weights.names) for pattern in lost}
        problems |= {name: _problem(name, "matches no node and no weight", hint=hint) for name, hint in hints.items()}
    ordered = tuple(problems[pattern] for pattern in hits if pattern in problems)
    many = (_many_lost(lost, len(hits), weights),) if len(lost) > _NAMED else ()
    return {tensor: bits[pattern] for tensor, pattern in decided.items()}, (*many, *ordered)


def _weights(entries: Sequence[TensorPlan], skips: Sequence[Skip]) -> _Weights:
    quantized: dict[str, tuple[str, ...]] = {}
    floating: dict[str, tuple[Skip, ...]] = {}
    names: dict[tuple[str, str], None] = {}
    for entry in entries:
        for name in dict.fromkeys((*entry.nodes, entry.tensor)):
            quantized[name] = (*quantized.get(name, ()), entry.tensor)
            names[name, entry.op_type] = None
    for skip in skips:
        for name in filter(None, dict.fromkeys((skip.node, skip.tensor))):
            floating[name] = (*floating.get(name, ()), skip)
            names[name, skip.op_type] = None
    return _Weights(quantized, floating, tuple(names))


def _many_lost(lost: Sequence[str], total: int, weights: _Weights) -> Problem:
    """Say once that many names match nothing, with what comes near to the first ones."""
    shown = "; ".join(f"{name} ({nearest_names(name, weights.names)})" for name in lost[:_NAMED])
    rest = len(lost) - _NAMED
    message = f"{len(lost):,} of {total:,} names match no node and no weight: {shown}; and {rest:,} more"
    return _problem("", message, hint="the names of another model or of another export of it?")


def _overridden(pattern: str, tensors: Sequence[str], decided: dict[str, str]) -> tuple[str, ...]:
    """Return the later patterns that took every weight of this one; empty if it keeps one."""
    winners = tuple(dict.fromkeys(decided[tensor] for tensor in tensors))
    return () if pattern in winners else winners


def _stays_float(pattern: str, skips: Sequence[Skip]) -> Problem:
    return _problem(pattern, f"has no effect, because what it matches stays float: {'; '.join(_reasons(skips))}")


def _reasons(skips: Sequence[Skip]) -> Iterator[str]:
    different = list(dict.fromkeys(skips))
    for skip in different[:_NAMED]:
        yield f"{skip.node or skip.tensor} ({skip.reason})"
    if len(different) > _NAMED:
        yield f"and {len(different) - _NAMED} more"


def _problem(pattern: str, message: str, *, level: Level = "warning", hint: str = "") -> Problem:
    return Problem(level=level, section=_SECTION, key=pattern, message=message, hint=hint)
