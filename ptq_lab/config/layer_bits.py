"""``[ptq_lab.layer_bits]``: the one section whose keys are names of the user's model, each with a width.

Because a key is a name or pattern, it is kept as it is written: upper and lower case, dots, slashes, colons and
blanks inside. Only double quotes around it are taken off, for names that an INI line cannot carry bare.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from ptq_lab.config.kinds import Rejected, Whole, show
from ptq_lab.config.lists import Names
from ptq_lab.config.option import OURS, Needs, Option

Pins = tuple[tuple[str, int], ...]  # (name or pattern, bits), in the order of the text

SECTION = "ptq_lab.layer_bits"
ABOUT = (
    "How many bits the weights of single layers get, whatever bit_num or [ptq_lab] weight_bits says; later lines win "
    "over earlier ones. Full quantization takes 2 to 8."
)
KEYS = "a node or weight name, glob, re:expression or type:Operator"
USED_WITH: Needs = MappingProxyType({"quant_type": ("WEIGHT_QUANT", "FULL_QUANT")})
WIDTH = Option(
    kind=Whole(low=1, high=16),
    what="Bits of the weights of the nodes that the name or pattern means.",
    when="When one layer needs more bits than the others, or with bit_num=0 to take a layer out of the search.",
    source=OURS,
    used_with=USED_WITH,
    example="4",
)
EXAMPLE: Pins = (("conv1", 8), ("type:Gemm", 4))

_BLANKS = " \t\u00a0\u3000"  # what the INI grammar strips
_QUOTED = re.compile(r'"[^"]*"')
_MUST_QUOTE = re.compile(r"^[\s#\[]|\s$|=|\s#")
_NAMES = Names(what=KEYS)


def read_name(text: str) -> str:
    """Return the name that the text before ``=`` means: verbatim inside quotes, else without stray ones.

    Examples
    --------
    >>> read_name('/Block 1/Conv:0 '), read_name('" a=b"')
    ('/Block 1/Conv:0', ' a=b')
    """
    text = text.strip(_BLANKS)
    return text[1:-1] if _QUOTED.fullmatch(text) else text.replace('"', "").strip(_BLANKS)


def write_name(name: str) -> str:
    """Return a name as `read_name` reads it back, quoted only where an INI line needs it.

    Examples
    --------
    >>> write_name("/block.0/conv*"), write_name("[ab]*")
    ('/block.0/conv*', '"[ab]*"')
    """
    return f'"{name}"' if _MUST_QUOTE.search(name) else name


def checked_name(name: object) -> str:
    """Return a name that an INI line can carry; an ``re:`` pattern must compile.

    Raises
    ------
    Rejected
        If it is empty, no text, no regular expression, or holds a double quote, a line break or a NUL byte.
    """
    if not isinstance(name, str):
        raise Rejected(f"{show(name)} is not text", hint=f"allowed: {KEYS}")
    return _NAMES.accept([name])[0]


def accept_pins(value: object) -> Pins:
    """Return pairs of name and bits from a mapping or from pairs; of a name given twice the last one counts.

    Raises
    ------
    Rejected
        If it is neither, or a name or a width is none.

    Examples
    --------
    >>> accept_pins([("conv1", 8), ("conv*", 4), ("conv1", "2")])
    (('conv*', 4), ('conv1', 2))
    """
    pairs = value.items() if isinstance(value, Mapping) else value
    if isinstance(pairs, str) or not isinstance(pairs, Iterable):
        raise Rejected(f"{show(value)} is not names with bits", hint='write {"conv1": 4}')
    found: dict[str, int] = {}
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise Rejected(f"{show(pair)} is not a name with its bits", hint='write ("conv1", 4)')
        name = checked_name(pair[0])
        found.pop(name, None)
        bits = WIDTH.kind.accept(pair[1])
        assert isinstance(bits, int)  # Whole accepts nothing else
        found[name] = bits
    return tuple(found.items())
