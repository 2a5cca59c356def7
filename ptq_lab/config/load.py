"""From what was written to a `QuantConfig`, or to everything that is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from ptq_lab.config.finding import Key
from ptq_lab.config.foreign import FOREIGN, MODELS, OUR_PREFIX
from ptq_lab.config.kinds import OutOfRange, Rejected, bare, show
from ptq_lab.config.layer_bits import SECTION as NAMED
from ptq_lab.config.layer_bits import WIDTH, checked_name, read_name
from ptq_lab.config.option import Option
from ptq_lab.config.options import ATTRIBUTES, GROUPS, SECTIONS, Place, QuantConfig
from ptq_lab.config.rules import findings
from ptq_lab.config.source import Draft, Header, Source, Written, gather
from ptq_lab.config.suggest import closest
from ptq_lab.errors import ConfigError, Problem

_NO_OVERRIDES: Mapping[str, str] = MappingProxyType({})
_BITS = ("common_quant_param", "bit_num")
_TYPE = ("common_quant_param", "quant_type")


def load_config(source: Source, *, overrides: Mapping[str, str] = _NO_OVERRIDES) -> QuantConfig:
    r"""Read a configuration, and refuse it with every reason at once.

    Parameters
    ----------
    source : str, Path, mapping or QuantConfig
        INI text (it has a line break or starts with ``[``), the path of a file, a dictionary of sections,
        or a configuration, which is returned as it is when there are no overrides.
    overrides : mapping of str to str
        ``{"common_quant_param.bit_num": "4"}``: values that win over the source; `split_option` says where the
        key starts.

    Returns
    -------
    QuantConfig
        Typed and checked; warnings and notes are in its ``problems``.

    Raises
    ------
    ConfigError
        With all errors in the order of the text: where, what was seen, what is allowed, what may be meant.

    Notes
    -----
    Source: the document's parameter tables; what they leave open is as in the original's parser. Without
    ``quant_type`` the range of ``bit_num`` only warns, because the original does not look at it then.

    Examples
    --------
    >>> config = load_config("[common_quant_param]\nquant_type=WEIGHT_QUANT\nbit_num=4\n")
    >>> config.common.bit_num
    4
    >>> load_config(config, overrides={"common_quant_param.bit_num": "6"}).common.bit_num
    6
    >>> load_config("[common_quant_param]\nquant_type=WEIGHT_QUANT\nbit_num=32\n")
    Traceback (most recent call last):
    ...
    ptq_lab.errors.ConfigError: line 3: [common_quant_param] bit_num: 32 is outside 0..16
    """
    config, problems = _load(source, overrides)
    errors = [problem for problem in problems if problem.level == "error"]
    if errors:
        raise ConfigError(errors, source=config.source)
    if isinstance(source, QuantConfig) and not overrides:
        return source
    return config


def check_config(source: Source) -> tuple[Problem, ...]:
    r"""Return every problem of a configuration, of every level, in the order of its text.

    Parameters
    ----------
    source : str, Path, mapping or QuantConfig
        As for `load_config`.

    Returns
    -------
    tuple of Problem
        Empty for a clean configuration; a file that cannot be read is one problem.

    Examples
    --------
    >>> for problem in check_config("[common_quant_param]\nbit_nums=8\n"):
    ...     print(problem.level, problem.line, problem.key, problem.hint)
    error 2 bit_nums did you mean bit_num?
    note 0 quant_type one of WEIGHT_QUANT, FULL_QUANT, DYNAMIC_QUANT
    """
    try:
        return _load(source, _NO_OVERRIDES)[1]
    except ConfigError as error:
        return error.problems


def _load(source: Source, overrides: Mapping[str, str]) -> tuple[QuantConfig, tuple[Problem, ...]]:
    draft = _with_overrides(gather(source), overrides)
    reading = _Reading(problems=list(draft.problems))
    reading.untyped = all((item.section, item.key) != _TYPE for item in draft.written)
    reading.sections(draft)
    if isinstance(source, QuantConfig):
        reading.keep(source, draft.overridden())
    for item in _last_ones(draft, reading):
        reading.entry(item)
    config = reading.config(draft)
    problems = [*reading.problems, *findings(config, reading.broken)]
    ordered = tuple(sorted(dict.fromkeys(problems), key=lambda item: (item.line or float("inf"), item.column)))
    silent = tuple(problem for problem in ordered if problem.level != "error")
    return config.model_copy(update={"problems": silent}), ordered


def _with_overrides(draft: Draft, overrides: Mapping[str, str]) -> Draft:
    """Append overrides to what was written; a malformed one is an error."""
    written, problems = [], []
    for name, value in overrides.items():
        section, key = split_option(name)
        shown = f"{name}={value}"
        if not section or not key:
            problems.append(Problem(message=f"the override {shown} names no option", hint="write section.key"))
        elif section in SECTIONS or section in FOREIGN:
            item = Written(section=section, key=key, value=value, is_text=isinstance(value, str), override=shown)
            written.append(item)
        else:
            near = closest(section, (*SECTIONS, *FOREIGN))
            hint = f"did you mean {near}?" if near else ""
            message = f"unknown section, in the override {shown}"
            problems.append(Problem(section=section, key=key, message=message, hint=hint, suggestion=near))
    extra = tuple(written)
    return replace(draft, written=draft.written + extra, problems=draft.problems + tuple(problems))


def split_option(name: str) -> tuple[str, str]:
    """Return section and key of ``section.key``: the last dot separates them, unless the key is a name of the model.

    Examples
    --------
    >>> split_option("ptq_lab.mixed_bit.bits"), split_option("ptq_lab.layer_bits.block.0/conv")
    (('ptq_lab.mixed_bit', 'bits'), ('ptq_lab.layer_bits', 'block.0/conv'))
    """
    if name.startswith(f"{NAMED}."):
        return NAMED, read_name(name.removeprefix(f"{NAMED}."))
    section, _, key = name.rpartition(".")
    return section, key


def _last_ones(draft: Draft, reading: _Reading) -> list[Written]:
    """Return the value of each key that counts, the last; the ones it replaces get a warning."""
    last: dict[Key, Written] = {}
    rest: list[Written] = []
    for item in draft.written:
        if item.section == MODELS:
            rest.append(item)
            continue
        before = last.get((item.section, item.key))
        if before is not None and not item.override:
            where = f"line {before.line}" if before.line else "the first one"
            reading.report(item, f"is written again; this value wins over {where}", level="warning", at_key=True)
        last.pop((item.section, item.key), None)  # the order of names with bits counts: later ones win
        last[item.section, item.key] = item
    return [*last.values(), *rest]


@dataclass(slots=True, kw_only=True)
class _Reading:
    """What has been understood so far."""

    values: dict[Key, object] = field(default_factory=dict)
    broken: set[Key] = field(default_factory=set)
    places: list[Place] = field(default_factory=list)
    foreign: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    untyped: bool = False  # there is no quant_type

    def keep(self, config: QuantConfig, overridden: frozenset[Key]) -> None:
        """Take over what an earlier reading found out and the rules would not find again."""
        again = set(findings(config))
        self.foreign = [(name, list(entries)) for name, entries in config.foreign]
        self.problems += [
            problem
            for problem in config.problems
            if problem not in again and (problem.section, problem.key) not in overridden
        ]

    def report(self, item: Written, message: str, *, at_key: bool = False, **more: str) -> None:
        """Add a problem about one value, or about its key; ``more`` are further fields of Problem."""
        if item.override:
            message = f"{message}, in the override {item.override}"
        column, end = (item.key_column, item.key_end_column) if at_key else (item.column, item.end_column)
        place = {"line": item.line, "column": column, "end_column": end}
        problem = Problem(message=message, section=item.section, key=item.key, **place, **more)  # type: ignore[arg-type]
        self.problems.append(problem)

    def sections(self, draft: Draft) -> None:
        """Say what becomes of sections that hold no options of ours, and remember where the others are."""
        seen: set[str] = set()
        lines = [header.line for header in draft.headers] + [0]
        for header, until in zip(draft.headers, lines[1:], strict=True):
            if header.name not in seen:
                here = {"line": header.line, "column": header.column, "end_column": header.end_column}
                self.places.append(Place(section=header.name, key="", **here))
                if header.name not in SECTIONS:
                    self.problems.append(_about_section(header, here))
            seen.add(header.name)
            if header.name not in SECTIONS and not header.name.startswith(f"{OUR_PREFIX}."):
                inside = [item for item in draft.written if _belongs(item, header.name, header.line, until)]
                self.foreign.append((header.name, [(item.key, str(item.value)) for item in inside]))

    def entry(self, item: Written) -> None:
        """Read one value, or say what is wrong with it."""
        if item.section == NAMED:
            self._named(item)
            return
        if item.section not in GROUPS:
            self._foreign_entry(item)
            return
        declared = GROUPS[item.section].options().get(item.key)
        if declared is None:
            self._unknown(item)
            return
        self._value(item, declared)

    def _named(self, item: Written) -> None:
        """Read the bits of a name or pattern of the model."""
        if not item.key:
            self.report(item, "there is no name before '='", at_key=True)
            return
        try:
            checked_name(item.key)
        except Rejected as error:
            self.report(item, error.message, at_key=True, hint=error.hint)
            return
        self._value(item, WIDTH)

    def _value(self, item: Written, declared: Option) -> None:
        where = (item.section, item.key)
        text = item.value if isinstance(item.value, str) else ""
        try:
            self.values[where] = declared.kind.read(text) if item.is_text else declared.kind.accept(item.value)
        except Rejected as error:
            self.broken.add(where)
            # Without quant_type the original does not look at the range of bit_num.
            forgiven = self.untyped and where == _BITS and isinstance(error, OutOfRange)
            level = "warning" if forgiven else "error"
            self.report(item, error.message, level=level, hint=error.hint, suggestion=error.suggestion)
            return
        if item.line:
            here = {"line": item.line, "column": item.column, "end_column": item.end_column}
            self.places.append(Place(section=item.section, key=item.key, **here))
        canonical = declared.aliases.get(bare(text))
        if canonical:
            self.report(item, f"{bare(text)} is read as {canonical}", level="note", suggestion=canonical)
        if item.is_text and declared.kind.verbatim and " #" in text:
            message = f"{show(text[text.index(' #') + 1 :])} is part of the value"
            self.report(item, message, level="warning", hint="a comment on a path needs a line of its own")

    def _unknown(self, item: Written) -> None:
        group = GROUPS[item.section]
        if group.free:
            self.report(item, "unknown option, not used", at_key=True, level="note")
            self.foreign.append((item.section, [(item.key, str(item.value))]))
            return
        if not item.key:
            self.report(item, "there is no key before '='", at_key=True)
            return
        near = closest(item.key, group.options())
        home = next((name for name, other in GROUPS.items() if item.key in other.options()), "")
        if home:
            self.report(item, "unknown option here", at_key=True, hint=f"it belongs into [{home}]")
        elif near:
            self.report(item, "unknown option", at_key=True, hint=f"did you mean {near}?", suggestion=near)
        else:
            self.report(item, "unknown option", at_key=True, hint=f"known here: {', '.join(group.options())}")

    def _foreign_entry(self, item: Written) -> None:
        keys = FOREIGN.get(item.section)
        if re.search(r"[\r\n\0]", str(item.value)):
            self.report(item, "the value holds a line break or a NUL byte")
        if item.override:
            self.foreign.append((item.section, [(item.key, str(item.value))]))
        if keys is None or item.key in keys:
            return
        near = closest(item.key, keys)
        hint = f"did you mean {near}?" if near else f"known here: {', '.join(keys)}"
        self.report(item, "unknown option", at_key=True, hint=hint, suggestion=near)

    def config(self, draft: Draft) -> QuantConfig:
        """Build the configuration from all values that could be read."""
        groups: dict[str, Any] = {}
        for section, group in GROUPS.items():
            values = {key: value for (name, key), value in self.values.items() if name == section}
            groups[ATTRIBUTES[section]] = group(**values)
        return QuantConfig(
            **groups,
            layer_bits=tuple((key, bits) for (name, key), bits in self.values.items() if name == NAMED),
            given=frozenset(self.values),
            foreign=tuple((name, tuple(entries)) for name, entries in self.foreign),
            places=tuple(self.places),
            source=draft.source,
        )


def _belongs(item: Written, section: str, line: int, until: int) -> bool:
    """Return whether a value stands under the header on this line; lines are 0 outside text."""
    if item.section != section or item.override:
        return False
    return not line or (item.line > line and (not until or item.line < until))


def _about_section(header: Header, here: dict[str, int]) -> Problem:
    name = header.name
    if name in FOREIGN:
        message = "belongs to another tool and is not used here"
        return Problem(level="note", section=name, message=message, **here)  # type: ignore[arg-type]
    # A header with more behind it has a hint of its own, and one that is not closed cannot be replaced by its name.
    near = closest(name, (*SECTIONS, *FOREIGN)) if "]" not in name else ""
    suggestion = near if header.closed else ""
    hint = f"did you mean {near}?" if near else ""
    ours = name.startswith(f"{OUR_PREFIX}.")
    message = "unknown section" if ours else "unknown section, not used"
    level = "error" if ours else "warning"
    return Problem(level=level, section=name, message=message, hint=hint, suggestion=suggestion, **here)  # type: ignore[arg-type]
