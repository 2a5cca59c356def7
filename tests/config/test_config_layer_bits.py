"""`[ptq_lab.layer_bits]`: keys are names of the user's model, kept as written, and their order counts."""

import jsonschema  # type: ignore[import-untyped]
import pytest

from ptq_lab.config import QuantConfig, check_config, dump_config, load_config, schema, template
from ptq_lab.errors import ConfigError

WEIGHT = "[common_quant_param]\nquant_type=WEIGHT_QUANT\n"
HEAD = WEIGHT + "[ptq_lab.layer_bits]\n"

# line -> the pin it stands for
LINES = {
    "conv1=4": ("conv1", 4),
    "Conv1 = +4": ("Conv1", 4),
    "/Block.0/a:b c=16  # a note": ("/Block.0/a:b c", 16),
    "block?/*=1": ("block?/*", 1),
    "re:^a(b|c)$=3": ("re:^a(b|c)$", 3),
    "type:Gemm=3": ("type:Gemm", 3),
    "bit_num=3": ("bit_num", 3),
    '"a=b"=3': ("a=b", 3),
    '"[ab]*" = 3': ("[ab]*", 3),
    '"#1"=3': ("#1", 3),
    '"a #1"="3"': ("a #1", 3),
    '" a "=3': (" a ", 3),
    "a#1=3": ("a#1", 3),
}


@pytest.mark.parametrize("line", LINES)
def test_a_name_is_taken_as_it_is_written(line: str) -> None:
    assert load_config(HEAD + line + "\n").layer_bits == (LINES[line],)


def test_the_order_of_the_lines_is_kept_and_a_name_written_again_moves_to_the_end() -> None:
    config = load_config(HEAD + "b=1\na=2\nb=3\n")
    assert config.layer_bits == (("a", 2), ("b", 3))
    assert [str(problem) for problem in config.problems] == [
        "line 6: [ptq_lab.layer_bits] b: is written again; this value wins over line 4"
    ]


def test_configurations_differ_when_only_the_order_does() -> None:
    first, second = (QuantConfig(layer_bits=pins) for pins in ((("a*", 2), ("b*", 3)), (("b*", 3), ("a*", 2))))
    assert first != second
    assert first == QuantConfig(layer_bits=(("a*", 2), ("b*", 3)))
    assert hash(first) == hash(load_config(dump_config(first)))


def test_a_dictionary_and_overrides_pin_layers_as_text_does() -> None:
    source = {"common_quant_param": {"quant_type": "WEIGHT_QUANT"}, "ptq_lab.layer_bits": {"conv*": 4, "fc": 8}}
    config = load_config(source, overrides={"ptq_lab.layer_bits.conv*": "6", "ptq_lab.layer_bits.block.0/conv": "2"})
    assert config.layer_bits == (("fc", 8), ("conv*", 6), ("block.0/conv", 2))
    assert ("ptq_lab.layer_bits", "block.0/conv") in config.given
    assert load_config(config, overrides={"ptq_lab.layer_bits.fc": "1"}).layer_bits[-1] == ("fc", 1)


# lines under [ptq_lab.layer_bits] -> the message, and the columns it points at
REFUSED = {
    "conv1=17": ("line 4: [ptq_lab.layer_bits] conv1: 17 is outside 1..16", (7, 9)),
    "conv1=0": ("line 4: [ptq_lab.layer_bits] conv1: 0 is outside 1..16", (7, 8)),
    "conv1=x": ("line 4: [ptq_lab.layer_bits] conv1: 'x' is not a whole number; allowed: 1..16", (7, 8)),
    "=4": ("line 4: [ptq_lab.layer_bits] there is no name before '='", (1, 1)),
    "re:(=4": (
        "line 4: [ptq_lab.layer_bits] re:(: 're:(' is not a regular expression: "
        "missing ), unterminated subpattern at position 0",
        (1, 5),
    ),
    "a=b=4": (
        "line 4: [ptq_lab.layer_bits] a: the value holds another '='; "
        'put the name in double quotes if the "=" belongs to it',
        (1, 6),
    ),
}


