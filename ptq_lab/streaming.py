"""Models that are quantized without being held: when that is done, where codes lie, and what it rules out."""

from __future__ import annotations

import math
import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq_lab.config import QuantConfig
from ptq_lab.entries import TensorPlan
from ptq_lab.errors import ConfigError, OutputError, Problem
from ptq_lab.graph import Model
from ptq_lab.graph.mapped import Pages, fetch, let_go
from ptq_lab.numerics import QuantizedWeight, round_weight, weight_error
from ptq_lab.plan import QuantPlan, in_blocks, refusing_nan
from ptq_lab.progress import Progress, Step, silent
from ptq_lab.report.weight_outlines import WeightLook, outline_weight

LARGE = 1 << 30  # bytes of weights from which they are streamed
_COPIES = 4  # of the weights that comparing holds: the float model, and the codes while they are decoded
_SHARE = 2  # at most one part in so many of the free memory is used for comparing
_PAGE = 4096
# Settings that hold something of all weights at once: how much, as a share of them, and what it is.
_HELD = {
    ("common_quant_param", "bit_num"): (0.5, "choosing a width for each weight keeps the codes of all of them"),
    ("ptq_lab", "encode"): (0.5, "entropy coding keeps the codes of all weights"),
    ("common_quant_param", "debug_info_save_path"): (_COPIES, "debug reports run both models"),
    ("ptq_lab.weights", "block_size"): (_COPIES, "blocks are not streamed, and both models are run"),
    ("weight_quant_param", "dequant_strategy"): (_COPIES, "blocks are not streamed, and both models are run"),
}
_NUMBERS = ("scale", "offset", "step", "zero_point", "spread_correction", "mean_correction")  # 8 bytes or fewer each
_THREADS = 2
_ZEROS = bytes(1 << 20)


def is_streamed(model: Model, config: QuantConfig) -> bool:
    """Tell whether weights go from file to file; decided by the model and the configuration, never by the machine."""
    return _is_large(model, config) and not _divides(config)


def _is_large(model: Model, config: QuantConfig) -> bool:
    if config.common.quant_type != "WEIGHT_QUANT":
        return False
    return config.common.workspace is not None or model.weight_bytes >= LARGE


def _divides(config: QuantConfig) -> bool:
    """Tell whether channels may be divided into blocks, which takes all of a weight at a time."""
    return config.rounding.block_size is not None or config.weight.dequant_strategy is not None


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


def require_memory(model: Model, config: QuantConfig) -> None:
    """Refuse settings of a large model that hold more at once than there is memory for, before any work.

    Raises
    ------
    ConfigError
        For each of them, with what it takes and what is free.
    """
    free = _free_memory()
    if free is None or not _is_large(model, config):
        return
    problems = []
    for (section, key), (share, what) in _HELD.items():
        if (section, key) not in config.given or not _holds(config, key):
            continue
        needed = round(share * model.weight_bytes)
        if needed > free:
            message = f"{what}: about {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are free"
            problems.append(Problem(section=section, key=key, message=message))
    if problems:
        raise ConfigError(problems)


