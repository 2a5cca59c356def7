"""What is installed, loaded and reachable, for whoever wonders why something is not shown."""

# mypy: disallow-untyped-calls=False
# (IPython's and jupyter_core's functions carry no types.)

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ptq_lab import __version__
from ptq_lab.calibration.cache import VARIABLE, cache_folder
from ptq_lab.notebook.displayed import last_displayed
from ptq_lab.notebook.front_end import front_end
from ptq_lab.notebook.settings import PTQLab, find_project
from ptq_lab.report.text import format_bytes

CORE = ("numpy", "onnx", "onnx-ir", "onnxruntime", "pydantic", "pillow")
LAB = ("jupyterlab", "ipywidgets", "anywidget", "plotly", "jinja2")
KERNEL = ("ipython", "ipykernel", "traitlets", "jupyter-client", "notebook", "nbconvert", "jedi")
EXTENSION = "ptq-lab"  # the folder of the JupyterLab extension


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of an examination; ``ok`` is false where something is missing."""

    label: str
    text: str
    ok: bool = True


def examine(shell: Any, settings: PTQLab, *, verbose: bool = False) -> tuple[Finding, ...]:
    """Look at everything that has to be in place for cells to work and to be seen.

    Parameters
    ----------
    shell : InteractiveShell
    settings : PTQLab
        The settings in force.
    verbose : bool
        Also the kernel's packages, the platform, folders and environment variables.

    Returns
    -------
    tuple of Finding
    """
    findings = [
        Finding("ptq_lab", f"{__version__} in {Path(__file__).parents[1]}"),
        Finding("Python", platform.python_version()),
        _packages("core", CORE, hint="pip install ptq-lab"),
        _packages("lab extra", LAB, hint='pip install "ptq-lab[lab]"'),
        _magics(shell),
        Finding("front end", front_end(shell)),
        _labextension(),
        _settings(settings),
        _cache(),
        *_displayed(),
    ]
    return (*findings, *_details(shell)) if verbose else tuple(findings)


def examination_text(findings: Sequence[Finding]) -> str:
    """Return findings as aligned lines; what is missing is marked.

    Examples
    --------
    >>> print(examination_text([Finding("Python", "3.11.7"), Finding("lab extra", "plotly missing", False)]))
    Python     3.11.7
    lab extra  ! plotly missing
    """
    width = max(len(finding.label) for finding in findings)
    return "\n".join(f"{each.label.ljust(width)}  {'' if each.ok else '! '}{each.text}".rstrip() for each in findings)


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _packages(label: str, names: Sequence[str], *, hint: str) -> Finding:
    found = {name: _installed(name) for name in names}
    missing = [name for name, number in found.items() if number is None]
    text = ", ".join(f"{name} {number or 'missing'}" for name, number in found.items())
    return Finding(label, f"{text}; run: {hint}" if missing else text, not missing)


def _magics(shell: Any) -> Finding:
    magics = shell.magics_manager.magics
    names = [
        f"{sign}{name}"
        for kind, sign in (("cell", "%%"), ("line", "%"))
        for name in sorted(magics[kind])
        if name.startswith("quantize")
    ]
    return Finding("magics", ", ".join(names) or "none; run: %load_ext ptq_lab", bool(names))


def _labextension() -> Finding:
    """Look for the editor's part of the house, which only JupyterLab and Notebook load."""
    label = "editor extension"
    for folder in _extension_folders():
        package = folder / EXTENSION / "package.json"
        if package.is_file():
            try:
                number = json.loads(package.read_text(encoding="utf-8")).get("version", "without a version")
            except (OSError, ValueError) as fault:
                return Finding(label, f"{package} cannot be read: {fault}", False)
            return Finding(label, f"{number} in {package.parent}")
    return Finding(label, "not installed; completion by Tab comes from the kernel all the same")


def _extension_folders() -> list[Path]:
    if find_spec("jupyter_core") is None:
        return [Path(sys.prefix) / "share" / "jupyter" / "labextensions"]
    from jupyter_core.paths import jupyter_path

    return [Path(folder) for folder in jupyter_path("labextensions")]


def _settings(settings: PTQLab) -> Finding:
    values = ", ".join(f"{name}={getattr(settings, name)}" for name in sorted(PTQLab.class_traits(config=True)))
    project = find_project(Path.cwd())
    return Finding("settings", f"{values}; nearest pyproject.toml: {project or 'none'}")


def _cache() -> Finding:
    folder = cache_folder()
    if folder is None:
        return Finding("cache", f"off ({VARIABLE}={os.environ.get(VARIABLE, '')})")
    try:
        sizes = [entry.stat().st_size for entry in os.scandir(folder) if entry.is_file()]
    except FileNotFoundError:
        return Finding("cache", f"{folder}, empty so far")
    except OSError as fault:
        return Finding("cache", f"{folder} cannot be read: {fault.strerror or fault}", False)
    return Finding("cache", f"{folder}, {len(sizes)} entries, {format_bytes(sum(sizes))}")


def _displayed() -> list[Finding]:
    shown = last_displayed()
    if not shown:
        return [Finding("displayed last", "nothing so far")]
    lines = [", ".join(f"{kind} {format_bytes(size)}" for kind, size in sizes.items()) for sizes in shown]
    return [Finding("displayed last" if index == 0 else "", line) for index, line in enumerate(lines)]


def _details(shell: Any) -> list[Finding]:
    found = {name: _installed(name) for name in KERNEL}
    here = {name: value for name, value in os.environ.items() if name.startswith(("PTQ_LAB_", "GLOG_", "JUPYTER"))}
    completer = shell.Completer
    return [
        Finding("kernel", ", ".join(f"{name} {number or 'missing'}" for name, number in found.items())),
        Finding("platform", f"{platform.platform()}, {os.cpu_count()} processors"),
        Finding("executable", sys.executable),
        Finding("working directory", str(Path.cwd())),
        Finding("extension folders", ", ".join(map(str, _extension_folders()))),
        Finding("completers", ", ".join(_name_of(each) for each in completer.custom_matchers) or "none"),
        Finding("environment", ", ".join(f"{name}={value}" for name, value in sorted(here.items())) or "nothing set"),
    ]


def _name_of(matcher: Any) -> str:
    return str(getattr(matcher, "matcher_identifier", None) or getattr(matcher, "__qualname__", matcher))
