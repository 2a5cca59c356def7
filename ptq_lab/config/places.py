"""What may be written at a place of a configuration: sections, keys and values, for whoever completes text.

What only a model or a disk knows (names of nodes and inputs, folders) is named by `Place.wants` and left to the caller.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ptq_lab.config import layer_bits as pins
from ptq_lab.config.dump import default_text
from ptq_lab.config.foreign import FOREIGN
from ptq_lab.config.kinds import Choice, Flag, Kind, Whole
from ptq_lab.config.lists import FilePath, Names, Pairs
from ptq_lab.config.option import Option
from ptq_lab.config.options import GROUPS, SECTIONS

Wants = Literal["", "nodes", "pins", "inputs", "folders"]

MANY = 20  # whole numbers that are worth a list
_HEADER = re.compile(r"\s*\[([^\]]*)")
_WORD = re.compile(r"\S*$")
_WANTS: tuple[tuple[type[Kind], Wants], ...] = ((Names, "nodes"), (Pairs, "inputs"), (FilePath, "folders"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One thing that may be written: its text, and what it is (``section``, ``key``, ``value`` ...)."""

    text: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where somebody is writing.

    Attributes
    ----------
    fragment : str
        What stands left of the cursor and would be replaced.
    offers : tuple of Offer
        What may stand there instead, in the order of the declarations; not yet matched with the fragment.
    wants : str
        What else may: names of ``nodes`` in a list, names as keys (``pins``), ``inputs`` with a folder behind a colon,
        ``folders``; empty if nothing.
    """

    fragment: str
    offers: tuple[Offer, ...] = ()
    wants: Wants = ""


def find_place(lines: Sequence[str], line: int, column: int) -> Place:
    r"""Return what may be written at a place of a configuration.

    Parameters
    ----------
    lines : sequence of str
        The text.
    line, column : int
        Where the cursor is, counted from 0.

    Examples
    --------
    >>> place = find_place(["[common_quant_param]", "quant_type=W"], 1, 12)
    >>> place.fragment, [offer.text for offer in place.offers]
    ('W', ['WEIGHT_QUANT', 'FULL_QUANT', 'DYNAMIC_QUANT'])
    >>> [offer.text for offer in find_place(["[comm"], 0, 5).offers][:2]
    ['[common_quant_param]', '[weight_quant_param]']
    """
    before = lines[line][:column]
    bare = before.lstrip()
    if bare.startswith("#"):
        return Place(fragment=_WORD.findall(before)[0])
    section = _section(lines[:line])
    if bare.startswith("[") and not (section == pins.SECTION and "=" in before):
        return Place(fragment=bare, offers=_headers(lines, line, closed="]" in lines[line][column:]))
    key, equals, value = bare.partition("=")
    if not equals:
        return _at_key(lines, line, section, bare)
    if section == pins.SECTION:
        bits = tuple(Offer(text=text, kind="value") for text in _values(pins.WIDTH, None))
        return Place(fragment=value.lstrip(), offers=bits)
    declared = GROUPS[section].options().get(key.strip()) if section in GROUPS else None
    if declared is None:
        return Place(fragment=value.lstrip())
    return _at_value(declared, GROUPS[section].default(key.strip()), value)


def _at_key(lines: Sequence[str], line: int, section: str, fragment: str) -> Place:
    given = {text.partition("=")[0].strip() for text in _body(lines, line)}
    if section == pins.SECTION:
        return Place(fragment=fragment, wants="pins")
    known: Iterable[str] = GROUPS[section].options() if section in GROUPS else FOREIGN.get(section) or ()
    keys = [Offer(text=f"{key}=", kind="key") for key in known if key not in given]
    headers = () if fragment else _headers(lines, line, closed=False)
    return Place(fragment=fragment, offers=(*keys, *headers))


def _at_value(declared: Option, default: object, value: str) -> Place:
    wants: Wants = next((wants for kind, wants in _WANTS if isinstance(declared.kind, kind)), "")
    fragment = value.lstrip()
    if wants in ("nodes", "inputs"):
        fragment = _last_item(fragment)
    offers = () if wants else tuple(Offer(text=text, kind="value") for text in _values(declared, default))
    return Place(fragment=fragment, offers=offers, wants=wants)


def _values(declared: Option, default: object) -> list[str]:
    """Return all values of an option if they can be listed, or else its default or example."""
    kind = declared.kind
    if isinstance(kind, Choice):
        return list(kind.values)
    if isinstance(kind, Flag):
        return ["true", "false"]
    if isinstance(kind, Whole) and kind.high is not None and kind.high - kind.low < MANY:
        return [str(number) for number in range(kind.low, kind.high + 1)]
    return [text for text in (default_text(declared, default), declared.example) if text]


def _last_item(value: str) -> str:
    """Return what stands behind the last comma outside quotes, without blanks in front."""
    start, quoted = 0, False
    for index, character in enumerate(value):
        quoted ^= character == '"'
        if character == "," and not quoted:
            start = index + 1
    return value[start:].lstrip()


def _section(lines: Sequence[str]) -> str:
    headers = (_HEADER.match(line) for line in reversed(lines))
    return next((found[1].strip() for found in headers if found), "")


def _body(lines: Sequence[str], line: int) -> list[str]:
    """Return the other lines of the section that a line is in."""
    start = next((index for index in range(line - 1, -1, -1) if _HEADER.match(lines[index])), -1)
    end = next((index for index in range(line + 1, len(lines)) if _HEADER.match(lines[index])), len(lines))
    return [lines[index] for index in range(start + 1, end) if index != line and "=" in lines[index]]


def _headers(lines: Sequence[str], line: int, *, closed: bool) -> tuple[Offer, ...]:
    """Return the sections that are not there yet; ours first, and those of other tools behind."""
    there = {_section([text]) for index, text in enumerate(lines) if index != line}
    end = "" if closed else "]"
    return tuple(Offer(text=f"[{name}{end}", kind="section") for name in (*SECTIONS, *FOREIGN) if name not in there)
