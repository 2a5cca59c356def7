"""What a run gives: the quantized model with everything known about it, and what it came from."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptq_lab.calibration import Samples
from ptq_lab.config import QuantConfig
from ptq_lab.errors import OutputError
from ptq_lab.graph import Model
from ptq_lab.manifest import config_text
from ptq_lab.output import Output
from ptq_lab.plan import QuantPlan
from ptq_lab.report.tables import Report, Table
from ptq_lab.report.text import brief


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
    """

    original: Model
    prepared: Model
    samples: Samples
    given: Any
    evaluate: Any
    flags: Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class QuantResult:
    """A finished run.

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

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the model, ``manifest.json``, ``report.json``, ``layers.csv`` and ``config.cfg`` into a folder.

        ``activations.csv``, ``performance.csv`` and ``products.csv`` join them where there is something to say.

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
                    shutil.copy2(file, folder)
            text = json.dumps(self.manifest, indent=2) + "\n"
            (folder / "manifest.json").write_text(text, encoding="utf-8")
            (folder / "config.cfg").write_text(config_text(self.config), encoding="utf-8")
            self.report.to_json(folder / "report.json")
            self.report.layers.to_csv(folder / "layers.csv")
            for name in ("activations", "performance", "products"):
                table: Table[Any] = getattr(self.report, name)
                if table:
                    table.to_csv(folder / f"{name}.csv")
        except OSError as error:
            raise OutputError(f"{folder}: cannot be written ({error.strerror or error})", path=folder) from error
        return folder
