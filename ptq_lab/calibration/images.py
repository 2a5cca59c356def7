"""Read an image file as 8-bit RGB (the only file of the package that knows Pillow)."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ptq_lab.errors import SampleError

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .bmp .dib .webp .tif .tiff .gif .ppm .pgm .pbm .pnm".split()  # noqa: SIM905
)

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
"""What Pillow raises on damaged files, depending on the format and on how far it came."""


def decode_rgb(path: Path) -> NDArray[np.uint8]:
    """Decode a file: EXIF orientation applied, alpha dropped, grey expanded, 16 bits cut to the upper 8.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)

    Raises
    ------
    SampleError
        The file is no image, is damaged, or holds floating-point pixels.

    Examples
    --------
    >>> decode_rgb(Path("missing.png"))
    Traceback (most recent call last):
    ptq_lab.errors.SampleError: missing.png: cannot be read as an image: No such file or directory
    """
    try:
        with Image.open(path) as opened:
            # Upright first: a conversion of the pixels would lose the orientation tag.
            return _as_rgb(ImageOps.exif_transpose(opened), path)
    except _BROKEN as fault:
        if isinstance(fault, SampleError):
            raise
        reason = getattr(fault, "strerror", None) or fault
        raise SampleError(f"{path}: cannot be read as an image: {reason}", path=path) from fault


def _as_rgb(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    if image.mode == "F":
        message = f"{path}: floating-point pixels, 8 or 16 bits wanted; save such data as .npy instead"
        raise SampleError(message, path=path)
    if image.mode.startswith("I"):
        # Pillow's own conversion clips everything above 255 to white.
        upper = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        return np.repeat(upper[..., None], 3, axis=2)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the direct way warns about what is lost
    return np.asarray(image.convert("RGB"))
