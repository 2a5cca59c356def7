"""A `QuantConfig` as commented INI text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from ptq_lab.config import layer_bits as pins
from ptq_lab.config.option import Option, OptionGroup
from ptq_lab.config.options import GROUPS, QuantConfig, value_of

_WIDTH = 100


def dump_config(config: QuantConfig, *, comments: bool = True, only_given: bool = False) -> str:
    """Return INI text that loads back to an equal configuration.

    Options that were not given stay commented out with their default, so that loading the text again does not
    turn defaults into decisions (``given`` survives). Sections of other tools follow word for word.

    Parameters
    ----------
    config : QuantConfig
        What to write.
    comments : bool
        Whether each section and option is explained.
    only_given : bool
        Whether options that were not given are left out altogether.

    Returns
    -------
    str
        ``load_config(dump_config(config)) == config``.

    Examples
    --------
    >>> from ptq_lab.config import load_config
    >>> config = load_config({"common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": 4}})
    >>> print(dump_config(config, comments=False, only_given=True), end="")
    [common_quant_param]
    quant_type=WEIGHT_QUANT
    bit_num=4
    """
    blocks = []
    for section, group in GROUPS.items():
        lines = list(_lines(config, group, comments=comments, only_given=only_given))
        if lines:
            about = explain(sentence(group.__doc__)) if comments else []
            blocks.append("\n".join([*about, f"[{section}]", *lines]))
    if config.layer_bits or not only_given:
        blocks.append("\n".join(pin_lines(config.layer_bits, comments=comments)))
    for name, entries in config.foreign:
        blocks.append("\n".join([f"[{name}]", *(f"{key}={value}" for key, value in entries)]))
    return "\n\n".join(blocks) + "\n"


def _lines(config: QuantConfig, group: type[OptionGroup], *, comments: bool, only_given: bool) -> Iterator[str]:
    for key, declared in group.options().items():
        value = value_of(config, group.section, key)
        given = (group.section, key) in config.given or value != group.default(key)
        if only_given and not given:
            continue
        if comments:
            yield from about_option(declared, group.default(key))
        if not given:
            yield f"# {key}={default_text(declared, group.default(key)) or declared.example}"
        elif value is not None and value != ():
            yield f"{key}={declared.kind.write(value)}"


def pin_lines(layer_bits: pins.Pins, *, comments: bool) -> Iterator[str]:
    """Yield ``[ptq_lab.layer_bits]``; when it pins nothing, an example that is commented out."""
    if comments:
        yield from explain(pins.ABOUT)
    yield f"[{pins.SECTION}]"
    if comments:
        yield from explain(f"{pins.WIDTH.what} Left of '=': {pins.KEYS}. Allowed: {pins.WIDTH.kind.allowed()}.")
    yield from (f"{pins.write_name(name)}={bits}" for name, bits in layer_bits)
    if not layer_bits:
        yield from (f"# {pins.write_name(name)}={bits}" for name, bits in pins.EXAMPLE)


def about_option(declared: Option, default: object) -> list[str]:
    """Return the comment lines that explain an option: what, when, allowed values, default."""
    default_is = default_text(declared, default) or "unset"
    facts = f"Allowed: {declared.kind.allowed()}. Default: {default_is}."
    return explain(f"{declared.what} {facts}")


def default_text(declared: Option, default: object) -> str:
    """Return a default as INI text; empty when the option is unset by default."""
    return "" if default is None or default == () else declared.kind.write(default)


def explain(text: str) -> list[str]:
    """Return text as comment lines."""
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def sentence(docstring: str | None) -> str:
    """Return the first line of a docstring: a section is described where it is declared."""
    return (docstring or "").strip().split("\n", 1)[0]
