"""What the README shows is what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"))
def test_the_python_in_the_readme_runs(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, "README.md", "exec"), {})  # what a reader would type
    assert capsys.readouterr().out.strip()


def test_the_configuration_in_the_readme_loads() -> None:
    from ptq_lab import check_config

    (cell,) = blocks("ini")
    magic, _, config = cell.partition("\n")
    assert magic.startswith("%%quantize ")
    assert check_config(config) == ()


def test_every_path_the_readme_names_exists() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    named = re.findall(r"^(ptq_lab/\S+)", README, flags=re.MULTILINE)
    scripts = re.findall(r"python (benchmarks/\S+\.py)", README)
    assert links
    assert named
    missing = [
        path for path in (*links, *named, *scripts) if not path.startswith("http") and not (ROOT / path).exists()
    ]
    assert not missing


def test_every_command_of_the_readme_exists() -> None:
    from ptq_lab.cli.main import cli

    named = set(re.findall(r"ptq-lab ([a-z]+)", README))
    assert named
    assert named <= set(cli.commands)
