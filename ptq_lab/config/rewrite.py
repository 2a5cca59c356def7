"""Changing one option in INI text and nothing else: comments, order and other sections stay as they are."""

from __future__ import annotations

from ptq_lab.config.ini import IniDocument, parse_ini


def rewrite(text: str, section: str, key: str, value: str | None) -> str:
    r"""Return the text with another value for an option, or without the option.

    Of an option that is written several times the last line counts, so that one is changed. An option that is not
    there yet goes behind the last one of its section, a section that is not there yet to the end.

    Parameters
    ----------
    text : str
        INI text, right or wrong; line ends become ``\n``.
    section, key : str
        Which option.
    value : str or None
        As it is to be written; ``None`` or blank takes all lines of the option away, and the header of its section
        if nothing else is below it.

    Examples
    --------
    >>> text = "[common_quant_param]\nquant_type=WEIGHT_QUANT  # for size\n"
    >>> print(rewrite(text, "common_quant_param", "quant_type", "DYNAMIC_QUANT"), end="")
    [common_quant_param]
    quant_type=DYNAMIC_QUANT  # for size
    >>> rewrite(text, "common_quant_param", "quant_type", None)
    ''
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    document = parse_ini(text)
    if value is None or not value.strip():
        return "\n".join(_without(lines, document, section, key))
    found = [entry for entry in document.entries if (entry.section, entry.key) == (section, key)]
    if found:
        entry = found[-1]
        line = lines[entry.line - 1]
        lines[entry.line - 1] = line[: entry.column - 1] + value.strip() + line[entry.end_column - 1 :]
        return "\n".join(lines)
    return "\n".join(_with(lines, document, section, f"{key}={value.strip()}", key))


def _with(lines: list[str], document: IniDocument, section: str, line: str, key: str) -> list[str]:
    """Return the lines with one more in a section, in place of one that has the key but no value."""
    blocks = [block for block in _blocks(lines, document) if block[0] == section]
    if not blocks:
        while lines and not lines[-1].strip():
            lines = lines[:-1]
        return [*lines, *([""] * bool(lines)), f"[{section}]", line, ""]
    _, start, stop = blocks[-1]
    for index in range(start + 1, stop):
        if lines[index].strip().rstrip("=").strip() == key and "=" in lines[index]:
            return [*lines[:index], line, *lines[index + 1 :]]
    inside = [entry.line for entry in document.entries if start < entry.line - 1 < stop]
    after = max(inside, default=start + 1)
    return [*lines[:after], line, *lines[after:]]


def _without(lines: list[str], document: IniDocument, section: str, key: str) -> list[str]:
    """Return the lines without those of an option, and without the headers that are left with nothing."""
    gone = {entry.line - 1 for entry in document.entries if (entry.section, entry.key) == (section, key)}
    for name, start, stop in _blocks(lines, document):
        touched = any(start < index < stop for index in gone)
        if name == section and touched and not any(lines[i].strip() for i in range(start + 1, stop) if i not in gone):
            gone.update(range(start, stop))
    return [line for index, line in enumerate(lines) if index not in gone]


def _blocks(lines: list[str], document: IniDocument) -> list[tuple[str, int, int]]:
    """Return name, index of the header, and index behind the last line, of every section."""
    starts = [header.line - 1 for header in document.sections]
    stops = [*starts[1:], len(lines)][: len(starts)]
    return [(header.name, start, stop) for header, start, stop in zip(document.sections, starts, stops, strict=True)]
