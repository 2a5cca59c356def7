"""`skip_quant_node` patterns: what each form matches, and what is said when it matches nothing."""

import pytest

from ptq_lab.errors import ConfigError
from ptq_lab.graph import match_nodes

NODES = [
    ("/block1/conv/Conv", "Conv"),
    ("/block1/add", "Add"),
    ("/block2/conv/Conv", "Conv"),
    ("/head/fc[0]", "Gemm"),
    ("/head/fc0", "Gemm"),
]


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("/block1/add", {"/block1/add"}),
        ("/block1", set()),
        ("/block1/*", {"/block1/conv/Conv", "/block1/add"}),
        ("/block?/conv/Conv", {"/block1/conv/Conv", "/block2/conv/Conv"}),
        ("*", {name for name, _ in NODES}),
        ("/block[2-9]/*", {"/block2/conv/Conv"}),
        ("/head/fc[0]", {"/head/fc[0]", "/head/fc0"}),
        ("/HEAD/*", set()),
        ("re:conv/Conv$", {"/block1/conv/Conv", "/block2/conv/Conv"}),
        ("re:^conv", set()),
        ("re:block1|head", {"/block1/conv/Conv", "/block1/add", "/head/fc[0]", "/head/fc0"}),
        ("type:Conv", {"/block1/conv/Conv", "/block2/conv/Conv"}),
        ("type: Gemm ", {"/head/fc[0]", "/head/fc0"}),
        ("type:conv", set()),
    ],
)
def test_a_pattern_matches_these_nodes_and_no_others(pattern: str, wanted: set[str]) -> None:
    found = match_nodes([pattern], NODES)
    assert set(found.nodes) == wanted
    assert bool(found.unmatched) == (not wanted)


def test_the_first_pattern_that_matched_a_node_is_the_one_named() -> None:
    found = match_nodes(["type:Conv", "/block1/*"], NODES)
    assert found.nodes["/block1/conv/Conv"] == "type:Conv"
    assert found.nodes["/block1/add"] == "/block1/*"
    assert not found.unmatched


def test_no_pattern_matches_nothing_and_says_nothing() -> None:
    found = match_nodes([], NODES)
    assert not found.nodes
    assert not found.unmatched


def test_a_miss_names_what_comes_near_or_that_nothing_does() -> None:
    near, operator, far = match_nodes(["/head/fc1", "type:Gem", "zzz"], NODES).unmatched
    assert "/head/fc0" in near.hint
    assert "Gemm" in operator.hint
    assert far.hint == "no name comes near"
    assert {near.level, operator.level, far.level} == {"warning"}


def test_a_broken_regular_expression_is_an_error_that_quotes_it() -> None:
    with pytest.raises(ConfigError, match=r"skip_quant_node: 're:\(' is not a regular expression") as caught:
        match_nodes(["re:("], NODES)
    assert "\n" not in str(caught.value)
