"""`QuantConfig`: every section and every option there is, in one place to look them up.

The declarations themselves stand in `sections`; the tables here only collect them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ConfigDict, SkipValidation, field_validator, model_validator

from ptq_lab.config import layer_bits as pins
from ptq_lab.config.lists import Names
from ptq_lab.config.option import Option, OptionGroup
from ptq_lab.config.sections.activations import DynamicOptions, FullOptions, TransformOptions
from ptq_lab.config.sections.ascend import AscendOptions
from ptq_lab.config.sections.lab import BudgetOptions, LabOptions
from ptq_lab.config.sections.quantization import CommonOptions
from ptq_lab.config.sections.rounding import RoundingOptions
from ptq_lab.config.sections.samples import PreprocessOptions
from ptq_lab.config.sections.weights import MixedBitOptions, WeightOptions
from ptq_lab.errors import Problem

Entries = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a value was written: line and columns count from 1, ``end_column`` is one past the last."""

    section: str
    key: str
    line: int
    column: int
    end_column: int


class QuantConfig(BaseModel):
    """What the user wants, typed and checked; one frozen model per INI section, INI spelling inside.

    Two configurations are equal when their option values are: ``source``, ``places``, ``problems``,
    ``foreign`` and ``given`` say how something was written, not what. ``given`` still survives
    `dump_config`, because a switch that was written wins over what ``effort`` implies.

    Attributes
    ----------
    common, weight, mixed_bit, full, preprocess, dynamic, transform, ascend, lab, budget, rounding : OptionGroup
        The sections; see docs/options.md for every key.
    layer_bits : tuple of (str, int)
        ``[ptq_lab.layer_bits]``: name or pattern and bits, in the order of the text; later ones win.
    given : frozenset of (str, str)
        (section, key) of each option the user wrote.
    problems : tuple of Problem
        Warnings and notes, in the order of the text.
    foreign : tuple of (str, ((str, str), ...))
        Sections of other tools, word for word, so that they can be written back.
    places : tuple of Place
        Where the given values stand, if they came from text.
    source : str
        The path of the file, empty for text and dictionaries.

    Examples
    --------
    >>> config = QuantConfig(common=CommonOptions(quant_type="WEIGHT_QUANT", bit_num=4))
    >>> config.common.bit_num, config.full.activation_quant_method
    (4, 'MAX_MIN')
    >>> sorted(config.given)
    [('common_quant_param', 'bit_num'), ('common_quant_param', 'quant_type')]
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    common: CommonOptions = CommonOptions()
    weight: WeightOptions = WeightOptions()
    mixed_bit: MixedBitOptions = MixedBitOptions()
    full: FullOptions = FullOptions()
    preprocess: PreprocessOptions = PreprocessOptions()
    dynamic: DynamicOptions = DynamicOptions()
    transform: TransformOptions = TransformOptions()
    ascend: AscendOptions = AscendOptions()
    lab: LabOptions = LabOptions()
    budget: BudgetOptions = BudgetOptions()
    rounding: RoundingOptions = RoundingOptions()
    layer_bits: pins.Pins = ()
    given: frozenset[tuple[str, str]] = frozenset()
    problems: SkipValidation[tuple[Problem, ...]] = ()
    foreign: tuple[tuple[str, Entries], ...] = ()
    places: SkipValidation[tuple[Place, ...]] = ()
    source: str = ""

    @property
    def unused(self) -> tuple[str, ...]:
        """Names of the sections that are not used here, each once, in the order of the text."""
        return tuple(dict.fromkeys(section for section, _ in self.foreign if section not in ATTRIBUTES))

    def group(self, section: str) -> OptionGroup:
        """Return the options of an INI section.

        Examples
        --------
        >>> QuantConfig().group("ptq_lab").effort is None
        True
        """
        group: OptionGroup = getattr(self, ATTRIBUTES[section])
        return group

    def place(self, section: str, key: str) -> Place:
        """Return where a value was written; all zeros if it did not come from text."""
        for place in self.places:
            if place.section == section and place.key == key:
                return place
        return Place(section=section, key=key, line=0, column=0, end_column=0)

    @field_validator("layer_bits", mode="before")
    @classmethod
    def _check_pins(cls, value: object) -> pins.Pins:
        return pins.accept_pins(value)

    @model_validator(mode="after")
    def _collect_given(self) -> QuantConfig:
        """Count fields that were set in Python as given, so that they are not taken for defaults."""
        if "given" not in self.model_fields_set:
            given = {
                (section, key)
                for section, attribute in ATTRIBUTES.items()
                for key in getattr(self, attribute).model_fields_set
            }
            given |= {(pins.SECTION, name) for name, _ in self.layer_bits}
            self.__dict__["given"] = frozenset(given)
        return self

    def _values(self) -> tuple[OptionGroup, ...]:
        return tuple(getattr(self, attribute) for attribute in ATTRIBUTES.values())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, QuantConfig):
            return NotImplemented
        # Groups compare by their fields alone: pydantic's own equality would look at which of them were set.
        mine, theirs = ([dict(group) for group in config._values()] for config in (self, other))
        return mine == theirs and self.layer_bits == other.layer_bits

    def __hash__(self) -> int:
        return hash((*(tuple(dict(group).values()) for group in self._values()), self.layer_bits))


GROUPS: Mapping[str, type[OptionGroup]] = MappingProxyType(
    {
        group.section: group
        for group in (
            CommonOptions,
            WeightOptions,
            MixedBitOptions,
            FullOptions,
            PreprocessOptions,
            DynamicOptions,
            TransformOptions,
            AscendOptions,
            LabOptions,
            BudgetOptions,
            RoundingOptions,
        )
    }
)

ATTRIBUTES: Mapping[str, str] = MappingProxyType(
    {
        group.section: name
        for group in GROUPS.values()
        for name, info in QuantConfig.model_fields.items()
        if info.annotation is group
    }
)

SECTIONS: tuple[str, ...] = (*GROUPS, pins.SECTION)  # all that are used here


def option(section: str, key: str) -> Option:
    """Return the declaration of an option.

    Raises
    ------
    KeyError
        If there is no such section or key.

    Examples
    --------
    >>> option("common_quant_param", "bit_num").kind.allowed()
    '0..16'
    """
    return GROUPS[section].options()[key]


def value_of(config: QuantConfig, section: str, key: str) -> Any:
    """Return the value of an option by its INI names.

    Examples
    --------
    >>> value_of(QuantConfig(), "common_quant_param", "bit_num")
    8
    """
    return getattr(config.group(section), key)


def needs_met(config: QuantConfig, needs: Mapping[str, tuple[object, ...]]) -> bool:
    """Return whether the keys of ``[common_quant_param]`` have the values a section or an option needs.

    Examples
    --------
    >>> needs_met(QuantConfig(), {"bit_num": (0,)})
    False
    """
    return all(getattr(config.common, key) in values for key, values in needs.items())


def verbatim(section: str, key: str) -> bool:
    """Return whether a value is kept as written, ``#`` included: paths, and everything other tools own.

    Examples
    --------
    >>> verbatim("common_quant_param", "bit_num"), verbatim("registry", "plugin_path")
    (False, True)
    """
    if section not in SECTIONS:
        return True
    if section == pins.SECTION:
        return False
    declared = GROUPS[section].options().get(key)
    return declared.kind.verbatim if declared else GROUPS[section].free


def takes_any_text(section: str, key: str) -> bool:
    """Return whether the original accepts any text at all as the value of a key of ours.

    Examples
    --------
    >>> [takes_any_text("common_quant_param", key) for key in ("skip_quant_node", "bit_num")]
    [True, False]
    """
    declared = GROUPS[section].options().get(key) if section in GROUPS else None
    return declared is not None and isinstance(declared.kind, Names)
