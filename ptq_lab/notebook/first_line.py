"""The first line of a magic: its options, and what the user's names on it stand for."""

# mypy: disallow-untyped-calls=False
# (IPython's functions carry no types.)

from __future__ import annotations

import keyword
import os
import re
from argparse import Namespace
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import onnx
from IPython.core.error import UsageError
from IPython.core.magic_arguments import parse_argstring
from IPython.utils.text import DollarFormatter

from ptq_lab.config.suggest import closest
from ptq_lab.errors import ModelError
from ptq_lab.graph import Model
from ptq_lab.result import QuantResult

USAGE = (
    "%%quantize MODEL [-o OUT] [-r NAME] [--samples X] [--eval X] [--fp16 on|off] [--inputShape S] "
    "[--inputDataFormat NHWC|NCHW] [--optimize X] [--check] [--dry-run] [--show-code] [--explain] [--interact] "
    "[--quiet]   (%%quantize? explains)"
)
# What IPython replaces; in single quotes a dollar is none.
_FIELD = re.compile(r"\{[^{}]*\}|\$\$?[A-Za-z_][\w.]*(?=(?:[^']*'[^']*')*[^']*$)")


def read_line(magic: Any, line: str, names: Mapping[str, Any]) -> Namespace:
    """Return the options on the first line of ``%%quantize``; values are without the quotes around them.

    Parameters
    ----------
    magic : function
        Decorated by IPython's ``magic_arguments``.
    line : str
        As IPython hands it over: names in braces are replaced already, unless one of them has no value.
    names : mapping
        The user's variables.

    Raises
    ------
    UsageError
        One line that says what is wrong, and how the line should look.
    """
    require_values(line, names)
    try:
        options: Namespace = parse_argstring(magic, line)
    except (UsageError, ValueError) as fault:  # ValueError: a quote that is not closed
        raise UsageError(f"%%quantize: {fault}; usage: {USAGE}") from None
    written = {name: bare(value) for name, value in vars(options).items() if isinstance(value, str)}
    if braces := [value for value in written.values() if "{" in value or "}" in value]:
        raise UsageError(f"%%quantize: {braces[0]} cannot be replaced by a value; check the braces of this line")
    vars(options).update(written)
    if options.result and (not options.result.isidentifier() or keyword.iskeyword(options.result)):
        raise UsageError(f"%%quantize -r {options.result}: not the name of a variable; usage: {USAGE}")
    other = [flag for flag in ("check", "dry_run", "output", "show_code", "explain") if getattr(options, flag)]
    if options.interact and other:
        flag = "-o" if other[0] == "output" else f"--{other[0].replace('_', '-')}"
        raise UsageError(f"%%quantize --interact: opens an explorer and writes nothing, so {flag} does not fit")
    if options.check and (options.dry_run or options.result):
        raise UsageError(f"%%quantize --check: gives no plan and no result; usage: {USAGE}")
    return options


def require_values(line: str, names: Mapping[str, Any]) -> None:
    """Refuse the first ``{name}`` or ``$name`` that has no value: IPython then replaces none of them.

    Raises
    ------
    UsageError
        If there is one.
    """
    for field in _FIELD.findall(line):
        if field.startswith("$$"):  # stands for a dollar
            continue
        try:
            DollarFormatter().vformat(field, (), names)
        except Exception:  # whatever the expression in the braces raises
            raise UsageError(f"%%quantize: {field} has no value; is it defined, and spelled like this?") from None


def value_of(name: str, names: Mapping[str, Any]) -> Any:
    """Return what the user's ``name`` or ``name.attribute`` holds; the text itself if it is a file or no name.

    Examples
    --------
    >>> value_of("here.name", {"here": Path("a/b")}), value_of("nowhere.npz", {})
    ('b', 'nowhere.npz')
    """
    head, *attributes = name.split(".")
    if head not in names or is_there(name):
        return name
    try:
        return reduce(getattr, attributes, names[head])
    except AttributeError:
        return name  # model.onnx, misspelt, beside a variable called model


def model_of(name: str, names: Mapping[str, Any]) -> Any:
    """Return the path or model that a name on the first line stands for.

    Raises
    ------
    ModelError
        If it is neither a file nor a variable with a model, and what may be meant.
    """
    value = value_of(name, names)
    if isinstance(value, onnx.ModelProto | Model):
        return value
    if isinstance(value, QuantResult):
        raise ModelError(f"{name}: is a finished run; its quantized model is {name}.model_path")
    if isinstance(value, str | os.PathLike):
        if value == name and not is_there(name):
            raise ModelError(f"{name}: no such file, and no variable of this name{_meant(name, names)}")
        return value
    wanted = "the path of an .onnx file, an onnx.ModelProto or a ptq_lab.Model wanted"
    inside = f"; did you mean {name}.model_path?" if hasattr(value, "model_path") else ""
    raise ModelError(f"{name}: holds {_kind(value)}; {wanted}{inside}")


def bare(value: str) -> str:
    """Return a value without the quotes around it.

    Examples
    --------
    >>> bare("'my model.onnx'"), bare("plain")
    ('my model.onnx', 'plain')
    """
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value


def is_there(name: str) -> bool:
    """Tell whether a text is the path of something that exists."""
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # far too long for a file name: the text of a variable
        return False


def _kind(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


def _meant(name: str, names: Mapping[str, Any]) -> str:
    """Return a hint at the file beside it or the variable that comes nearest."""
    folder = Path(name).parent
    try:
        files = [str(folder / each.name) for each in folder.iterdir() if each.suffix == ".onnx"]
    except (OSError, ValueError):
        files = []
    near = closest(name, [*files, *(each for each in names if not each.startswith("_"))])
    return f"; did you mean {near}?" if near else ""
