"""A report as JSON text and back, without loss: what was not finite, and the picture, are kept beside the tables."""

from __future__ import annotations

import base64
import binascii
import json
import math
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from ptq_lab.errors import OutputError
from ptq_lab.report.tables import Report, Table

NOT_FINITE, PICTURE = "not_finite", "picture"


@dataclass(frozen=True, slots=True, kw_only=True, eq=True)
class StoredPreview:
    """A picture of a sample, as it was written with a report; see `ptq_lab.calibration.preview.SamplePreview`."""

    input: str
    shape: tuple[int, ...]
    low: float
    high: float
    mean: float
    warnings: tuple[str, ...]
    png: bytes


def dump_report(report: Report) -> str:
    """Return a report as JSON text.

    Notes
    -----
    JSON has no infinities. They are ``null``, and ``not_finite`` tells under the path of each what it was.
    """
    record = report.to_dict()
    if report.preview is not None:
        record[PICTURE] = base64.b64encode(report.preview.png).decode("ascii")
    lost: dict[str, str] = {}
    finite = _finite(record, "", lost)
    assert isinstance(finite, dict)  # it was one before
    return json.dumps(finite | ({NOT_FINITE: lost} if lost else {}), indent=2, allow_nan=False)


def load_report(source: str | Path) -> Report:
    """Return the report that :func:`dump_report` made text of.

    Parameters
    ----------
    source : path or str
        A file, or the text itself: whatever begins with a brace.

    Raises
    ------
    OutputError
        If the file cannot be read, or is no report.

    Examples
    --------
    >>> from ptq_lab.report.tables import LayerRow, OutputRow, Summary
    >>> summary = Summary(model="m.onnx", quant_type="WEIGHT_QUANT", bits=8, bytes_before=1000,
    ...                   bytes_after=400, layers=0, layers_quantized=0, cosine_mean=1.0,
    ...                   cosine_min=1.0, sqnr_db=math.inf, compared_on="", seconds={})
    >>> report = Report(summary, Table(LayerRow), Table(OutputRow))
    >>> load_report(dump_report(report)) == report
    True
    """
    text, label = _text(source)
    try:
        record = json.loads(text)
    except ValueError as fault:
        raise OutputError(f"{label}: is no JSON ({fault}); a report.json that ptq_lab wrote is wanted") from fault
    try:
        _restore(record)
        return _report(record)
    except (LookupError, TypeError, ValueError, AttributeError, binascii.Error) as fault:
        raise OutputError(
            f"{label}: is no report of this version of ptq_lab ({type(fault).__name__}: {fault}); "
            "run the quantization or comparison again"
        ) from fault


def _text(source: str | Path) -> tuple[str, str]:
    if isinstance(source, str) and source.lstrip().startswith("{"):
        return source, "the text"
    try:
        return Path(source).read_text(encoding="utf-8"), str(source)
    except (OSError, UnicodeDecodeError) as fault:
        why = getattr(fault, "strerror", None) or fault
        raise OutputError(f"{source}: cannot be read ({why})", path=source) from fault


def _report(record: dict[str, Any]) -> Report:
    """Put tables together; what a report of another version has besides is left out."""
    hints = get_type_hints(Report)
    parts: dict[str, Any] = {}
    for column in fields(Report):
        if column.name == "preview":
            parts["preview"] = _preview(record["sample"], record.get(PICTURE, ""))
        elif column.name in record:
            parts[column.name] = _value(hints[column.name], record[column.name])
    return Report(**parts)


def _preview(sample: dict[str, Any] | None, picture: str) -> StoredPreview | None:
    if sample is None or not picture:
        return None
    return _value(StoredPreview, sample | {"png": base64.b64decode(picture)})  # type: ignore[no-any-return]


def _value(kind: Any, data: Any) -> Any:
    """Return plain data as the type that a field declares."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return None if data is None else _value(next(each for each in arguments if each is not NoneType), data)
    if origin is Table:
        return Table(arguments[0], (_value(arguments[0], row) for row in data))
    if origin is tuple:
        return tuple(_value(arguments[0], each) for each in data)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: _value(hints[name], each) for name, each in data.items() if name in hints})  # type: ignore[operator]
    return data


def _finite(data: object, path: str, lost: dict[str, str]) -> object:
    if isinstance(data, dict):
        return {key: _finite(value, f"{path}/{key}", lost) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value, f"{path}/{index}", lost) for index, value in enumerate(data)]
    if isinstance(data, float) and not math.isfinite(data):
        lost[path] = str(data)
        return None
    return data


def _restore(record: dict[str, Any]) -> None:
    """Put back what ``null`` stands for."""
    for path, number in record.pop(NOT_FINITE, {}).items():
        *way, last = path.split("/")[1:]
        place: Any = record
        for step in way:
            place = place[int(step)] if isinstance(place, list) else place[step]
        place[int(last) if isinstance(place, list) else last] = float(number)
