"""`pack` and `unpack`: plain ONNX files to entropy-coded containers and back."""

from __future__ import annotations

from pathlib import Path

import click

from ptq_lab.cli.progress import shown_progress
from ptq_lab.container import Container
from ptq_lab.container import pack as pack_file
from ptq_lab.container import unpack as unpack_file


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("container", type=click.Path(path_type=Path))
def pack(model: Path, container: Path) -> None:
    """Write a quantized MODEL into a CONTAINER (.ptqz), entropy-coded."""
    with shown_progress() as progress:
        written = pack_file(model, container, progress=progress)
    with Container(written) as opened:
        tensors = opened.manifest.tensors
    coded = sum(tensor.codes is not None for tensor in tensors)
    click.echo(f"{_sizes(model, written)}; {coded} weights as codes, {len(tensors) - coded} other tensors compressed")


@click.command()
@click.argument("container", type=click.Path(path_type=Path))
@click.argument("model", type=click.Path(path_type=Path))
def unpack(container: Path, model: Path) -> None:
    """Write the plain ONNX MODEL of a CONTAINER (.ptqz)."""
    written = unpack_file(container, model)
    click.echo(_sizes(container, written))


def _sizes(before: Path, after: Path) -> str:
    return f"{after}: {before.stat().st_size:,} -> {after.stat().st_size:,} bytes"
