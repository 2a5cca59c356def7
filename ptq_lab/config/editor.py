"""What an editor outside Python must know to highlight, complete, explain and check a configuration, as JSON.

The JupyterLab extension reads it from a file beside its script, so a changed declaration needs no rebuild.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ptq_lab.config import layer_bits as pins
from ptq_lab.config.dump import default_text, sentence
from ptq_lab.config.finding import Rule
from ptq_lab.config.foreign import FOREIGN, MODELS, OUR_PREFIX
from ptq_lab.config.ini import MAX_LINES
from ptq_lab.config.kinds import Kind
from ptq_lab.config.option import Needs, Option
from ptq_lab.config.options import GROUPS
from ptq_lab.config.row import Row
from ptq_lab.config.rules import RULES
from ptq_lab.config.template import TEMPLATES, template

Json = dict[str, Any]


def editor_data() -> Json:
    """Return sections, options, rules and templates, made of JSON types alone.

    Returns
    -------
    dict
        ``sections`` by name, each with its options and their kinds; ``foreign`` sections of other tools; ``rules`` in
        the order in which they speak: rows of conditions, or the name of a function; ``templates``.

    Examples
    --------
    >>> editor_data()["sections"]["common_quant_param"]["options"]["bit_num"]["kind"]
    {'type': 'Whole', 'low': 0, 'high': 16}
    """
    sections: dict[str, Json] = {
        name: {
            "about": sentence(group.__doc__),
            "usedWith": _needs(group.used_with),
            "free": group.free,
            "options": {key: _option(declared, group.default(key)) for key, declared in group.options().items()},
        }
        for name, group in GROUPS.items()
    }
    return {
        "sections": sections,
        "pins": {
            "section": pins.SECTION,
            "about": pins.ABOUT,
            "keys": pins.KEYS,
            "usedWith": _needs(pins.USED_WITH),
            "option": _option(pins.WIDTH, None),
            "example": dict(pins.EXAMPLE),
        },
        "foreign": {name: None if keys is None else list(keys) for name, keys in FOREIGN.items()},
        "models": MODELS,
        "prefix": OUR_PREFIX,
        "maxLines": MAX_LINES,
        "rules": [_row(rule) if isinstance(rule, Row) else _function(rule) for rule in RULES],
        "templates": {name: {"title": shown.title, "text": template(name)} for name, shown in TEMPLATES.items()},
    }


def editor_text() -> str:
    """Return the file that the JupyterLab extension reads.

    Examples
    --------
    >>> json.loads(editor_text()) == editor_data()
    True
    """
    return json.dumps(editor_data(), ensure_ascii=False, indent=0) + "\n"


def _needs(needs: Needs) -> Json:
    return {key: list(values) for key, values in needs.items()}


def _option(declared: Option, default: Any) -> Json:
    works = declared.implemented
    told: Json = {
        "kind": kind_data(declared.kind),
        "allowed": declared.kind.allowed(),
        "what": declared.what,
        "when": declared.when,
        "source": declared.source,
        "ignored": declared.ignored_when,
        "usedWith": _needs(declared.used_with),
        "noEffect": declared.no_effect,
        "defaultText": default_text(declared, default),
        "example": declared.example,
        "soFar": declared.instead or (f"so far: {works[0]}..{works[-1]}" if isinstance(works, range) else ""),
        "implementedFor": list(declared.implemented_for),
    }
    told = {name: value for name, value in told.items() if value}  # what is empty goes without saying
    if default is not None:
        told["default"] = _plain(default)
    if works is not True:
        told["implemented"] = list(works) if works else False  # type: ignore[call-overload]
    return told


def kind_data(kind: Kind) -> Json:
    """Return a kind by its name and its fields; a grammar by the name of the function that checks it.

    Examples
    --------
    >>> from ptq_lab.config.kinds import Whole
    >>> kind_data(Whole(low=1))
    {'type': 'Whole', 'low': 1}
    """
    told = {field.name: _plain(getattr(kind, field.name)) for field in fields(kind)}
    kept = {name: value for name, value in told.items() if value or (value == 0 and value is not False)}
    return {"type": type(kind).__name__} | kept


def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if isinstance(value, Kind):
        return kind_data(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return dict(value)
    return value.__name__ if callable(value) else value


def _row(row: Row) -> Json:
    told = {
        "level": row.level,
        "section": row.section,
        "key": row.key,
        "message": row.message,
        "hint": row.hint,
        "when": [[each.operation, *each.option, *each.values] for each in row.when],
    }
    return {name: value for name, value in told.items() if value}


def _function(rule: Rule) -> Json:
    name = rule.check.__name__.removeprefix("_")
    return {"name": name, "reads": [list(key) for key in rule.reads]}
