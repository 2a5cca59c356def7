"""``%quantize_form`` and ``%quantize_explore``: the live parts, by name of a model or a variable."""

# mypy: disallow-untyped-calls=False, disallow-untyped-decorators=False
# (IPython's decorators carry no types.)

from __future__ import annotations

import shlex
from argparse import Namespace
from pathlib import Path
from typing import Any

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring

from ptq_lab.config import TEMPLATES, template
from ptq_lab.explorer import MixedBitExplorer, explore
from ptq_lab.notebook.first_line import bare, model_of, require_values, value_of
from ptq_lab.notebook.running import running
from ptq_lab.notebook.settings import PTQLab

FORM_USAGE = "%quantize_form [MODEL] [--template KIND | --config X] [--samples X] [--eval X] [-o OUT] [-r NAME]"
EXPLORE_USAGE = "%quantize_explore MODEL [--samples X] [--config X] [-r NAME]"


@magics_class
class LiveMagics(Magics):
    """The line magics that open a live part."""

    def __init__(self, shell: InteractiveShell, settings: PTQLab | None = None) -> None:
        super().__init__(shell)
        self.settings = settings or PTQLab()

    @magic_arguments()
    @argument("model", nargs="?", help="An .onnx file, or a variable that holds a model or a path.")
    @argument("--template", choices=TEMPLATES, help="The configuration to start with.")
    @argument("--config", metavar="X", help="A file or variable with the configuration to start with.")
    @argument("--samples", metavar="X", help="Calibration samples: a folder, an .npz, or a variable.")
    @argument("--eval", dest="evaluate", metavar="X", help="Labelled data, module:function, or a variable.")
    @argument("-o", "--output", metavar="OUT", help="Where a run writes the quantized model.")
    @argument("-r", "--result", metavar="NAME", help="The variable that gets the editor.")
    @line_magic
    def quantize_form(self, line: str) -> None:
        """Edit a configuration as a form and as text, side by side, and run it.

        The editor is in ``NAME`` and in ``_``; ``.text`` is the configuration, ``.result`` the last result.
        """
        from ptq_lab.notebook.widgets.editor import START, ConfigEditor

        options = self._parse(LiveMagics.quantize_form, line, FORM_USAGE)
        if options.template and options.config:
            raise UsageError(f"%quantize_form: --template and --config are two beginnings; usage: {FORM_USAGE}")
        text = template(options.template) if options.template else START
        text = _text_of(self._resolve(options.config)) if options.config else text
        editor = ConfigEditor(
            text,
            None if options.model is None else model_of(options.model, self.ipython.user_ns),
            samples=self._resolve(options.samples),
            evaluate=self._resolve(options.evaluate),
            output=options.output,
            first_line=_cell_line(options),
        )
        self._keep(options, editor)
        editor.show()

    @magic_arguments()
    @argument("model", nargs="?", help="An .onnx file, or a variable that holds a model, a path or an explorer.")
    @argument("--samples", metavar="X", help="Samples to measure on: a folder, an .npz, or a variable.")
    @argument("--config", metavar="X", help="A file or variable: which weights are meant, how samples are read.")
    @argument("-r", "--result", metavar="NAME", help="The variable that gets the explorer.")
    @line_magic
    def quantize_explore(self, line: str) -> None:
        """Choose the bits of every layer with sliders or by a budget, and see at once what to expect.

        The explorer is in ``NAME`` and in ``_``: ``.to_config()``, ``.quantize("q.onnx")``, ``.fit(...)`` go on from
        what the sliders say.
        """
        options = self._parse(LiveMagics.quantize_explore, line, EXPLORE_USAGE)
        if options.model is None:
            raise UsageError(f"%quantize_explore: no model given; usage: {EXPLORE_USAGE}")
        explorer = value_of(options.model, self.ipython.user_ns)
        if not isinstance(explorer, MixedBitExplorer):
            model = model_of(options.model, self.ipython.user_ns)
            config, samples = self._resolve(options.config), self._resolve(options.samples)
            with running(self.ipython, self.settings.verbosity) as progress:
                explorer = explore(model, samples, config, progress=progress)
        self._keep(options, explorer)
        show_explorer(explorer)

    @property
    def ipython(self) -> InteractiveShell:
        """The shell that runs the cell; magics are never called without one."""
        assert self.shell is not None
        return self.shell

    def _parse(self, magic: Any, line: str, usage: str) -> Namespace:
        name = f"%{magic.__name__}"
        require_values(line, self.ipython.user_ns)
        try:
            options: Namespace = parse_argstring(magic, line)
        except (UsageError, ValueError) as fault:  # ValueError: a quote that is not closed
            raise UsageError(f"{name}: {fault}; usage: {usage}") from None
        vars(options).update({key: bare(value) for key, value in vars(options).items() if isinstance(value, str)})
        if options.result and not options.result.isidentifier():
            raise UsageError(f"{name} -r {options.result}: not the name of a variable; usage: {usage}")
        return options

    def _keep(self, options: Namespace, value: Any) -> None:
        if options.result:
            self.ipython.user_ns[options.result] = value
        self.ipython.displayhook.update_user_ns(value)

    def _resolve(self, name: str | None) -> Any:
        return None if name is None else value_of(name, self.ipython.user_ns)


def show_explorer(explorer: MixedBitExplorer) -> None:
    """Publish what the user should know about an explorer, then its live part."""
    for note in explorer.notes:
        print(f"note: {note}")
    explorer.widget().show()


def _text_of(config: Any) -> str:
    """Return a configuration as text: a file is read, text is taken as it is."""
    text = str(config)
    if "\n" in text or text.lstrip().startswith("["):
        return text
    try:
        return Path(text).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise UsageError(f"%quantize_form --config {text}: neither a file nor a variable with text ({fault})") from None


def _cell_line(options: Namespace) -> str:
    """Return the ``%%quantize`` line that does what the editor's button does; empty without a model."""
    if options.model is None:
        return ""
    parts = {"-o": options.output, "--samples": options.samples, "--eval": options.evaluate}
    given = " ".join(f"{flag} {shlex.quote(value)}" for flag, value in parts.items() if value)
    return f"%%quantize {shlex.quote(options.model)} {given}".rstrip()
