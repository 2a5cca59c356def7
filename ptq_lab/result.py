"""What a run gives: the quantized model with everything known about it, and what it came from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptq_lab.calibration import Samples
from ptq_lab.config import QuantConfig
from ptq_lab.errors import MissingExtra, OutputError
from ptq_lab.graph import Model
from ptq_lab.manifest import config_text
from ptq_lab.output import Output
from ptq_lab.plan import QuantPlan
from ptq_lab.progress import Progress, silent
from ptq_lab.report.files import copy_whole, replacing
from ptq_lab.report.findings import Explanation
from ptq_lab.report.tables import Report, Table
from ptq_lab.report.text import brief

if TYPE_CHECKING:
    from ptq_lab.advice import Advice


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What a result came from, so that it can be explained and repeated with another configuration.

    Attributes
    ----------
    original, prepared : Model
        The float model as given, and as the plan speaks of it.
    samples : Samples
    given, evaluate : object
        The samples and the metric as the caller gave them.
    flags : mapping
        The other arguments of :func:`quantize`.
    judged : Samples or None
        The labelled samples behind the metric, if there are any.
    """

    original: Model
    prepared: Model
    samples: Samples
    given: Any
    evaluate: Any
    flags: Mapping[str, Any]
    judged: Samples | None = None


@dataclass(slots=True, eq=False)
class QuantResult:
    """A finished run; all that changes of it later is what its report explains.

    Attributes
    ----------
    config : QuantConfig
    plan : QuantPlan
        With codes and scales.
    model : Model
        The quantized model; of a container, what it decodes to.
    report : Report
    manifest : dict
        Versions, hashes, options and plan, ready for JSON.
    output : Output
        Where the quantized model is.
    run : Run
        What it came from.
    """

    config: QuantConfig
    plan: QuantPlan
    model: Model
    report: Report
    manifest: dict[str, Any]
    output: Output
    run: Run

    def __repr__(self) -> str:
        return f"QuantResult({brief(self.report.summary)})"

    @property
    def model_path(self) -> Path:
        """The quantized model's file; in a temporary folder, gone with this object, if no output was named."""
        return self.output.path

    @property
    def files(self) -> tuple[Path, ...]:
        """The quantized model's file, and those of its external data."""
        return (self.output.path, *(self.output.path.parent / name for name in self.model.data))

    def hold(self, explanation: Explanation) -> None:
        """Make an explanation part of the report."""
        self.report = replace(self.report, explanation=explanation)

    def explain(self, *, progress: Progress = silent) -> Explanation:
        """Say what causes the error; see :func:`ptq_lab.explain`."""
        from ptq_lab.explanation import explain

        return explain(self, progress=progress)

    def advise(self, *, count: int = 4, progress: Progress = silent) -> tuple[Advice, ...]:
        """Try the edits that would help; see :func:`ptq_lab.advise`."""
        from ptq_lab.advice import advise

        return advise(self, self.report.explanation, count=count, progress=progress)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the model and all reports into a folder; what else is in there stays, and every file appears whole.

        ``report.html`` (if plotly and jinja2 are installed), ``report.json``, ``layers.csv``, ``manifest.json`` and
        ``config.cfg``. ``activations.csv``, ``performance.csv``, ``products.csv`` and ``steps.csv`` join them where
        there is something to say.

        Raises
        ------
        OutputError
            If the folder cannot be made or written.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for file in self.files:
                if file.parent.resolve() != folder.resolve():
                    copy_whole(file, folder / file.name)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be written ({error.strerror or error})", path=folder) from error
        texts = {"manifest.json": json.dumps(self.manifest, indent=2) + "\n", "config.cfg": config_text(self.config)}
        for name, text in texts.items():
            with replacing(folder / name) as stream:
                stream.write(text)
        self.report.to_json(folder / "report.json")
        self.report.layers.to_csv(folder / "layers.csv")
        for name in ("activations", "performance", "products", "steps"):
            table: Table[Any] = getattr(self.report, name)
            if table:
                table.to_csv(folder / f"{name}.csv")
        with suppress(MissingExtra):  # the other files say the same
            self.report.to_html(folder / "report.html")
        return folder
