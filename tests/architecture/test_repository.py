"""Facts about the repository that a reader relies on."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import ptq_lab

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SIZE_LIMIT = 3_000_000  # bytes of embedded models and data


def _name(requirement: str) -> str:
    return re.split(r"[\[><=~! ;]", requirement, maxsplit=1)[0]


def test_every_dependency_has_its_reason() -> None:
    reasons = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    extras = [item for group in PROJECT["optional-dependencies"].values() for item in group]
    names = {_name(item) for item in (*PROJECT["dependencies"], *extras)} - {"ptq-lab"}
    assert not [name for name in sorted(names) if f"`{name}`" not in reasons]


def test_every_dependency_has_a_lower_bound() -> None:
    extras = [item for group in PROJECT["optional-dependencies"].values() for item in group]
    assert not [item for item in (*PROJECT["dependencies"], *extras) if ">=" not in item and "ptq-lab" not in item]


def test_the_changelog_has_this_version() -> None:
    assert f"## {ptq_lab.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_embedded_models_and_data_stay_small() -> None:
    files = [path for path in (ROOT / "ptq_lab" / "demo").rglob("*") if path.suffix in {".onnx", ".npz"}]
    assert len(files) == 9
    assert sum(path.stat().st_size for path in files) < SIZE_LIMIT


def test_ci_runs_the_test_command_of_the_readme() -> None:
    command = 'python3 -m venv .venv && .venv/bin/pip install -e ".[dev]" && .venv/bin/pytest'
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert command in (ROOT / "README.md").read_text(encoding="utf-8")
