"""ptq_lab: post-training quantization of ONNX models, in a notebook and headless.

Names are loaded when they are first used, so that importing the package costs next to nothing and pulls in
neither IPython nor plotly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "ConfigEditor": "notebook.widgets.editor",
    "ConfigError": "errors",
    "InferenceError": "errors",
    "MissingExtra": "errors",
    "MixedBitExplorer": "explorer",
    "Model": "graph",
    "ModelError": "errors",
    "NotImplementedYet": "errors",
    "OutputError": "errors",
    "PlanError": "errors",
    "Problem": "errors",
    "PtqLabError": "errors",
    "QuantConfig": "config",
    "QuantPlan": "plan",
    "QuantResult": "result",
    "Report": "report.tables",
    "SampleError": "errors",
    "Step": "progress",
    "TensorPlan": "plan",
    "advise": "advice",
    "check_config": "config",
    "compare": "comparison",
    "dump_config": "config",
    "explain": "explanation",
    "explore": "explorer",
    "inspect": "lesson",
    "load_config": "config",
    "load_ipython_extension": "notebook.extension",
    "load_model": "graph",
    "load_session": "container",
    "pack": "container",
    "preview": "pipeline",
    "quantize": "pipeline",
    "repair": "advice",
    "schema": "config",
    "side_by_side": "runs",
    "template": "config",
    "unload_ipython_extension": "notebook.extension",
    "unpack": "container",
}
_ROOMS = ("calibration", "config", "container", "demo", "figures", "graph", "lesson", "numerics", "report")

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"ptq_lab.{_HOME[name]}"), name)
    if name in _ROOMS:
        return import_module(f"ptq_lab.{name}")
    raise AttributeError(f"module 'ptq_lab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted((*globals(), *_HOME, *_ROOMS))


if TYPE_CHECKING:  # "as" tells type checkers that a name is exported
    from ptq_lab import (
        calibration as calibration,
    )
    from ptq_lab import (
        config as config,
    )
    from ptq_lab import (
        container as container,
    )
    from ptq_lab import (
        demo as demo,
    )
    from ptq_lab import (
        figures as figures,
    )
    from ptq_lab import (
        graph as graph,
    )
    from ptq_lab import (
        lesson as lesson,
    )
    from ptq_lab import (
        numerics as numerics,
    )
    from ptq_lab import (
        report as report,
    )
    from ptq_lab.advice import advise as advise
    from ptq_lab.advice import repair as repair
    from ptq_lab.comparison import compare as compare
    from ptq_lab.config import (
        QuantConfig as QuantConfig,
    )
    from ptq_lab.config import (
        check_config as check_config,
    )
    from ptq_lab.config import (
        dump_config as dump_config,
    )
    from ptq_lab.config import (
        load_config as load_config,
    )
    from ptq_lab.config import (
        schema as schema,
    )
    from ptq_lab.config import (
        template as template,
    )
    from ptq_lab.container import load_session as load_session
    from ptq_lab.container import pack as pack
    from ptq_lab.container import unpack as unpack
    from ptq_lab.errors import (
        ConfigError as ConfigError,
    )
    from ptq_lab.errors import (
        InferenceError as InferenceError,
    )
    from ptq_lab.errors import (
        MissingExtra as MissingExtra,
    )
    from ptq_lab.errors import (
        ModelError as ModelError,
    )
    from ptq_lab.errors import (
        NotImplementedYet as NotImplementedYet,
    )
    from ptq_lab.errors import (
        OutputError as OutputError,
    )
    from ptq_lab.errors import (
        PlanError as PlanError,
    )
    from ptq_lab.errors import (
        Problem as Problem,
    )
    from ptq_lab.errors import (
        PtqLabError as PtqLabError,
    )
    from ptq_lab.errors import (
        SampleError as SampleError,
    )
    from ptq_lab.explanation import explain as explain
    from ptq_lab.explorer import MixedBitExplorer as MixedBitExplorer
    from ptq_lab.explorer import explore as explore
    from ptq_lab.graph import Model as Model
    from ptq_lab.graph import load_model as load_model
    from ptq_lab.lesson import inspect as inspect
    from ptq_lab.notebook.extension import (
        load_ipython_extension as load_ipython_extension,
    )
    from ptq_lab.notebook.extension import (
        unload_ipython_extension as unload_ipython_extension,
    )
    from ptq_lab.notebook.widgets.editor import ConfigEditor as ConfigEditor
    from ptq_lab.pipeline import preview as preview
    from ptq_lab.pipeline import quantize as quantize
    from ptq_lab.plan import QuantPlan as QuantPlan
    from ptq_lab.plan import TensorPlan as TensorPlan
    from ptq_lab.progress import Step as Step
    from ptq_lab.report.tables import Report as Report
    from ptq_lab.result import QuantResult as QuantResult
    from ptq_lab.runs import side_by_side as side_by_side
