"""One picture through several runs of one model: what each makes of it, and how far that is from the float model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq_lab.calibration import Samples, open_samples
from ptq_lab.calibration.preview import picture_of
from ptq_lab.demo import Demo, picture_psnr
from ptq_lab.errors import ModelError, PlanError, SampleError
from ptq_lab.graph import Model
from ptq_lab.lesson.pictures import answers_of
from ptq_lab.lesson.png import as_pixels, encode_png
from ptq_lab.numerics.similarity import power_of, sqnr_db
from ptq_lab.report.formats import text_table
from ptq_lab.result import QuantResult
from ptq_lab.runtime import Feeds, open_session, run_session

FACTOR = 4
"""Differences are shown so many times as strong."""

_MOST = 200.0  # dB; stands for no error at all


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """What one run makes of the picture.

    Attributes
    ----------
    name : str
    picture, difference : bytes
        PNG of the output, and of its distance from the float model's: black is none.
    sqnr_db : float
        Of the output against the float model's.
    psnr_db : float or None
        Against the true picture, where it is known.
    """

    name: str
    picture: bytes
    difference: bytes
    sqnr_db: float
    psnr_db: float | None

    @property
    def caption(self) -> str:
        """Name and figure: against the true picture where it is known, else against the float model."""
        found = f"{self.sqnr_db:.1f} dB to float" if self.psnr_db is None else f"{self.psnr_db:.2f} dB"
        return f"{self.name}: {found}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gallery:
    """One picture, what the float model makes of it, and what each run makes of it.

    Attributes
    ----------
    label : str
        What to call the model.
    sample : int
    factor : int
        How much differences are amplified.
    columns : int
        Frames beside each other.
    source, before : bytes
        PNG of the input and of the float model's output.
    wanted : bytes
        PNG of the true picture; empty where it is not known.
    psnr_db : float or None
        Of the float model against the true picture.
    frames : tuple of Frame
    """

    label: str
    sample: int
    factor: int
    columns: int
    source: bytes
    before: bytes
    wanted: bytes
    psnr_db: float | None
    frames: tuple[Frame, ...]

    def sentences(self) -> tuple[str, ...]:
        """Return what is to be seen."""
        known = self.psnr_db is not None
        measured = "Decibels compare with the true picture (PSNR)." if known else "Decibels compare with float (SQNR)."
        return (
            f"Sample {self.sample}. {measured} Below each picture: how far it is from that of the float model, "
            f"{self.factor} times as strong.",
        )

    def starts(self) -> tuple[tuple[str, bytes], ...]:
        """Return captions and PNG of what the frames are compared with."""
        made = "float" if self.psnr_db is None else f"float: {self.psnr_db:.2f} dB"
        shown = (("input", self.source), (made, self.before), ("the true picture", self.wanted))
        return tuple((caption, png) for caption, png in shown if png)

    def __str__(self) -> str:
        headers = ("run", "against float dB", "against the true picture dB")
        rows = [("float", "", _decibels(self.psnr_db))]
        rows += [(frame.name, _decibels(frame.sqnr_db), _decibels(frame.psnr_db)) for frame in self.frames]
        return f"{self.label}, sample {self.sample}\n{text_table(headers, rows, right=headers[1:])}"


def gallery(
    runs: Mapping[str, QuantResult], samples: Any = None, *, sample: int = 0, factor: int = FACTOR, columns: int = 4
) -> Gallery:
    """Show one picture through several runs of a model that makes pictures.

    Parameters
    ----------
    runs : mapping of str to QuantResult
        Of one float model, by the names to show.
    samples : Demo, folder, .npz, mapping or iterable, optional
        What the model is run on; a demo gives its evaluation data and the true pictures. Otherwise the first run's own.
    sample : int
    factor : int
        How much differences are amplified.
    columns : int
        Frames beside each other.

    Raises
    ------
    ModelError
        If the output is no picture.
    PlanError
        If there is no run or no such sample, or runs are of different models.
    SampleError
        If there are no samples.

    Examples
    --------
    >>> from ptq_lab import demo, quantize
    >>> card, runs = demo.load("photo_denoiser"), {}
    >>> for bits in (8, 2):
    ...     settings = {"common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": bits}}
    ...     runs[f"W{bits}"] = quantize(card.model_path, settings, samples=card.calib_path)
    >>> fine, coarse = gallery(runs, card).frames
    >>> fine.sqnr_db > coarse.sqnr_db + 10, fine.picture[1:4]
    (True, b'PNG')
    """
    results = list(runs.values())
    if not results:
        raise PlanError('gallery: there is no run to show; gallery({"W4": result}, samples)')
    if len({result.manifest["model"]["sha256"] for result in results}) > 1:
        raise PlanError("gallery: the runs are of different models; show those of one model")
    original = results[0].run.original
    data = _samples(results[0], samples)
    if not 0 <= sample < len(data):
        raise PlanError(f"gallery: there is no sample {sample}, only 0..{len(data) - 1}")
    feeds = next(iter(data.part(sample, sample + 1)))
    before = _output(original, original, feeds)
    if picture_of(before) is None:
        raise ModelError(f"{original.label}: gives no picture but an output of shape {list(before.shape)}")
    wanted = answers_of(samples)[sample : sample + 1] if isinstance(samples, Demo) else None
    ends = _ends(before)
    pictures = [array for array in feeds.values() if picture_of(array) is not None]
    frames = [
        _frame(name, _output(result.model, original, feeds), before, wanted, ends=ends, factor=factor)
        for name, result in runs.items()
    ]
    return Gallery(
        label=original.label,
        sample=sample,
        factor=factor,
        columns=columns,
        source=encode_png(as_pixels(pictures[0])) if pictures else b"",
        before=encode_png(as_pixels(before, ends)),
        wanted=b"" if wanted is None else encode_png(as_pixels(wanted, ends)),
        psnr_db=None if wanted is None else float(picture_psnr(before, wanted)[0]),
        frames=tuple(frames),
    )


def _samples(result: QuantResult, given: Any) -> Samples:
    if given is None:
        if result.run.samples.random:
            raise SampleError("gallery: the run had no samples of its own; gallery(runs, samples)")
        return result.run.samples
    return open_samples(given.eval_path if isinstance(given, Demo) else given, result.run.original.inputs)


def _output(model: Model, original: Model, feeds: Feeds) -> NDArray[np.float32]:
    found = run_session(open_session(model), feeds)
    return np.asarray(found[original.outputs[0].name], np.float32)


def _frame(
    name: str,
    after: NDArray[np.float32],
    before: NDArray[np.float32],
    wanted: NDArray[Any] | None,
    *,
    ends: tuple[float, float],
    factor: int,
) -> Frame:
    error = after.astype(np.float64) - before
    picture = picture_of(np.abs(error))
    assert picture is not None  # the float model's output is one
    grey = picture.mean(axis=-1, keepdims=True)[None].transpose(0, 3, 1, 2) * factor
    return Frame(
        name=name,
        picture=encode_png(as_pixels(after, ends)),
        difference=encode_png(as_pixels(grey, (0.0, ends[1] - ends[0]))),
        sqnr_db=min(_MOST, sqnr_db(power_of(before), float(np.square(error).sum()))),
        psnr_db=None if wanted is None else float(picture_psnr(after, wanted)[0]),
    )


def _ends(before: NDArray[np.float32]) -> tuple[float, float]:
    """Return the values of black and white."""
    low, high = float(before.min()), float(before.max())
    return (0.0, 1.0) if low > -0.2 and high < 1.2 else (low, high if high > low else low + 1.0)


def _decibels(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
