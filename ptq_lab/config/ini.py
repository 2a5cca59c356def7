"""INI text to entries that remember where they stand. Nothing is raised: mistakes are collected.

The line rules are the original's, made friendlier: comments may be indented or follow a value after `` #``,
and tabs count as blanks. What a key may be called and what its value means is decided in `load`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ptq_lab.config.layer_bits import SECTION as NAMED
from ptq_lab.config.layer_bits import read_name
from ptq_lab.config.options import takes_any_text, verbatim
from ptq_lab.errors import Problem

MAX_LINES = 10_001  # lines with content the original reads before it gives up

_BLANKS = " \t\u00a0\u3000"
_QUOTED_KEY = re.compile(rf'"[^"]+"[{_BLANKS}]*=')
_TOKEN = re.compile(r'"[^"]*"|.', re.DOTALL)  # a double-quoted run is one token


@dataclass(frozen=True, slots=True, kw_only=True)
class IniSection:
    """One section header; a section may have several.

    ``column`` and ``end_column`` enclose the name without its brackets. Positions count from 1, in
    characters, and ``end_column`` is one past the last. ``closed`` says whether the line ends in ``]``.
    """

    name: str
    line: int
    column: int
    end_column: int
    closed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class IniEntry:
    """One ``key=value`` line.

    Attributes
    ----------
    section, key : str
        What the value belongs to; ``section`` is empty before the first header.
    value : str
        The value without double quotes.
    text : str
        The value as written, with its quotes; what follows it as a comment is gone from both.
    line, column, end_column : int
        Where ``text`` stands.
    key_column, key_end_column : int
        Where the key stands.
    """

    section: str
    key: str
    value: str
    text: str
    line: int
    column: int
    end_column: int
    key_column: int
    key_end_column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IniDocument:
    """Everything a text says, in its order.

    Attributes
    ----------
    sections : tuple of IniSection
        Headers, repeated ones included.
    entries : tuple of IniEntry
        Lines with a value, repeated keys included.
    problems : tuple of Problem
        Lines that are neither, and lines that surely mean something else.
    source : str
        Where the text came from.
    """

    sections: tuple[IniSection, ...]
    entries: tuple[IniEntry, ...]
    problems: tuple[Problem, ...]
    source: str = ""


def parse_ini(text: str, *, source: str = "") -> IniDocument:
    r"""Read INI text line by line, keeping the position of every section, key and value.

    Parameters
    ----------
    text : str
        The configuration; any line ends, a byte-order mark is skipped.
    source : str
        Where it came from, for messages.

    Returns
    -------
    IniDocument
        What could be read, and a problem for each line that could not.

    Notes
    -----
    Source: the line rules of the original's parser; docs/compatibility.md lists what differs on purpose.

    Examples
    --------
    >>> document = parse_ini("[common_quant_param]\nbit_num = 8  # eight\n")
    >>> entry = document.entries[0]
    >>> entry.key, entry.value, entry.line, entry.column, entry.end_column
    ('bit_num', '8', 2, 11, 12)
    """
    reader = _Reader()
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    significant = 0
    for number, raw in enumerate(lines, start=1):
        line = raw.rstrip(_BLANKS)
        start = len(line) - len(line.lstrip(_BLANKS))
        content = line[start:]
        if not content.replace('"', "") or content.startswith("#"):
            continue
        significant += 1
        if significant > MAX_LINES:
            reader.report(number, start, line, f"there are more than {MAX_LINES} lines with content")
            break
        reader.line(number, start, line)
    return IniDocument(
        sections=tuple(reader.sections),
        entries=tuple(reader.entries),
        problems=tuple(reader.problems),
        source=source,
    )


class _Reader:
    """What has been read so far; ``start`` is the 0-based index of the first character that is not blank."""

    def __init__(self) -> None:
        self.sections: list[IniSection] = []
        self.entries: list[IniEntry] = []
        self.problems: list[Problem] = []
        self.section = ""

    def line(self, number: int, start: int, line: str) -> None:
        # Where keys are names, a quoted one may start with a bracket.
        name = self.section == NAMED and _QUOTED_KEY.match(line, start)
        if line[start:].replace('"', "").startswith("[") and not name:
            self._header(number, start, line)
        else:
            self._entry(number, start, line)

    def report(self, number: int, start: int, line: str, message: str, **more: str) -> None:
        """Add a problem about a line from ``start`` on; ``more`` are further fields of Problem."""
        place = {"line": number, "column": start + 1, "end_column": len(line) + 1}
        self.problems.append(Problem(message=message, section=self.section, **place, **more))  # type: ignore[arg-type]

    def _header(self, number: int, start: int, line: str) -> None:
        body = line[start : _comment_start(line, start)].rstrip(_BLANKS)
        first = body.index("[") + 1
        inside = body[first:].rstrip(f'"{_BLANKS}')
        before = self.section
        # The original takes everything but the first and the last character, whatever they are.
        shown = inside[:-1].strip(f'"{_BLANKS}')
        self.section = shown.replace('"', "")
        blank = len(inside[:-1]) - len(inside[:-1].lstrip(f'"{_BLANKS}'))
        column = start + first + blank + 1 if shown else start + 1
        place = {"line": number, "column": column, "end_column": column + (len(shown) or len(body))}
        closed = inside.endswith("]")
        self.sections.append(IniSection(name=self.section, closed=closed, **place))
        if not closed:
            hint = _hint_for_open(inside, may_be_name=before == NAMED)
            self.report(number, start, line, "the section header does not end in ]", level="warning", hint=hint)
        elif inside[:-1].replace('"', "") != self.section:
            message = "blanks inside the brackets hide this section from the original"
            self.report(number, start, line, message, level="warning")

    def _entry(self, number: int, start: int, line: str) -> None:
        equals = _find(line, "=", start)
        comment = _comment_start(line, start)
        if equals < 0 or comment < equals:
            self._not_an_entry(number, start, line[:comment].rstrip(_BLANKS))
            return
        key_text = line[start:equals].rstrip(_BLANKS)
        key = read_name(key_text) if self.section == NAMED else key_text.replace('"', "").strip(_BLANKS)
        end = len(line) if verbatim(self.section, key) else comment
        text = line[equals + 1 : end].rstrip(_BLANKS)
        column = equals + 1 + len(text) - len(text.lstrip(_BLANKS))
        text = text.lstrip(_BLANKS)
        if not text.replace('"', ""):
            self._no_value(number, start, line, key)
            return
        second = _find(text, "=", 0)
        if second == len(text) - 1:  # a last = on its own falls away in the original
            text = text[:-1].rstrip(_BLANKS)
            self._warn_trailing(number, start, line, key)
        elif second >= 0:
            what = "name" if self.section == NAMED else "value"
            hint = f'put the {what} in double quotes if the "=" belongs to it'
            self.report(number, start, line, "the value holds another '='", hint=hint, key=key)
            return
        self._add(number, key, text, (column, start, start + len(key_text)))

    def _add(self, number: int, key: str, text: str, columns: tuple[int, int, int]) -> None:
        column, key_start, key_end = columns
        entry = IniEntry(
            section=self.section,
            key=key,
            value=text.replace('"', "").strip(_BLANKS),
            text=text,
            line=number,
            column=column + 1,
            end_column=column + 1 + len(text),
            key_column=key_start + 1,
            key_end_column=key_end + 1,
        )
        if not self.sections:
            found = {"message": "not used, because no section starts before it", "key": key}
            hint = "write [common_quant_param] above it"
            self.report(number, key_start, " " * key_start + key, level="warning", hint=hint, **found)
        self.entries.append(entry)

    def _not_an_entry(self, number: int, start: int, line: str) -> None:
        hint = "write key=value"
        if "＝" in line:
            hint = "write a plain = instead of ＝"
        elif line[start:].startswith((";", "//")):
            hint = "a comment starts with #"
        elif re.fullmatch(r"\s*\w+\s*[:：].*", line):
            hint = "write = instead of :"
        self.report(number, start, line, f"{_cut(line[start:])} is not key=value", hint=hint)

    def _no_value(self, number: int, start: int, line: str, key: str) -> None:
        hint = "write key=value, or delete the line to keep the default"
        # A list of names may be anything for the original, so there a comment in its place is no error.
        names = line.endswith("=") is False and takes_any_text(self.section, key)
        message = "has a comment instead of a value" if names else "has no value"
        self.report(number, start, line, message, hint=hint, key=key, level="warning" if names else "error")

    def _warn_trailing(self, number: int, start: int, line: str, key: str) -> None:
        self.report(number, start, line, "the '=' at the end is dropped", level="warning", key=key)


def _hint_for_open(inside: str, *, may_be_name: bool) -> str:
    """Return what to write instead of a header that does not end in ``]``."""
    if may_be_name and "=" in inside:
        return "put the name in double quotes if this is one and not a section"
    name, closing, behind = inside.partition("]")
    right = f"[{name}]"
    if closing:
        behind = behind.replace('"', "").strip(_BLANKS)
        move = "below it" if "=" in behind else "above it, behind a #"
        right = f"[{name}] alone on its line, and {_cut(behind)} {move}"
    return f"write {right}; the original takes this for a section it does not know"


def _cut(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 60 else f"{shown[:60]}..."


def _find(text: str, wanted: str, start: int) -> int:
    """Return the index of a character outside double quotes from ``start`` on, or -1."""
    return next((match.start() for match in _TOKEN.finditer(text, start) if match[0] == wanted), -1)


def _comment_start(line: str, start: int) -> int:
    """Return where a comment starts, a ``#`` after a blank and outside double quotes; else the length."""
    for match in _TOKEN.finditer(line, start):
        if match[0] == "#" and match.start() > start and line[match.start() - 1] in _BLANKS:
            return match.start()
    return len(line)
