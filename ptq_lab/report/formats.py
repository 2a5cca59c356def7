"""Numbers, names and columns as text, the same in every rendering of a report.

Sizes are decimal (1 kB is 1000 bytes), relative errors are percent, SQNR is dB.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

WIDTH = 110
NAME_WIDTH = 34


def format_bytes(count: int) -> str:
    """Return a size with three significant digits and a decimal unit.

    Examples
    --------
    >>> format_bytes(864), format_bytes(12_345), format_bytes(999_999), format_bytes(4_815_814)
    ('864 B', '12.3 kB', '1.00 MB', '4.82 MB')
    """
    if count < 1000:
        return f"{count} B"
    value, unit = count / 1e3, "kB"
    for larger in ("MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1e3, larger
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {unit}"


def format_percent(ratio: float | None) -> str:
    """Return a relative error as percent with two significant digits, ``"-"`` where there is none.

    Examples
    --------
    >>> format_percent(0.00412), format_percent(0.0000312), format_percent(0.31), format_percent(None)
    ('0.41 %', '0.0031 %', '31 %', '-')
    """
    if ratio is None or math.isnan(ratio):
        return "-"
    percent = 100 * ratio
    if percent == 0 or not 1e-9 < percent < 1e6:
        return f"{percent:.2g} %"
    return f"{percent:.{max(0, 1 - math.floor(math.log10(percent)))}f} %"


def format_decibel(value: float | None) -> str:
    """Return an SQNR in dB with one decimal, ``"exact"`` when nothing was lost, ``"-"`` where there is none.

    Examples
    --------
    >>> format_decibel(41.27), format_decibel(math.inf), format_decibel(None)
    ('41.3', 'exact', '-')
    """
    if value is None or math.isnan(value):
        return "-"
    return "exact" if value == math.inf else f"{value:.1f}"


def format_seconds(seconds: float) -> str:
    """Return a duration the way people say it.

    Examples
    --------
    >>> format_seconds(0.004), format_seconds(3.21), format_seconds(75), format_seconds(3700)
    ('0.0 s', '3.2 s', '1 min 15 s', '1 h 1 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def format_shape(shape: Sequence[int]) -> str:
    """Return a shape as ``"64x3x3x3"``, ``"scalar"`` for an empty one."""
    return "x".join(str(size) for size in shape) or "scalar"


def shorten(name: str, width: int = NAME_WIDTH) -> str:
    """Cut the middle out of a name longer than `width`; its end says more than its start.

    Examples
    --------
    >>> shorten("/bert/encoder/layer.0/attention/self/query/MatMul", 24)
    '/bert/e...f/query/MatMul'
    """
    if len(name) <= width:
        return name
    head = (width - 3) // 3
    return f"{name[:head]}...{name[len(name) - (width - 3 - head) :]}"


def text_table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> str:
    """Return aligned columns under ruled headers; the columns named in `right` align to the right."""
    widths = [max(len(row[i]) for row in [headers, *rows]) for i in range(len(headers))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if header in right else cell.ljust(width)
            for header, cell, width in zip(headers, cells, widths, strict=True)
        ]
        return "  ".join(padded).rstrip()

    return "\n".join([line(headers), line(["-" * width for width in widths]), *map(line, rows)])
