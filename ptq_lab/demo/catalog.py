"""The embedded demos: what each one is, where its files lie, and how it is scored.

Importing this module reads no file; :func:`load` returns paths and facts, and only :meth:`Demo.evaluate`
opens the evaluation data. Running the model is the caller's business: a session is passed in.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ptq_lab.errors import ModelError, OutputError

Metric = Literal["top-1", "psnr"]
FILES = ("model.onnx", "calib.npz", "eval.npz", "weight.cfg")
ANSWERS = ("labels", "target")  # arrays of eval.npz that are no input of the model
BATCH = 64
_ROOM = Path(__file__).parent
_DIGITS_SOURCE = (
    "Optical Recognition of Handwritten Digits (E. Alpaydin, C. Kaynak; UCI Machine Learning Repository), "
    "CC BY 4.0, as shipped with scikit-learn; model trained for ptq_lab."
)
_PHOTO_SOURCE = (
    "Photographs china.jpg by danielbuechele and flower.jpg by vultilion (Flickr), CC BY 2.0, as shipped "
    "with scikit-learn, cropped and with noise added; model trained for ptq_lab."
)


class Session(Protocol):
    """The one method of an ``onnxruntime.InferenceSession`` that scoring needs."""

    def run(self, output_names: Any, input_feed: Any, run_options: Any = None) -> Any:
        """Return the outputs of the model as a list of arrays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """One embedded model with the data to calibrate and to score it.

    Attributes
    ----------
    name, title : str
        The identifier, and a heading for people.
    description : str
        What the model does and what one sees when it is quantized.
    model_path, calib_path, eval_path, config_path : Path
        ``model.onnx``; ``calib.npz`` with arrays by input name, first axis = samples; ``eval.npz`` with the
        same and ``labels`` (int64) or ``target`` (pictures); ``weight.cfg``, a configuration to start from.
    metric : {"top-1", "psnr"}
        What :meth:`evaluate` returns.
    source : str
        Origin and licence of the data.

    Examples
    --------
    >>> demo = load("digits_cnn")
    >>> demo.metric, demo.model_path.name
    ('top-1', 'model.onnx')
    """

    name: str
    title: str
    description: str
    model_path: Path
    calib_path: Path
    eval_path: Path
    config_path: Path
    metric: Metric
    source: str

    def evaluate(self, session: Session) -> float:
        """Score a session of this model, float or quantized, on the evaluation data; higher is better.

        Parameters
        ----------
        session : onnxruntime.InferenceSession
            Anything with its ``run`` method; the model's inputs must be those of this demo.

        Returns
        -------
        float
            The share of samples whose largest logit is the label (0..1), or the mean peak signal-to-noise
            ratio of the pictures in dB (peak 1, the prediction clipped to 0..1).

        Examples
        --------
        >>> import onnxruntime
        >>> demo = load("digits_cnn")
        >>> demo.evaluate(onnxruntime.InferenceSession(demo.model_path)) > 0.97
        True
        """
        with np.load(self.eval_path) as arrays:
            inputs = {name: arrays[name] for name in arrays.files if name not in ANSWERS}
            answer = arrays["target" if self.metric == "psnr" else "labels"]
        prediction = _run(session, inputs)
        if self.metric == "psnr":
            return float(picture_psnr(prediction, answer).mean())
        return float((prediction.argmax(axis=-1) == answer).mean())


