"""`ptq-lab convert`: converter_lite's own flags, and ours for gates and checks."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import click

from ptq_lab.cli.progress import shown_progress
from ptq_lab.config import QuantConfig, load_config, split_option
from ptq_lab.errors import ConfigError, OutputError, Problem
from ptq_lab.output import Stamp
from ptq_lab.pipeline import quantize
from ptq_lab.report.text import render_text
from ptq_lab.result import QuantResult

# The original's flags that have no meaning for an ONNX model: accepted, with a note.
UNUSED_FLAGS = (
    "weightFile",
    "inputDataType",
    "outputDataType",
    "outputDataFormat",
    "device",
    "saveType",
    "trainModel",
    "infer",
    "optimizeTransformer",
    "encryption",
    "encryptKey",
    "decryptKey",
    "decryptMode",
)
GATE_FAILED = 3


def _with_unused_flags(command: Any) -> Any:
    for flag in reversed(UNUSED_FLAGS):
        command = click.option(f"--{flag}", flag, hidden=True)(command)
    return command


@click.command()
@click.option("--fmk", default="ONNX", show_default=True, help="Framework of the model; ONNX is the only one.")
@click.option("--modelFile", "model_file", required=True, help="The float model, a .onnx file.")
@click.option("--outputFile", "output_file", required=True, help="The quantized model; .onnx is added if need be.")
@click.option("--configFile", "config_file", help="INI configuration; see: ptq-lab template weight.")
@click.option("--inputShape", "input_shape", help="Sizes of dynamic axes: name:1,224,224,3;name2:1,10.")
@click.option("--inputDataFormat", "layout", type=click.Choice(["NHWC", "NCHW"]), help="Layout of .bin samples.")
@click.option("--optimize", help="The original's graph passes; accepted, not used.")
@click.option("--fp16", type=click.Choice(["on", "off"]), default="off", help="Store what stays float in 16 bits.")
@click.option("--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help="Change one option; repeatable.")
@click.option("--samples", type=click.Path(path_type=Path), help="Compare the models on these: folder or .npz.")
@click.option("--eval", "evaluate", help="Measure the task metric: .npz, folder with labels.txt, or module:function.")
@click.option("--min-cosine", type=float, help="Exit 3 if the lowest output cosine is below this.")
@click.option("--max-drop", type=float, help="Exit 3 if the metric falls by more than this.")
@click.option("--report", "report_folder", type=click.Path(path_type=Path), help="Write manifest and tables there.")
@click.option("--explain", is_flag=True, help="Say which layers cause the error, why, and what to edit.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@_with_unused_flags
def convert(**flags: Any) -> None:
    """Quantize a model as a configuration says."""
    if flags["fmk"] != "ONNX":
        message = f"'{flags['fmk']}' is not supported, only ONNX; export the model to ONNX first"
        raise ConfigError([Problem(key="fmk", message=message)])
    _check_gates(flags["min_cosine"], flags["max_drop"], metric=flags["evaluate"] is not None)
    for flag in UNUSED_FLAGS:
        if flags[flag] is not None:
            click.echo(f"note: --{flag} has no meaning for an ONNX model and was not used", err=True)
    folder = flags["report_folder"]
    if folder is not None:
        _check_folder(folder)
    config = _configured(flags["config_file"], _overrides(flags["settings"]))
    before = Stamp.of(flags["output_file"])
    try:
        result = _run(flags, config)
    except KeyboardInterrupt:
        if before.is_old():
            message = f"{before.path} was already written, its report was not"
            raise click.Abort(message) from None
        raise
    failed = failed_gates(result, flags["min_cosine"], flags["max_drop"])
    click.echo(
        _json(result, failed) if flags["as_json"] else render_text(result.report, written_to=str(result.model_path))
    )
    for gate in failed:
        click.echo(f"gate failed: {gate}", err=True)
    if interrupted := result.report.summary.interrupted:
        raise click.Abort(f"{interrupted}, and the best so far is in {result.model_path}")
    if failed:
        raise click.exceptions.Exit(GATE_FAILED)


def _run(flags: dict[str, Any], config: QuantConfig) -> QuantResult:
    """Quantize, and write what was asked for."""
    with shown_progress() as progress:
        result = quantize(
            flags["model_file"],
            config,
            flags["output_file"],
            samples=flags["samples"],
            evaluate=flags["evaluate"],
            progress=progress,
            input_shape=flags["input_shape"],
            input_data_format=flags["layout"],
            optimize=flags["optimize"],
            fp16=flags["fp16"] == "on",
            explain=flags["explain"],
        )
    if flags["report_folder"] is not None:
        result.save(flags["report_folder"])
    return result


def failed_gates(result: QuantResult, min_cosine: float | None, max_drop: float | None) -> list[str]:
    """Return one sentence per gate that the result does not pass; a value that is not a number never passes."""
    summary, failed = result.report.summary, []
    if min_cosine is not None and not summary.cosine_min >= min_cosine:
        failed.append(f"lowest output cosine {summary.cosine_min:.6f} is below {min_cosine}")
    drop = summary.metric_drop
    if max_drop is not None and drop is not None and not drop <= max_drop:
        failed.append(f"{summary.metric} fell by {drop:.4f}, more than {max_drop}")
    return failed


def _check_folder(folder: Path) -> None:
    """Refuse a folder that is a file or lies below one, before any work."""
    there = next((place for place in (folder, *folder.absolute().parents) if place.exists()), folder)
    if there.exists() and not there.is_dir():
        where = "is a file" if there == folder else f"{there} is a file"
        raise OutputError(f"{folder}: {where}, and --report wants a folder", path=folder)
    if not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"{folder}: nothing can be written into {there}", path=folder)


def _check_gates(min_cosine: float | None, max_drop: float | None, *, metric: bool) -> None:
    """Refuse gates that every result passes, or none."""
    if min_cosine is not None and not 0 <= min_cosine <= 1:
        raise ConfigError([Problem(key="min-cosine", message=f"{min_cosine:g} is outside 0..1")])
    if max_drop is not None and not (max_drop >= 0 and math.isfinite(max_drop)):
        raise ConfigError([Problem(key="max-drop", message=f"{max_drop:g} is not a number of 0 or more")])
    if max_drop is not None and not metric:
        raise ConfigError([Problem(key="max-drop", message="needs a metric to watch", hint="add --eval")])


def _configured(path: str | None, overrides: dict[str, str]) -> QuantConfig:
    """Load a file and change single options, or take those options alone."""
    if path is not None:
        return load_config(Path(path), overrides=overrides)
    if not overrides:
        hint = "write one with: ptq-lab template weight > c.cfg, and add --configFile=c.cfg"
        raise ConfigError([Problem(key="configFile", message="no configuration given", hint=hint)])
    sections: dict[str, dict[str, object]] = {}
    for name, value in overrides.items():
        section, key = split_option(name)
        sections.setdefault(section, {})[key] = value
    return load_config(sections)


def _overrides(settings: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for setting in settings:
        # A key of [ptq_lab.layer_bits] is a name, which may hold a "="; the width behind it never does.
        of_layer = setting.lstrip().startswith("ptq_lab.layer_bits.")
        name, equals, value = setting.rpartition("=") if of_layer else setting.partition("=")
        if not equals or "." not in name:
            message = f"'{setting}' is not of the form section.key=value"
            raise ConfigError([Problem(key="set", message=message, hint="e.g. common_quant_param.bit_num=4")])
        pairs[name.strip()] = value.strip()
    return pairs


def _json(result: QuantResult, failed: list[str]) -> str:
    record = {**result.report.to_dict(), "model_path": str(result.model_path), "gates_failed": failed}
    return json.dumps(record, indent=2)
