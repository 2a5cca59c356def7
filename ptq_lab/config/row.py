"""Rules as data: rows of conditions and the finding they lead to, read by Python and by the editor extension alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from ptq_lab.config.finding import Finding, Key
from ptq_lab.config.options import QuantConfig, value_of
from ptq_lab.errors import Level

TYPE: Key = ("common_quant_param", "quant_type")
SAMPLES: Literal["samples"] = (
    "samples"  # the level of rules that stop a run only where samples are really fed: in FULL_QUANT
)

Operation = Literal["is", "is not", "set", "unset", "given", "not given", "above", "not between", "holds"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One thing that must be so.

    Attributes
    ----------
    option : (section, key)
        Whose value is looked at; with an empty key, ``given`` asks for any option of the section.
    operation : str
        How: ``is`` and ``is not`` compare with each of ``values``; ``set`` and ``unset`` ask for a value at all;
        ``given`` and ``not given`` whether it was written; ``above`` compares with the option that ``values``
        names, if that is set; ``not between`` is true outside and at the ends; ``holds`` looks into a list.
    values : tuple
        What to compare with.
    """

    option: Key
    operation: Operation
    values: tuple[object, ...] = ()

    def holds(self, config: QuantConfig) -> bool:
        """Return whether it is so."""
        return _OPERATIONS[self.operation](config, self.option, self.values)

    @property
    def reads(self) -> tuple[Key, ...]:
        """The options it looks at."""
        return (self.option, self.values) if self.operation == "above" else (self.option,)  # type: ignore[return-value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A finding and everything that must hold for it.

    ``message`` may repeat values: ``{bit_num}``, ``{smooth_alpha:g}``, ``{output_type!r}``; each name is the key of
    one of the conditions. An empty ``key`` means the whole section.
    """

    level: Level | Literal["samples"]
    section: str
    key: str = ""
    message: str
    hint: str = ""
    when: tuple[Condition, ...]

    @property
    def reads(self) -> tuple[Key, ...]:
        """The options it looks at; the row is left out when one of them could not be read."""
        own = tuple(key for condition in self.when for key in condition.reads)
        return (TYPE, *own) if self.level == "samples" else own

    def check(self, config: QuantConfig) -> Iterator[Finding]:
        """Yield the finding if all conditions hold.

        Examples
        --------
        >>> lost = Row(level="note", section="s", key="k", message="{bit_num} bits", when=(is_(("common_quant_param",
        ...     "bit_num"), 8),))
        >>> [finding.message for finding in lost.check(QuantConfig())]
        ['8 bits']
        """
        if not all(condition.holds(config) for condition in self.when):
            return
        values = {key: value_of(config, section, key) for section, key in self.reads if key}
        level: Level = self.level if self.level != "samples" else _samples_level(config)
        message = self.message.format_map(values)
        yield Finding(level=level, section=self.section, key=self.key, message=message, hint=self.hint)


def is_(option: Key, *values: object) -> Condition:
    """Return the condition that an option has one of these values."""
    return Condition(option=option, operation="is", values=values)


def is_not(option: Key, *values: object) -> Condition:
    """Return the condition that an option has none of these values."""
    return Condition(option=option, operation="is not", values=values)


def set_(option: Key) -> Condition:
    """Return the condition that an option has a value."""
    return Condition(option=option, operation="set")


def unset(option: Key) -> Condition:
    """Return the condition that an option has none."""
    return Condition(option=option, operation="unset")


def given(option: Key, *, yes: bool = True) -> Condition:
    """Return the condition that an option, or any of a section, was written (or was not)."""
    return Condition(option=option, operation="given" if yes else "not given")


def _samples_level(config: QuantConfig) -> Level:
    return "error" if config.common.quant_type == "FULL_QUANT" else "warning"


def _is_set(config: QuantConfig, option: Key) -> bool:
    return value_of(config, *option) not in (None, ())


def _is_given(config: QuantConfig, option: Key) -> bool:
    return option in config.given or (not option[1] and any(section == option[0] for section, _ in config.given))


def _is_above(config: QuantConfig, option: Key, values: tuple[object, ...]) -> bool:
    limit = value_of(config, str(values[0]), str(values[1]))
    return limit is not None and bool(value_of(config, *option) > limit)


def _is_between(config: QuantConfig, option: Key, values: tuple[object, ...]) -> bool:
    low, high = values
    return bool(low < value_of(config, *option) < high)


_OPERATIONS: Mapping[str, Callable[[QuantConfig, Key, tuple[object, ...]], bool]] = {
    "is": lambda config, option, values: value_of(config, *option) in values,
    "is not": lambda config, option, values: value_of(config, *option) not in values,
    "set": lambda config, option, _: _is_set(config, option),
    "unset": lambda config, option, _: not _is_set(config, option),
    "given": lambda config, option, _: _is_given(config, option),
    "not given": lambda config, option, _: not _is_given(config, option),
    "above": _is_above,
    "not between": lambda config, option, values: not _is_between(config, option, values),
    "holds": lambda config, option, values: values[0] in value_of(config, *option),
}
