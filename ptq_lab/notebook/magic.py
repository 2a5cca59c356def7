"""``%%quantize``: one cell of configuration becomes one call of the headless core.

An adapter: it reads the first line, resolves names of the user's variables, calls the pipeline and shows
what comes back. The body of the cell goes to the core untouched.
"""

# mypy: disallow-untyped-calls=False, disallow-untyped-decorators=False
# (IPython's decorators carry no types.)

from __future__ import annotations

from argparse import Namespace
from typing import Any

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, cell_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments

from ptq_lab import pipeline
from ptq_lab.checking import check
from ptq_lab.errors import ConfigError
from ptq_lab.explorer import explore
from ptq_lab.flags import OPTIMIZE
from ptq_lab.notebook import display
from ptq_lab.notebook.first_line import USAGE, model_of, read_line, value_of
from ptq_lab.notebook.live_magics import show_explorer
from ptq_lab.notebook.replaced import files_there
from ptq_lab.notebook.running import running
from ptq_lab.notebook.settings import PTQLab
from ptq_lab.notebook.show_code import code_of


@magics_class
class QuantizeMagics(Magics):
    """The cell magic of ptq_lab."""

    def __init__(self, shell: InteractiveShell, settings: PTQLab | None = None) -> None:
        super().__init__(shell)
        self.settings = settings or PTQLab()

    @magic_arguments()
    @argument("model", nargs="?", help="An .onnx file, or a variable that holds a model or a path.")
    @argument("-o", "--output", metavar="OUT", help="Where to write the quantized model.")
    @argument("-r", "--result", metavar="NAME", help="The variable that gets the result (with --dry-run the plan).")
    @argument("--samples", metavar="X", help="Calibration samples: a folder, an .npz, or a variable.")
    @argument("--eval", dest="evaluate", metavar="X", help="Labelled data, module:function, or a variable.")
    @argument("--fp16", choices=("on", "off"), default="off", help="Store what stays float as float16.")
    @argument("--inputShape", dest="input_shape", metavar="S", help="Fixes dynamic inputs, e.g. x:1,3,224,224.")
    @argument("--inputDataFormat", dest="input_data_format", choices=("NHWC", "NCHW"), help="Layout of the inputs.")
    @argument("--optimize", metavar="X", help=f"As the converter's flag of this name: {', '.join(OPTIMIZE)}.")
    @argument("--check", action="store_true", help="Only check the configuration.")
    @argument("--dry-run", dest="dry_run", action="store_true", help="Only show the plan; write nothing.")
    @argument("--explain", action="store_true", help="Say which layers cause the error, why, and what to edit.")
    @argument("--show-code", dest="show_code", action="store_true", help="Print Python and a command that do this.")
    @argument("--interact", action="store_true", help="Measure each layer, then choose its bits with sliders.")
    @argument("--quiet", action="store_true", help="Show nothing; the result still goes to NAME.")
    @argument("-h", "--help", action="store_true", help="Show this text.")
    @cell_magic
    def quantize(self, line: str, cell: str) -> None:
        """Quantize an ONNX model as the INI text in this cell says.

        The report is shown once. With ``-r NAME`` the result is in ``NAME``, and always in ``_``.
        ``{name}`` and ``$name`` on the first line are replaced by the value of the variable.
        ``%config PTQLab`` lists what can be set for all cells.
        """
        options = read_line(QuantizeMagics.quantize, line, self.ipython.user_ns)
        if options.help:
            print(QuantizeMagics.quantize.parser.format_help())
            return
        if options.model is None and not options.check:
            raise UsageError(f"%%quantize: no model given; usage: {USAGE}")
        if options.show_code:
            display.show(display.code_bundle(code_of(options, cell, self.ipython.user_ns)))
        if options.check:
            self._check(options, cell)
            return
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

    def _check(self, options: Namespace, cell: str) -> None:
        problems = check(cell, self._model(options) if options.model else None)
        if any(problem.level == "error" for problem in problems):
            raise ConfigError(problems)
        if options.quiet:
            return
        if problems:
            display.show(display.problems_bundle(problems))
        else:
            print("no problems")

    def _preview(self, options: Namespace, cell: str) -> Any:
        model = self._model(options)
        plan = pipeline.preview(model, cell)
        if not options.quiet:
            display.show_plan(plan, check(cell, model))
        return plan

    def _interact(self, options: Namespace, cell: str) -> Any:
        with running(self.ipython, 0 if options.quiet else self.settings.verbosity) as progress:
            explorer = explore(
                self._model(options),
                None if options.samples is None else value_of(options.samples, self.ipython.user_ns),
                cell,
                progress=progress,
                input_shape=options.input_shape,
                input_data_format=options.input_data_format,
            )
        if not options.quiet:
            show_explorer(explorer)
        return explorer

    def _run(self, options: Namespace, cell: str) -> Any:
        model, names = self._model(options), self.ipython.user_ns
        verbosity = 0 if options.quiet else self.settings.verbosity
        there = files_there(options.output, names)
        with running(self.ipython, verbosity, options.output) as progress:
            result = pipeline.quantize(
                model,
                cell,
                options.output,
                samples=None if options.samples is None else value_of(options.samples, names),
                evaluate=None if options.evaluate is None else value_of(options.evaluate, names),
                progress=progress,
                input_shape=options.input_shape,
                input_data_format=options.input_data_format,
                optimize=options.optimize,
                fp16=options.fp16 == "on",
                explain=options.explain,
            )
        if not options.quiet:
            how = self.settings
            replaced = there.get(result.model_path, "")
            display.show_result(
                result,
                temporary=options.output is None,
                replaced=replaced,
                level=how.report,
                max_rows=how.max_rows,
            )
        return result

    def _model(self, options: Namespace) -> Any:
        return model_of(options.model, self.ipython.user_ns)
