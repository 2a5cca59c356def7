"""Kinds of values with structure: vectors, lists, paths, free text, and input-to-folder pairs."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ptq_lab.config.kinds import (
    FULL_WIDTH,
    JsonSchema,
    Kind,
    Rejected,
    Whole,
    bare,
    real_number,
    shortest,
    show,
)

_COMMAS = ",，、"
# A quoted run. A single quote opens only at the start of an item, so an apostrophe inside a name is a letter.
_QUOTED = r'"[^"]*"|(?<![^\s:：,，、])\'[^\']*\'(?![^\s:：,，、])'
_TOKEN = re.compile(f"{_QUOTED}|.", re.DOTALL)
_UNWRITABLE = re.compile(r'["\r\n\0]')  # no INI line could carry these
_MUST_QUOTE = re.compile(r"^\s|\s$|[,，、=']|\s#")


def split_list(text: str) -> list[str]:
    """Split at commas that are not quoted, drop blanks around items and one trailing comma.

    Examples
    --------
    >>> split_list('conv1 ，"re:a{1,2}",fc,')
    ['conv1', 're:a{1,2}', 'fc']
    """
    items, current = [], ""
    for match in _TOKEN.finditer(text):
        if match[0] in _COMMAS:
            items.append(current)
            current = ""
        else:
            current += match[0]
    if current.strip():
        items.append(current)
    return [unquote(item) for item in items]


def unquote(text: str) -> str:
    """Return an item without the quotes around it; stray double quotes vanish as in the original."""
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" and text[0] not in text[1:-1]:
        return text[1:-1]
    return text.replace('"', "")


def quote(text: str) -> str:
    """Return an item as `split_list` reads it back, quoted only where it must be."""
    return f'"{text}"' if _MUST_QUOTE.search(text) else text


def _writable(text: str, what: str) -> str:
    if not text.strip():
        raise Rejected(f"{what} is empty")
    if _UNWRITABLE.search(text):
        raise Rejected(f"{show(text)} holds a double quote, a line break or a NUL byte")
    return text


def _items(value: object, split: Callable[[str], Sequence[object]], wanted: str) -> Sequence[object]:
    if isinstance(value, str):
        return split(value)
    if isinstance(value, Iterable) and not isinstance(value, Mapping | bytes):
        return list(value)
    raise Rejected(f"{show(value)} is not {wanted}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Vector(Kind):
    """Numbers in brackets, such as ``[127.5, 127.5, 127.5]``; blanks are free.

    Examples
    --------
    >>> Vector().accept("[1 ,2，3]")
    (1.0, 2.0, 3.0)
    """

    def accept(self, value: object) -> tuple[float, ...]:
        """Return the numbers; there must be one at least."""
        items = _items(value, self._split, "a vector")
        if not items:
            raise Rejected("the vector is empty", hint=f"allowed: {self.allowed()}")
        return tuple(real_number(item) for item in items)

    def _split(self, text: str) -> list[str]:
        text = bare(text).translate(FULL_WIDTH).rstrip(".")
        if len(text) < 2 or text[0] != "[" or text[-1] != "]":
            raise Rejected(f"{show(text)} is not a vector", hint="write it in brackets, e.g. [127.5, 127.5, 127.5]")
        items = text[1:-1].split(",")
        return items[:-1] if len(items) > 1 and not items[-1].strip() else items

    def write(self, value: tuple[float, ...]) -> str:
        """Return the numbers in brackets."""
        return f"[{', '.join(shortest(item) for item in value)}]"

    def allowed(self) -> str:
        """Return an example."""
        return "numbers in brackets, e.g. [127.5, 127.5, 127.5]"

    def schema(self) -> JsonSchema:
        """Return the type of its items."""
        return {"type": "array", "items": {"type": "number"}, "minItems": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Names(Kind):
    """Names or patterns separated by commas.

    Examples
    --------
    >>> Names(what="node names").accept("conv2d_1, add_8,type:Concat")
    ('conv2d_1', 'add_8', 'type:Concat')
    """

    what: str
    may_be_empty: bool = True

    def accept(self, value: object) -> tuple[str, ...]:
        """Return the names in their order; ``re:`` patterns must compile."""
        names = []
        for item in _items(value, split_list, f"a list of {self.what}"):
            if not isinstance(item, str):
                raise Rejected(f"{show(item)} is not text", hint=f"allowed: {self.allowed()}")
            if item.strip() or not isinstance(value, str):  # an empty item between two commas names nothing
                names.append(_checked_pattern(_writable(item, "a name")))
        if not names and not self.may_be_empty:
            raise Rejected(f"{show(value)} names nothing", hint=f"allowed: {self.allowed()}")
        return tuple(names)

    def write(self, value: tuple[str, ...]) -> str:
        """Return the names with commas, quoted where they need it."""
        return ",".join(quote(name) for name in value)

    def allowed(self) -> str:
        """Return the form."""
        return f"{self.what} separated by commas"

    def schema(self) -> JsonSchema:
        """Return the type of its items."""
        return {"type": "array", "items": {"type": "string", "minLength": 1}}


def _checked_pattern(name: str) -> str:
    if name.startswith("re:"):
        try:
            re.compile(name[3:])
        except re.error as error:
            raise Rejected(f"{show(name)} is not a regular expression: {error}") from None
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeList(Kind):
    """Different whole numbers separated by commas, brackets optional.

    Examples
    --------
    >>> WholeList(each=Whole(low=1, high=16)).accept("2, 4, 8")
    (2, 4, 8)
    """

    each: Whole

    def accept(self, value: object) -> tuple[int, ...]:
        """Return the numbers in their order; none twice, one at least."""
        numbers = tuple(self.each.accept(item) for item in _items(value, self._split, "a list of numbers"))
        if not numbers:
            raise Rejected("the list is empty", hint=f"allowed: {self.allowed()}")
        twice = sorted({number for number in numbers if numbers.count(number) > 1})
        if twice:
            raise Rejected(f"{twice[0]} is listed twice")
        return numbers

    def _split(self, text: str) -> list[str]:
        return split_list(bare(text).removeprefix("[").removesuffix("]"))

    def write(self, value: tuple[int, ...]) -> str:
        """Return the numbers with commas."""
        return ",".join(str(number) for number in value)

    def allowed(self) -> str:
        """Return the range of each."""
        return f"numbers in {self.each.allowed()} separated by commas"

    def schema(self) -> JsonSchema:
        """Return the type of its items."""
        return {"type": "array", "items": self.each.schema(), "minItems": 1, "uniqueItems": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePath(Kind):
    """A path, kept as written apart from quotes around it; it is not looked up.

    Examples
    --------
    >>> FilePath().read('"./debug # 1"')
    './debug # 1'
    """

    @property
    def verbatim(self) -> bool:
        """A path may contain ``#``."""
        return True

    def read(self, text: str) -> str:
        """Return the path without the quotes around it."""
        return self.accept(unquote(text))

    def accept(self, value: object) -> str:
        """Return the path as text."""
        if isinstance(value, str | os.PathLike):
            return _writable(str(os.fspath(value)), "the path")
        raise Rejected(f"{show(value)} is not a path")

    def write(self, value: str) -> str:
        """Return the path, quoted where it needs it."""
        return quote(value)

    def allowed(self) -> str:
        """Return the form."""
        return "a path"

    def schema(self) -> JsonSchema:
        """Return the type."""
        return {"type": "string", "minLength": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs(Kind):
    """Model inputs and their folders: ``name:folder,name:folder``; the last colon separates.

    Examples
    --------
    >>> Pairs().accept("input:0:/data/left, 'b' : 'C:/right'")
    (('input:0', '/data/left'), ('b', 'C:/right'))
    """

    @property
    def verbatim(self) -> bool:
        """A path may contain ``#``."""
        return True

    def accept(self, value: object) -> tuple[tuple[str, str], ...]:
        """Return (input name, folder) pairs from text, a mapping, or a list of either form."""
        if isinstance(value, Mapping):
            value = list(value.items())
        pairs = tuple(self._pair(item) for item in _items(value, _split_pairs, "a list of name:folder"))
        if not pairs:
            raise Rejected(f"{show(value)} names no folder", hint=f"allowed: {self.allowed()}")
        return pairs

    def _pair(self, item: object) -> tuple[str, str]:
        if isinstance(item, str):
            item = _cut_pair(item)
        if not isinstance(item, Sequence) or len(item) != 2:
            raise Rejected(f"{show(item)} is not a pair", hint=f"allowed: {self.allowed()}")
        name, folder = item
        if not isinstance(name, str) or not isinstance(folder, str | os.PathLike):
            raise Rejected(f"{show(item)} is not a pair of texts", hint=f"allowed: {self.allowed()}")
        return _writable(name, "an input name"), _writable(str(os.fspath(folder)), "a folder")

    def write(self, value: tuple[tuple[str, str], ...]) -> str:
        """Return the pairs with commas; parts that would be read differently are quoted."""
        return ",".join(f"{quote(name)}:{_quote_folder(folder)}" for name, folder in value)

    def allowed(self) -> str:
        """Return the form."""
        return "input_name:folder, more of them separated by commas"

    def schema(self) -> JsonSchema:
        """Return the type of its text form."""
        return {"type": "string", "minLength": 3, "pattern": "[:：]"}


def _split_pairs(text: str) -> Sequence[str]:
    items: list[str] = [""]
    for match in _TOKEN.finditer(text):
        if match[0] in _COMMAS:
            items.append("")
        else:
            items[-1] += match[0]
    return items[:-1] if len(items) > 1 and not items[-1].strip() else items


def _cut_pair(item: str) -> tuple[str, str]:
    for colon in (":", "："):
        cuts = [match.start() for match in _TOKEN.finditer(item) if match[0] == colon]
        if cuts:
            return unquote(item[: cuts[-1]]), unquote(item[cuts[-1] + 1 :])
    raise Rejected(f"{show(item.strip())} names no input", hint="write input_name:folder")


def _quote_folder(folder: str) -> str:
    return f'"{folder}"' if ":" in folder else quote(folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Text(Kind):
    """Text that is kept for another tool, checked by ``check`` where there is a grammar.

    Examples
    --------
    >>> Text().accept("force_fp16")
    'force_fp16'
    """

    check: Callable[[str], object] | None = None
    form: str = "text"

    @property
    def verbatim(self) -> bool:
        """Text without a grammar may contain ``#``."""
        return self.check is None

    def read(self, text: str) -> str:
        """Return the text without double quotes."""
        return self.accept(bare(text))

    def accept(self, value: object) -> str:
        """Return the text if its grammar, where it has one, holds."""
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise Rejected(f"{show(value)} is not text", hint=f"allowed: {self.allowed()}")
        text = _writable(str(value).strip(), "the text")
        if self.check is not None:
            self.check(text)
        return text

    def write(self, value: str) -> str:
        """Return the text, quoted where it needs it."""
        return f'"{value}"' if "=" in value else value

    def allowed(self) -> str:
        """Return the form."""
        return self.form

    def schema(self) -> JsonSchema:
        """Return the type."""
        return {"type": "string", "minLength": 1}
