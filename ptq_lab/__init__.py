"""ptq_lab: post-training quantization of ONNX models, in a notebook and headless.

Names are loaded when they are first used, so that importing the package costs next to nothing and pulls in
neither IPython nor plotly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "ConfigError": "errors",
    "InferenceError": "errors",
    "MissingExtra": "errors",
    "Model": "graph",
    "ModelError": "errors",
    "NotImplementedYet": "errors",
    "OutputError": "errors",
    "PlanError": "errors",
    "Problem": "errors",
    "PtqLabError": "errors",
    "QuantConfig": "config",
    "QuantPlan": "plan",
    "QuantResult": "pipeline",
    "Report": "report.tables",
    "SampleError": "errors",
    "Step": "progress",
    "TensorPlan": "plan",
    "check_config": "config",
    "dump_config": "config",
    "load_config": "config",
    "load_ipython_extension": "notebook.extension",
    "load_model": "graph",
    "preview": "pipeline",
    "quantize": "pipeline",
    "schema": "config",
    "template": "config",
    "unload_ipython_extension": "notebook.extension",
}
_ROOMS = ("calibration", "config", "demo", "figures", "graph", "numerics", "report")

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"ptq_lab.{_HOME[name]}"), name)
    if name in _ROOMS:
        return import_module(f"ptq_lab.{name}")
    raise AttributeError(f"module 'ptq_lab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted((*globals(), *_HOME, *_ROOMS))


if TYPE_CHECKING:
    from ptq_lab import calibration, config, demo, figures, graph, numerics, report
    from ptq_lab.config import QuantConfig, check_config, dump_config, load_config, schema, template
    from ptq_lab.errors import (
        ConfigError,
        InferenceError,
        MissingExtra,
        ModelError,
        NotImplementedYet,
        OutputError,
        PlanError,
        Problem,
        PtqLabError,
        SampleError,
    )
    from ptq_lab.graph import Model, load_model
    from ptq_lab.notebook.extension import load_ipython_extension, unload_ipython_extension
    from ptq_lab.pipeline import QuantResult, preview, quantize
    from ptq_lab.plan import QuantPlan, TensorPlan
    from ptq_lab.progress import Step
    from ptq_lab.report.tables import Report
