"""Loading and unloading: everything that is registered goes away again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import ptq_lab
from ptq_lab import demo

BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {package!r}:
            raise ModuleNotFoundError("No module named " + name, name=name)
sys.meta_path.insert(0, Blocked())
from ptq_lab.notebook.extension import load_ipython_extension
load_ipython_extension(None)
"""


def printers(shell: Any) -> dict[str, set[type]]:
    kinds = ("text/html", "text/plain")
    return {kind: set(shell.display_formatter.formatters[kind].type_printers) for kind in kinds}


def test_loading_says_one_line_with_the_version(shell: Any) -> None:
    shell.outputs_of("%unload_ext ptq_lab")
    said = shell.outputs_of("%load_ext ptq_lab")[0].data["text/plain"]
    assert said.count("\n") == 1
    assert ptq_lab.__version__ in said


def test_unloading_takes_back_the_magic_and_every_formatter(shell: Any) -> None:
    with_it, rewriters = printers(shell), list(shell.input_transformers_cleanup)
    shell.outputs_of("%unload_ext ptq_lab")
    without = printers(shell)
    assert len(shell.input_transformers_cleanup) == len(rewriters) - 1
    assert "quantize" not in shell.magics_manager.magics["cell"]
    assert "QuantizeMagics" not in shell.magics_manager.registry
    assert {kind.__name__ for kind in with_it["text/html"] - without["text/html"]} == {
        "Report",
        "FrontData",
        "MixedBitExplorer",
        "QuantResult",
        "QuantPlan",
        "Demo",
        "SideBySide",
        "Explanation",
        "Gallery",
    }
    assert len(with_it["text/plain"] - without["text/plain"]) == 9


def test_reloading_leaves_one_magic_and_the_same_formatters(shell: Any, cell: Any) -> None:
    before, rewriters = printers(shell), list(shell.input_transformers_cleanup)
    shell.outputs_of("%reload_ext ptq_lab")
    assert printers(shell) == before
    assert shell.input_transformers_cleanup == rewriters
    assert len(shell.outputs_of(cell("demo.model_path"))) == 3


def test_a_demo_and_a_result_display_themselves_once_loaded(shell: Any, cell: Any) -> None:
    shell.outputs_of(cell("demo.model_path --quiet -r result"))
    for name, says in (
        ("demo", demo.load("digits_cnn").title),
        ("result", "smaller"),
        ("result.report", "smaller"),
    ):
        data, _ = shell.display_formatter.format(shell.ev(name))
        assert says in data["text/html"]
        assert says in data["text/plain"]
    data, _ = shell.display_formatter.format(shell.ev("result.plan"))
    assert "<table" in data["text/html"]


def test_a_missing_package_names_the_extra_and_nothing_else_is_swallowed() -> None:
    for package, says in (
        ("plotly", "ptq-lab[lab]"),
        ("jinja2", "ptq-lab[lab]"),
        ("numpy", "No module named"),
    ):
        run = subprocess.run(
            [sys.executable, "-c", BLOCKED.format(package=package)],
            capture_output=True,
            text=True,
            cwd=Path(ptq_lab.__file__).parent.parent,
            check=False,
        )
        assert run.returncode != 0
        assert says in run.stderr.splitlines()[-1]
