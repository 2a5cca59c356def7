"""The grammar of ``[ascend_context]`` shapes; nothing here knows the model.

Source: the document's section *Ascend* and the original's parser, which limits dynamic shapes to images:
rank 4, and either the batch or height and width.
"""

from __future__ import annotations

import re

from ptq_lab.config.kinds import Rejected, show

Shapes = tuple[tuple[str, tuple[int, ...]], ...]

_PROFILE = re.compile(r"\[([^\[\]]*)\]")
_ENTRY = re.compile(r"([0-9]+)(?:~([0-9]+))?")
_RANK = 4


def input_shapes(text: str) -> Shapes:
    """Return input names and shapes; -1 marks a dynamic axis.

    Parameters
    ----------
    text : str
        ``name:[d,d,...];name2:[...]``, axes greater than 0 or -1.

    Returns
    -------
    tuple of (str, tuple of int)
        In the order of the text.

    Raises
    ------
    Rejected
        Naming the part that does not fit the grammar.

    Examples
    --------
    >>> input_shapes("input_1:[-1,32,32,4]")
    (('input_1', (-1, 32, 32, 4)),)
    """
    return tuple(_shape(item) for item in text.rstrip(";").split(";"))


def _shape(item: str) -> tuple[str, tuple[int, ...]]:
    name, colon, brackets = (part.strip() for part in item.rpartition(":"))
    if not colon or not name:
        raise Rejected(f"{show(item)} names no input", hint="write name:[1,3,224,224]")
    inside = _PROFILE.fullmatch(brackets)
    axes = [axis.strip() for axis in inside[1].split(",")] if inside else []
    if not inside or any(not re.fullmatch(r"-1|[0-9]+", axis) or int(axis) == 0 for axis in axes):
        raise Rejected(f"{show(brackets)} is not a shape", hint="write axes from 1 up, or -1, in brackets")
    shape = tuple(int(axis) for axis in axes)
    if -1 in shape and not _dynamic_image(shape):
        hint = "allowed: -1 for the batch alone, or for two of the other axes"
        raise Rejected(f"{show(brackets)}: of four axes, either the first or two others may be -1", hint=hint)
    return name, shape


def _dynamic_image(shape: tuple[int, ...]) -> bool:
    free = [axis for axis, size in enumerate(shape) if size == -1]
    return len(shape) == _RANK and (free == [0] or (len(free) == 2 and 0 not in free))


def profile_groups(text: str) -> tuple[tuple[tuple[str, ...], ...], ...]:
    """Return the profiles of each input; a profile holds a number or a range per dynamic axis.

    Parameters
    ----------
    text : str
        ``[1~4],[8],[16]``; one such group per input, separated by ``;``.

    Returns
    -------
    tuple
        Input, profile, entry as text.

    Raises
    ------
    Rejected
        Naming the part that does not fit the grammar.

    Examples
    --------
    >>> profile_groups("[1~4],[8],[16]")
    ((('1~4',), ('8',), ('16',)),)
    """
    return tuple(_group(part.strip()) for part in text.rstrip(";").split(";"))


def _group(text: str) -> tuple[tuple[str, ...], ...]:
    if not re.fullmatch(r"\[[^\[\]]*\](\s*,\s*\[[^\[\]]*\])*", text):
        raise Rejected(f"{show(text)} is not a list of profiles", hint="write e.g. [1~4],[8],[16]")
    return tuple(_profile(inside) for inside in _PROFILE.findall(text))


def _profile(inside: str) -> tuple[str, ...]:
    entries = tuple(entry.strip() for entry in inside.split(","))
    for entry in entries:
        match = _ENTRY.fullmatch(entry)
        if not match or int(match[1]) < 1 or (match[2] and int(match[2]) < int(match[1])):
            raise Rejected(f"{show(entry)} is not a size", hint="write a number from 1 up, or e.g. 1~4")
    return entries


def mismatch(shapes: Shapes, dims: str) -> str:
    """Return why profiles do not fit the shapes, or ``""`` when they do.

    Parameters
    ----------
    shapes : tuple of (str, tuple of int)
        What `input_shapes` returned.
    dims : str
        The text of ``dynamic_dims``, its grammar checked already; empty when there is none.

    Returns
    -------
    str
        The first mismatch.

    Examples
    --------
    >>> mismatch((("x", (-1, 32, 32, 4)),), "[1,2]")
    'input x has 1 dynamic axis, but a profile has 2 entries'
    """
    free = {name: shape.count(-1) for name, shape in shapes if -1 in shape}
    if not free:
        return ""
    if not dims:
        return f"input {next(iter(free))} has a dynamic axis, but there is no dynamic_dims"
    texts = [part.strip() for part in dims.rstrip(";").split(";")]
    groups = profile_groups(dims)
    if len(groups) != len(shapes):
        return f"there are {len(shapes)} inputs, but dynamic_dims has {len(groups)} groups"
    if len({len(group) for group in groups}) > 1:
        return "every input needs the same number of profiles"
    dynamic = [(name, group) for (name, _), group in zip(shapes, groups, strict=True) if name in free]
    for name, group in dynamic:
        wrong = next((len(profile) for profile in group if len(profile) != free[name]), 0)
        if wrong:
            axes = "axis" if free[name] == 1 else "axes"
            return f"input {name} has {free[name]} dynamic {axes}, but a profile has {wrong} entries"
    same = {text for (name, _), text in zip(shapes, texts, strict=True) if name in free}
    return "all dynamic inputs need the same profiles" if len(same) > 1 else ""
