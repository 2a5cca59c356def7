"""``%quantize_compare`` and ``%quantize_doctor``: looking at finished runs, and at the workbench itself."""

# mypy: disallow-untyped-calls=False, disallow-untyped-decorators=False
# (IPython's decorators carry no types.)

from __future__ import annotations

from argparse import Namespace
from typing import Any

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring

from ptq_lab.config.suggest import closest
from ptq_lab.figures.tables import facts_html
from ptq_lab.notebook import display
from ptq_lab.notebook.doctor import examination_text, examine
from ptq_lab.notebook.first_line import value_of
from ptq_lab.notebook.running import running
from ptq_lab.notebook.settings import PTQLab
from ptq_lab.result import QuantResult
from ptq_lab.runs import side_by_side


@magics_class
class WorkbenchMagics(Magics):
    """The line magics about runs and about the workbench."""

    def __init__(self, shell: InteractiveShell, settings: PTQLab | None = None) -> None:
        super().__init__(shell)
        self.settings = settings or PTQLab()

    @magic_arguments()
    @argument("runs", nargs="*", help="Two or more variables that hold results of %%%%quantize -r NAME.")
    @argument("-r", "--result", metavar="NAME", help="The variable that gets the comparison.")
    @line_magic
    def quantize_compare(self, line: str) -> None:
        """Show finished runs side by side: settings that differ, sizes, metrics, errors, answers that changed."""
        options = self._parse("quantize_compare", line)
        if len(options.runs) < 2:
            known = ", ".join(_results(self.ipython.user_ns)) or "none so far; %%quantize -r NAME makes one"
            raise UsageError(f"%quantize_compare: two or more results wanted, e.g. a b; here: {known} (-r names a run)")
        if options.result and not options.result.isidentifier():
            raise UsageError(f"%quantize_compare -r {options.result}: not the name of a variable")
        named = {name: self._result(name) for name in options.runs}
        with running(self.ipython, self.settings.verbosity) as progress:
            seen = side_by_side(named, progress=progress)
        display.show(display.side_by_side_bundle(seen))
        if options.result:
            self.ipython.user_ns[options.result] = seen

    @magic_arguments()
    @argument("-v", "--verbose", action="store_true", help="Also packages of the kernel, folders, environment.")
    @line_magic
    def quantize_doctor(self, line: str) -> None:
        """Show versions, what is loaded, the front end as far as known, and what was displayed last."""
        options = self._parse("quantize_doctor", line)
        findings = examine(self.ipython, self.settings, verbose=options.verbose)
        text = examination_text(findings)
        rows = [(each.label, f"{'' if each.ok else '! '}{each.text}") for each in findings]
        missing = sum(not each.ok for each in findings)
        verdict = f"{missing} of {len(rows)} need attention (!)" if missing else "everything is in place"
        display.publish({"text/plain": f"{text}\n{verdict}", "text/html": facts_html("ptq_lab", verdict, rows)})

    @property
    def ipython(self) -> InteractiveShell:
        """The shell that runs the line; magics are never called without one."""
        assert self.shell is not None
        return self.shell

    def _parse(self, name: str, line: str) -> Namespace:
        try:
            options: Namespace = parse_argstring(getattr(WorkbenchMagics, name), line)
        except (UsageError, ValueError) as fault:  # ValueError: a quote that is not closed
            raise UsageError(f"%{name}: {fault}; %{name}? explains") from None
        return options

    def _result(self, name: str) -> QuantResult:
        value = value_of(name, self.ipython.user_ns)
        if isinstance(value, QuantResult):
            return value
        known = _results(self.ipython.user_ns)
        if value is name:
            near = closest(name, known)
            hint = f"; did you mean {near}?" if near else f"; there are: {', '.join(known) or 'none so far'}"
            raise UsageError(f"%quantize_compare: there is no variable {name}{hint}")
        raise UsageError(f"%quantize_compare: {name} is {type(value).__name__}, and a result of %%quantize is wanted")


def _results(names: dict[str, Any]) -> list[str]:
    return [name for name, value in names.items() if isinstance(value, QuantResult) and not name.startswith("_")]
