"""The configuration editor as a live part: a form and INI text that always say the same, and a button that runs it."""

# mypy: disallow-untyped-calls=False
# (IPython's and ipywidgets' functions carry no types.)

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any
from uuid import uuid4

import traitlets
from anywidget import AnyWidget
from comm import create_comm
from IPython.display import publish_display_data, update_display

from ptq_lab.checking import check
from ptq_lab.config.form import form, obstacles, written
from ptq_lab.config.rewrite import rewrite
from ptq_lab.errors import ConfigError, ModelError, Problem, PtqLabError
from ptq_lab.figures.tables import layers_html, report_html, sizes_html
from ptq_lab.graph import Model, load_model
from ptq_lab.notebook.widgets.parts import Stays, script, show_live, styles
from ptq_lab.pipeline import quantize
from ptq_lab.progress import Step
from ptq_lab.report.text import render_text
from ptq_lab.result import QuantResult

AGAIN = "Run the cell again to edit this configuration as a form."
START = "[common_quant_param]\nquant_type=WEIGHT_QUANT\nbit_num=8\n"
CELL = "ptq_lab.cell"  # the comm target that puts a text into a new cell

_INTERVAL = 0.15  # seconds between two words on progress
_TEXT_LAYERS = 40
_LONGEST = 200_000  # characters that a page may send; a configuration has a few thousand
_log = logging.getLogger(__name__)

Json = dict[str, Any]


