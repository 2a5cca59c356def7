"""What quantization does to pictures: those that a model makes, and those that it names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq_lab import demo
from ptq_lab.calibration import Samples, open_samples
from ptq_lab.calibration.preview import picture_of
from ptq_lab.demo import Demo
from ptq_lab.errors import ModelError, PlanError, SampleError
from ptq_lab.lesson.png import as_pixels, encode_png
from ptq_lab.lesson.subject import Subject, open_subject
from ptq_lab.lesson.variants import Variants
from ptq_lab.numerics.similarity import power_of, sqnr_db
from ptq_lab.report.formats import format_percent, text_table

FACTORS = (1, 2, 4, 8, 16, 32, 64)
TOP = 5
_HELD = 64  # drawings; each a few tens of kilobytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """One class of a list.

    Attributes
    ----------
    label : str
    share : float
        Its probability, 0..1.
    """

    label: str
    share: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawing:
    """One sample through the float model and through a variant.

    Attributes
    ----------
    sample : int
    variant : str
        A width in bits, or ``"result"``.
    source : bytes
        The input as PNG.
    before, after, difference : bytes
        For models that make pictures: PNG of both outputs, and of how far they are apart, amplified.
    guesses : tuple of (Guess, ...) twice
        For models that name pictures: the best classes of the float model and of the variant.
    sqnr_db : float
        Of the output.
    facts : tuple of str
        What to read below.
    """

    sample: int
    variant: str
    source: bytes
    before: bytes = b""
    after: bytes = b""
    difference: bytes = b""
    guesses: tuple[tuple[Guess, ...], tuple[Guess, ...]] = ((), ())
    sqnr_db: float
    facts: tuple[str, ...]

    @property
    def title(self) -> str:
        """What was done to the model."""
        return "the result's model" if self.variant == "result" else f"weights of {self.variant} bits"

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """Return a row of words per place of the lists of classes, to go below `HEADERS`."""
        return [
            (str(place + 1), one.label, format_percent(one.share), two.label, format_percent(two.share))
            for place, (one, two) in enumerate(zip(*self.guesses, strict=True))
        ]


HEADERS = ("place", "float", "share", "quantized", "share ")


class Pictures:
    """Runs samples through a float model and its variants; made by :func:`pictures`.

    Attributes
    ----------
    subject : Subject
    variant : str
        To start with.
    makes_pictures : bool
        Its output is a picture; otherwise a list of classes.
    """

    def __init__(
        self,
        subject: Subject,
        samples: Samples,
        variant: str,
        *,
        labels: Sequence[str] | None = None,
        answers: NDArray[Any] | None = None,
    ) -> None:
        self.subject, self._samples = subject, samples
        self._labels, self._answers = labels, answers
        self._variants = Variants(subject.model, subject.quantized)
        self.variant = self._known(variant)
        self._drawn: OrderedDict[tuple[int, str, int], Drawing] = OrderedDict()
        self._input = _picture_input(subject, samples)
        self._output = subject.model.outputs[0].name
        self.makes_pictures = picture_of(self._run("float", self._feeds(0))) is not None

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def variants(self) -> tuple[str, ...]:
        """Widths in bits, and ``"result"`` where there is one."""
        return self._variants.names

    @property
    def made(self) -> int:
        """How many variants of the model were made so far."""
        return self._variants.made

    def draw(self, sample: int = 0, variant: str | int | None = None, *, factor: int = 8) -> Drawing:
        """Run one sample through both models.

        Parameters
        ----------
        sample : int
        variant : str or int, optional
            One of `variants`.
        factor : int
            How much the difference of pictures is amplified.

        Raises
        ------
        PlanError
            If there is no such sample or variant.
        InferenceError
        """
        name = self._known(self.variant if variant is None else str(variant))
        if not 0 <= sample < len(self):
            raise PlanError(f"pictures: there is no sample {sample}, only 0..{len(self) - 1}")
        key = sample, name, factor
        if key not in self._drawn:
            self._drawn[key] = self._draw(sample, name, factor)
            if len(self._drawn) > _HELD:
                self._drawn.popitem(last=False)
        self._drawn.move_to_end(key)
        return self._drawn[key]

    def __str__(self) -> str:
        found = self.draw()
        table = [] if self.makes_pictures else [text_table(HEADERS, found.rows(), right=("share", "share "))]
        return "\n".join((f"{self.subject.label}, sample {found.sample}: {found.title}", *table, *found.facts))

    def _draw(self, sample: int, variant: str, factor: int) -> Drawing:
        feeds = self._feeds(sample)
        before, after = self._run("float", feeds), self._run(variant, feeds)
        error = after.astype(np.float64) - before
        noise = min(200.0, sqnr_db(power_of(before), float(np.square(error).sum())))
        source = encode_png(as_pixels(feeds[self._input]))
        drawing = Drawing(sample=sample, variant=variant, source=source, sqnr_db=noise, facts=())
        if not self.makes_pictures:
            return self._with_guesses(drawing, before, after)
        ends = float(before.min()), float(before.max())
        ends = (0.0, 1.0) if ends[0] > -0.2 and ends[1] < 1.2 else ends
        unit = ends[1] - ends[0] or 1.0
        return replace(
            drawing,
            before=encode_png(as_pixels(before, ends)),
            after=encode_png(as_pixels(after, ends)),
            difference=encode_png(as_pixels(np.abs(error) * factor, (0.0, unit))),
            facts=(
                f"output SQNR {noise:.1f} dB",
                f"difference: mean {np.abs(error).mean():.2g}, largest {np.abs(error).max():.2g} "
                f"(the picture spans {unit:.3g}), shown {factor} times as strong",
                *self._against_answer(sample, before, after),
            ),
        )

    def _with_guesses(self, drawing: Drawing, before: NDArray[Any], after: NDArray[Any]) -> Drawing:
        lists = self._guesses(before), self._guesses(after)
        same = lists[0][0].label == lists[1][0].label
        said = "the first place is the same" if same else f"{lists[0][0].label} became {lists[1][0].label}"
        answer = (
            () if self._answers is None else (f"the right answer: {self._name(int(self._answers[drawing.sample]))}",)
        )
        return replace(drawing, guesses=lists, facts=(said, f"output SQNR {drawing.sqnr_db:.1f} dB", *answer))

    def _guesses(self, output: NDArray[Any]) -> tuple[Guess, ...]:
        shares = _shares(output.reshape(-1).astype(np.float64))
        order = np.argsort(-shares, kind="stable")[:TOP]
        return tuple(Guess(label=self._name(int(at)), share=float(shares[at])) for at in order)

    def _name(self, index: int) -> str:
        return self._labels[index] if self._labels is not None and index < len(self._labels) else f"class {index}"

    def _against_answer(self, sample: int, *outputs: NDArray[Any]) -> tuple[str, ...]:
        if self._answers is None:
            return ()
        wanted = self._answers[sample : sample + 1]
        float_db, quantized_db = (float(demo.picture_psnr(output, wanted)[0]) for output in outputs)
        return (f"against the true picture: float {float_db:.2f} dB, quantized {quantized_db:.2f} dB (PSNR)",)

    def _known(self, variant: str) -> str:
        if variant not in self._variants.names:
            raise PlanError(f"pictures: there is no variant {variant!r}, only {', '.join(self._variants.names)}")
        return variant

    def _feeds(self, sample: int) -> dict[str, NDArray[Any]]:
        return next(iter(self._samples.part(sample, sample + 1)))

    def _run(self, variant: str, feeds: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        return self._variants.run(variant, feeds)[self._output]


def pictures(
    source: Any = "photo_denoiser",
    *,
    samples: Any = None,
    labels: Sequence[str] | None = None,
    bits: int | str | None = None,
) -> Pictures:
    """Compare a model in float and with fewer bits on pictures.

    Parameters
    ----------
    source : name of a demo, path, Model, QuantResult or MixedBitExplorer
    samples : folder, .npz, mapping or iterable, optional
        Instead of the source's own; of a demo, its evaluation data.
    labels : sequence of str, optional
        Names of classes.
    bits : int or "result", optional
        What to start with; otherwise a result's own model, or 4 bits.

    Raises
    ------
    ModelError
        If the model takes no picture, or gives neither pictures nor classes.
    SampleError
        If there are no samples.

    Examples
    --------
    >>> found = pictures("photo_denoiser")
    >>> coarse, fine = found.draw(0, 3), found.draw(0, 8)
    >>> coarse.sqnr_db < fine.sqnr_db, fine.after[1:4]
    (True, b'PNG')
    """
    card = demo.load(source) if isinstance(source, str) and source in demo.NAMES else source
    answers = None
    subject = open_subject(card, samples, fold=False)
    data = subject.samples
    if isinstance(card, Demo) and samples is None:
        answers = answers_of(card)
        data = open_samples(card.eval_path, subject.model.inputs)
    if data is None:
        raise SampleError(f"pictures: there are no samples for {subject.label}; give pictures(model, samples=folder)")
    start = bits if bits is not None else "result" if subject.quantized is not None else 4
    return Pictures(subject, data, str(start), labels=labels, answers=answers)


def answers_of(card: Demo) -> NDArray[Any]:
    """Return the true pictures or the labels behind the evaluation data of a demo.

    Examples
    --------
    >>> answers_of(demo.load("photo_denoiser")).shape
    (20, 3, 64, 64)
    """
    with np.load(card.eval_path) as arrays:
        return np.asarray(arrays["target" if card.metric == "psnr" else "labels"])


def _picture_input(subject: Subject, samples: Samples) -> str:
    first = next(iter(samples))
    found = [name for name, array in first.items() if picture_of(array) is not None]
    if not found:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in first.items())
        raise ModelError(
            f"{subject.label}: takes no picture ({shapes}); wanted is an input of 1 or 3 channels, at least 4 pixels "
            "each way"
        )
    shape = tuple(subject.model.outputs[0].shape)
    if len(shape) not in (2, 4):
        raise ModelError(
            f"{subject.label}: its first output of shape {shape} is neither a picture nor a list of classes"
        )
    return found[0]


def _shares(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities: the values themselves if they are, else their softmax."""
    if values.min() >= 0 and abs(values.sum() - 1) < 1e-3:
        return values
    powers = np.exp(values - values.max())
    return np.asarray(powers / powers.sum())
