"""`check`, `template` and `schema`: everything that needs a configuration and no run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import click

from ptq_lab.checking import check as check_everything
from ptq_lab.config import TEMPLATES
from ptq_lab.config import schema as config_schema
from ptq_lab.config import template as config_template
from ptq_lab.errors import Problem

WRONG_INPUT = 2


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--modelFile", "model_file", help="Check what the configuration says about this model's nodes, too.")
def check(config: Path, model_file: str | None) -> None:
    """List everything that is wrong with a configuration; exit 0 when nothing is."""
    problems = check_everything(config, model_file)
    _print(config, problems)
    if any(problem.level == "error" for problem in problems):
        raise click.exceptions.Exit(WRONG_INPUT)


@click.command()
@click.argument("kind", type=click.Choice(sorted(TEMPLATES)))
def template(kind: str) -> None:
    """Print a commented configuration to start from."""
    click.echo(config_template(kind), nl=False)


@click.command()
def schema() -> None:
    """Print every option as JSON Schema."""
    click.echo(json.dumps(config_schema(), indent=2))


def _print(config: Path, problems: Iterable[Problem]) -> None:
    problems = list(problems)
    for problem in problems:
        level = "" if problem.level == "error" else f" ({problem.level})"
        click.echo(f"{config}: {problem}{level}")
    if not problems:
        click.echo(f"{config}: no problems")
