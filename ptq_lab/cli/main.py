"""Entry point: runs a command and turns what went wrong into one message and an exit code."""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback

import click

from ptq_lab import __version__
from ptq_lab.cli.compare import compare, report
from ptq_lab.cli.configs import check, schema, template
from ptq_lab.cli.containers import pack, unpack
from ptq_lab.cli.convert import convert
from ptq_lab.cli.demo import demo
from ptq_lab.config.suggest import closest
from ptq_lab.errors import PtqLabError

DONE, FAULT, WRONG_INPUT, GATE_FAILED, INTERRUPTED = 0, 1, 2, 3, 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="ptq-lab")
@click.option("-v", "--verbose", count=True, help="Show the log; twice for every tensor. GLOG_v=1 does the same.")
def cli(verbose: int) -> None:
    """Quantize ONNX models after training."""
    level = max(verbose, _glog_level())
    if level:
        logging.basicConfig(level=logging.INFO if level == 1 else logging.DEBUG, format="%(name)s: %(message)s")


for command in (convert, check, compare, report, template, schema, demo, pack, unpack):
    cli.add_command(command)


def main() -> None:
    """Run ``ptq-lab`` and exit."""
    try:
        code = cli(standalone_mode=False) or DONE  # click returns the code of an Exit raised inside
    except PtqLabError as error:
        code = _say(str(error), WRONG_INPUT)
    except click.ClickException as error:
        _plainer(error).show()
        code = WRONG_INPUT
    except (click.Abort, KeyboardInterrupt) as stop:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C has nothing left to stop
        code = _say(f"interrupted; {str(stop) or 'nothing was written'}", INTERRUPTED)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = DONE
    except Exception as error:  # the last place where a fault of ours can be told from the user's
        if logging.getLogger().isEnabledFor(logging.INFO):
            traceback.print_exc()
        code = _say(f"internal error, please report it: {type(error).__name__}: {error} (-v shows where)", FAULT)
    sys.exit(code)


def _plainer(error: click.ClickException) -> click.ClickException:
    """Return the error; for an unknown flag, with the visible flag that is nearest whatever its case.

    click's own guesses know the hidden flags too, and take another case for another letter.
    """
    if not isinstance(error, click.NoSuchOption) or error.ctx is None:
        return error
    shown = (option for option in error.ctx.command.get_params(error.ctx) if not getattr(option, "hidden", False))
    flags = {name.lstrip("-"): name for option in shown for name in option.opts if name.startswith("--")}
    near = closest(error.option_name.lstrip("-"), flags)
    hint = f"; did you mean {flags[near]}?" if near else ""
    return click.NoSuchOption(error.option_name, f"there is no flag {error.option_name}{hint}", ctx=error.ctx)


def _say(message: str, code: int) -> int:
    click.echo(f"ptq-lab: {message}", err=True)
    return code


def _glog_level() -> int:
    value = os.environ.get("GLOG_v", "")  # noqa: SIM112 - the document spells it so
    return int(value) if value.isdecimal() else 0
