"""Files that follow from the declarations: docs/options.md, the templates, and what the editor extension reads.

``python -m ptq_lab.config.reference`` writes them again after a declaration has changed; a test fails until
then.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ptq_lab.config import layer_bits as pins
from ptq_lab.config.dump import about_option, default_text, explain, pin_lines, sentence
from ptq_lab.config.editor import editor_text
from ptq_lab.config.foreign import FOREIGN
from ptq_lab.config.option import Needs, Option, OptionGroup
from ptq_lab.config.options import GROUPS
from ptq_lab.config.template import TEMPLATES, Template

_INTRO = """# Options

Every section and key of the configuration. This page is written by `python -m ptq_lab.config.reference`
from the declarations in `ptq_lab/config/sections`; change those, not this page.

*Source* says where an option comes from: the *document* that describes the format, the *original code* only,
or *ptq_lab*. Where document, original and ptq_lab differ is in [compatibility.md](compatibility.md).
"""

_TABLE_HEAD = (
    "| key | default | allowed | what | when you want it | ignored when | source |",
    "|---|---|---|---|---|---|---|",
)


def options_page() -> str:
    """Return docs/options.md.

    Examples
    --------
    >>> options_page().splitlines()[0]
    '# Options'
    """
    blocks = [_INTRO.rstrip()]
    blocks += ["\n".join(_section(group)) for group in GROUPS.values()]
    blocks.append("\n".join(_pins()))
    names = ", ".join(f"`[{name}]`" for name in FOREIGN)
    blocks.append(f"## Sections of other tools\n\nAccepted, kept on writing, not used: {names}.")
    return "\n\n".join(blocks) + "\n"


def _section(group: type[OptionGroup]) -> Iterator[str]:
    yield f"## [{group.section}]"
    yield ""
    yield sentence(group.__doc__)
    if group.used_with:
        yield _used_when(group.used_with)
    yield ""
    yield from _TABLE_HEAD
    for key, declared in group.options().items():
        default = default_text(declared, group.default(key))
        cells = [
            f"`{key}`",
            f"`{default}`" if default else "unset",
            _allowed(declared),
            declared.what,
            declared.when,
            declared.ignored_when,
            declared.source,
        ]
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _pins() -> Iterator[str]:
    """Describe the section whose keys are names of the model."""
    width, examples = pins.WIDTH, ", ".join(f"`{name}={bits}`" for name, bits in pins.EXAMPLE)
    yield f"## [{pins.SECTION}]"
    yield ""
    yield pins.ABOUT
    yield _used_when(pins.USED_WITH)
    yield ""
    yield from _TABLE_HEAD
    cells = [pins.KEYS, "unset", width.kind.allowed(), width.what, width.when, width.ignored_when, width.source]
    yield f"| {' | '.join(cells)} |"
    yield ""
    yield f"For example {examples}. A name is taken as it is written, upper and lower case included; one that"
    yield "starts with `[` or `#` or holds a `=` stands in double quotes. One that means no weight gets a warning."


def _used_when(needs: Needs) -> str:
    words = (f"`{key}` is {' or '.join(f'`{value}`' for value in values)}" for key, values in needs.items())
    return f"Used when {' and '.join(words)}."


def _allowed(declared: Option) -> str:
    also = ", ".join(f"`{alias}` for {word}" for alias, word in declared.aliases.items())
    return f"{declared.kind.allowed()}; also {also}" if also else declared.kind.allowed()


def template_text(shown: Template) -> str:
    r"""Return the text of a template file.

    Examples
    --------
    >>> template_text(TEMPLATES["dynamic"]).count("\n[dynamic_quant_param]")
    1
    """
    yours = " Lines below EDIT depend on your model and your samples." if shown.edits else ""
    blocks = ["\n".join(explain(shown.title + yours))]
    for section, keys in shown.options.items():
        if section == pins.SECTION:
            blocks.append("\n".join(pin_lines((), comments=True)))
            continue
        group = GROUPS[section]
        lines = [f"[{section}]"]
        for key, value in keys.items():
            declared = group.options()[key]
            lines += about_option(declared, group.default(key))
            lines += explain(f"EDIT: {shown.edits[key]}.") if key in shown.edits else ()
            default = default_text(declared, group.default(key)) or declared.example
            lines.append(f"{key}={value}" if value is not None else f"# {key}={default}")
        blocks.append("\n".join([*explain(sentence(group.__doc__)), *lines]))
    return "\n\n".join(blocks) + "\n"


def derived_files() -> dict[Path, str]:
    """Return what every derived file of the repository must hold, by its path."""
    room = Path(__file__).parent
    files = {room / "templates" / shown.file: template_text(shown) for shown in TEMPLATES.values()}
    files[room.parents[1] / "docs" / "options.md"] = options_page()
    files[room.parent / "labextension" / "declarations.json"] = editor_text()
    return files


def write_derived_files() -> None:
    """Write every derived file of a checkout."""
    for path, text in derived_files().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_derived_files()
