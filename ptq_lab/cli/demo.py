"""`ptq-lab demo`: an embedded model end to end, in the terminal or as a notebook."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import click

from ptq_lab import demo as demos
from ptq_lab.cli.progress import shown_progress
from ptq_lab.errors import MissingExtra, OutputError
from ptq_lab.evaluation import Metric
from ptq_lab.pipeline import quantize
from ptq_lab.report.text import render_text

WIDTHS = (8, 6, 5, 4, 3, 2)
QUICKSTART = "01_quickstart.ipynb"


@click.command()
@click.argument("name", type=click.Choice(demos.NAMES), default=demos.NAMES[0])
@click.option("--lab", is_flag=True, help="Open the quickstart notebook in JupyterLab instead.")
def demo(name: str, lab: bool) -> None:
    """Quantize an embedded model and show what it cost, at several widths."""
    if lab:
        open_quickstart(Path.cwd())
        return
    chosen = demos.load(name)
    click.echo(f"{chosen.title}\n{chosen.description}\n")
    metric = Metric(name=chosen.metric, function=chosen.evaluate)
    with shown_progress() as progress:
        settings = chosen.config_path.read_text(encoding="utf-8")
        result = quantize(chosen.model_path, settings, samples=chosen.calib_path, evaluate=metric, progress=progress)
    click.echo(render_text(result.report))
    before = result.report.summary.metric_before
    click.echo(f"\nThe same model at other widths ({chosen.metric} of the float model: {before:.4g})")
    click.echo(f"{'bits':>4}  {'bytes':>9}  {'ratio':>6}  {'cosine':>8}  {chosen.metric:>7}")
    for bits in WIDTHS:
        options = {"common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": bits, "min_quant_weight_channel": 0}}
        summary = quantize(chosen.model_path, options, samples=chosen.calib_path, evaluate=metric).report.summary
        click.echo(
            f"{bits:>4}  {summary.bytes_after:>9,}  {summary.compression_ratio:>6.2f}  {summary.cosine_mean:>8.5f}"
            f"  {summary.metric_after:>7.4g}"
        )
    click.echo("\nNext: ptq-lab demo --lab   opens a notebook; ptq-lab template weight   prints a configuration.")


def open_quickstart(folder: Path) -> None:
    """Copy the quickstart notebook into a folder (unless it is there already) and open it in JupyterLab."""
    if find_spec("jupyterlab") is None:
        raise MissingExtra("ptq-lab demo --lab", "lab")
    notebook = folder / QUICKSTART
    if not notebook.exists():
        try:
            shutil.copyfile(_quickstart(), notebook)
        except OSError as error:
            raise OutputError(f"{notebook}: cannot be written ({error.strerror or error})", path=notebook) from error
    subprocess.run([sys.executable, "-m", "jupyterlab", str(notebook)], check=False)


def _quickstart() -> Path:
    """Return the notebook inside the installed package, or in the source tree of an editable install."""
    room = Path(demos.__file__).parent
    installed = room / QUICKSTART
    return installed if installed.exists() else room.parents[1] / "notebooks" / QUICKSTART