def picture_psnr(prediction: NDArray[np.floating], target: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the peak signal-to-noise ratio of each picture, in dB.

    Parameters
    ----------
    prediction, target : ndarray of float, shape (pictures, ...)
        Values in 0..1; the prediction is clipped to that range first.

    Returns
    -------
    ndarray of float64, shape (pictures,)
        ``10 log10(1 / mean squared error)``; infinite where the two are equal.

    Examples
    --------
    >>> picture_psnr(np.full((1, 2, 2), 0.6), np.full((1, 2, 2), 0.5)).round(3)
    array([20.])
    """
    difference = np.clip(prediction, 0, 1).astype(np.float64) - target
    squared = np.square(difference).reshape(len(target), -1).mean(axis=1)
    with np.errstate(divide="ignore"):
        return np.asarray(-10 * np.log10(squared), dtype=np.float64)


def _run(session: Session, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    count = len(next(iter(inputs.values())))
    parts = []
    for start in range(0, count, BATCH):
        batch = {name: values[start : start + BATCH] for name, values in inputs.items()}
        parts.append(np.asarray(session.run(None, batch)[0], dtype=np.float32))
    return np.concatenate(parts)


def load(name: str) -> Demo:
    """Return one demo by name; no file is opened.

    Parameters
    ----------
    name : str
        One of :data:`NAMES`.

    Raises
    ------
    ModelError
        If there is no such demo; the message names those there are.

    Examples
    --------
    >>> load("photo_denoiser").metric
    'psnr'
    >>> load("digit_cnn")
    Traceback (most recent call last):
    ptq_lab.errors.ModelError: demo: there is no 'digit_cnn', only ...; did you mean digits_cnn?
    """
    if name not in _CARDS:
        close = difflib.get_close_matches(str(name), NAMES, n=1, cutoff=0.4)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ModelError(f"demo: there is no {name!r}, only {', '.join(NAMES)}{hint}")
    title, metric, source, description = _CARDS[name]
    model, calib, evaluation, config = (_ROOM / name / file for file in FILES)
    return Demo(
        name=name,
        title=title,
        description=description,
        model_path=model,
        calib_path=calib,
        eval_path=evaluation,
        config_path=config,
        metric=metric,
        source=source,
    )


def copy(name: str, folder: Path | str) -> Path:
    """Write the files of a demo into ``folder/name`` and return that folder.

    Files of the same names there are replaced; others are left alone.

    Parameters
    ----------
    name : str
        One of :data:`NAMES`.
    folder : Path or str
        Created if missing.

    Raises
    ------
    ModelError
        If there is no such demo.
    OutputError
        If a file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sorted(file.name for file in copy("digits_cnn", folder).iterdir())
    ['calib.npz', 'eval.npz', 'model.onnx', 'weight.cfg']
    """
    demo = load(name)
    goal = Path(folder) / demo.name
    try:
        goal.mkdir(parents=True, exist_ok=True)
        for file in FILES:
            (goal / file).write_bytes((_ROOM / demo.name / file).read_bytes())
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"{goal}: the demo cannot be written there ({reason}); name a folder you may write to", path=goal
        ) from error
    return goal


def psnr(session: Session) -> float:
    """Score a session of ``photo_denoiser`` in dB; the callable to give as ``evaluate=``.

    Examples
    --------
    >>> import onnxruntime
    >>> psnr(onnxruntime.InferenceSession(load("photo_denoiser").model_path)) > 25
    True
    """
    return load("photo_denoiser").evaluate(session)


_CARDS: dict[str, tuple[str, Metric, str, str]] = {
    "digits_cnn": (
        "Handwritten digits, depthwise-separable CNN",
        "top-1",
        _DIGITS_SOURCE,
        "Seven depthwise and pointwise blocks with BatchNormalization and ReLU6 read a 16x16 picture. "
        "The filters of a layer differ widely in range: one scale per tensor costs far more than one per "
        "channel.",
    ),
    "digits_transformer": (
        "Handwritten digits, transformer encoder",
        "top-1",
        _DIGITS_SOURCE,
        "Two encoder layers read the picture as 32 words, each a pair of pixels. The embedding table is a "
        "real share of the weights, and most arithmetic is MatMul: the model for dynamic quantization.",
    ),
    "photo_denoiser": (
        "Photographs, noise removed by a CNN",
        "psnr",
        _PHOTO_SOURCE,
        "Convolutions of one width predict the noise in a picture of any size. Quality falls step by step with "
        "the bits, first in the number and then for the eye.",
    ),
}
NAMES = tuple(_CARDS)
