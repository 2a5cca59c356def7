"""`skip_quant_node`: which nodes its patterns mean."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ptq_lab.errors import ConfigError, Problem


@dataclass(frozen=True, slots=True)
class Matches:
    """What a list of patterns matched.

    Attributes
    ----------
    nodes : dict of str to str
        Node name to the first pattern that matched it.
    unmatched : tuple of Problem
        One warning per pattern that matched nothing, with the nearest names.
    """

    nodes: dict[str, str]
    unmatched: tuple[Problem, ...]


def match_nodes(patterns: Sequence[str], nodes: Iterable[tuple[str, str]]) -> Matches:
    """Match skip patterns against nodes.

    Parameters
    ----------
    patterns : sequence of str
        An exact name, a glob (``block?/*``), ``re:`` and a regular expression found anywhere in the
        name, or ``type:`` and an operator.
    nodes : iterable of (name, op_type)

    Raises
    ------
    ConfigError
        If a regular expression is not one.

    Examples
    --------
    >>> found = match_nodes(["stem", "type:Gemm", "hed"], [("stem", "Conv"), ("head", "Gemm")])
    >>> found.nodes
    {'stem': 'stem', 'head': 'type:Gemm'}
    >>> print(found.unmatched[0])
    [common_quant_param] skip_quant_node: 'hed' matches no node; the nearest name is head
    """
    names = list(nodes)
    matched: dict[str, str] = {}
    unmatched: list[Problem] = []
    for pattern in patterns:
        hits = named_by(pattern, names)
        for name in hits:
            matched.setdefault(name, pattern)
        if not hits:
            unmatched.append(_problem(f"'{pattern}' matches no node", hint=nearest_names(pattern, names)))
    return Matches(matched, tuple(unmatched))


def named_by(pattern: str, names: Sequence[tuple[str, str]]) -> list[str]:
    """Return the names among (name, op_type) that one pattern means, in their order.

    Raises
    ------
    ConfigError
        If it is a regular expression and not a right one.
    """
    return [name for name, op_type in names if _matches(pattern, name, op_type)]


def _matches(pattern: str, name: str, op_type: str) -> bool:
    if pattern == name:
        return True
    if pattern.startswith("type:"):
        return op_type == pattern.removeprefix("type:").strip()
    if pattern.startswith("re:"):
        try:
            return re.search(pattern.removeprefix("re:"), name) is not None
        except re.error as error:
            problem = _problem(f"'{pattern}' is not a regular expression ({error})", level="error")
            raise ConfigError([problem]) from error
    return any(mark in pattern for mark in "*?[") and fnmatch.fnmatchcase(name, pattern)


def nearest_names(pattern: str, names: Sequence[tuple[str, str]]) -> str:
    """Return in words what comes near to a pattern that matches nothing; slow where names are many."""
    if pattern.startswith("type:"):
        known, wanted = sorted({op_type for _, op_type in names}), pattern.removeprefix("type:").strip()
        what = "operator"
    else:
        known, wanted, what = [name for name, _ in names], pattern, "name"
    near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
    verb = "is" if len(near) == 1 else "are"
    plural = "" if len(near) == 1 else "s"
    return f"the nearest {what}{plural} {verb} {', '.join(near)}" if near else f"no {what} comes near"


def _problem(message: str, *, level: str = "warning", hint: str = "") -> Problem:
    return Problem(
        level="error" if level == "error" else "warning",
        section="common_quant_param",
        key="skip_quant_node",
        message=message,
        hint=hint,
    )
