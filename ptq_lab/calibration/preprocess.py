"""What ``[data_preprocess_param]`` does to an image, step by step, in the original's fixed order."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ptq_lab.calibration.antialias import resize_antialiased
from ptq_lab.calibration.resize import METHODS, resize
from ptq_lab.errors import SampleError

GREY_WEIGHTS = (9798, 19235, 3735)
"""0.299, 0.587, 0.114 of red, green, blue in units of 2**-15, as OpenCV's 8-bit conversion has them."""

FORMATS = ("RGB", "BGR", "GRAY")


class PreprocessOptions(Protocol):
    """Anything with these read-only attributes: the configuration's own model, or `Preprocessing`."""

    @property
    def calibrate_path(self) -> Sequence[tuple[str, Any]]: ...  # noqa: D102 - named as in the document
    @property
    def calibrate_size(self) -> int | None: ...  # noqa: D102
    @property
    def input_type(self) -> str | None: ...  # noqa: D102
    @property
    def image_to_format(self) -> str | None: ...  # noqa: D102
    @property
    def normalize_mean(self) -> Sequence[float]: ...  # noqa: D102
    @property
    def normalize_std(self) -> Sequence[float]: ...  # noqa: D102
    @property
    def resize_width(self) -> int | None: ...  # noqa: D102
    @property
    def resize_height(self) -> int | None: ...  # noqa: D102
    @property
    def resize_method(self) -> str | None: ...  # noqa: D102
    @property
    def center_crop_width(self) -> int | None: ...  # noqa: D102
    @property
    def center_crop_height(self) -> int | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How sample files become arrays; the names are the document's keys.

    Attributes
    ----------
    calibrate_path : tuple of (str, str)
        Input name and the folder of its files.
    calibrate_size : int, optional
        How many samples to take from ``calibrate_path``; None takes all.
    input_type : {"IMAGE", "BIN"}, optional
        What the files are; None looks at what is in the folder.
    image_to_format : {"RGB", "BGR", "GRAY"}, optional
        Channel order fed to the model; None leaves BGR, as the original does.
    normalize_mean, normalize_std : tuple of float
        One value per channel in the order after ``image_to_format``, in units of 0..255; empty = no
        normalisation.
    resize_width, resize_height : int, optional
        Pixels; used only together with ``resize_method``.
    resize_method : {"NEAREST", "LINEAR", "CUBIC"}, optional
    center_crop_width, center_crop_height : int, optional
        Pixels; used only together.
    resize_first : bool
        Resize and crop before normalising, as torchvision's pipelines do, instead of the original's order.
    antialias : bool
        Filter while shrinking, as Pillow and torchvision do; the original skips pixels.

    Notes
    -----
    Source: the document's section *Data Preprocessing*.

    Examples
    --------
    >>> Preprocessing(image_to_format="RGB", normalize_mean=(127.5,) * 3, normalize_std=(127.5,) * 3).channels
    3
    """

    calibrate_path: tuple[tuple[str, str], ...] = ()
    calibrate_size: int | None = None
    input_type: str | None = None
    image_to_format: str | None = None
    normalize_mean: tuple[float, ...] = ()
    normalize_std: tuple[float, ...] = ()
    resize_width: int | None = None
    resize_height: int | None = None
    resize_method: str | None = None
    center_crop_width: int | None = None
    center_crop_height: int | None = None
    resize_first: bool = False
    antialias: bool = False

    @property
    def channels(self) -> int:
        """Channels of an image after ``image_to_format``."""
        return 1 if self.image_to_format == "GRAY" else 3

    @property
    def image_keys(self) -> tuple[str, ...]:
        """Names of the keys that are set and act on images only."""
        return tuple(key for key in _IMAGE_KEYS if getattr(self, key))

    @property
    def crop(self) -> tuple[int, int] | None:
        """Width and height to cut out, when both are set."""
        if self.center_crop_width is None or self.center_crop_height is None:
            return None
        return self.center_crop_width, self.center_crop_height


_IMAGE_KEYS = (
    "image_to_format",
    "normalize_mean",
    "normalize_std",
    "resize_width",
    "resize_height",
    "resize_method",
    "center_crop_width",
    "center_crop_height",
)


def plain(options: PreprocessOptions | None) -> Preprocessing:
    """Copy the options out of whatever object carries them (None: nothing is set).

    Examples
    --------
    >>> plain(None) == Preprocessing()
    True
    """
    if options is None:
        return Preprocessing()
    if isinstance(options, Preprocessing):
        return options
    return Preprocessing(
        calibrate_path=tuple((str(name), os.fspath(folder)) for name, folder in options.calibrate_path or ()),
        calibrate_size=options.calibrate_size,
        input_type=_word(options.input_type),
        image_to_format=_word(options.image_to_format),
        normalize_mean=tuple(float(value) for value in options.normalize_mean or ()),
        normalize_std=tuple(float(value) for value in options.normalize_std or ()),
        resize_width=options.resize_width,
        resize_height=options.resize_height,
        resize_method=_word(options.resize_method),
        center_crop_width=options.center_crop_width,
        center_crop_height=options.center_crop_height,
    )


def _word(value: str | None) -> str | None:
    return None if value is None else str(value)


def check_image_options(options: Preprocessing) -> tuple[str, ...]:
    """Refuse options that no image can satisfy, and return notes about those that do nothing.

    Raises
    ------
    SampleError
        Wrong number of means or deviations, a zero deviation, an unknown word, a resize without a size.

    Examples
    --------
    >>> check_image_options(Preprocessing(image_to_format="RGB", resize_width=224, resize_height=224))
    ('resize_width and resize_height do nothing without resize_method',)
    """
    _check_words(options)
    _check_normalisation(options)
    if options.resize_method and not (options.resize_width and options.resize_height):
        message = f"resize_method={options.resize_method} needs both resize_width and resize_height"
        raise SampleError(message)
    notes = []
    if options.image_to_format is None:
        notes.append("image_to_format is not set: images are fed as BGR, as the original does")
    if not options.resize_method and (options.resize_width or options.resize_height):
        notes.append("resize_width and resize_height do nothing without resize_method")
    if (options.center_crop_width is None) != (options.center_crop_height is None):
        notes.append("a centre crop needs both center_crop_width and center_crop_height: nothing is cropped")
    return tuple(notes)


def _check_words(options: Preprocessing) -> None:
    if options.image_to_format not in (None, *FORMATS):
        allowed = ", ".join(FORMATS)
        raise SampleError(f"image_to_format={options.image_to_format}: allowed are {allowed}")
    if options.resize_method not in (None, *METHODS):
        allowed = ", ".join(METHODS)
        raise SampleError(f"resize_method={options.resize_method}: allowed are {allowed}")


def _check_normalisation(options: Preprocessing) -> None:
    means, deviations = options.normalize_mean, options.normalize_std
    if not means and not deviations:
        return
    for key, values in (("normalize_mean", means), ("normalize_std", deviations)):
        if len(values) != options.channels:
            seen = f"{len(values)} values" if values else "nothing"
            raise SampleError(
                f"{key}: {seen} given, {options.channels} wanted (one per channel of "
                f"image_to_format={options.image_to_format or 'BGR'}); mean and std go together"
            )
    if any(value == 0 for value in deviations):
        raise SampleError(f"normalize_std={list(deviations)}: a deviation of 0 would divide by zero")


def preprocess_image(rgb: NDArray[np.uint8], options: Preprocessing) -> NDArray[np.float32]:
    """Apply colour order, normalisation, resize and centre crop, in this order (or the second one last).

    Parameters
    ----------
    rgb : ndarray of uint8, shape (height, width, 3)
        A decoded image, 0..255.
    options : Preprocessing
        Already checked by `check_image_options`.

    Returns
    -------
    ndarray of float32, shape (height, width, channels)
        In 0..255 when nothing normalises.

    Raises
    ------
    SampleError
        The crop is larger than the image.

    Notes
    -----
    Source: the document's section *Data Preprocessing* and the original's OpenCV calls. Two differences:
    an image that is not normalised is fed as 0..255 (the original fails on it), and nothing is rounded to
    8 bits between the steps (there neither).

    Examples
    --------
    >>> red = np.full((2, 2, 3), (255, 0, 0), np.uint8)
    >>> options = Preprocessing(image_to_format="GRAY", normalize_mean=(0,), normalize_std=(76,))
    >>> preprocess_image(red, options)[0, 0]
    array([1.], dtype=float32)
    """
    image: NDArray[np.float32] = _coloured(rgb, options.image_to_format).astype(np.float32)
    if options.resize_first:
        return _normalised(_framed(image, options), options)
    return _framed(_normalised(image, options), options)


def _normalised(image: NDArray[np.float32], options: Preprocessing) -> NDArray[np.float32]:
    if not options.normalize_mean:
        return image
    mean, deviation = np.asarray(options.normalize_mean, np.float32), np.asarray(options.normalize_std, np.float32)
    return np.asarray((image - mean) / deviation, np.float32)


def _framed(image: NDArray[np.float32], options: Preprocessing) -> NDArray[np.float32]:
    """Resize, then cut out the middle."""
    if options.resize_method and options.resize_width and options.resize_height:
        change_size = resize_antialiased if options.antialias else resize
        image = change_size(image, options.resize_width, options.resize_height, options.resize_method)
    return image if options.crop is None else centre_crop(image, *options.crop)


def _coloured(rgb: NDArray[np.uint8], order: str | None) -> NDArray[np.uint8]:
    if order == "RGB":
        return rgb
    if order == "GRAY":
        grey = (rgb.astype(np.int32) @ np.array(GREY_WEIGHTS, np.int32) + (1 << 14)) >> 15
        return grey.astype(np.uint8)[..., None]
    return rgb[..., ::-1]


def centre_crop(image: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """Cut ``width`` x ``height`` pixels out of the middle (offsets rounded down).

    Raises
    ------
    SampleError
        The crop is larger than the image.

    Examples
    --------
    >>> centre_crop(np.arange(5, dtype=np.float32).reshape(1, 5, 1), 2, 1)[0, :, 0].tolist()
    [1.0, 2.0]
    """
    rows, columns = image.shape[:2]
    if width > columns or height > rows:
        raise SampleError(
            f"a centre crop of {width}x{height} does not fit the image of {columns}x{rows} (width x height)"
            "; make center_crop_width and center_crop_height smaller, or resize first"
        )
    top, left = (rows - height) // 2, (columns - width) // 2
    return image[top : top + height, left : left + width]
