"""Models that are quantized without being held: when that is done, where codes lie, and what it rules out."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq_lab.config import QuantConfig
from ptq_lab.entries import TensorPlan
from ptq_lab.errors import OutputError
from ptq_lab.graph import Model
from ptq_lab.graph.mapped import Pages, let_go
from ptq_lab.numerics import QuantizedWeight

LARGE = 1 << 30  # bytes of weights from which they are streamed
_COPIES = 4  # of the weights that comparing holds: the float model, and the codes while they are decoded
_SHARE = 2  # at most one part in so many of the free memory is used for comparing
_PAGE = 4096
_NUMBERS = 6  # arrays of a quantized weight besides its codes, of 8 bytes per channel at most
_ZEROS = bytes(1 << 20)


def is_streamed(model: Model, config: QuantConfig) -> bool:
    """Tell whether weights go from file to file; decided by the model and the configuration, never by the machine."""
    if config.common.quant_type != "WEIGHT_QUANT":
        return False
    return config.common.workspace is not None or model.weight_bytes >= LARGE


def why_not_compared(model: Model, config: QuantConfig, *, wanted: bool) -> str:
    """Return why a streamed model is not run beside the original; nothing where it is.

    Parameters
    ----------
    model : Model
        The original.
    config : QuantConfig
    wanted : bool
        Whether samples or a metric were given, so that a comparison says something about real data.
    """
    if not is_streamed(model, config):
        return ""
    needed, free = _COPIES * model.weight_bytes, _free_memory()
    if free is not None and needed * _SHARE > free:
        return f"running both models takes about {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free"
    if config.common.workspace is not None and not wanted:
        return "workspace asks for little memory, and there are no samples to compare on"
    return ""


def _free_memory() -> int | None:
    """Return the bytes that programs can still have; ``None`` where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else None


class Scratch:
    """Room for codes in a file that has no name, so that nothing is left of it whatever happens.

    All of it is reserved at the start: a full disk is found before any work, and not in the middle of it.

    Parameters
    ----------
    folder : str or None
        Where the file lies (``workspace``); the system's folder for temporary files without one.
    entries : sequence of TensorPlan
        What gets codes.

    Raises
    ------
    OutputError
        If there is no such folder, or no room in it.
    """

    def __init__(self, folder: str | None, entries: Sequence[TensorPlan]) -> None:
        size = sum(_room(entry) for entry in entries) or _PAGE
        place = Path(folder) if folder is not None else Path(tempfile.gettempdir())
        if not place.is_dir():
            raise OutputError(f"[common_quant_param] workspace: {place} is no folder; make it first", path=place)
        try:
            with tempfile.TemporaryFile(dir=place) as file:
                _reserve(file.fileno(), size)
                self._pages = Pages(file.fileno(), size)
        except OSError as error:
            needed = f"{size / 1e6:.0f} MB are needed for codes ({error.strerror or error})"
            hint = "make room, or name a folder on another disk: [common_quant_param] workspace"
            raise OutputError(f"{place}: {needed}; {hint}", path=place) from error
        self._used = 0

    def take(self, entry: TensorPlan) -> NDArray[np.int8 | np.int16]:
        """Return room for the codes of an entry, in its shape."""
        dtype = np.dtype(np.int8 if entry.bits <= 8 else np.int16)
        found = np.frombuffer(self._pages, dtype, math.prod(entry.shape), self._used).reshape(entry.shape)
        self._used += -(-found.nbytes // 8) * 8
        return found

    def keep(self, weight: QuantizedWeight) -> QuantizedWeight:
        """Return a weight whose numbers per channel lie in the file, too; of many weights they are many megabytes."""
        return replace(
            weight,
            scale=self._copied(weight.scale),
            offset=self._copied(weight.offset),
            step=self._copied(weight.step),
            zero_point=self._copied(weight.zero_point),
            spread_correction=self._copied(weight.spread_correction),
            mean_correction=self._copied(weight.mean_correction),
        )

    def _copied(self, numbers: NDArray[Any]) -> NDArray[Any]:
        found = np.frombuffer(self._pages, numbers.dtype, numbers.size, self._used).reshape(numbers.shape)
        found[...] = numbers
        self._used += -(-numbers.nbytes // 8) * 8
        return found

    def let_go(self) -> None:
        """Give the pages back to the system; the codes are in the file."""
        let_go(self._pages)


def _room(entry: TensorPlan) -> int:
    """Return the bytes of an entry's codes and of its numbers per channel; each of them starts at a multiple of 8."""
    codes = math.prod(entry.shape) * (1 if entry.bits <= 8 else 2)
    return codes + 8 * _NUMBERS * (entry.channels + 1) + 8


def _reserve(file: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
        return
    for start in range(0, size, len(_ZEROS)):
        os.write(file, _ZEROS[: size - start])
