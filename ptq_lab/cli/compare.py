"""`ptq-lab compare` and `ptq-lab report`: what any two models have to do with each other, and a report made anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ptq_lab.cli.progress import shown_progress
from ptq_lab.comparison import compare as compare_models
from ptq_lab.config import load_config
from ptq_lab.errors import OutputError
from ptq_lab.report.tables import Report
from ptq_lab.report.text import render_text

REPORT, PAGE = "report.json", "report.html"


@click.command()
@click.argument("first", metavar="A", type=click.Path(path_type=Path))
@click.argument("second", metavar="B", type=click.Path(path_type=Path))
@click.option("--samples", type=click.Path(path_type=Path), help="Run both models on these: folder, .npz or .npy.")
@click.option("--eval", "evaluate", help="Measure the task metric: .npz, folder with labels.txt, or module:function.")
@click.option("--configFile", "config_file", type=click.Path(path_type=Path), help="INI; how images become inputs.")
@click.option("--inputShape", "input_shape", help="Sizes of dynamic axes: name:1,224,224,3;name2:1,10.")
@click.option("--inputDataFormat", "layout", type=click.Choice(["NHWC", "NCHW"]), help="Layout of .bin samples.")
@click.option("--report", "page", type=click.Path(path_type=Path), help="Write the report there, as one .html file.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def compare(first: Path, second: Path, **flags: Any) -> None:
    """Compare model B with model A, whichever tool wrote them."""
    page = flags["page"]
    if page is not None and (page.is_dir() or not page.absolute().parent.is_dir()):
        raise OutputError(f"{page}: --report wants the name of a file in a folder that exists", path=page)
    config = load_config(flags["config_file"]) if flags["config_file"] is not None else None
    with shown_progress() as progress:
        report = compare_models(
            first,
            second,
            samples=flags["samples"],
            evaluate=flags["evaluate"],
            config=config,
            progress=progress,
            input_shape=flags["input_shape"],
            input_data_format=flags["layout"],
        )
    if page is not None:
        report.to_html(page)
    click.echo(report.to_json() if flags["as_json"] else render_text(report))


@click.command()
@click.argument("folder", metavar="RUNDIR", type=click.Path(path_type=Path))
def report(folder: Path) -> None:
    """Write report.html of a run anew, from the report.json in its folder."""
    stored = folder / REPORT
    if not folder.is_dir():
        raise OutputError(f"{folder}: no such folder; debug_info_save_path or convert --report make one", path=folder)
    if not stored.is_file():
        raise OutputError(
            f"{folder}: has no {REPORT}; folders of runs with debug_info_save_path or convert --report have one",
            path=folder,
        )
    click.echo(f"written to {Report.from_json(stored).to_html(folder / PAGE)}")
