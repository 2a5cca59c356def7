"""The public names, and what importing them costs."""

from __future__ import annotations

import subprocess
import sys

import ptq_lab

PUBLIC = [
    "ConfigEditor",
    "ConfigError",
    "InferenceError",
    "MissingExtra",
    "MixedBitExplorer",
    "Model",
    "ModelError",
    "NotImplementedYet",
    "OutputError",
    "PlanError",
    "Problem",
    "PtqLabError",
    "QuantConfig",
    "QuantPlan",
    "QuantResult",
    "Report",
    "SampleError",
    "Step",
    "TensorPlan",
    "__version__",
    "advise",
    "check_config",
    "compare",
    "dump_config",
    "explain",
    "explore",
    "inspect",
    "load_config",
    "load_ipython_extension",
    "load_model",
    "load_session",
    "pack",
    "preview",
    "quantize",
    "repair",
    "schema",
    "side_by_side",
    "template",
    "unload_ipython_extension",
    "unpack",
]


def modules_after(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_public_names_are_these() -> None:
    assert sorted(ptq_lab.__all__) == PUBLIC


def test_every_public_name_loads_and_has_a_docstring() -> None:
    for name in PUBLIC:
        value = getattr(ptq_lab, name)
        assert name == "__version__" or value.__doc__, name


def test_importing_the_package_loads_no_notebook_and_no_drawing() -> None:
    loaded = modules_after("import ptq_lab")
    assert not loaded & {"IPython", "ipywidgets", "plotly", "anywidget", "jinja2"}


def test_quantizing_headless_loads_no_notebook_and_no_drawing() -> None:
    code = (
        "import ptq_lab; d = ptq_lab.demo.load('digits_cnn'); "
        "ptq_lab.quantize(d.model_path, {'common_quant_param': {'quant_type': 'WEIGHT_QUANT'}})"
    )
    assert not modules_after(code) & {"IPython", "ipywidgets", "plotly", "anywidget", "jinja2", "click", "rich"}


def test_checking_a_configuration_loads_no_model_library() -> None:
    assert not modules_after("import ptq_lab; ptq_lab.check_config('[common_quant_param]')") & {"onnx", "onnxruntime"}


def test_unknown_names_are_attribute_errors() -> None:
    assert not hasattr(ptq_lab, "quantise")
