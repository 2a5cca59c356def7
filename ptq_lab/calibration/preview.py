"""One sample as a picture: what the model really gets to see, before anybody trusts what came out."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ptq_lab.calibration.first_look import first_look
from ptq_lab.calibration.samples import Samples

SIDE = 112  # pixels of the longer side
_COLOURS = (1, 3)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SamplePreview:
    """The first sample of the first input that looks like a picture.

    Attributes
    ----------
    input : str
        Name of the input.
    shape : tuple of int
        Of the array.
    low, high, mean : float
        Of its values, after preprocessing.
    warnings : tuple of str
        What looks wrong about them.
    png : bytes
        The picture, its values stretched to 0..255; channels in the order in which they are fed.
    """

    input: str
    shape: tuple[int, ...]
    low: float
    high: float
    mean: float
    warnings: tuple[str, ...]
    png: bytes


def preview_sample(samples: Samples) -> SamplePreview | None:
    """Draw the first sample as the model gets it.

    Returns
    -------
    SamplePreview or None
        ``None`` if no input is a picture: float or 8-bit, of one or three channels, at least 4 pixels each way.

    Raises
    ------
    SampleError
        The sample cannot be read or does not fit.

    Examples
    --------
    >>> from ptq_lab.calibration import open_samples
    >>> from ptq_lab.graph.tensors import TensorSpec
    >>> spec = TensorSpec(name="image", dtype=np.dtype("float32"), shape=(1, 3, 8, 8))
    >>> image = np.linspace(0, 255, 192, dtype=np.float32).reshape(1, 3, 8, 8)
    >>> seen = preview_sample(open_samples([{"image": image}], [spec]))
    >>> seen.png[1:4], seen.high, seen.warnings
    (b'PNG', 255.0, ('image: values reach from 0 to 255: nothing normalises them; is this what the model expects?',))
    """
    first = next(iter(samples))
    for spec in samples.inputs:
        array = first[spec.name]
        pixels = picture_of(array)
        if pixels is not None:
            return SamplePreview(
                input=spec.name,
                shape=tuple(array.shape),
                low=float(array.min()),
                high=float(array.max()),
                mean=float(array.mean(dtype=np.float64)),
                warnings=(*_warnings(samples, spec.name), *_unscaled(spec.name, array)),
                png=_draw(pixels),
            )
    return None


def draw_sample(feeds: Mapping[str, NDArray[Any]], *, side: int = SIDE) -> bytes:
    """Return the first input that looks like a picture as a PNG whose longer side has so many pixels.

    Returns
    -------
    bytes
        Empty if no input is a picture.

    Examples
    --------
    >>> draw_sample({"image": np.zeros((1, 1, 8, 8), np.float32)}, side=32)[1:4], draw_sample({"ids": np.arange(3)})
    (b'PNG', b'')
    """
    drawn = (picture_of(array) for array in feeds.values())
    return next((_draw(pixels, side) for pixels in drawn if pixels is not None), b"")


def picture_of(array: NDArray[Any]) -> NDArray[np.float32] | None:
    """Return the first picture of a batch as (height, width, 1 or 3); ``None`` if it is something else.

    A picture is float or unsigned, has channels first or last, and at least 4 pixels each way.

    Examples
    --------
    >>> picture_of(np.zeros((1, 3, 8, 9))).shape, picture_of(np.zeros((1, 10)))
    ((8, 9, 3), None)
    """
    if array.dtype.kind not in "fu" or array.ndim != 4 or not array.size:
        return None
    image = array[0].astype(np.float32)
    if image.shape[0] in _COLOURS:
        image = np.moveaxis(image, 0, -1)
    is_picture = image.shape[-1] in _COLOURS and min(image.shape[:2]) >= 4
    return image if is_picture else None


def _warnings(samples: Samples, name: str) -> list[str]:
    start = f"warning: {name}: "
    return [note.removeprefix("warning: ") for note in first_look(samples) if note.startswith(start)]


def _unscaled(name: str, array: NDArray[Any]) -> tuple[str, ...]:
    """Tell of values that nobody has normalised; some models do want them like this."""
    low, high = float(array.min()), float(array.max())
    if array.dtype.kind != "f" or low < 0 or not 16 < high <= 255:
        return ()
    return (f"{name}: values reach from {low:g} to {high:g}: nothing normalises them; is this what the model expects?",)


def _draw(pixels: NDArray[np.float32], side: int = SIDE) -> bytes:
    low, high = float(pixels.min()), float(pixels.max())
    levels = np.rint((pixels - low) * (255.0 / (high - low) if high > low else 0.0)).astype(np.uint8)
    image = Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels)
    factor = side / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    method = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS  # show small pictures' pixels
    file = io.BytesIO()
    image.resize(size, method).save(file, "PNG", optimize=True)
    return file.getvalue()
