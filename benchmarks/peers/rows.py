"""One row per model, tool, mode and variant: as data, in a CSV file, and merged with rows measured before."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

OK, NOT_OFFERED, FAILED, TIMED_OUT, NOT_LOADABLE = "ok", "not offered", "failed", "timed out", "not loadable"
UNCHANGED = 1 - 1e-7  # a cosine above this in a file as large as the float model: nothing was quantized
HARDLY_SMALLER = 0.9
_FORMS = {"cosine": ".8f", "cosine_p1": ".6f", "cosine_min": ".6f", "agreement": ".4f", "metric": ".4f"} | {
    "metric_float": ".4f",
    "latency": ".3f",
    "latency_low": ".3f",
    "latency_high": ".3f",
    "wall_s": ".1f",
    "cpu_s": ".1f",
    "peak_mb": ".0f",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What was measured.

    Attributes
    ----------
    model, tool, mode, variant : str
        What was done; together they are the key.
    status, reason : str
        ``ok``, or what went wrong.
    settings : str
        As the adapter tells them.
    data : str
        Which samples.
    samples, evaluated : int
        Counts for calibration and for judging.
    float_bytes, bytes : int
        Of the two files.
    cosine, cosine_p1, cosine_min : float
        Of the outputs with those of the float model: mean over samples, first percentile, least.
    agreement : float
        Share of samples that get the same class.
    metric_name, metric_float, metric
        The task's own score, before and after.
    latency, latency_low, latency_high : float
        Ratio to the float model, median and quartiles.
    wall_s, cpu_s, peak_mb : float
        Of the whole quantizing process: median over rounds, memory the largest.
    rounds : int
    version, runtime, date, processor, load, command : str
        Where the numbers come from.
    """

    model: str
    tool: str
    mode: str
    variant: str
    status: str
    reason: str = ""
    settings: str = ""
    data: str = ""
    samples: int | None = None
    evaluated: int | None = None
    float_bytes: int | None = None
    bytes: int | None = None
    cosine: float | None = None
    cosine_p1: float | None = None
    cosine_min: float | None = None
    agreement: float | None = None
    metric_name: str = ""
    metric_float: float | None = None
    metric: float | None = None
    latency: float | None = None
    latency_low: float | None = None
    latency_high: float | None = None
    wall_s: float | None = None
    cpu_s: float | None = None
    peak_mb: float | None = None
    rounds: int | None = None
    version: str = ""
    runtime: str = ""
    date: str = ""
    processor: str = ""
    load: str = ""
    command: str = ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What makes a row replace another."""
        return self.model, self.tool, self.mode, self.variant

    @property
    def unchanged(self) -> bool:
        """Whether the tool said that all went well and quantized nothing."""
        if self.cosine is None or self.bytes is None or self.float_bytes is None:
            return False
        return self.cosine > UNCHANGED and self.bytes > HARDLY_SMALLER * self.float_bytes

    @property
    def usable(self) -> bool:
        """Whether there is a quantized model to compare."""
        return self.status == OK and self.cosine is not None and not self.unchanged

    @property
    def smaller(self) -> bool:
        """Whether the file is worth having: usable, and less than 0.9 of the float file."""
        return self.usable and (self.bytes or 0) < HARDLY_SMALLER * (self.float_bytes or 0)

    @property
    def error(self) -> float:
        """1 - cosine."""
        return 1.0 - (self.cosine or 0.0)


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a file; none if it does not exist."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as lines:
        return [Row(**{name: _value(name, text) for name, text in line.items()}) for line in csv.DictReader(lines)]


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows, replacing the file whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    with beside.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(_TYPES)
        writer.writerows([_text(name, getattr(row, name)) for name in _TYPES] for row in rows)
    beside.replace(path)


def merged(before: Sequence[Row], after: Sequence[Row], order: Sequence[tuple[str, str, str, str]]) -> list[Row]:
    """Return all rows, new ones in the place of old ones with the same key; in a given order, the rest behind."""
    held = {row.key: row for row in (*before, *after)}
    places = {key: place for place, key in enumerate(order)}
    return sorted(held.values(), key=lambda row: places.get(row.key, len(places)))


_TYPES = {each.name: str(each.type).partition(" ")[0] for each in fields(Row)}


def _value(name: str, text: str) -> str | int | float | None:
    kind = _TYPES[name]
    if kind == "str":
        return text
    if not text:
        return None
    return int(text) if kind == "int" else float(text)


def _text(name: str, value: str | float | None) -> str:
    if value is None:
        return ""
    return format(value, _FORMS[name]) if name in _FORMS else str(value)
