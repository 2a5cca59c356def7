"""The committed assets of the editor extension: complete, small, up to date, and the same when built again."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ptq_lab.config.editor import editor_data
from ptq_lab.config.options import SECTIONS
from ptq_lab.config.row import Row
from ptq_lab.config.rules import RULES
from tests.config.corpus import EXPECTED, configs, expected_text

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "labextension"
BUILT = ROOT / "ptq_lab" / "labextension"
LIMIT = 120_000  # bytes of script


def scripts() -> list[Path]:
    return sorted((BUILT / "static").glob("*.js"))


def built_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def source_hash() -> str:
    """Return what build.mjs writes beside the assets; the list of sources is read from there."""
    listed = re.search(r"const SOURCES = \[(.*?)\]", (SOURCE / "build.mjs").read_text(), re.DOTALL)
    assert listed
    found = hashlib.sha256()
    for name in re.findall(r"'([^']+)'", listed[1]):
        path = SOURCE / name
        for file in sorted(path.iterdir(), key=lambda item: item.name) if path.is_dir() else [path]:
            found.update(f"{file.relative_to(SOURCE).as_posix()}\n".encode() + file.read_bytes())
    return found.hexdigest()


def test_the_declarations_beside_the_script_are_those_of_python() -> None:
    assert json.loads((BUILT / "declarations.json").read_text(encoding="utf-8")) == editor_data()


def test_the_assets_were_built_from_the_sources_that_are_here() -> None:
    assert (BUILT / "sources.sha256").read_text().strip() == source_hash(), "run npm run build in labextension/"


def test_the_scripts_are_small_and_what_is_loaded_on_demand_is_too() -> None:
    assert scripts()
    assert sum(path.stat().st_size for path in scripts()) <= LIMIT
    assert (BUILT / "declarations.json").stat().st_size <= 80_000


def test_the_scripts_name_no_address_of_another_machine() -> None:
    for path in scripts():
        addresses = re.findall(r"https?://[\w.-]+", path.read_text(encoding="utf-8"))
        assert set(addresses) <= {"http://www.w3.org"}, path.name


def test_the_lock_file_names_no_registry() -> None:
    text = (SOURCE / "package-lock.json").read_text()
    assert '"resolved"' not in text
    assert json.loads(text)["lockfileVersion"] == 3


def test_the_script_that_jupyter_loads_first_is_there() -> None:
    package = json.loads((BUILT / "package.json").read_text())
    assert (BUILT / package["jupyterlab"]["_build"]["load"]).is_file()
    assert package["name"] == "ptq-lab"


def test_the_style_sheet_has_no_rule_outside_our_classes() -> None:
    text = re.sub(r"/\*.*?\*/", "", (SOURCE / "style" / "index.css").read_text(), flags=re.DOTALL)
    selectors = [one.strip() for rule in re.findall(r"([^{}]+)\{", text) for one in rule.split(",")]
    assert selectors
    assert all(selector.startswith(".ptq-") for selector in selectors)


def test_every_section_of_ours_turns_a_file_into_a_configuration() -> None:
    listed = re.search(r"const HEADER =\s*/(.*)/;", (SOURCE / "src" / "target.ts").read_text())
    assert listed
    header = re.compile(listed[1].replace("\\/", "/"))
    assert [name for name in SECTIONS if not header.match(f"[{name}]")] == ["ascend_context"]  # other tools' too
    assert not header.match("[metadata]")


def test_the_expected_problems_of_the_corpus_are_what_python_says() -> None:
    assert EXPECTED.read_text(encoding="utf-8") == expected_text(), "run python -m tests.config.corpus"


def test_the_corpus_has_a_configuration_for_every_rule() -> None:
    said = "\n".join(item["message"] for found in json.loads(expected_text()).values() for item in found)
    assert len(configs()) >= 60
    for rule in RULES:
        if isinstance(rule, Row):
            pattern = re.sub(r"\\\{\w+(:g|!r)?\\\}", ".+", re.escape(rule.message))
            assert re.search(pattern, said), f"no configuration makes this rule speak: {rule.message}"


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node")
    if found is None or not (SOURCE / "node_modules" / "typescript").is_dir():
        pytest.skip("needs Node and node_modules: run npm ci in labextension/")
    return found


def link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk
        shutil.copy2(source, target)


def copy_of_the_sources(folder: Path) -> Path:
    """Copy what a build reads, node_modules included: modules are named by where they really are."""
    ignore = shutil.ignore_patterns("node_modules", "lib", "test-lib")
    shutil.copytree(SOURCE, folder / "labextension", ignore=ignore)
    modules = folder / "labextension" / "node_modules"
    shutil.copytree(SOURCE / "node_modules", modules, symlinks=True, copy_function=link)
    (folder / "ptq_lab" / "labextension").mkdir(parents=True)
    shutil.copy(BUILT / "declarations.json", folder / "ptq_lab" / "labextension")
    return folder / "labextension"


def run(folder: Path, *command: str) -> None:
    environment = os.environ | {"PATH": f"{SOURCE / 'node_modules' / '.bin'}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_building_again_gives_the_same_bytes(node: str, tmp_path: Path) -> None:
    folder = copy_of_the_sources(tmp_path)
    run(folder, node, "node_modules/typescript/bin/tsc", "--project", "tsconfig.json")
    run(folder, node, "build.mjs")
    again, committed = built_files(tmp_path / "ptq_lab" / "labextension"), built_files(BUILT)
    assert again.keys() == committed.keys()
    assert [name for name in again if again[name] != committed[name]] == []


def test_the_checker_of_the_extension_agrees_with_python_on_the_corpus(node: str) -> None:
    # The compiled tests look for the repository three folders up.
    compiled = SOURCE / "test-lib"
    shutil.rmtree(compiled, ignore_errors=True)
    run(SOURCE, node, "node_modules/typescript/bin/tsc", "--project", "tsconfig.test.json")
    run(SOURCE, node, "--test", "test-lib/tests/")


def test_the_sources_pass_their_linter(node: str) -> None:
    run(SOURCE, node, "node_modules/eslint/bin/eslint.js", "src", "tests")


def test_the_extension_says_that_it_runs_in_every_later_release_of_lab_4() -> None:
    """``jupyter labextension list`` reads these ranges, and marks what is narrower as incompatible."""
    needed = json.loads((BUILT / "package.json").read_text())["dependencies"]
    assert {wanted[0] for name, wanted in needed.items() if name.startswith("@jupyterlab/")} == {"^"}
