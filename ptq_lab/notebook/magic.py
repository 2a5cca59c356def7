"""``%%quantize``: one cell of configuration becomes one call of the headless core.

An adapter: it reads the first line, resolves names of the user's variables, calls the pipeline and shows
what comes back. The body of the cell goes to the core untouched.
"""

# mypy: disallow-untyped-calls=False, disallow-untyped-decorators=False
# (IPython's decorators carry no types.)

from __future__ import annotations

import keyword
import re
from argparse import Namespace
from functools import reduce
from pathlib import Path
from typing import Any

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, cell_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring
from IPython.utils.text import DollarFormatter

from ptq_lab import pipeline
from ptq_lab.checking import check
from ptq_lab.config import check_config
from ptq_lab.errors import ConfigError
from ptq_lab.notebook import display
from ptq_lab.notebook.live_magics import measured, show_explorer
from ptq_lab.notebook.progress import ProgressBar, progress_line
from ptq_lab.progress import silent

USAGE = (
    "%%quantize MODEL [-o OUT] [-r NAME] [--samples X] [--eval X] [--fp16 on|off] [--inputShape S] "
    "[--inputDataFormat NHWC|NCHW] [--optimize X] [--check] [--dry-run] [--interact] [--quiet]   (%%quantize? explains)"
)


@magics_class
class QuantizeMagics(Magics):
    """The cell magic of ptq_lab."""

    @magic_arguments()
    @argument("model", nargs="?", help="An .onnx file, or a variable that holds a model or a path.")
    @argument("-o", "--output", metavar="OUT", help="Where to write the quantized model.")
    @argument("-r", "--result", metavar="NAME", help="The variable that gets the result (with --dry-run the plan).")
    @argument("--samples", metavar="X", help="Calibration samples: a folder, an .npz, or a variable.")
    @argument("--eval", dest="evaluate", metavar="X", help="Labelled data, module:function, or a variable.")
    @argument("--fp16", choices=("on", "off"), default="off", help="Store what stays float as float16.")
    @argument("--inputShape", dest="input_shape", metavar="S", help="Fixes dynamic inputs, e.g. x:1,3,224,224.")
    @argument("--inputDataFormat", dest="input_data_format", choices=("NHWC", "NCHW"), help="Layout of the inputs.")
    @argument("--optimize", metavar="X", help="As the converter's flag of this name.")
    @argument("--check", action="store_true", help="Only check the configuration.")
    @argument("--dry-run", dest="dry_run", action="store_true", help="Only show the plan; write nothing.")
    @argument("--interact", action="store_true", help="Measure each layer, then choose its bits with sliders.")
    @argument("--quiet", action="store_true", help="Show nothing; the result still goes to NAME.")
    @argument("-h", "--help", action="store_true", help="Show this text.")
    @cell_magic
    def quantize(self, line: str, cell: str) -> None:
        """Quantize an ONNX model as the INI text in this cell says.

        The report is shown once. With ``-r NAME`` the result is in ``NAME``, and always in ``_``.
        ``{name}`` and ``$name`` on the first line are replaced by the value of the variable.
        """
        options = self._parse(line)
        if options.help:
            print(QuantizeMagics.quantize.parser.format_help())
            return
        if options.check:
            self._check(options, cell)
            return
        if options.model is None:
            raise UsageError(f"%%quantize: no model given; usage: {USAGE}")
        way = self._interact if options.interact else self._preview if options.dry_run else self._run
        value = way(options, cell)
        if options.result:
            self.ipython.user_ns[options.result] = value
        self.ipython.displayhook.update_user_ns(value)

    @property
    def ipython(self) -> InteractiveShell:
        """The shell that runs the cell; magics are never called without one."""
        assert self.shell is not None
        return self.shell

    def _parse(self, line: str) -> Namespace:
        try:
            options: Namespace = parse_argstring(QuantizeMagics.quantize, line)
        except (UsageError, ValueError) as fault:  # ValueError: a quote that is not closed
            raise UsageError(f"%%quantize: {fault}; usage: {USAGE}") from None
        written = {name: _bare(value) for name, value in vars(options).items() if isinstance(value, str)}
        self._require_values(list(written.values()))
        vars(options).update(written)
        if options.result and (not options.result.isidentifier() or keyword.iskeyword(options.result)):
            raise UsageError(f"%%quantize -r {options.result}: not the name of a variable; usage: {USAGE}")
        if options.interact and (options.check or options.dry_run or options.output):
            raise UsageError(f"%%quantize --interact: writes nothing, its explorer does later; usage: {USAGE}")
        if options.check and (options.dry_run or options.result):
            raise UsageError(f"%%quantize --check: gives no plan and no result; usage: {USAGE}")
        return options

    def _require_values(self, values: list[str]) -> None:
        """Refuse ``{name}``: IPython replaces all names of the line or, if one of them has no value, none."""
        braces = [value for value in values if "{" in value and "}" in value]
        for name in re.findall(r"\{[^{}]*\}", " ".join(braces)):
            try:
                DollarFormatter().vformat(name, (), self.ipython.user_ns)
            except Exception:  # whatever the expression in the braces raises
                raise UsageError(f"%%quantize: {name} has no value; is it defined, and spelled like this?") from None
        if braces:
            raise UsageError(f"%%quantize: {braces[0]} cannot be replaced by a value; check the braces of this line")

    def _check(self, options: Namespace, cell: str) -> None:
        problems = check(cell, self._resolve(options.model) if options.model else None)
        if any(problem.level == "error" for problem in problems):
            raise ConfigError(problems)
        if options.quiet:
            return
        if problems:
            display.show(display.problems_bundle(problems))
        else:
            print("no problems")

    def _preview(self, options: Namespace, cell: str) -> Any:
        plan = pipeline.preview(self._resolve(options.model), cell)
        if not options.quiet:
            display.show_plan(plan, check_config(cell))
        return plan

    def _interact(self, options: Namespace, cell: str) -> Any:
        explorer = measured(
            self.ipython,
            self._resolve(options.model),
            cell,
            samples=self._resolve(options.samples),
            input_shape=options.input_shape,
            input_data_format=options.input_data_format,
        )
        if not options.quiet:
            show_explorer(explorer)
        return explorer

    def _run(self, options: Namespace, cell: str) -> Any:
        with ProgressBar(progress_line(self.ipython)) as bar:
            result = pipeline.quantize(
                self._resolve(options.model),
                cell,
                options.output,
                samples=self._resolve(options.samples),
                evaluate=self._resolve(options.evaluate),
                progress=silent if options.quiet else bar,
                input_shape=options.input_shape,
                input_data_format=options.input_data_format,
                optimize=options.optimize,
                fp16=options.fp16 == "on",
            )
        if not options.quiet:
            display.show_result(result, temporary=options.output is None)
        return result

    def _resolve(self, name: str | None) -> Any:
        """Return what the user's ``name`` or ``name.attribute`` holds; a file of this name wins."""
        if name is None or _is_there(name):
            return name
        head, *attributes = name.split(".")
        value = self.ipython.user_ns.get(head, name)
        try:
            return reduce(getattr, attributes, value) if value is not name else name
        except AttributeError:
            return name  # model.onnx, misspelt, beside a variable called model


def _bare(value: str) -> str:
    """Return a value without the quotes around it."""
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value


def _is_there(name: str) -> bool:
    try:
        return Path(name).exists()
    except OSError:  # far too long for a file name: the text of a variable
        return False
