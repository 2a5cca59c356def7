"""How an option is declared: one `Option` beside one typed field of one `OptionGroup`.

An `OptionGroup` is one INI section. Everything else in this room is derived from these declarations.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict
from pydantic_core import CoreSchema, core_schema

from ptq_lab.config.kinds import Choice, Kind

DOCUMENT = "document"
ORIGINAL = "original code"
OURS = "ptq_lab"

Needs = Mapping[str, tuple[object, ...]]  # keys of [common_quant_param] and the values they must have


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """What there is to say about one key; its type and default stand in the field it annotates.

    Attributes
    ----------
    kind : Kind
        Which values are allowed and how they read and print.
    what, when : str
        One sentence on what the option does, one on when you would want it.
    source : str
        Where it comes from: the document, the original's code only, or ptq_lab.
    used_with : mapping of str to tuple
        Values that other options of ``[common_quant_param]`` must have for this one to matter.
    ignored : str
        Other circumstances in which it does nothing.
    implemented : bool or container
        True: all of it works. False: only the default works. A container: these values and the default work.
    no_effect : str
        Why an accepted value changes nothing; empty for options that do something.
    example : str
        What to write, for options without a default.
    implemented_for : tuple of str
        Values of ``quant_type`` for which every value works, whatever `implemented` says.
    instead : str
        What to do where a value does not work so far; empty: name the values that do.
    """

    kind: Kind
    what: str
    when: str
    source: str = DOCUMENT
    used_with: Needs = field(default_factory=dict)
    ignored: str = ""
    implemented: bool | Container[object] = True
    implemented_for: tuple[str, ...] = ()
    instead: str = ""
    no_effect: str = ""
    example: str = ""

    @property
    def aliases(self) -> Mapping[str, str]:
        """Spellings that are read but never written, and what they mean."""
        return self.kind.aliases if isinstance(self.kind, Choice) else {}

    @property
    def ignored_when(self) -> str:
        """When the option does nothing, as one phrase; empty if it always counts."""
        needed = " or ".join(f"{key} is not {_alternatives(values)}" for key, values in self.used_with.items())
        return "; ".join(part for part in (needed, self.ignored, self.no_effect) if part)

    def works(self, value: object, default: object) -> bool:
        """Return whether what this value asks for is implemented."""
        if isinstance(self.implemented, bool):
            return self.implemented or value == default
        return value == default or value in self.implemented

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> CoreSchema:
        """Let pydantic validate the field by the option's own kind; None passes where it is the default."""
        optional = type(None) in getattr(source, "__args__", ())

        def accept(value: object) -> object:
            return None if optional and value is None else self.kind.accept(value)

        return core_schema.no_info_plain_validator_function(accept)


def _alternatives(values: tuple[object, ...]) -> str:
    return " or ".join(str(value) for value in values)


class OptionGroup(BaseModel):
    """One INI section: typed fields with the spelling of the INI keys, frozen.

    ``section`` is the INI name, ``used_with`` says when the section matters at all (values of
    ``[common_quant_param]`` keys), ``free`` whether keys that are not declared are let through.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    section: ClassVar[str]
    used_with: ClassVar[Needs] = MappingProxyType({})
    free: ClassVar[bool] = False

    @classmethod
    @cache
    def options(cls) -> Mapping[str, Option]:
        """Return the declarations by key, in the order of the fields."""
        found: dict[str, Option] = {}
        for key, info in cls.model_fields.items():
            found[key] = next(item for item in info.metadata if isinstance(item, Option))
        return MappingProxyType(found)

    @classmethod
    def default(cls, key: str) -> Any:
        """Return a key's default; None means that it is unset."""
        return cls.model_fields[key].default