@pytest.mark.parametrize("line", REFUSED)
def test_a_wrong_line_is_refused_with_its_place_and_what_is_allowed(line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(HEAD + line + "\n")
    message, columns = REFUSED[line]
    (problem,) = caught.value.problems
    assert (str(problem), (problem.column, problem.end_column)) == (message, columns)


def test_a_pattern_in_brackets_without_quotes_is_taken_for_a_section_and_says_so() -> None:
    said = [str(problem) for problem in check_config(HEAD + "[ab]*=4\n")]
    assert any("put the name in double quotes if this is one and not a section" in line for line in said)


@pytest.mark.parametrize("name", ["", "  ", 'a"b', "a\nb", "a\0b", "re:("])
def test_a_name_that_no_line_could_carry_is_refused_in_python_too(name: str) -> None:
    with pytest.raises(ValueError, match=r"empty|holds a double quote|regular expression"):
        QuantConfig(layer_bits=((name, 4),))
    with pytest.raises(ConfigError):
        load_config({"ptq_lab.layer_bits": {name: 4}})


@pytest.mark.parametrize("pins", ["conv1=4", 4, [("conv1",)], [("conv1", 17)], [("conv1", True)], [(1, 4)]])
def test_python_values_that_are_no_pins_are_refused(pins: object) -> None:
    with pytest.raises(ValueError, match=r"names with bits|its bits|outside 1\.\.16|whole number|not text"):
        QuantConfig(layer_bits=pins)  # type: ignore[arg-type]


def test_a_misspelt_section_is_refused_with_the_one_that_is_meant() -> None:
    with pytest.raises(ConfigError, match=r"unknown section; did you mean ptq_lab\.layer_bits\?"):
        load_config(WEIGHT + "[ptq_lab.layer_bit]\nconv1=4\n")


def test_dynamic_quantization_says_that_it_does_not_look_and_full_quantization_does() -> None:
    pins = {"ptq_lab.layer_bits": {"conv1": 4}}
    said = [(p.level, str(p)) for p in check_config({"common_quant_param": {"quant_type": "DYNAMIC_QUANT"}, **pins})]
    assert said == [("note", "[ptq_lab.layer_bits] not used, because quant_type is DYNAMIC_QUANT")]
    assert check_config({"common_quant_param": {"quant_type": "FULL_QUANT"}, **pins}) == ()


def test_a_width_that_cannot_be_stored_unpacked_is_refused() -> None:
    text = WEIGHT + "enable_encode=false\n[ptq_lab.layer_bits]\na=16\nb=4\n"
    assert [str(problem) for problem in check_config(text)] == [
        "line 6: [ptq_lab.layer_bits] b: enable_encode=false needs 8 or 16 bits, not 4; "
        "write enable_encode=true, or choose another width"
    ]


def test_an_average_may_be_below_the_searched_widths_when_a_pinned_one_is() -> None:
    text = WEIGHT + "bit_num=0\n[ptq_lab.mixed_bit]\naverage_bits=1.5\nbits=2,4\n"
    assert [p.key for p in check_config(text)] == ["average_bits"]
    assert check_config(text + "[ptq_lab.layer_bits]\nfc=1\n") == ()


def test_the_schema_describes_names_with_widths() -> None:
    described = schema()["properties"]["ptq_lab.layer_bits"]
    allowed = described["additionalProperties"]
    assert (allowed["type"], allowed["minimum"], allowed["maximum"]) == ("integer", 1, 16)
    jsonschema.validate({"ptq_lab.layer_bits": dict(LINES.values())}, schema())


def test_the_template_for_mixed_bits_shows_a_pin_that_works_once_uncommented() -> None:
    text = template("mixed")
    assert load_config(text).layer_bits == ()
    assert load_config(text.replace("# conv1=8", "conv1=8")).layer_bits == (("conv1", 8),)