class ConfigEditor(AnyWidget):
    r"""A form for a configuration beside its text; whichever is edited, the other follows.

    The form is made from the option declarations. An option that would not count says what it needs. Problems are
    those of ``ptq-lab check``, found again after each change.

    Parameters
    ----------
    text : str, optional
        INI text to start with.
    model : path, onnx.ModelProto or Model, optional
        What :meth:`run` quantizes; a path can be changed in the form.
    samples, evaluate, output
        As for :func:`ptq_lab.quantize`.
    first_line : str, optional
        The ``%%quantize`` line above the text when it is copied into a cell; made from the model if it is a path.

    Attributes
    ----------
    text : str
        The configuration as it is now; may be set.
    problems : tuple of Problem
        What is to be said about it.
    result : QuantResult or None
        Of the last run.

    Examples
    --------
    >>> editor = ConfigEditor("[common_quant_param]\nquant_type=WEIGHT_QUANT\n")
    >>> editor.answer({"do": "put", "section": "common_quant_param", "key": "bit_num", "value": "20"})
    >>> print(editor.text, editor.problems[0], sep="")
    [common_quant_param]
    quant_type=WEIGHT_QUANT
    bit_num=20
    line 3: [common_quant_param] bit_num: 20 is outside 0..16
    """

    _esm = script("editor")
    _css = styles("editor")

    form: traitlets.List[Any] = traitlets.List().tag(sync=True)
    text = traitlets.Unicode().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)
    said = traitlets.Dict().tag(sync=True)
    model_path = traitlets.Unicode(allow_none=True).tag(sync=True)
    model_name = traitlets.Unicode().tag(sync=True)
    first_line = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        text: str = START,
        model: Any = None,
        *,
        samples: Any = None,
        evaluate: Any = None,
        output: str | os.PathLike[str] | None = None,
        first_line: str = "",
    ) -> None:
        is_path = model is None or isinstance(model, str | os.PathLike)
        self.result: QuantResult | None = None
        self.problems: tuple[Problem, ...] = ()
        self._model = None if is_path else model
        self._samples, self._evaluate, self._output = samples, evaluate, output
        self._seq: object = None
        self._loaded: tuple[object, Model | None] = (None, None)
        self._report = f"ptq_lab-{uuid4().hex}"
        self._published = False
        self._stays: Stays | None = None
        super().__init__(form=form())
        self._given_line = first_line
        self.model_path = os.fspath(model) if is_path and model is not None else "" if is_path else None
        self.model_name = "" if is_path else _name_of(model)
        self.text = text
        self._look()
        self.observe(lambda _: self._look(), names=["text", "model_path"])
        self.on_msg(lambda _, content, __: self.answer(content))

    def answer(self, message: Mapping[str, Any]) -> None:
        """Do what a page asks for; what goes wrong is told there in one line.

        Parameters
        ----------
        message : mapping
            ``do`` names the act, ``seq`` comes back in :attr:`state`; the rest belongs to the act.
        """
        self._seq = message.get("seq")
        act = ACTS.get(str(message.get("do")))
        try:
            said = act(self, message) if act else f"there is nothing called {message.get('do')!r} to do"
            self.said = said if isinstance(said, dict) else {"text": said or "", "bad": act is None}
        except KeyboardInterrupt:
            self.said = {"text": "stopped; nothing was written", "bad": True}
        except PtqLabError as fault:
            self.said = {"text": _line(fault), "bad": True}
        except Exception as fault:
            _log.exception("the editor could not answer %s", message.get("do"))
            self.said = {"text": f"{type(fault).__name__}: {_line(fault)}", "bad": True}
        if self.state.get("seq") != self._seq:
            self.state = {**self.state, "seq": self._seq}

    def run(self) -> QuantResult:
        """Quantize the model with the text as it is, and show the report below the part.

        Raises
        ------
        ConfigError, ModelError, SampleError, InferenceError, OutputError
        """
        model = self._model if self._model is not None else (self.model_path or "").strip()
        if isinstance(model, str) and not model:
            raise ModelError("no model is named; write the path of an .onnx file into the field for the model")
        if faults := [problem for problem in self.problems if problem.level == "error"]:
            raise ConfigError(faults)
        last = 0.0

        def tell(step: Step) -> None:
            nonlocal last
            if time.monotonic() - last > _INTERVAL:
                last = time.monotonic()
                count = f" {step.done} of {step.total}" if step.total else ""
                self.said = {"text": f"{step.stage}{count}; interrupting the kernel stops it", "busy": True}

        self.result = quantize(
            model, self.text, self._output, samples=self._samples, evaluate=self._evaluate, progress=tell
        )
        self._show_report(self.result)
        return self.result

    def show(self) -> None:
        """Publish the part, below it what stays without a kernel, and the place of the report."""
        self._stays = show_live(self, **self._twin(), again=AGAIN)
        publish_display_data(self._report_bundle(self.result), transient={"display_id": self._report})
        self._published = True

    def _ipython_display_(self) -> None:
        self.show()

    def _twin(self) -> dict[str, str]:
        text = f"{self.first_line}\n{self.text}"
        remarks = "".join(f"<li>{problem.level}: {escape(str(problem))}</li>" for problem in self.problems)
        said = "\n".join(f"{problem.level}: {problem}" for problem in self.problems)
        return {"html": f"<pre>{escape(text)}</pre><ul>{remarks}</ul>", "text": f"{text}\n{said}"}

    def _look(self) -> None:
        """Find out again what is to be said about the text."""
        try:
            model = self._known_model()
            broken = ""
        except PtqLabError as fault:
            model, broken = None, _line(fault)
        self.problems = check(self.text if "\n" in self.text else f"{self.text}\n", model)
        line = f"%%quantize {_quoted(self.model_path) if self.model_path else 'MODEL'}"
        with self.hold_sync():
            self.first_line = self._given_line or line
            self.state = {
                "seq": self._seq,
                "values": written(self.text),
                "blocked": obstacles(self.text),
                "model": broken,
                "problems": [
                    {
                        "level": problem.level,
                        "line": problem.line,
                        "column": problem.column,
                        "end": problem.end_column,
                        "option": f"{problem.section}.{problem.key}",
                        "text": str(problem),
                    }
                    for problem in self.problems
                ],
            }

    def _known_model(self) -> Model | None:
        """Return the model whose names are checked; it is read again only when its file has changed."""
        source: Any = self._model
        key: object
        if source is not None:
            key = id(source)
        elif self.model_path and Path(self.model_path).is_file():
            source, key = self.model_path, (self.model_path, Path(self.model_path).stat().st_mtime_ns)
        else:
            return None
        if self._loaded[0] != key:
            self._loaded = (key, None)
            self._loaded = (key, load_model(source))
        return self._loaded[1]

    def _show_report(self, result: QuantResult) -> None:
        if self._published:
            update_display(self._report_bundle(result), display_id=self._report, raw=True)

    def _report_bundle(self, result: QuantResult | None) -> dict[str, str]:
        if result is None:
            return {"text/html": "", "text/plain": ""}
        place = str(result.model_path) if self._output else f"{result.model_path} (temporary; .save(folder) keeps it)"
        report = result.report
        html = report_html(report, written_to=place) + layers_html(report) + sizes_html(report)
        text = render_text(report, written_to=place, max_layers=_TEXT_LAYERS)
        return {"text/html": html, "text/plain": text}

    def _write(self, message: Mapping[str, Any]) -> None:
        text = str(message["text"])
        if len(text) > _LONGEST:
            raise ConfigError([Problem(message=f"the text has {len(text)} characters; up to {_LONGEST} are read here")])
        self.text = text

    def _put(self, message: Mapping[str, Any]) -> None:
        value = message.get("value")
        written_value = None if value is None else " ".join(str(value).splitlines())
        self.text = rewrite(self.text, str(message["section"]), str(message["key"]), written_value)

    def _name_model(self, message: Mapping[str, Any]) -> None:
        if self._model is None:
            self._given_line = ""
            self.model_path = str(message["path"]).strip().strip("\"'")

    def _run(self, _: Mapping[str, Any]) -> str:
        self.said = {"text": "starting; interrupting the kernel stops it", "busy": True}
        started = time.monotonic()
        result = self.run()
        return f"done in {time.monotonic() - started:.1f} s: {result.model_path}; the report is below"

    def _to_cell(self, _: Mapping[str, Any]) -> str:
        create_comm(target_name=CELL, data={"text": f"{self.first_line}\n{self.text}"})
        return "sent to a cell"

    def _settle(self, _: Mapping[str, Any]) -> Json:
        """Bring what stays without a kernel up to date."""
        if self._stays is not None:
            self._stays.update(**self._twin())
        return dict(self.said)


ACTS: dict[str, Callable[[ConfigEditor, Mapping[str, Any]], str | Json | None]] = {
    "text": ConfigEditor._write,
    "put": ConfigEditor._put,
    "model": ConfigEditor._name_model,
    "run": ConfigEditor._run,
    "cell": ConfigEditor._to_cell,
    "settle": ConfigEditor._settle,
}


def _line(fault: BaseException) -> str:
    return " · ".join(str(fault).splitlines()) or type(fault).__name__


def _quoted(path: str) -> str:
    return f'"{path}"' if " " in path else path


def _name_of(model: Any) -> str:
    return str(getattr(model, "label", "") or type(model).__name__)
