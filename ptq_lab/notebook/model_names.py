"""Names in the model that a cell is about, kept as long as its file does not change."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import onnx

from ptq_lab.errors import ModelError
from ptq_lab.graph import Model
from ptq_lab.graph.outline import Outline, outline_file, outline_model, outline_proto

_KEPT = 8


class ModelNames:
    """Outlines of models, by path and time of change; reading one takes milliseconds and no weights.

    Examples
    --------
    >>> from ptq_lab import demo
    >>> names = ModelNames()
    >>> names.of(demo.load("digits_cnn").model_path).nodes[0]
    ('stem/Conv', 'Conv')
    >>> names.of("no such file") is None
    True
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int, int], Outline] = OrderedDict()

    def of(self, model: Any) -> Outline | None:
        """Return the names in a model or in the file at a path; ``None`` if there is none that can be read."""
        if isinstance(model, Model):
            return outline_model(model)
        if isinstance(model, onnx.ModelProto):
            return outline_proto(model)
        if not isinstance(model, str | os.PathLike):
            return None
        try:
            path = Path(model).resolve()
            seen = path.stat()
            return self._read(path, (str(path), seen.st_mtime_ns, seen.st_size))
        except (OSError, ValueError, ModelError):  # no path, no file, no model: a run will say so
            return None

    def _read(self, path: Path, key: tuple[str, int, int]) -> Outline:
        if key not in self._kept:
            self._kept[key] = outline_file(path)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]
