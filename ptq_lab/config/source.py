"""Where a configuration comes from: INI text, a file, a dictionary or a `QuantConfig`, made one `Draft`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ptq_lab.config.finding import Key
from ptq_lab.config.ini import IniDocument, parse_ini
from ptq_lab.config.kinds import show
from ptq_lab.config.layer_bits import SECTION as NAMED
from ptq_lab.config.options import GROUPS, QuantConfig, value_of
from ptq_lab.config.suggest import closest
from ptq_lab.errors import ConfigError, Problem

Source = str | Path | Mapping[str, Mapping[str, object]] | QuantConfig

MAX_BYTES = 1 << 20  # a configuration is a page of text; more is some other file


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One value as it came: INI text, or a Python object from a dictionary.

    ``override`` is the whole ``section.key=value`` when it came from one, and then there is no position.
    """

    section: str
    key: str
    value: object
    is_text: bool
    line: int = 0
    column: int = 0
    end_column: int = 0
    key_column: int = 0
    key_end_column: int = 0
    override: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """One section as it came, with the position of its name; ``closed`` unless a line of text lacks its last ``]``."""

    name: str
    line: int = 0
    column: int = 0
    end_column: int = 0
    closed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """Everything that was written, before anybody asks whether it makes sense."""

    source: str = ""
    headers: tuple[Header, ...] = ()
    written: tuple[Written, ...] = ()
    problems: tuple[Problem, ...] = field(default=())

    def overridden(self) -> frozenset[Key]:
        """Return (section, key) of every value that an override replaces."""
        return frozenset((item.section, item.key) for item in self.written if item.override)


def gather(source: object) -> Draft:
    """Return what a source says, positions kept.

    Parameters
    ----------
    source : str, Path, mapping or QuantConfig
        Text has a line break or starts with ``[``; any other string is a path.

    Returns
    -------
    Draft
        Unchecked.

    Raises
    ------
    ConfigError
        If there is nothing to read: no such file, a folder, binary, not UTF-8, empty.

    Examples
    --------
    >>> gather({"common_quant_param": {"bit_num": 4}}).written[0].value
    4
    """
    if isinstance(source, QuantConfig):
        return _from_config(source)
    if isinstance(source, Mapping):
        return _from_mapping(source)
    if isinstance(source, Path):
        return _from_text(_read(source), str(source))
    if not isinstance(source, str):
        kinds = "INI text, a path, a dictionary or a QuantConfig"
        raise _refused(f"a configuration is {kinds}, not {type(source).__name__}")
    if "\n" in source or "\r" in source or source.lstrip("\ufeff \t").startswith("["):
        return _from_text(source, "")
    if not source.strip():
        raise _refused("the configuration is empty", hint="write at least [common_quant_param] and quant_type")
    return _from_text(_read(Path(source)), source)


def _refused(message: str, *, source: str = "", line: int = 0, hint: str = "") -> ConfigError:
    return ConfigError([Problem(message=message, line=line, hint=hint)], source=source)


def _from_text(text: str, source: str) -> Draft:
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise _refused("holds a NUL byte, so it is no text", source=source, line=line)
    if not text.removeprefix("\ufeff").strip():
        hint = "write at least [common_quant_param] and quant_type"
        raise _refused("the configuration is empty", source=source, hint=hint)
    return _from_document(parse_ini(text, source=source))


def _from_document(document: IniDocument) -> Draft:
    headers = tuple(
        Header(name=item.name, line=item.line, column=item.column, end_column=item.end_column, closed=item.closed)
        for item in document.sections
    )
    written = tuple(
        Written(
            section=entry.section,
            key=entry.key,
            value=entry.text,
            is_text=True,
            line=entry.line,
            column=entry.column,
            end_column=entry.end_column,
            key_column=entry.key_column,
            key_end_column=entry.key_end_column,
        )
        for entry in document.entries
        if document.sections and entry.line > document.sections[0].line  # what stands before has its warning
    )
    return Draft(source=document.source, headers=headers, written=written, problems=document.problems)


def _from_mapping(source: Mapping[object, object]) -> Draft:
    problems: list[Problem] = []
    written: list[Written] = []
    if not source:
        raise _refused("the configuration is empty", hint="it needs at least common_quant_param and quant_type")
    for section, values in source.items():
        if not isinstance(values, Mapping):
            message = f"needs a dictionary of keys and values, not {show(values)}"
            homes = [name for name, group in GROUPS.items() if section in group.options()]
            hint = f'it belongs into a section: {{"{homes[0]}": {{"{section}": {show(values)}}}}}' if homes else ""
            problems.append(Problem(section=str(section), message=message, hint=hint))
            continue
        for key, value in values.items():
            written.append(Written(section=str(section), key=str(key), value=value, is_text=False))
    headers = tuple(Header(name=str(section)) for section in source)
    return Draft(headers=headers, written=tuple(written), problems=tuple(problems))


def _from_config(config: QuantConfig) -> Draft:
    written = [_at_place(config, section, key, value) for section, key, value in _settings(config)]
    headers = tuple(
        Header(name=place.section, line=place.line, column=place.column, end_column=place.end_column)
        for place in config.places
        if not place.key
    )
    return Draft(source=config.source, headers=headers, written=tuple(written))


def _settings(config: QuantConfig) -> Iterator[tuple[str, str, object]]:
    """Yield section, key and value of everything that is given or differs from its default."""
    for section, group in GROUPS.items():
        for key in group.options():
            value = value_of(config, section, key)
            if (section, key) in config.given or value != group.default(key):
                yield section, key, value
    for name, bits in config.layer_bits:
        yield NAMED, name, bits


def _at_place(config: QuantConfig, section: str, key: str, value: object) -> Written:
    place = config.place(section, key)
    return Written(
        section=section,
        key=key,
        value=value,
        is_text=False,
        line=place.line,
        column=place.column,
        end_column=place.end_column,
    )


def _read(path: Path) -> str:
    """Return the text of a file, or one clear refusal."""
    name = str(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise _refused("there is no such file", source=name, hint=_sibling(path)) from None
    except IsADirectoryError:
        raise _refused("is a folder, not a file", source=name) from None
    except PermissionError:
        what = "is a folder, not a file" if path.is_dir() else "may not be read; check its permissions"
        raise _refused(what, source=name) from None
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise _refused(f"cannot be read: {reason}", source=show(name)) from None
    return _decode(data, name)


def _sibling(path: Path) -> str:
    try:
        near = closest(path.name, (item.name for item in path.parent.iterdir()))
    except OSError:
        return f"there is no folder {path.parent} either"
    if near:
        return f"did you mean {near}?"
    return "text that is meant as a configuration starts with a [section]" if "=" in path.name else ""


def _decode(data: bytes, name: str) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _refused("is UTF-16, not UTF-8", source=name, hint="save it as UTF-8")
    if b"\0" in data:
        offset = data.index(b"\0")
        hint = "is this the model instead of its configuration?" if name.endswith(".onnx") else ""
        raise _refused(f"is a binary file: byte {offset} is NUL", source=name, hint=hint)
    if len(data) > MAX_BYTES:
        raise _refused(f"is larger than {MAX_BYTES} bytes, too large for a configuration", source=name)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}"
        raise _refused(message, source=name, line=line, hint="save it as UTF-8") from None
