"""Whatever is written, the answer is a configuration or problems with places, never another failure."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptq_lab.config import check_config, load_config
from ptq_lab.config.foreign import FOREIGN
from ptq_lab.config.options import GROUPS
from ptq_lab.errors import ConfigError

KEYS = [(section, key) for section, group in GROUPS.items() for key in group.options()]
SECTIONS = [*GROUPS, *FOREIGN, "ptq_lab.typo", "full_quant_parm", "", "[x"]
VALUES = st.one_of(
    st.sampled_from(
        ["WEIGHT_QUANT", "FULL_QUANT", "8", "0", "-1", "true", "False，", "[1,2,3]", "[1~4],[8]", "x:d", "RGB"]
    ),
    st.sampled_from(
        ["x:[-1,2,3,4]", "x:[-1,2,3,4];y:[1]", "1e400", "[nan]", "re:(", "'", "a:'b", ":", ",", "[", "9" * 99]
    ),
    st.text(alphabet=st.sampled_from("ab1.,:;[]~-'\"#= ，\t"), max_size=12),
)


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Lines that look like a configuration, most of them wrong somewhere."""
    lines = []
    for section, key in draw(st.lists(st.sampled_from(KEYS), max_size=8)):
        section = draw(st.one_of(st.just(section), st.sampled_from(SECTIONS)))
        lines += [f"[{section}]", f"{key}={draw(VALUES)}", draw(st.sampled_from(["", "# c", "x", "=", "a=b"]))]
    return "\n".join(["", *lines])


@settings(max_examples=300, deadline=None)
@given(texts())
def test_any_text_gives_a_configuration_or_problems_that_lie_in_it(text: str) -> None:
    problems = check_config(text)
    lines = text.split("\n")
    for problem in problems:
        assert problem.line <= len(lines)
        if problem.line:
            assert 1 <= problem.column <= problem.end_column <= len(lines[problem.line - 1]) + 1
        assert "\n" not in str(problem)
    places = [(problem.line or len(lines) + 1, problem.column) for problem in problems]
    assert places == sorted(places)

    errors = tuple(problem for problem in problems if problem.level == "error")
    if errors:
        with pytest.raises(ConfigError) as caught:
            load_config(text)
        assert caught.value.problems == errors
    else:
        assert load_config(text).problems == problems
