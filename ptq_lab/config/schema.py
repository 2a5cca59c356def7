"""The whole dialect as one JSON Schema, for editors, forms and completion."""

from __future__ import annotations

from typing import Any

from ptq_lab.config import layer_bits as pins
from ptq_lab.config.dump import sentence
from ptq_lab.config.foreign import FOREIGN
from ptq_lab.config.kinds import JsonSchema
from ptq_lab.config.option import Option, OptionGroup
from ptq_lab.config.options import GROUPS

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """Return a JSON Schema (draft 2020-12) of a configuration as a dictionary of sections.

    Each option has ``title``, ``description``, ``default`` (unless it is unset by default), its type,
    range or words, and ``x-when``, ``x-ignored-when``, ``x-source``, ``x-aliases``, ``x-example``,
    ``x-implemented``.

    Returns
    -------
    dict
        A new one each time, made of JSON types alone.

    Examples
    --------
    >>> bits = schema()["properties"]["common_quant_param"]["properties"]["bit_num"]
    >>> bits["type"], bits["minimum"], bits["maximum"], bits["default"]
    ('integer', 0, 16, 8)
    """
    sections: dict[str, Any] = {section: _section(group) for section, group in GROUPS.items()}
    sections[pins.SECTION] = _pins()
    for name, keys in FOREIGN.items():
        sections[name] = _foreign(name, keys)
    return {
        "$schema": DIALECT,
        "title": "ptq_lab configuration",
        "description": "Sections of options for post-training quantization, in MindSpore Lite's format.",
        "type": "object",
        "properties": sections,
        "patternProperties": {r"^ptq_lab\.(?!(?:mixed_bit|layer_bits|weights)$)": False},
    }


def _section(group: type[OptionGroup]) -> JsonSchema:
    options = group.options().items()
    return {
        "title": group.section,
        "description": sentence(group.__doc__),
        "type": "object",
        "properties": {key: _option(key, declared, group.default(key)) for key, declared in options},
        "additionalProperties": group.free,
        "x-used-with": {key: list(values) for key, values in group.used_with.items()},
    }


def _pins() -> JsonSchema:
    """Describe the section whose keys are names of the model."""
    return {
        "title": pins.SECTION,
        "description": pins.ABOUT,
        "type": "object",
        "properties": {},
        "propertyNames": {"pattern": r'^[^"\r\n\u0000]*[^"\s\u0000][^"\r\n\u0000]*$'},
        "additionalProperties": {"description": pins.WIDTH.what, **pins.WIDTH.kind.schema(), "x-when": pins.WIDTH.when},
        "x-keys": pins.KEYS,
        "x-example": dict(pins.EXAMPLE),
        "x-used-with": {key: list(values) for key, values in pins.USED_WITH.items()},
    }


def _option(key: str, declared: Option, default: Any) -> JsonSchema:
    described: JsonSchema = {"title": key, "description": declared.what, **declared.kind.schema()}
    if default is not None and default != ():
        described["default"] = list(default) if isinstance(default, tuple) else default
    described["x-when"] = declared.when
    described["x-ignored-when"] = declared.ignored_when
    described["x-source"] = declared.source
    described["x-aliases"] = dict(declared.aliases)
    described["x-example"] = declared.example
    works = declared.implemented
    described["x-implemented"] = works if isinstance(works, bool) else list(works)  # type: ignore[call-overload]
    return described


def _foreign(name: str, keys: tuple[str, ...] | None) -> JsonSchema:
    about: JsonSchema = {"title": name, "description": "Belongs to another tool; kept, not used here."}
    if keys is None:
        return about | {"type": "object"}
    properties = {key: {"title": key} for key in keys}
    return about | {"type": "object", "properties": properties, "additionalProperties": False}
