"""Settings for all cells: %config PTQLab and [tool.ptq_lab], with one check for both."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ptq_lab.errors import ConfigError
from ptq_lab.notebook.settings import find_project, read_project

PLOTLY = "application/vnd.plotly.v1+json"


@pytest.fixture
def project(tmp_path: Path) -> Any:
    """Return a writer of the nearest pyproject.toml; the path of the file comes back."""

    def write(text: str) -> Path:
        path = tmp_path / "pyproject.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_short_shows_the_summary_alone_and_none_one_line(shell: Any, cell: Any) -> None:
    counts = {}
    for level in ("full", "short", "none"):
        shell.outputs_of(f"%config PTQLab.report = '{level}'")
        outputs = shell.outputs_of(cell("demo.model_path"))
        counts[level] = (len(outputs), "<table" in outputs[0].data["text/html"])
        assert "smaller" in outputs[0].data["text/plain"]
    assert counts == {"full": (3, True), "short": (1, False), "none": (1, False)}
    assert outputs[0].data["text/plain"].count("\n") == 0


@pytest.mark.parametrize("level", ["full", "short"])
def test_what_stays_float_is_said_whatever_the_length_of_the_report(shell: Any, level: str) -> None:
    shell.outputs_of(f"%config PTQLab.report = '{level}'")
    text = "[common_quant_param]\nquant_type=WEIGHT_QUANT\nmin_quant_weight_channel=16\nskip_quant_node=stem/Conv\n"
    first = shell.outputs_of(f"%%quantize demo.model_path\n{text}")[0]
    assert "skip_quant_node" in first.data["text/plain"]
    assert "skip_quant_node" in first.data["text/html"]


def test_tables_are_cut_to_the_worst_rows_and_say_so(shell: Any, cell: Any) -> None:
    shell.outputs_of("%config PTQLab.max_rows = 3")
    outputs = shell.outputs_of(cell("demo.model_path -r result", bits=4))
    rows = shell.user_ns["result"].report.layers
    worst = sorted(rows, key=lambda row: -row.relative_error)[:3]
    html = outputs[0].data["text/html"]
    assert [row.node for row in rows if f"{row.node}, weight" in html] == [row.node for row in rows if row in worst]
    assert f"layers {len(rows)}" in outputs[0].data["text/plain"]
    assert len(outputs[1].data[PLOTLY]["data"][0]["x"]) == 3


def test_the_log_is_shown_at_verbosity_2_alone_and_once(shell: Any, cell: Any) -> None:
    def logged() -> int:
        outputs = shell.outputs_of(cell("demo.model_path"))
        return len(
            re.findall(r"^ptq_lab\.\w+: compare: ", "".join(o.data["text/plain"] for o in outputs), flags=re.MULTILINE)
        )

    before = logged()
    shell.outputs_of("%config PTQLab.verbosity = 2")
    loud = logged()
    shell.outputs_of("%config PTQLab.verbosity = 1")
    assert (before, loud, logged()) == (0, 1, 0)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("verbosty = 2", "PTQLab.verbosty: there is no such setting; did you mean verbosity?"),
        ("report = 'ful'", "'ful' is not one of full, short, none; did you mean full?"),
        ("verbosity = 7", "7 is not one of 0, 1, 2"),
        ("verbosity = True", "True is not one of 0, 1, 2"),
        ("max_rows = 0", "0 is not a whole number of 1 or more"),
        ("max_rows = 'ten'", "'ten' is not a whole number"),
    ],
)
def test_a_wrong_setting_is_named_and_nothing_changes(shell: Any, caplog: Any, line: str, says: str) -> None:
    [settings] = [each for each in shell.configurables if type(each).__name__ == "PTQLab"]
    before = settings.trait_values()
    shell.outputs_of(f"%config PTQLab.{line}")
    assert says in caplog.text
    assert settings.trait_values() == before


def test_the_nearest_project_sets_what_it_says(
    shell: Any, cell: Any, project: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    project('[tool.ptq_lab]\nreport = "none"\nverbosity = 0\n')
    (tmp_path / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "er")
    assert shell.outputs_of("%reload_ext ptq_lab") == []
    assert len(shell.outputs_of(cell("demo.model_path"))) == 1
    shell.outputs_of("%config PTQLab.report = 'full'")
    assert len(shell.outputs_of(cell("demo.model_path"))) == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[tool.ptq_lab]\nmax_row = 3\n", "[tool.ptq_lab] max_row: there is no such setting; did you mean max_rows?"),
        ("[tool.ptq_lab]\nreport = 3\n", "[tool.ptq_lab] report: 3 is not one of full, short, none"),
        ("[tool]\nptq_lab = 3\n", "3 given; a table of settings wanted"),
        ("[tool.ptq_lab\n", "cannot be read"),
    ],
)
def test_a_wrong_project_file_is_one_error_and_nothing_is_registered(
    shell: Any, project: Any, text: str, says: str
) -> None:
    shell.outputs_of("%unload_ext ptq_lab")
    path = project(text)
    with pytest.raises(ConfigError) as caught:
        shell.outputs_of("%load_ext ptq_lab")
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert "quantize" not in shell.magics_manager.magics["cell"]


def test_a_project_without_our_table_sets_nothing(project: Any) -> None:
    path = project("[project]\nname = 'mine'\n")
    assert read_project(path) == {}
    assert find_project(path.parent) == path
