"""Kinds of single values: each reads text, accepts typed input, writes text and says what is allowed.

A kind knows nothing about sections, keys or files. Lists, vectors and paths are in `lists`.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ptq_lab.config.suggest import closest

JsonSchema = dict[str, Any]

_WHOLE = re.compile(r"[+-]?[0-9]+")
_REAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_HEX = re.compile(r"[+-]?0[xX][0-9a-fA-F]+(?:\.[0-9a-fA-F]*)?(?:[pP][+-]?[0-9]+)?")
_LONGEST_SHOWN = 60  # characters of a wrong value that are worth repeating in a message

# Input methods for Chinese leave these behind; none of them means anything else in a boolean or a list.
FULL_WIDTH = str.maketrans({"，": ",", "、": ",", "：": ":", "。": ".", "［": "[", "］": "]"})


class Rejected(ValueError):  # noqa: N818 - reads as a sentence where it is raised
    """A value is not of its kind: what was seen, what is allowed, and the one replacement if there is one."""

    def __init__(self, message: str, *, hint: str = "", suggestion: str = "") -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.message = message
        self.hint = hint
        self.suggestion = suggestion


class OutOfRange(Rejected):
    """A number is one, but too small or too large."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What every kind of value can do; the kinds below fill it in."""

    @property
    def verbatim(self) -> bool:
        """Whether ``#`` may belong to the value, so that the line cannot end in a comment."""
        return False

    def read(self, text: str) -> object:
        """Return the value that INI text stands for."""
        return self.accept(text)

    def accept(self, value: object) -> object:
        """Return a value from Python, typed and checked; accepting the result again changes nothing."""
        raise NotImplementedError

    def write(self, value: Any) -> str:
        """Return the text that `read` turns into this value."""
        raise NotImplementedError

    def allowed(self) -> str:
        """Return what may be written, for people."""
        raise NotImplementedError

    def schema(self) -> JsonSchema:
        """Return what may be written, as JSON Schema."""
        raise NotImplementedError


def show(value: object) -> str:
    """Return a value as a message repeats it: quoted when it is text, cut when it is long.

    Examples
    --------
    >>> show("WEIGHT"), show(32)
    ("'WEIGHT'", '32')
    """
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def bare(text: str) -> str:
    """Return text without double quotes and outer blanks: quotes never mean anything in a single value."""
    return text.replace('"', "").strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole(Kind):
    """A whole number in decimal, ends included; ``high`` may be open.

    Examples
    --------
    >>> Whole(low=0, high=16).accept("+8")
    8
    """

    low: int
    high: int | None = None

    def accept(self, value: object) -> int:
        """Return the number; text must be decimal digits as a whole, so ``8.0`` is refused."""
        number = self._number(value)
        if number < self.low or (self.high is not None and number > self.high):
            raise OutOfRange(f"{show(number)} is {'outside' if self.high is not None else 'not'} {self.allowed()}")
        return number

    def _number(self, value: object) -> int:
        if isinstance(value, str):
            text = bare(value)
            if not _WHOLE.fullmatch(text) or len(text) > _LONGEST_SHOWN:
                raise Rejected(f"{show(text)} is not a whole number", hint=f"allowed: {self.allowed()}")
            return int(text)
        if isinstance(value, bool):
            raise Rejected(f"{value} is not a whole number", hint=f"allowed: {self.allowed()}")
        try:
            return operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            raise Rejected(f"{show(value)} is not a whole number", hint=f"allowed: {self.allowed()}") from None

    def write(self, value: int) -> str:
        """Return the digits."""
        return str(value)

    def allowed(self) -> str:
        """Return the range."""
        return f"{self.low}..{self.high}" if self.high is not None else f"{self.low} or more"

    def schema(self) -> JsonSchema:
        """Return type and bounds."""
        bounds: JsonSchema = {"type": "integer", "minimum": self.low}
        return bounds if self.high is None else bounds | {"maximum": self.high}


def real_number(value: object) -> float:
    """Return a finite number from text or a Python number.

    Takes what C's ``strtod`` takes (``1e-2``, hexadecimal floats) except infinities and NaN, which no option
    has a use for.

    Examples
    --------
    >>> real_number("1e-2")
    0.01
    """
    number = math.nan
    if isinstance(value, str):
        text = bare(value)
        if _REAL.fullmatch(text):
            number = float(text)
        elif _HEX.fullmatch(text):
            number = float.fromhex(text)
    elif not isinstance(value, bool) and hasattr(value, "__float__"):
        number = float(value)
    if not math.isfinite(number):
        raise Rejected(f"{show(bare(value) if isinstance(value, str) else value)} is not a finite number")
    return number


