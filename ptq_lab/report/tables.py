"""The report as tables: what was quantized, what it cost, what stayed float and why.

Rows are frozen dataclasses; the order of their fields is the order of the CSV columns. Sizes are bytes,
errors are relative L2 (a ratio) and SQNR in dB, both of the dequantized weights against the original ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ptq_lab.report.findings import Explanation
from ptq_lab.report.predictions import Predictions
from ptq_lab.report.rows import ErrorRow, LayerRow, OutputRow, PairRow, PerformanceRow, ProductRow
from ptq_lab.report.steps import StepRow
from ptq_lab.report.table import Table, write_text
from ptq_lab.report.weight_outlines import WeightOutline

__all__ = [
    "ActivationRow",
    "ErrorRow",
    "LayerRow",
    "OutputRow",
    "PairRow",
    "PerformanceRow",
    "Preview",
    "ProductRow",
    "Report",
    "StepRow",
    "Summary",
    "Table",
]

_NOT_IN_CSV = {"csv": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationRow:
    """One activation tensor that carries codes.

    Attributes
    ----------
    tensor, node : str
        Its name, and the node that makes it (empty for an input of the model).
    method : str
        How the range was found.
    low, high : float
        The range that the codes cover, in real units.
    observed_low, observed_high : float or None
        Smallest and largest value of the calibration samples.
    clip_share : float or None
        Share of the calibration values outside the range, 0 to 1; ``None`` if nothing was collected that tells.
    scale : float
        Real units per step.
    zero_point : int
        The code that means 0.0.
    dtype : str
        Of the codes: ``"uint8"`` or ``"int8"``.
    readers : tuple of str
        Nodes that read the codes.
    histogram : tuple of int
        Counts in equal bins from `observed_low` to `observed_high`, exact zeros left out; empty if nothing was
        counted. Not in the CSV.
    histogram_samples : int
        How many samples were counted, from the first on; at most those of calibration.
    """

    tensor: str
    node: str
    method: str
    low: float
    high: float
    observed_low: float | None
    observed_high: float | None
    clip_share: float | None
    scale: float
    zero_point: int
    dtype: str
    readers: tuple[str, ...] = ()
    histogram: tuple[int, ...] = field(default=(), metadata=_NOT_IN_CSV)
    histogram_samples: int = field(default=0, metadata=_NOT_IN_CSV)


class Preview(Protocol):
    """One sample as the model gets it, as a picture (see `ptq_lab.calibration.preview`)."""

    @property
    def input(self) -> str: ...  # noqa: D102
    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def low(self) -> float: ...  # noqa: D102
    @property
    def high(self) -> float: ...  # noqa: D102
    @property
    def mean(self) -> float: ...  # noqa: D102
    @property
    def warnings(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def png(self) -> bytes: ...  # noqa: D102


def _sample(preview: Preview | None) -> dict[str, Any] | None:
    if preview is None:
        return None
    return {name: getattr(preview, name) for name in ("input", "shape", "low", "high", "mean", "warnings")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What the whole run cost and gave.

    Attributes
    ----------
    model : str
        File name of the original model (``"<ModelProto>"`` for one in memory).
    quant_type, bits : str, int
        From the configuration; ``bits`` is 0 for mixed widths.
    bytes_before, bytes_after : int
        File sizes, with external data.
    layers, layers_quantized : int
        Weight tensors of known operators, and how many of them are stored as codes.
    cosine_mean, cosine_min, sqnr_db : float
        Over all outputs and inputs compared.
    compared_on : str
        What the comparison ran on, e.g. ``"32 samples of calib.npz"`` or ``"8 seeded random inputs"``.
    metric : str
        Name of the task metric, empty if none was asked for.
    metric_before, metric_after : float or None
        Its values; higher is better.
    left_float : tuple of str
        One sentence for every setting or reason that left weights in float, with how many and how big.
    notes : tuple of str
        What else the user should know, e.g. a raised opset or ignored settings.
    opset, ir_version : int
        Of the quantized model.
    onnxruntime_required : str
        Oldest onnxruntime release that runs the quantized model, e.g. ``"1.14"``.
    seconds : dict of str to float
        Wall time per stage.
    integer_layers, integer_total : int or None
        How many layers onnxruntime runs as integer kernels, and how many were meant to; ``None`` if none were.
    activations : int
        How many activation tensors carry codes.
    latency_ratio : float or None
        Time of one inference over that of the original, on one sample and one thread.
    timed_on : str
        Shapes of that sample, where they are worth telling.
    products : int
        How many products compute in integers with activations quantized at run time.
    strategy : str
        How finely those are divided, e.g. ``"ALWC"``; empty if there are none.
    kernel_notes : tuple of str
        Why layers do not run as integer kernels, and which ones onnxruntime quantized unasked.
    device, toolchain : str
        What activations were quantized for, and what compiles the file for it; empty if only weights were.
    runs_here : bool
        Whether onnxruntime's own kernels and speed say something about the device.
    interrupted : str
        How far a search came that the user stopped, so that this is the best so far; empty if none was.
    """

    model: str
    quant_type: str
    bits: int
    bytes_before: int
    bytes_after: int
    layers: int
    layers_quantized: int
    cosine_mean: float
    cosine_min: float
    sqnr_db: float
    compared_on: str
    metric: str = ""
    metric_before: float | None = None
    metric_after: float | None = None
    left_float: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    opset: int = 0
    ir_version: int = 0
    onnxruntime_required: str = ""
    seconds: dict[str, float]
    integer_layers: int | None = None
    integer_total: int | None = None
    activations: int = 0
    latency_ratio: float | None = None
    timed_on: str = ""
    products: int = 0
    strategy: str = ""
    kernel_notes: tuple[str, ...] = ()
    device: str = ""
    toolchain: str = ""
    runs_here: bool = True
    interrupted: str = ""

    @property
    def compression_ratio(self) -> float:
        """Original bytes over quantized bytes."""
        return self.bytes_before / self.bytes_after

    @property
    def metric_drop(self) -> float | None:
        """How much of the metric was lost (negative: gained)."""
        if self.metric_before is None or self.metric_after is None:
            return None
        return self.metric_before - self.metric_after


