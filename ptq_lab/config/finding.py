"""What a rule about several options says, before it is known where they were written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ptq_lab.config.options import QuantConfig
from ptq_lab.errors import Level, Problem

Key = tuple[str, str]  # (section, key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing a rule found; an empty ``key`` means the whole section."""

    level: Level
    section: str
    key: str = ""
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A check and the options it reads; it is left out when one of them could not be read."""

    reads: tuple[Key, ...]
    check: Callable[[QuantConfig], Iterator[Finding]]


def located(config: QuantConfig, finding: Finding) -> Problem:
    """Return the problem a finding is, at the place where its option was written."""
    place = config.place(finding.section, finding.key)
    return Problem(
        level=finding.level,
        line=place.line,
        column=place.column,
        end_column=place.end_column,
        section=finding.section,
        key=finding.key,
        message=finding.message,
        hint=finding.hint,
    )