def shortest(number: float) -> str:
    """Return the shortest text that reads back as the same number.

    Examples
    --------
    >>> shortest(127.5), shortest(3.0)
    ('127.5', '3')
    """
    return repr(float(number)).removesuffix(".0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Real(Kind):
    """A finite number; bounds may be missing, and are included unless said otherwise.

    Examples
    --------
    >>> Real(low=0, high=1, low_open=True, high_open=True).accept("0.02")
    0.02
    """

    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False

    def accept(self, value: object) -> float:
        """Return the number if it is finite and inside the bounds."""
        number = real_number(value)
        too_low = self.low is not None and (number <= self.low if self.low_open else number < self.low)
        too_high = self.high is not None and (number >= self.high if self.high_open else number > self.high)
        if too_low or too_high:
            verb = "outside" if self.low is not None and self.high is not None else "not"
            raise OutOfRange(f"{number:g} is {verb} {self.allowed()}")
        return number

    def write(self, value: float) -> str:
        """Return the shortest text that reads back exactly."""
        return shortest(value)

    def allowed(self) -> str:
        """Return the range, saying which ends are excluded."""
        if self.low is None and self.high is None:
            return "any number"
        if self.high is None:
            return f"{'greater than' if self.low_open else 'at least'} {self.low:g}"
        if self.low is None:
            return f"{'less than' if self.high_open else 'at most'} {self.high:g}"
        ends = {(True, True): " (both excluded)", (True, False): f" ({self.low:g} excluded)"}
        ends[False, True] = f" ({self.high:g} excluded)"
        return f"{self.low:g}..{self.high:g}{ends.get((self.low_open, self.high_open), '')}"

    def schema(self) -> JsonSchema:
        """Return type and bounds."""
        bounds: JsonSchema = {"type": "number"}
        if self.low is not None:
            bounds["exclusiveMinimum" if self.low_open else "minimum"] = self.low
        if self.high is not None:
            bounds["exclusiveMaximum" if self.high_open else "maximum"] = self.high
        return bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag(Kind):
    """``true`` or ``false`` in any case; full-width punctuation behind it is dropped.

    Examples
    --------
    >>> Flag().accept("True，")
    True
    """

    def accept(self, value: object) -> bool:
        """Return the flag; ``1``, ``yes`` and ``on`` are refused as in the original."""
        if isinstance(value, bool):
            return value
        text = bare(value).translate(FULL_WIDTH).rstrip(",.:").lower() if isinstance(value, str) else ""
        if text in {"true", "false"}:
            return text == "true"
        meant = {"1": "true", "yes": "true", "on": "true", "0": "false", "no": "false", "off": "false"}
        seen = bare(value) if isinstance(value, str) else value
        suggestion = meant.get(str(seen).lower(), "") or closest(text, ("true", "false"))
        hint = f"did you mean {suggestion}?" if suggestion else ""
        raise Rejected(f"{show(seen)} is neither true nor false", hint=hint, suggestion=suggestion)

    def write(self, value: bool) -> str:
        """Return the canonical spelling."""
        return "true" if value else "false"

    def allowed(self) -> str:
        """Return both spellings."""
        return "true, false"

    def schema(self) -> JsonSchema:
        """Return the type."""
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(Kind):
    """One of a few words, case-sensitive; ``aliases`` are read but never written.

    ``elsewhere`` are words that another option takes, by its name: refused here, and pointed to.

    Examples
    --------
    >>> Choice(values=("NEAREST", "LINEAR"), aliases={"NEARST": "NEAREST"}).accept("NEARST")
    'NEAREST'
    """

    values: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)
    elsewhere: Mapping[str, str] = field(default_factory=dict)

    def accept(self, value: object) -> str:
        """Return the canonical word, or refuse and name the closest."""
        text = bare(value) if isinstance(value, str) else ""
        text = self.aliases.get(text, text)
        if text in self.values:
            return text
        near = closest(text, (*self.values, *self.aliases))
        suggestion = self.aliases.get(near, near)
        hint = f"did you mean {suggestion}?" if suggestion else ""
        if other := closest(text, self.elsewhere):
            written = f"{self.elsewhere[other]}={other}"
            between = suggestion and text not in self.elsewhere  # either may be meant, so that none is the replacement
            hint = f"did you mean {suggestion}, or {written}?" if between else f"write {written}"
            suggestion = ""
        seen = show(bare(value) if isinstance(value, str) else value)
        raise Rejected(f"{seen} is not one of {self.allowed()}", hint=hint, suggestion=suggestion)

    def write(self, value: str) -> str:
        """Return the word."""
        return value

    def allowed(self) -> str:
        """Return all words."""
        return ", ".join(self.values)

    def schema(self) -> JsonSchema:
        """Return the words; an editor must accept the aliases too."""
        return {"type": "string", "enum": [*self.values, *self.aliases]}
