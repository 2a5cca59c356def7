"""`dump_config` and `load_config` undo each other, for every configuration there is."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ptq_lab.config import QuantConfig, check_config, dump_config, load_config
from ptq_lab.config.kinds import Choice, Flag, Kind, Real, Whole
from ptq_lab.config.layer_bits import SECTION as NAMED
from ptq_lab.config.lists import FilePath, Names, Pairs, Text, Vector, WholeList
from ptq_lab.config.options import ATTRIBUTES, GROUPS, value_of

TEXTS = st.text(alphabet=st.sampled_from("ab0 _/.:#=,，：'*[]é\\-"), min_size=1, max_size=12).filter(
    lambda text: text.strip()
)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=64)
NASTY = st.text(alphabet=st.sampled_from("aA0 _/.:#=,'*?[]é\\\t-\u3000＝"), min_size=1, max_size=12).filter(str.strip)
PINS = st.lists(st.tuples(NASTY, st.integers(1, 16)), max_size=5, unique_by=lambda pin: pin[0]).map(tuple)
ASCEND = {"input_shape": "x:[-1,3,4,4];y:[2]", "dynamic_dims": "[1~4],[8];[1],[1]"}


def values(key: str, kind: Kind) -> st.SearchStrategy[object]:
    """Values of a kind, as Python holds them."""
    if isinstance(kind, Whole):
        return st.integers(kind.low, kind.high)
    if isinstance(kind, Real):
        return st.floats(
            min_value=kind.low,
            max_value=kind.high,
            exclude_min=kind.low_open,
            exclude_max=kind.high_open,
            allow_nan=False,
            allow_infinity=False,
        )
    if isinstance(kind, Flag):
        return st.booleans()
    if isinstance(kind, Choice):
        return st.sampled_from(kind.values)
    if isinstance(kind, Vector):
        return st.lists(NUMBERS, min_size=1, max_size=4).map(tuple)
    if isinstance(kind, Names):
        names = TEXTS.filter(lambda text: not text.startswith("re:"))
        return st.lists(names, min_size=1, max_size=4).map(tuple)
    if isinstance(kind, WholeList):
        return st.lists(st.integers(1, 16), min_size=1, unique=True).map(tuple)
    if isinstance(kind, Pairs):
        return st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3).map(tuple)
    if isinstance(kind, FilePath):
        return TEXTS
    assert isinstance(kind, Text)
    return st.just(ASCEND[key]) if key in ASCEND else TEXTS.map(str.strip)


@st.composite
def configs(draw: st.DrawFn) -> QuantConfig:
    """Configurations with any options set, free of errors."""
    groups = {}
    for section, group in GROUPS.items():
        options = group.options()
        keys = draw(st.lists(st.sampled_from(sorted(options)), unique=True, max_size=4))
        groups[ATTRIBUTES[section]] = group(**{key: draw(values(key, options[key].kind)) for key in keys})
    pins = draw(PINS.filter(lambda pins: not any(name.startswith("re:") for name, _ in pins)))
    config = QuantConfig(**groups, layer_bits=pins)
    wrong = {(problem.section, problem.key) for problem in check_config(config) if problem.level == "error"}
    # Options that contradict each other go back to their defaults.
    for section, group in GROUPS.items():
        kept = {
            key: value_of(config, section, key)
            for name, key in config.given
            if name == section and (name, key) not in wrong
        }
        groups[ATTRIBUTES[section]] = group(**kept)
    pins = () if any(section == NAMED for section, _ in wrong) else pins
    config = QuantConfig(**groups, layer_bits=pins)
    if any(problem.level == "error" for problem in check_config(config)):
        groups["common"] = GROUPS["common_quant_param"]()  # what is left contradicts quant_type
        groups["ascend"] = GROUPS["ascend_context"]()
        groups["budget"] = GROUPS["ptq_lab.mixed_bit"]()
        config = QuantConfig(**groups, layer_bits=pins)
    return config


@settings(max_examples=150, deadline=None)
@given(config=configs(), comments=st.booleans(), only_given=st.booleans())
def test_loading_what_was_dumped_gives_the_same_configuration(
    config: QuantConfig, comments: bool, only_given: bool
) -> None:
    text = dump_config(config, comments=comments, only_given=only_given)
    again = load_config(text)
    assert again == config
    assert again.given == config.given
    assert dump_config(again, comments=comments, only_given=only_given) == text


def test_sections_of_other_tools_survive_word_for_word() -> None:
    text = (
        '[common_quant_param]\nbit_num=4\n\n[registry]\nplugin_path="/a # b"\n\n'
        "[model_param]\nfmk=ONNX\n\n[model_param]\nfmk=TF\n"
    )
    config = load_config(text)
    assert dump_config(config, comments=False, only_given=True) == text


def test_aliases_are_written_in_their_canonical_spelling() -> None:
    config = load_config("[full_quant_param]\nactivation_quant_method=RemovalOutlier\n")
    assert "activation_quant_method=REMOVAL_OUTLIER" in dump_config(config, only_given=True)


def test_a_full_dump_shows_every_option_and_decides_nothing() -> None:
    text = dump_config(QuantConfig())
    shown = [line.lstrip("# ").split("=")[0] for line in text.splitlines()]
    for group in GROUPS.values():
        assert f"[{group.section}]" in text
        assert set(group.options()) <= set(shown)
    assert load_config(text).given == frozenset()


def test_every_default_of_a_full_dump_is_a_legal_value_once_uncommented() -> None:
    config = QuantConfig()
    lines = []
    for line in dump_config(config).splitlines():
        key, equals, _ = line.removeprefix("# ").partition("=")
        uncommented = equals and any(key in group.options() for group in GROUPS.values())
        lines.append(line.removeprefix("# ") if uncommented else line)
    assert [problem for problem in check_config("\n".join(lines)) if problem.level == "error"] == []