@dataclass(frozen=True, slots=True)
class Report:
    """A finished run as tables.

    Attributes
    ----------
    summary : Summary
    layers : Table of LayerRow
        One row per weight tensor of a known operator, in the order of the graph.
    outputs : Table of OutputRow
        One row per output of the model.
    activations : Table of ActivationRow
        One row per activation tensor that carries codes, in the order of the graph; empty when only weights are
        quantized.
    preview : Preview or None
        The first calibration sample, when activations are quantized and it is a picture.
    performance : Table of PerformanceRow
        What the float model, the quantized one and others cost here; empty if that was not measured.
    products : Table of ProductRow
        One row per activation that is quantized at run time.
    errors : Table of ErrorRow
        How the error grows from layer to layer; empty if that was not measured.
    pairs : Table of PairRow
        Which layer is which, in a comparison of two models; empty for a run, which knows.
    weights : tuple of WeightOutline
        How the values of every quantized weight are spread, before and after.
    predictions : Predictions or None
        What both models answer, if they are classifiers.
    explanation : Explanation or None
        What causes the error, once it was looked into: ``quantize(..., explain=True)`` or ``explain(result)``.
    manifest : mapping
        The record of the run, as in ``manifest.json``; empty for a report that is of no run.
    steps : Table of StepRow
        What was tried to make the weights of each layer better, and what came of it; empty if nothing was.
    """

    summary: Summary
    layers: Table[LayerRow]
    outputs: Table[OutputRow]
    activations: Table[ActivationRow] = field(default_factory=lambda: Table(ActivationRow))
    preview: Preview | None = None
    performance: Table[PerformanceRow] = field(default_factory=lambda: Table(PerformanceRow))
    products: Table[ProductRow] = field(default_factory=lambda: Table(ProductRow))
    errors: Table[ErrorRow] = field(default_factory=lambda: Table(ErrorRow))
    pairs: Table[PairRow] = field(default_factory=lambda: Table(PairRow))
    weights: tuple[WeightOutline, ...] = ()
    predictions: Predictions | None = None
    explanation: Explanation | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)
    steps: Table[StepRow] = field(default_factory=lambda: Table(StepRow))

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the picture as plain data, with the derived ratio."""
        summary = asdict(self.summary)
        summary["compression_ratio"] = self.summary.compression_ratio
        return {
            "summary": summary,
            "layers": self.layers.records(),
            "outputs": self.outputs.records(),
            "activations": self.activations.records(),
            "sample": _sample(self.preview),
            "performance": self.performance.records(),
            "products": self.products.records(),
            "errors": self.errors.records(),
            "pairs": self.pairs.records(),
            "weights": [asdict(weight) for weight in self.weights],
            "predictions": self.predictions.to_dict() if self.predictions else None,
            "explanation": self.explanation.to_dict() if self.explanation else None,
            "manifest": dict(self.manifest),
            "steps": self.steps.records(),
        }

    def to_json(self, path: str | Path | None = None) -> str:
        """Return :meth:`to_dict` as JSON text, and write it to `path` if given; infinities are ``null``.

        The picture is in it as well, and where ``null`` stands for an infinity, so that :meth:`from_json` gives the
        same report back.
        """
        from ptq_lab.report.stored import dump_report

        text = dump_report(self)
        if path is not None:
            write_text(path, text)
        return text

    @classmethod
    def from_json(cls, source: str | Path) -> Report:
        """Return the report that :meth:`to_json` wrote.

        Parameters
        ----------
        source : path or str
            A file, or the text itself.

        Raises
        ------
        OutputError
            If the file cannot be read, or is no report.
        """
        from ptq_lab.report.stored import load_report

        return load_report(source)

    def to_csv(self, path: str | Path) -> None:
        """Write the table of layers as CSV; ``outputs`` and ``activations`` have a ``to_csv`` of their own.

        Examples
        --------
        >>> import tempfile
        >>> from ptq_lab import demo, quantize
        >>> digits = demo.load("digits_cnn")
        >>> report = quantize(digits.model_path, digits.config_path).report
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report.to_csv(f"{folder}/layers.csv")
        ...     print(Path(f"{folder}/layers.csv").read_text().splitlines()[0])
        node,op_type,tensor,shape,bits,granularity,storage,bytes_before,bytes_after,relative_error,sqnr_db,reason,step,levels,entropy,bound
        """
        self.layers.to_csv(path)

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained, offline HTML page with tables and charts; needs the ``lab`` extra."""
        try:
            from ptq_lab.figures.page import write_page
        except ImportError as missing:
            from ptq_lab.errors import MissingExtra

            part = "the HTML report"
            raise MissingExtra(part, "lab") from missing
        return write_page(self, Path(path))
