"""What a cell does, as a Python call and as a shell command that do the same."""

from __future__ import annotations

import os
import shlex
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptq_lab.config import load_config
from ptq_lab.errors import ConfigError
from ptq_lab.notebook.first_line import value_of
from ptq_lab.publish import PLAIN, suffix_of

_FLAGS = {  # option of the line: argument of quantize()
    "output": "output",
    "samples": "samples",
    "evaluate": "evaluate",
    "input_shape": "input_shape",
    "input_data_format": "input_data_format",
    "optimize": "optimize",
}
_SWITCHES = {  # option of the line: flag of `ptq-lab convert`
    "samples": "samples",
    "evaluate": "eval",
    "input_shape": "inputShape",
    "input_data_format": "inputDataFormat",
    "optimize": "optimize",
}
_VALUES = ("samples", "evaluate")  # options that may name a variable


def code_of(options: Namespace, cell: str, names: Mapping[str, Any]) -> str:
    """Return the Python call and the command that do what a ``%%quantize`` cell does.

    Parameters
    ----------
    options : Namespace
        Its first line, as :func:`ptq_lab.notebook.first_line.read_line` returned it.
    cell : str
        Its configuration.
    names : mapping
        The user's variables. Those that hold a path are written out, others stay names.

    Returns
    -------
    str
        Python first. The command writes the configuration into a file that does not exist yet.
    """
    text = cell if cell.endswith("\n") else f"{cell}\n"
    return f"# Python\n{_python(options, text, names)}\n\n# command line\n{_command(options, text, names)}"


def _python(options: Namespace, text: str, names: Mapping[str, Any]) -> str:
    model = None if options.model is None else _expression(options.model, names)
    if options.check:
        call = f"for problem in ptq_lab.check_config({_literal(text)}):\n    print(problem)"
        return f"import ptq_lab\n\n{call}"
    lines = [f"    {model},", f"    {_literal(text)},"]
    if options.dry_run:
        return "\n".join(["import ptq_lab", "", f"{options.result or 'plan'} = ptq_lab.preview(", *lines, ")"])
    for option, argument in _FLAGS.items():
        value = getattr(options, option)
        if value is not None:
            written = _expression(value, names) if option in _VALUES else repr(value)
            lines.append(f"    {argument}={written},")
    lines += ["    fp16=True,"] * (options.fp16 == "on")
    lines += ["    explain=True,"] * options.explain
    return "\n".join(["import ptq_lab", "", f"{options.result or 'result'} = ptq_lab.quantize(", *lines, ")"])


def _command(options: Namespace, text: str, names: Mapping[str, Any]) -> str:
    model = None if options.model is None else _path(options.model, names)
    in_memory = [name for name in (options.model, options.samples, options.evaluate) if name and not _path(name, names)]
    if in_memory:
        return f"# none: {', '.join(in_memory)} lives in this notebook alone; a command reads files"
    file = _free_name(f"{Path(model or 'quantize').stem}.cfg", text)
    end = next(word for word in _end_words() if word not in text.splitlines())
    written = f"cat > {shlex.quote(file)} <<'{end}'\n{text}{end}\n"
    if options.check:
        of_model = f" --modelFile={shlex.quote(model)}" if model else ""
        return f"{written}ptq-lab check {shlex.quote(file)}{of_model}"
    if options.dry_run:
        return "# none: a plan without a run is for Python only"
    output = options.output or f"{Path(model or 'model').stem}_quantized{_suffix(text)}"
    parts = ["ptq-lab convert --fmk=ONNX", _flag("modelFile", model), _flag("outputFile", output)]
    parts.append(_flag("configFile", file))
    for option, flag in _SWITCHES.items():
        value = getattr(options, option)
        if value is not None:
            parts.append(_flag(flag, _path(value, names) if option in _VALUES else value))
    parts += ["--fp16=on"] * (options.fp16 == "on")
    parts += ["--explain"] * options.explain
    return f"{written}{' '.join(parts)}"


def _suffix(text: str) -> str:
    """Return the suffix of the file that a configuration writes, which a run has found to be right already."""
    try:
        return suffix_of(load_config(text))
    except ConfigError:  # the run will say so
        return PLAIN


def _expression(name: str, names: Mapping[str, Any]) -> str:
    """Return a name of the first line as Python: a path written out, whatever else by its name."""
    value = value_of(name, names)
    return repr(os.fspath(value)) if isinstance(value, str | os.PathLike) else name


def _path(name: str, names: Mapping[str, Any]) -> str | None:
    """Return the path that a name stands for; ``None`` if it stands for something in memory."""
    value = value_of(name, names)
    return os.fspath(value) if isinstance(value, str | os.PathLike) else None


def _literal(text: str) -> str:
    """Return a text as Python: line by line if nothing in it needs an escape."""
    plain = '"""' not in text and "\\" not in text and all(c == "\n" or c.isprintable() for c in text)
    return f'"""\\\n{text}"""' if plain else repr(text)


def _flag(name: str, value: object) -> str:
    return f"--{name}={shlex.quote(str(value))}"


def _free_name(name: str, text: str) -> str:
    """Return a name under which no other text is stored."""
    stem, number, candidate = Path(name).stem, 1, name
    while Path(candidate).exists() and not _holds(Path(candidate), text):
        number += 1
        candidate = f"{stem}_{number}.cfg"
    return candidate


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") == text
    except (OSError, ValueError):
        return False


def _end_words() -> list[str]:
    return ["END", *(f"END_{number}" for number in range(1, 10_003))]  # a configuration has fewer lines
