"""`parse_ini`: which lines are sections, entries, comments or mistakes, and where they stand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq_lab.config import IniEntry, IniSection, parse_ini
from ptq_lab.errors import Problem

COMMON = "[common_quant_param]\n"

# name -> (text, [(section, key, value, line)])
ENTRIES = {
    "plain": (COMMON + "bit_num=8", [("common_quant_param", "bit_num", "8", 2)]),
    "blanks and tabs around everything": (
        "  [common_quant_param]\t\n\t bit_num \t=\t 8 \t",
        [("common_quant_param", "bit_num", "8", 2)],
    ),
    "carriage returns": (
        "[common_quant_param]\r\nbit_num=8\r\n",
        [("common_quant_param", "bit_num", "8", 2)],
    ),
    "old line ends": ("[common_quant_param]\rbit_num=8\r", [("common_quant_param", "bit_num", "8", 2)]),
    "byte-order mark": ("\ufeff" + COMMON + "bit_num=8", [("common_quant_param", "bit_num", "8", 2)]),
    "comment line": (COMMON + "# bit_num=4\nbit_num=8", [("common_quant_param", "bit_num", "8", 3)]),
    "indented comment line": (
        COMMON + " \t# bit_num=4\nbit_num=8",
        [("common_quant_param", "bit_num", "8", 3)],
    ),
    "comment after a value": (COMMON + "bit_num=8 # eight", [("common_quant_param", "bit_num", "8", 2)]),
    "comment with an equals sign after a value": (
        COMMON + "bit_num=8\t# not bit_num=4",
        [("common_quant_param", "bit_num", "8", 2)],
    ),
    "comment after a section": (
        "[common_quant_param] # here\nbit_num=8",
        [("common_quant_param", "bit_num", "8", 2)],
    ),
    "hash without a blank before it": (
        COMMON + "skip_quant_node=a#b",
        [("common_quant_param", "skip_quant_node", "a#b", 2)],
    ),
    "hash inside quotes": (
        COMMON + 'skip_quant_node="a #b" # c',
        [("common_quant_param", "skip_quant_node", "a #b", 2)],
    ),
    "hash in a path": (
        COMMON + "debug_info_save_path=/a # b",
        [("common_quant_param", "debug_info_save_path", "/a # b", 2)],
    ),
    "hash in a section of another tool": (
        "[registry]\nplugin_path=/a # b",
        [("registry", "plugin_path", "/a # b", 2)],
    ),
    "double quotes vanish": (COMMON + '"bit_num"="8"', [("common_quant_param", "bit_num", "8", 2)]),
    "a stray double quote vanishes": (COMMON + 'bit_num="8', [("common_quant_param", "bit_num", "8", 2)]),
    "equals sign inside double quotes": (
        COMMON + 'debug_info_save_path="/a=b"',
        [("common_quant_param", "debug_info_save_path", "/a=b", 2)],
    ),
    "trailing equals sign": (COMMON + "bit_num=8=", [("common_quant_param", "bit_num", "8", 2)]),
    "before any section": ("bit_num=8", [("", "bit_num", "8", 1)]),
    "repeated section": (
        COMMON + "bit_num=8\n[ptq_lab]\neffort=fast\n" + COMMON + "bit_num=4",
        [
            ("common_quant_param", "bit_num", "8", 2),
            ("ptq_lab", "effort", "fast", 4),
            ("common_quant_param", "bit_num", "4", 6),
        ],
    ),
    "only blank lines and quotes": (COMMON + ' \n""\n\t\n', []),
}

# name -> (text, [(level, line, column, end_column, message)])
PROBLEMS = {
    "no equals sign": (COMMON + "bit_num 8", [("error", 2, 1, 10, "'bit_num 8' is not key=value")]),
    "no value": (COMMON + "  bit_num=", [("error", 2, 3, 11, "has no value")]),
    "a comment instead of a number": (COMMON + "bit_num= # 8", [("error", 2, 1, 13, "has no value")]),
    "a comment instead of names": (
        COMMON + "skip_quant_node= # none",
        [("warning", 2, 1, 24, "has a comment instead of a value")],
    ),
    "two equals signs": (COMMON + "bit_num=8=9", [("error", 2, 1, 12, "the value holds another '='")]),
    "trailing equals sign": (COMMON + "bit_num=8=", [("warning", 2, 1, 11, "the '=' at the end is dropped")]),
    "before any section": (
        " bit_num=8",
        [("warning", 1, 2, 9, "not used, because no section starts before it")],
    ),
    "no closing bracket": (
        "[common_quant_param",
        [("warning", 1, 1, 20, "the section header does not end in ]")],
    ),
    "blanks inside the brackets": (
        "[ ptq_lab ]",
        [("warning", 1, 1, 12, "blanks inside the brackets hide this section from the original")],
    ),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_a_line_becomes_the_entry_it_means(name: str) -> None:
    text, expected = ENTRIES[name]
    entries = parse_ini(text).entries
    assert [(entry.section, entry.key, entry.value, entry.line) for entry in entries] == expected


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_line_that_is_wrong_is_reported_with_its_place(name: str) -> None:
    text, expected = PROBLEMS[name]
    found = [(item.level, item.line, item.column, item.end_column, item.message) for item in parse_ini(text).problems]
    assert found == expected


def test_positions_of_section_key_and_value_cut_exactly_these_out_of_the_text() -> None:
    text = '\t[common_quant_param] # c\n  skip_quant_node =  "a, b" , c   # d'
    document = parse_ini(text)
    lines = text.split("\n")
    section, entry = document.sections[0], document.entries[0]
    assert lines[0][section.column - 1 : section.end_column - 1] == "common_quant_param"
    assert lines[1][entry.key_column - 1 : entry.key_end_column - 1] == "skip_quant_node"
    assert lines[1][entry.column - 1 : entry.end_column - 1] == entry.text == '"a, b" , c'


def test_the_hint_names_the_character_that_is_wrong() -> None:
    hints = [item.hint for item in parse_ini(COMMON + "bit_num＝8\n; note\nbit_num: 8").problems]
    assert hints == ["write a plain = instead of ＝", "a comment starts with #", "write = instead of :"]


def test_more_lines_than_the_original_reads_are_refused_once() -> None:
    problems = parse_ini(COMMON + "bit_num=8\n" * 10_001).problems
    assert [item.message for item in problems] == ["there are more than 10001 lines with content"]
    assert not parse_ini(COMMON + "bit_num=8\n" * 10_000).problems


@given(st.text(alphabet=st.sampled_from("[]=#\" \t\n\r;:,，'a\ufeff\0é"), max_size=60))
def test_no_text_makes_the_parser_fail_and_every_place_lies_inside_its_line(text: str) -> None:
    document = parse_ini(text)
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    places: list[IniEntry | IniSection | Problem] = [*document.entries, *document.sections, *document.problems]
    for item in places:
        assert 1 <= item.line <= len(lines)
        assert 1 <= item.column <= item.end_column <= max(len(lines[item.line - 1]), 1) + 1
    for entry in document.entries:
        assert lines[entry.line - 1][entry.column - 1 : entry.end_column - 1] == entry.text
    for section in document.sections:
        shown = lines[section.line - 1][section.column - 1 : section.end_column - 1]
        assert not section.name or shown.replace('"', "") == section.name
