"""What the wheel puts where Jupyter looks for it."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
WHEEL = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]


def test_assets_installer_note_and_quickstart_go_to_one_folder_of_jupyter() -> None:
    shared = WHEEL["shared-data"]
    assert all((ROOT / source).exists() for source in shared)
    assert set(shared.values()) == {
        "share/jupyter/labextensions/ptq-lab",
        "share/jupyter/labextensions/ptq-lab/install.json",
        "share/jupyter/labextensions/ptq-lab/quickstart.ipynb",
    }


def test_the_assets_are_not_in_the_package_a_second_time() -> None:
    assert "ptq_lab/labextension" in WHEEL["exclude"]


def test_building_the_wheel_runs_no_node() -> None:
    assert "hooks" not in WHEEL
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]
    assert not any("jupyter" in requirement for requirement in build["requires"])
