"""The debug folder of a run: every tensor before and after quantization, as files.

Rows are made in `report.debug_rows` and written in `report.debug_files`; here is decided which samples are looked at,
where the files go and what becomes of those of an earlier run.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptq_lab.calibration import Samples
from ptq_lab.config import QuantConfig
from ptq_lab.errors import MissingExtra, OutputError
from ptq_lab.graph import Model
from ptq_lab.progress import Progress, Step, silent
from ptq_lab.report.debug_files import SUMMARY, Layout
from ptq_lab.report.debug_rows import DebugLook
from ptq_lab.report.files import replacing
from ptq_lab.report.tables import Report
from ptq_lab.route import Quantized

SAMPLED = 16  # quartiles come from every so many-th value when they are sampled
_UNFUSED = "the quantized model node by node, unfused, as its file says"
_FUSED = "onnxruntime's fused kernels; what stands between a layer and its activation has no rows"
_REPORTS = re.compile(r"(report|round)_\d+\.csv")
_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class DebugFolder:
    """Where the files go and how they are written.

    Attributes
    ----------
    path : Path
    layout : Layout
    sampled : bool
        Take the quartiles of activations from a part of their values, and look at what fused kernels give only.
    providers : tuple of str
        onnxruntime execution providers.
    """

    path: Path
    layout: Layout
    sampled: bool
    providers: tuple[str, ...]

    def write_tables(
        self, original: Model, draft: Model, done: Quantized, samples: Samples, *, progress: Progress = silent
    ) -> DebugTables:
        """Look at both models on every round's sample, one at a time, and write the CSV files where they wait.

        They get to their places when the run is :meth:`~DebugTables.finish`-ed; if it fails, they are gone.

        Raises
        ------
        OutputError
            If a file cannot be written.
        InferenceError
            If a model does not run here.
        """
        data = rounds_of(done, samples)
        every = SAMPLED if self.sampled else 1
        look = DebugLook(
            original, done.prepared, draft, done.plan, providers=self.providers, every=every, fused=self.sampled
        )
        waiting = self._make()
        place, files = Path(waiting.name), ["output_summary.csv"]
        with self.layout.open(place / files[0], SUMMARY) as summary:
            for number, feeds in enumerate(data):
                rows, cosines = look.rows(feeds)
                files.append(self.layout.report_name(number))
                self.layout.write_report(place / files[-1], rows)
                for tensor, cosine in cosines.items():
                    summary.row([number, tensor, cosine])
                progress(Step("debug", number + 1, len(data)))
        files.append("quant_param.csv")
        self.layout.write_parameters(place / files[-1], look.parameters())
        return DebugTables(self, tuple(files), data, waiting)

    def _make(self) -> tempfile.TemporaryDirectory[str]:
        """Make the folder, and one in it for what is not finished."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            return tempfile.TemporaryDirectory(prefix=".ptq_lab-", dir=self.path)
        except OSError as fault:
            raise OutputError(_refusal(self.path, fault.strerror or str(fault)), path=self.path) from fault


@dataclass(frozen=True, slots=True)
class DebugTables:
    """CSV files that are written, and the folder they are in.

    Attributes
    ----------
    folder : DebugFolder
    files : tuple of str
        Their names.
    data : Samples
        What was looked at, one round each.
    waiting : TemporaryDirectory
        Where they are until the run is finished.
    """

    folder: DebugFolder
    files: tuple[str, ...]
    data: Samples
    waiting: tempfile.TemporaryDirectory[str]

    @property
    def note(self) -> str:
        """What to say of them in a report."""
        made_up = "; there were no samples, so they show seeded random input" if self.data.random else ""
        count = len(self.data)
        return f"debug reports of {count} round{'' if count == 1 else 's'} are in {self.folder.path}{made_up}"

    def finish(self, report: Report, manifest: dict[str, Any]) -> None:
        """Put the files in their places, add the page (if plotly and jinja2 are installed) and the manifest.

        An earlier run's extra rounds are removed.

        Nothing is removed but report files that an earlier manifest in this folder lists.

        Raises
        ------
        OutputError
            If a file cannot be written.
        """
        folder, files = self.folder, list(self.files)
        self._move()
        with replacing(folder.path / "report.json") as stream:
            stream.write(report.to_json() + "\n")
        files.append("report.json")
        with suppress(MissingExtra):  # the CSV files say the same
            report.to_html(folder.path / "report.html")
            files.append("report.html")
        for name in sorted(_listed(folder.path / _MANIFEST) - set(files)):
            with suppress(OSError):  # gone already, or not ours to remove
                (folder.path / name).unlink()
        quartiles = f"of every {SAMPLED}th value of an activation" if folder.sampled else "exact"
        facts = {
            "rounds": len(self.data),
            "samples": self.data.origin,
            "arithmetic": _FUSED if folder.sampled else _UNFUSED,
            "quartiles": quartiles,
            "var": "standard deviation" if folder.layout.original else "variance",
            "files": files,
        }
        with replacing(folder.path / _MANIFEST) as stream:
            stream.write(json.dumps({**manifest, "debug": facts}, indent=2) + "\n")

    def _move(self) -> None:
        path = self.folder.path
        try:
            with self.waiting as place:
                for name in self.files:
                    (Path(place) / name).replace(path / name)
        except OSError as fault:
            raise OutputError(_refusal(path, fault.strerror or str(fault)), path=path) from fault


def place_debug(config: QuantConfig) -> DebugFolder | None:
    """Find the folder that a configuration names, if any; nothing is made or written yet.

    Raises
    ------
    OutputError
        If it is a file, or lies where nothing can be written.
    """
    if config.common.debug_info_save_path is None:
        return None
    path = Path(config.common.debug_info_save_path)
    there = next((place for place in (path, *path.absolute().parents) if place.exists()), None)
    if there is None or not there.is_dir():
        raise OutputError(_refusal(path, f"{there} is a file, not a folder; choose another place"), path=path)
    if not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(_refusal(path, f"nothing can be written into {there}"), path=path)
    return DebugFolder(
        path=path,
        layout=Layout(original=config.lab.mindspore_csv),
        sampled=config.lab.debug_quantiles == "sampled",
        providers=config.lab.providers,
    )


def without_debug(config: QuantConfig) -> QuantConfig:
    """Return the configuration without a debug folder, for runs that nobody asked to see.

    Examples
    --------
    >>> from ptq_lab.config import load_config
    >>> config = load_config({"common_quant_param": {"quant_type": "WEIGHT_QUANT", "debug_info_save_path": "d"}})
    >>> load_config(without_debug(config)).common.debug_info_save_path is None
    True
    """
    common = config.common.model_copy(update={"debug_info_save_path": None})
    given = config.given - {("common_quant_param", "debug_info_save_path")}
    return config.model_copy(update={"common": common, "given": given})


def rounds_of(done: Quantized, samples: Samples) -> Samples:
    """Return the samples of the rounds: all where activations are quantized, if they are real, otherwise one."""
    activations = done.plan.placement is not None or done.plan.dynamic is not None
    return samples if activations and not samples.random else samples.take(1)


def _listed(path: Path) -> set[str]:
    """Return the report files that a manifest of ours lists; none if there is no such manifest."""
    try:
        names = json.loads(path.read_text(encoding="utf-8"))["debug"]["files"]
        return {name for name in names if isinstance(name, str) and _REPORTS.fullmatch(name)}
    except (OSError, ValueError, LookupError, TypeError):
        return set()


def _refusal(path: Path, why: str) -> str:
    return f"[common_quant_param] debug_info_save_path: {path}: {why}"
