"""The declarations as a form: which control an option wants, what is written, and what keeps it from counting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ptq_lab.config import layer_bits as pins
from ptq_lab.config.dump import default_text, sentence
from ptq_lab.config.ini import IniDocument, parse_ini
from ptq_lab.config.kinds import Choice, Flag, Kind, Rejected, Whole
from ptq_lab.config.option import Needs, Option
from ptq_lab.config.options import GROUPS, QuantConfig, needs_met
from ptq_lab.config.sections.quantization import CommonOptions

Json = dict[str, Any]


def form() -> list[Json]:
    """Return every section with its options, made of JSON types alone.

    Returns
    -------
    list of dict
        ``name``, ``about`` and ``options``; each option has ``key``, ``what``, ``when``, ``allowed``, ``default``,
        ``example``, ``ignored`` (when it does nothing), and ``words``, or ``low`` and ``high``, where it has them.

    Examples
    --------
    >>> bits = form()[0]["options"][1]
    >>> bits["key"], bits["low"], bits["high"], bits["default"]
    ('bit_num', 0, 16, '8')
    """
    sections = [
        {
            "name": section,
            "about": sentence(group.__doc__),
            "options": [_control(key, item, group.default(key)) for key, item in group.options().items()],
        }
        for section, group in GROUPS.items()
    ]
    by_name = f"{pins.ABOUT} Its keys are names of the model, so its lines are written in the text: {pins.KEYS}=bits."
    return [*sections, {"name": pins.SECTION, "about": by_name, "options": []}]


def written(text: str) -> dict[str, str]:
    r"""Return what a text says for each option of ours, by ``section.key``; of several lines the last.

    Examples
    --------
    >>> written("[common_quant_param]\nbit_num=8\nbit_num = 4  # less\n")
    {'common_quant_param.bit_num': '4'}
    """
    return {
        f"{entry.section}.{entry.key}": entry.text
        for entry in parse_ini(text).entries
        if entry.section in GROUPS and entry.key in GROUPS[entry.section].options()
    }


def obstacles(text: str) -> dict[str, str]:
    r"""Return why options would not count beside what is written; those that count are left out.

    Values that cannot be read are taken to be the defaults.

    Returns
    -------
    dict of str to str
        By ``section.key``, or by ``section`` where it is the same for all of its options.

    Examples
    --------
    >>> found = obstacles("[common_quant_param]\nquant_type=FULL_QUANT\n")
    >>> found["weight_quant_param"], "full_quant_param.per_channel" in found
    ('needs quant_type=WEIGHT_QUANT', False)
    """
    config = QuantConfig(common=_common(parse_ini(text)))
    found = {}
    for section, group in GROUPS.items():
        unmet = _unmet(config, group.used_with)
        reasons = {
            f"{section}.{key}": unmet or _unmet(config, declared.used_with) or _never(config, declared)
            for key, declared in group.options().items()
        }
        shared = set(reasons.values())
        found.update({section: shared.pop()} if len(shared) == 1 else reasons)
    return {name: reason for name, reason in found.items() if reason}


def _unmet(config: QuantConfig, needs: Needs) -> str:
    """Return what has to be written first, as a phrase."""
    missing = {key: values for key, values in needs.items() if not needs_met(config, {key: values})}
    wanted = (f"{key}={' or '.join(map(str, values))}" for key, values in missing.items())
    return f"needs {' and '.join(wanted)}" if missing else ""


def _never(config: QuantConfig, declared: Option) -> str:
    if declared.no_effect:
        return f"has no effect: {declared.no_effect}"
    waiting = declared.implemented is False and config.common.quant_type not in declared.implemented_for
    return "is not implemented yet" if waiting else ""


def _common(document: IniDocument) -> CommonOptions:
    """Return the options that others depend on, as far as they can be read."""
    declared = CommonOptions.options()
    values: dict[str, Any] = {}
    for entry in document.entries:
        if entry.section != CommonOptions.section or entry.key not in declared:
            continue
        try:
            values[entry.key] = declared[entry.key].kind.read(entry.text)
        except Rejected:
            values.pop(entry.key, None)
    return CommonOptions(**values)


def _control(key: str, declared: Option, default: object) -> Json:
    facts = {
        "key": key,
        "what": declared.what,
        "when": declared.when,
        "allowed": declared.kind.allowed(),
        "default": default_text(declared, default),
        "example": declared.example,
        "ignored": declared.ignored,
        **_bounds(declared.kind),
    }
    return {name: value for name, value in facts.items() if value not in ("", None)}


def _bounds(kind: Kind) -> Mapping[str, object]:
    if isinstance(kind, Choice):
        return {"words": list(kind.values)}
    if isinstance(kind, Flag):
        return {"words": ["true", "false"]}
    return {"low": kind.low, "high": kind.high} if isinstance(kind, Whole) else {}
