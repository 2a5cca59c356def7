"""%quantize_compare and %quantize_doctor as the user meets them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from IPython.core.error import UsageError

from ptq_lab.notebook.doctor import examine
from ptq_lab.notebook.front_end import front_end
from ptq_lab.notebook.settings import PTQLab


def test_two_runs_are_shown_side_by_side_and_kept_on_request(shell: Any, cell: Any) -> None:
    for bits in (8, 3):
        shell.outputs_of(cell(f"demo.model_path --samples demo.calib_path --quiet -r run{bits}", bits=bits))
    [output] = shell.outputs_of("%quantize_compare run8 run3 -r both")
    for rendering in ("text/plain", "text/html"):
        assert all(said in output.data[rendering] for said in ("run8", "run3", "bit_num", "stem/Conv"))
    assert "<script" not in output.data["text/html"]
    assert [run.name for run in shell.user_ns["both"].runs] == ["run8", "run3"]
    data, _ = shell.display_formatter.format(shell.user_ns["both"])
    assert "run8" in data["text/html"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "two or more results wanted, e.g. a b; here: first"),
        ("first", "here: first"),
        ("first frist", "there is no variable frist; did you mean first?"),
        ("first demo", "demo is Demo, and a result of %%quantize is wanted"),
        ("first nothing", "nothing is NoneType"),
        ("first first --loud", "--loud"),
        ("first 'first", "quotation"),
        ("first first -r 3", "not the name of a variable"),
    ],
)
def test_what_cannot_be_compared_is_one_line(shell: Any, cell: Any, line: str, says: str) -> None:
    shell.outputs_of(cell("demo.model_path --quiet -r first"))
    shell.user_ns["nothing"] = None
    with pytest.raises(UsageError) as caught:
        shell.outputs_of(f"%quantize_compare {line}")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_any_run_it_says_how_to_get_one(shell: Any) -> None:
    with pytest.raises(UsageError, match="%%quantize -r NAME makes one"):
        shell.outputs_of("%quantize_compare")


def test_the_doctor_tells_versions_magics_cache_and_what_was_displayed(
    shell: Any, cell: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PTQ_LAB_CACHE", str(tmp_path / "cache"))
    [fresh] = shell.outputs_of("%quantize_doctor")
    assert "nothing so far" in fresh.data["text/plain"]
    report = shell.outputs_of(cell("demo.model_path"))
    [output] = shell.outputs_of("%quantize_doctor")
    text = output.data["text/plain"]
    import onnxruntime

    for said in (onnxruntime.__version__, "%%quantize", "%quantize_doctor", str(tmp_path / "cache"), "a terminal"):
        assert said in text
    size = len(report[0].data["text/html"].encode())
    assert f"text/html {size / 1000:.1f} kB" in text
    assert "everything is in place" in text
    assert "executable" not in text
    assert "executable" in shell.outputs_of("%quantize_doctor -v")[0].data["text/plain"]
    assert "application/vnd.plotly.v1+json" in text


def test_the_doctor_marks_what_is_missing_and_says_what_to_install(shell: Any, monkeypatch: Any) -> None:
    from importlib.metadata import PackageNotFoundError

    from ptq_lab.notebook import doctor

    def absent(name: str) -> str:
        if name == "plotly":
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(doctor, "version", absent)
    text = shell.outputs_of("%quantize_doctor")[0].data["text/plain"]
    assert (
        '! jupyterlab 1, ipywidgets 1, anywidget 1, plotly missing, jinja2 1; run: pip install "ptq-lab[lab]"' in text
    )
    assert "need attention" in text


def test_the_editor_extension_is_found_where_jupyter_looks(shell: Any, monkeypatch: Any, tmp_path: Path) -> None:
    def told() -> str:
        [finding] = [each for each in examine(shell, PTQLab()) if each.label == "editor extension"]
        return finding.text

    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    package = tmp_path / "labextensions" / "ptq-lab" / "package.json"
    package.parent.mkdir(parents=True)
    package.write_text(json.dumps({"version": "7.6.5"}))
    assert told() == f"7.6.5 in {package.parent}"
    package.write_text("{")
    assert "cannot be read" in told()


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"JPY_SESSION_NAME": "a.ipynb"}, "Jupyter server"),
        ({"JPY_SESSION_NAME": "a.ipynb", "VSCODE_PID": "1"}, "VS Code"),
        ({"COLAB_RELEASE_TAG": "r"}, "Colab"),
        ({}, "without a Jupyter server"),
    ],
)
def test_the_front_end_is_told_by_its_signs(environment: dict[str, str], says: str) -> None:
    class Kernel:
        kernel = object()

    assert says in front_end(Kernel(), environment)
    assert front_end(object(), environment) == "a terminal"


def test_a_real_kernel_says_what_it_is(kernel: Any) -> None:
    answer = kernel.run("%quantize_doctor")
    assert "without a Jupyter server" in answer.bundles[0]["text/plain"]
    assert set(answer.bundles[0]) == {"text/plain", "text/html"}
