"""The layout is the architecture: which room may import what, and how large its files may grow."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "ptq_lab"
MODULE_LIMIT, FUNCTION_LIMIT = 400, 60

# Third-party libraries a room (or a file of the spine) may import.
LIBRARIES: dict[str, set[str]] = {
    "__init__": set(),
    "__main__": set(),
    "errors": set(),
    "progress": set(),
    "checking": set(),
    "flags": set(),
    "manifest": set(),
    "output": set(),
    "publish": set(),
    "inputs": set(),
    "clock": set(),
    "debug": set(),
    "plan": {"numpy"},
    "int8": {"numpy"},
    "route": set(),
    "streaming": {"numpy"},  # views of the scratch file
    "weight_quant": set(),
    "on_the_fly": set(),
    "weight_effort": set(),
    "pins": set(),
    "edits": set(),
    "recipe": set(),
    "balance": {"numpy"},
    "explorer": set(),
    "full_quant": set(),
    "int8_decisions": set(),
    "int8_weights": {"numpy"},
    "dynamic_quant": set(),
    "entries": set(),
    "mixed_bits": {"numpy"},
    "budget": set(),
    "stored_costs": set(),
    "result": set(),
    "explanation": set(),
    "advice": set(),
    "top1": {"numpy"},
    "runs": set(),
    "performance": set(),
    "probe": {"numpy", "onnxruntime"},
    "search": {"numpy", "onnx_ir"},
    "devices": {"numpy", "onnx_ir"},
    "pipeline": {"onnx"},  # for the type of a ModelProto
    "comparison": {"numpy", "onnx"},  # for the type of a ModelProto
    "evaluation": {"numpy"},
    "runtime": {"numpy", "onnxruntime"},
    "cli": {"click", "rich"},
    "config": {"pydantic", "pydantic_core"},
    "numerics": {"numpy"},
    "graph": {"numpy", "onnx", "onnx_ir", "google"},
    "container": {"numpy", "onnx", "onnx_ir", "google", "onnxruntime"},  # onnxruntime for the type of a session
    "calibration": {"numpy", "PIL"},
    "report": {"numpy"},
    "figures": {"numpy", "plotly", "jinja2", "markupsafe"},
    "notebook": {"IPython", "ipywidgets", "anywidget", "comm", "traitlets", "onnx", "jupyter_core"},  # its data folders
    "demo": {"numpy"},
    "lesson": {"numpy", "PIL"},  # Pillow writes what models make as PNG
}

# Rooms that a room may import, besides errors and progress, which everybody may.
ROOMS: dict[str, set[str]] = {
    "__init__": set(LIBRARIES),
    "__main__": {"cli"},
    "errors": set(),
    "progress": set(),
    "flags": set(),
    "checking": {"config", "graph", "weight_quant"},
    "config": set(),
    "numerics": set(),
    "graph": {"numerics", "plan"},  # the plan for annotations only, see the test below
    "entries": {"numerics", "graph"},
    "plan": {"numerics", "graph", "entries"},
    "int8": {"numerics", "graph", "plan"},
    "streaming": {"config", "entries", "graph", "numerics", "plan", "report"},  # report: each weight is looked at once
    "route": {"graph", "numerics", "plan", "report", "search"},  # what was seen of each weight and done to each layer
    "search": {"numerics", "graph", "plan", "int8", "runtime", "calibration", "entries"},
    "devices": {"graph", "int8", "numerics"},
    "mixed_bits": {"budget", "calibration", "config", "flags", "graph", "plan", "report", "runtime", "search"},
    "budget": {"config", "graph"},
    "stored_costs": {"graph", "plan", "report", "search"},
    "weight_quant": {
        "budget",
        "streaming",
        "calibration",
        "config",
        "flags",
        "graph",
        "manifest",
        "mixed_bits",
        "on_the_fly",
        "pins",
        "plan",
        "publish",
        "route",
        "runtime",
        "search",
        "stored_costs",
        "weight_effort",
    },
    "result": {
        "advice",
        "calibration",
        "config",
        "explanation",
        "graph",
        "manifest",
        "output",
        "plan",
        "report",
    },  # explanation and advice: conveniences, inside the functions
    "explanation": {"calibration", "config", "graph", "plan", "report", "result", "runtime"},
    "advice": {"config", "debug", "explanation", "manifest", "pipeline", "report", "result"},
    "runs": {
        "inputs",
        "calibration",
        "config",
        "evaluation",
        "flags",
        "graph",
        "pipeline",
        "report",
        "result",
        "runtime",
    },
    "weight_effort": {"budget", "calibration", "config", "graph", "plan", "runtime", "search"},
    "pins": {"graph", "plan"},
    "on_the_fly": {"config", "entries", "graph", "plan", "route"},
    "edits": {"plan"},
    "recipe": {"config", "edits", "graph", "manifest", "plan"},
    "balance": {"config", "edits", "graph", "plan", "report", "search"},
    "explorer": {
        "inputs",
        "balance",
        "calibration",
        "config",
        "edits",
        "flags",
        "graph",
        "mixed_bits",
        "notebook",  # widget(), inside the function
        "pipeline",
        "plan",
        "recipe",
        "report",
        "result",
        "search",
        "weight_quant",
    },
    "full_quant": {
        "calibration",
        "config",
        "devices",
        "flags",
        "graph",
        "int8",
        "int8_decisions",
        "int8_weights",
        "numerics",
        "plan",
        "route",
        "runtime",
        "search",
        "weight_quant",
    },
    "int8_decisions": {"config", "devices", "flags", "graph", "int8", "int8_weights", "plan", "search"},
    "int8_weights": {
        "calibration",
        "config",
        "graph",
        "int8",
        "numerics",
        "pins",
        "plan",
        "search",
        "weight_effort",
    },
    "dynamic_quant": {
        "calibration",
        "config",
        "flags",
        "graph",
        "int8",
        "plan",
        "route",
        "runtime",
        "search",
    },
    "performance": {"calibration", "config", "flags", "graph", "plan", "report", "runtime"},
    "probe": set(),  # it measures memory, and everything it imports would count
    "runtime": {"graph"},
    "inputs": {"calibration", "config", "evaluation", "graph"},
    "clock": set(),
    "publish": {"config", "container", "graph", "output", "report"},
    "container": {"__init__", "graph", "numerics", "output", "plan", "runtime"},
    "calibration": {"graph", "numerics", "runtime"},
    "evaluation": {"calibration", "graph", "runtime", "top1"},
    "top1": {"calibration", "numerics"},
    "report": {
        "numerics",
        "graph",
        "plan",
        "route",
        "runtime",
        "calibration",
        "figures",
        "search",
    },  # figures: to_html, inside the function; search: what was done to each layer
    "manifest": {"__init__", "config", "graph", "plan", "publish", "route", "runtime", "search"},  # search: the same
    "output": {"graph"},
    "debug": {"calibration", "config", "graph", "report", "route"},
    "pipeline": {
        "inputs",
        "clock",
        "calibration",
        "config",
        "debug",
        "dynamic_quant",
        "evaluation",
        "explanation",
        "flags",
        "full_quant",
        "graph",
        "manifest",
        "on_the_fly",
        "performance",
        "plan",
        "publish",
        "report",
        "route",
        "weight_quant",
        "result",
        "runtime",
    },
    "comparison": {
        "inputs",
        "clock",
        "calibration",
        "config",
        "evaluation",
        "flags",
        "graph",
        "numerics",
        "report",
        "runtime",
    },
    "demo": set(),
    "lesson": {
        "calibration",
        "demo",
        "explorer",
        "graph",
        "numerics",
        "pipeline",
        "plan",
        "report",
        "result",
        "runtime",
    },
    "figures": {"__init__", "numerics", "report", "plan", "graph"},
    "cli": {
        "__init__",
        "checking",
        "comparison",
        "config",
        "container",
        "demo",
        "evaluation",
        "graph",
        "output",
        "pipeline",
        "report",
        "result",
    },
    "notebook": set(LIBRARIES) - {"cli", "numerics"},
}

FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            if module == "ptq_lab":
                for alias in node.names:
                    yield f"ptq_lab.{alias.name}", node
            else:
                yield module, node


def rooms_imported(tree: ast.AST) -> set[str]:
    own = {name for name, _ in imports(tree) if name == "ptq_lab" or name.startswith("ptq_lab.")}
    names = {name.split(".")[1] if "." in name else "__init__" for name in own}
    return {name if name in LIBRARIES else "__init__" for name in names}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_the_libraries_of_its_room(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    libraries = {name.split(".")[0] for name, _ in imports(tree)} - {"ptq_lab"} - set(sys.stdlib_module_names)
    assert libraries <= LIBRARIES[room_of(path)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_the_rooms_below_its_own(path: Path) -> None:
    room = room_of(path)
    imported = rooms_imported(ast.parse(path.read_text(encoding="utf-8")))
    assert imported - {room, "errors", "progress"} <= ROOMS[room]


def test_graph_knows_the_plan_for_annotations_only() -> None:
    for path in sorted((PACKAGE / "graph").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        guarded = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        for name, node in imports(tree):
            assert name != "ptq_lab.plan" or id(node) in guarded, path


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_functions_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MODULE_LIMIT
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            length = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
            assert length <= FUNCTION_LIMIT, f"{path.name}:{node.lineno} {node.name} has {length} lines"


def test_no_file_is_called_after_nothing() -> None:
    nothing = {"utils", "helpers", "common", "base", "core", "manager", "misc"}
    assert not [path for path in FILES if path.stem in nothing or path.parent.name in nothing]


def test_every_room_has_two_files_or_owns_a_library() -> None:
    for folder in sorted(path.parent for path in PACKAGE.glob("*/__init__.py")):
        owns = LIBRARIES[folder.name] - {"numpy"}
        files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
        assert owns or len(files) > 2, folder.name


def test_every_module_says_what_it_is_for() -> None:
    assert not [str(path) for path in FILES if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
