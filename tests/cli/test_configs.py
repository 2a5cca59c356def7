"""`check`, `template`, `schema`, `demo`: the commands beside convert."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ptq_lab import __version__, load_config
from ptq_lab.demo import Demo

from .conftest import Run


def test_a_clean_configuration_exits_0(run: Run, eight_bits: Path) -> None:
    said = run("check", eight_bits)
    assert (said.code, said.out) == (0, f"{eight_bits}: no problems\n")


def test_every_problem_is_listed_with_its_line_and_exit_2(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "wrong.cfg"
    path.write_text("[common_quant_param]\nquant_type=WEIGHT\nbit_nums=3\nbit_num=32\n")
    said = run("check", path)
    assert said.code == 2
    lines = said.out.splitlines()
    assert [line.split(": ")[1] for line in lines] == ["line 2", "line 3", "line 4"]
    assert "did you mean bit_num?" in lines[1]


def test_a_missing_configuration_exits_2(run: Run) -> None:
    said = run("check", "none.cfg")
    assert said.code == 2
    assert "none.cfg" in said.out


def test_patterns_are_checked_against_a_model(run: Run, digits: Demo, tmp_path: Path) -> None:
    path = tmp_path / "skip.cfg"
    path.write_text("[common_quant_param]\nquant_type=WEIGHT_QUANT\nskip_quant_node=classifier/Gem\n")
    said = run("check", path, "--modelFile", digits.model_path)
    assert said.code == 0
    assert "'classifier/Gem' matches no node; the nearest name is classifier/Gemm (warning)" in said.out


def test_a_pinned_layer_that_the_model_does_not_have_is_said(run: Run, digits: Demo, tmp_path: Path) -> None:
    path = tmp_path / "pins.cfg"
    path.write_text("[common_quant_param]\nquant_type=WEIGHT_QUANT\n[ptq_lab.layer_bits]\nclassifier/Gem=4\n")
    said = run("check", path, "--modelFile", digits.model_path)
    assert said.code == 0
    assert "classifier/Gem: matches no node and no weight; the nearest names are classifier/Gemm" in said.out


def test_what_is_not_implemented_is_said_before_it_is_run(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "full.cfg"
    path.write_text(
        "[common_quant_param]\nquant_type=WEIGHT_QUANT\n[transform_quant_param]\nexport_precision_mode=FLOAT32\n"
    )
    said = run("check", path)
    assert said.code == 2
    assert "not implemented yet" in said.out


@pytest.mark.parametrize("kind", ["weight", "mixed", "full", "dynamic"])
def test_every_template_loads(run: Run, kind: str) -> None:
    said = run("template", kind)
    assert said.code == 0
    assert load_config(said.out).common.quant_type


def test_an_unknown_template_is_a_usage_error(run: Run) -> None:
    assert run("template", "heavy").code == 2


def test_the_schema_is_json(run: Run) -> None:
    assert "common_quant_param" in json.loads(run("schema").out)["properties"]


def test_the_demo_prints_its_report_and_a_table_of_widths(run: Run) -> None:
    said = run("demo")
    assert said.code == 0
    assert "stayed float" in said.out
    widths = [
        line.split()[0] for line in said.out.splitlines() if line.strip()[:1].isdigit() and len(line.split()) == 5
    ]
    assert widths == ["8", "6", "5", "4", "3", "2"]


def test_the_version_is_ours(run: Run) -> None:
    assert __version__ in run("--version").out


def test_no_command_shows_the_help(run: Run) -> None:
    assert "convert" in run("--help").out