def _holds(config: QuantConfig, key: str) -> bool:
    return {
        "bit_num": config.common.bit_num == 0,
        "encode": config.lab.coded,
        "debug_info_save_path": config.common.debug_info_save_path is not None,
        "block_size": config.rounding.block_size is not None,
        "dequant_strategy": config.weight.dequant_strategy is not None,
    }[key]


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
        self._codes: dict[str, int] = {}
        self._numbers: dict[str, int] = {}
        size = 0
        for entry in entries:
            self._codes[entry.tensor] = size
            size += -(-math.prod(entry.shape) * _bytes_of(entry) // _PAGE) * _PAGE
        for entry in entries:  # by themselves, because a look at a number brings in all that lies around it
            self._numbers[entry.tensor] = size
            size += 8 * len(_NUMBERS) * (entry.channels + 1)
        self.seen: dict[str, WeightLook] = {}
        self._alone = threading.Lock()
        place = Path(folder) if folder is not None else Path(tempfile.gettempdir())
        if not place.is_dir():
            raise OutputError(f"[common_quant_param] workspace: {place} is no folder; make it first", path=place)
        try:
            with tempfile.TemporaryFile(dir=place) as file:
                _reserve(file.fileno(), size or _PAGE)
                self._pages = Pages(file.fileno(), size or _PAGE)
        except OSError as error:
            needed = f"{size / 1e6:.0f} MB are needed for codes ({error.strerror or error})"
            hint = "make room, or name a folder on another disk: [common_quant_param] workspace"
            raise OutputError(f"{place}: {needed}; {hint}", path=place) from error

    def round(self, entry: TensorPlan, values: NDArray[np.float32]) -> TensorPlan:
        """Return an entry with its codes in the file, and remember what a report shows of them.

        Raises
        ------
        ModelError
            If the weight holds NaN or infinity.
        """
        dtype = np.dtype(f"int{8 * _bytes_of(entry)}")
        codes = np.frombuffer(self._pages, dtype, math.prod(entry.shape), self._codes[entry.tensor])
        codes = codes.reshape(entry.shape)

        def visit(first: int, last: int) -> None:
            let_go(values)
            let_go(codes)
            fetch(values, first, last)

        with refusing_nan(entry, values):
            if entry.block_length:
                return self._in_blocks(entry, values, codes)
            found = round_weight(
                values, bits=entry.bits, axis=entry.axis, correct=entry.correct, into=codes, visit=visit
            )
        visit(0, 0)
        reaches = (found.low, found.high) if entry.axis == entry.channel_axis else None
        with self._alone:  # a few values everywhere bring in most pages of a weight
            error = weight_error(values, found.weight) if found.error is None else found.error
            self.seen[entry.tensor] = WeightLook(error, outline_weight(entry, found.weight, values, reaches=reaches))
            visit(0, 0)
        return replace(entry, weight=self._keep(found.weight, self._numbers[entry.tensor]))

    def _in_blocks(self, entry: TensorPlan, values: NDArray[np.float32], codes: NDArray[Any]) -> TensorPlan:
        """Return an entry whose channels are divided; all of the weight is in memory meanwhile."""
        weight = in_blocks(entry, values)
        codes[...] = weight.codes
        weight = replace(weight, codes=codes)
        with self._alone:
            look = WeightLook(weight_error(values, weight), outline_weight(entry, weight, values))
        self.seen[entry.tensor] = look
        let_go(values)
        let_go(codes)
        return replace(entry, weight=weight)

    def _keep(self, weight: QuantizedWeight, place: int) -> QuantizedWeight:
        """Return a weight whose numbers per channel lie in the file, too; of many weights they are many megabytes."""
        kept: dict[str, Any] = {}
        for name in _NUMBERS:
            numbers = getattr(weight, name)
            kept[name] = np.frombuffer(self._pages, numbers.dtype, numbers.size, place).reshape(numbers.shape)
            kept[name][...] = numbers
            place += -(-numbers.nbytes // 8) * 8
        let_go(self._pages)
        return replace(weight, **kept)


def round_streamed(
    plan: QuantPlan, read: Callable[[str], NDArray[np.float32]], room: Scratch, *, progress: Progress = silent
) -> QuantPlan:
    """Round every weight to the nearest point of its grid, two at a time; what comes out does not depend on that.

    Raises
    ------
    ModelError
        If a weight holds NaN or infinity.
    """

    def rounded(entry: TensorPlan) -> TensorPlan:
        return room.round(entry, read(entry.tensor))

    pool, entries = ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)), []
    try:
        for index, entry in enumerate(pool.map(rounded, plan.entries)):
            entries.append(entry)
            progress(Step("quantize", index + 1, len(plan.entries), entry.tensor))
    finally:
        pool.shutdown(cancel_futures=True)
    return replace(plan, entries=tuple(entries))


def _bytes_of(entry: TensorPlan) -> int:
    """Return the bytes of a code."""
    return 1 if entry.bits <= 8 else 2


def _reserve(file: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
        return
    for start in range(0, size, len(_ZEROS)):
        os.write(file, _ZEROS[: size - start])
