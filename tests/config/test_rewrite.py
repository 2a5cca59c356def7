"""Changing one option in INI text: it is changed, and nothing else is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ptq_lab.config import TEMPLATES, parse_ini, template
from ptq_lab.config.form import written
from ptq_lab.config.options import GROUPS
from ptq_lab.config.rewrite import rewrite

OPTIONS = [(section, key) for section, group in GROUPS.items() for key in group.options()]
VALUES = st.text("abcXYZ0123456789._-[]", min_size=1).filter(lambda text: not text.startswith("["))
ENTRIES = st.lists(st.tuples(st.sampled_from(OPTIONS), VALUES), max_size=8)


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Return INI text with comments, blank lines, repeated headers and repeated keys."""
    lines = []
    for (section, key), value in draw(ENTRIES):
        lines.append(f"[{section}]")
        lines.append(draw(st.sampled_from([f"{key}={value}", f"  {key} = {value}  # note", f"# was\n{key}={value}\n"])))
    return "\n".join(lines) + draw(st.sampled_from(["", "\n", "\n\n"]))


@given(texts(), st.sampled_from(OPTIONS), VALUES)
def test_the_option_has_the_value_and_all_others_keep_theirs(text: str, option: tuple[str, str], value: str) -> None:
    name = ".".join(option)
    before, after = written(text), written(rewrite(text, *option, value))
    assert after.pop(name) == value
    before.pop(name, None)
    assert after == before


@given(texts(), st.sampled_from(OPTIONS))
def test_an_option_that_is_taken_out_is_gone_and_all_others_keep_their_values(
    text: str, option: tuple[str, str]
) -> None:
    before, after = written(text), written(rewrite(text, *option, None))
    before.pop(".".join(option), None)
    assert after == before


@given(texts(), st.sampled_from(OPTIONS), VALUES)
def test_comments_stay(text: str, option: tuple[str, str], value: str) -> None:
    comments = [line for line in text.split("\n") if line.startswith("#")]
    assert [line for line in rewrite(text, *option, value).split("\n") if line.startswith("#")] == comments


def test_every_option_of_every_template_can_be_written_and_taken_out_again() -> None:
    for kind in TEMPLATES:
        text = template(kind)
        for option in OPTIONS:
            if ".".join(option) not in written(text):
                assert written(rewrite(rewrite(text, *option, "1"), *option, None)) == written(text)


def test_a_key_without_a_value_gets_one_on_its_own_line() -> None:
    text = rewrite("[common_quant_param]\nbit_num=\nquant_type=WEIGHT_QUANT\n", "common_quant_param", "bit_num", "4")
    assert text == "[common_quant_param]\nbit_num=4\nquant_type=WEIGHT_QUANT\n"


def test_a_section_that_is_left_with_nothing_goes_too_but_not_one_with_a_comment() -> None:
    text = "[common_quant_param]\nquant_type=WEIGHT_QUANT\n\n[ptq_lab]\neffort=fast\n"
    assert rewrite(text, "ptq_lab", "effort", None) == "[common_quant_param]\nquant_type=WEIGHT_QUANT\n"
    commented = text.replace("effort", "# mine\neffort")
    assert "[ptq_lab]\n# mine" in rewrite(commented, "ptq_lab", "effort", None)


def test_line_ends_and_a_byte_order_mark_do_not_shift_the_place() -> None:
    text = "\ufeff[common_quant_param]\r\nbit_num=8\r\n"
    assert rewrite(text, "common_quant_param", "bit_num", "4") == "[common_quant_param]\nbit_num=4\n"
    assert [entry.value for entry in parse_ini(rewrite(text, "common_quant_param", "bit_num", "4")).entries] == ["4"]
