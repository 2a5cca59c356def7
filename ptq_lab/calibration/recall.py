"""Calibration that remembers: statistics of the same model over the same samples are not measured twice.

The key is the content of everything that shapes them: the model that runs with its weights, the tensors, the samples
and how they are read, what is counted, and the versions of the libraries that decode and compute.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray

from ptq_lab.calibration.cache import Arrays, Memory
from ptq_lab.calibration.samples import Samples
from ptq_lab.calibration.statistics import STAGE, collect_statistics
from ptq_lab.graph import Model
from ptq_lab.numerics import NEEDS, Histogram, TensorStatistics
from ptq_lab.progress import Progress, Step, silent
from ptq_lab.runtime import CPU, runtime_version

FORMAT = 1
"""Of the entries, and of what they mean; raise it when `collect_statistics` measures anything differently."""


@dataclass(slots=True, kw_only=True)
class Calibrator:
    """`collect_statistics` of one set of samples, with a memory.

    Attributes
    ----------
    samples : Samples
    providers : sequence of str
        onnxruntime execution providers.
    executor : concurrent.futures.Executor, optional
        As for `collect_statistics`; the statistics do not depend on it.
    progress : callable
    memory : Memory
        Of the run.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from onnx import helper
    >>> from ptq_lab.calibration import open_samples
    >>> from ptq_lab.graph import load_model
    >>> x, y = (helper.make_tensor_value_info(name, 1, ["n", 2]) for name in "xy")
    >>> graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    >>> opset = [helper.make_opsetid("", 17)]
    >>> model = load_model(helper.make_model(graph, opset_imports=opset, ir_version=8))
    >>> samples = open_samples([{"x": [-1, 2]}, {"x": [3, 4]}], model.inputs)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     memories = [Memory(Path(folder)), Memory(Path(folder))]
    ...     [Calibrator(samples=samples, memory=memory)(model, ["y"])["y"].high for memory in memories]
    [4.0, 4.0]
    >>> [(memory.measured, memory.reused) for memory in memories]
    [(1, 0), (0, 1)]
    """

    samples: Samples
    providers: Sequence[str] = CPU
    executor: Executor | None = None
    progress: Progress = silent
    memory: Memory = field(default_factory=Memory)

    def __call__(
        self, model: Model, tensors: Sequence[str], *, methods: Collection[str] = ("MAX_MIN",), channels: bool = False
    ) -> dict[str, TensorStatistics]:
        """Return what `collect_statistics` returns, to the last bit; it raises the same."""
        needs = sorted({NEEDS.get(method, method) for method in methods})
        facts = {"tensors": list(tensors), "needs": needs, "channels": channels, "providers": list(self.providers)}
        measure = partial(
            collect_statistics,
            model,
            tensors,
            self.samples,
            methods=methods,
            channels=channels,
            providers=self.providers,
            executor=self.executor,
            progress=self.progress,
        )

        def recalled(arrays: Arrays) -> dict[str, TensorStatistics]:
            found = unpack(arrays)
            if list(found) != list(dict.fromkeys(tensors)):
                raise ValueError
            return found

        key = partial(content_key, model, self.samples, facts)
        before = self.memory.measured
        statistics = self.memory.recall(key, measure, pack=pack, unpack=recalled)
        if self.memory.measured == before:
            self.progress(Step(STAGE, len(self.samples), len(self.samples), "from the cache"))
        return statistics


def content_key(model: Model, samples: Samples, facts: Mapping[str, Any]) -> str:
    """Return a hash of a model, of samples, and of what is measured, with all else that shapes the result.

    Parameters
    ----------
    model : Model
        What runs, weights included.
    samples : Samples
    facts : mapping
        What is measured and how, as plain data.
    """
    everything = {
        **facts,
        "format": FORMAT,
        "model": model.content(),
        "samples": samples.fingerprint(),
        "versions": [runtime_version(), np.__version__, PIL.__version__],
        "processor": _processor(),
    }
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()


def pack(statistics: Mapping[str, TensorStatistics]) -> Arrays:
    """Return statistics as plain arrays, all tensors in one array per attribute.

    Examples
    --------
    >>> seen = {"x": TensorStatistics(low=-1.0, high=3.0, count=8, rounds=2)}
    >>> unpack(pack(seen))["x"].high
    3.0
    """
    rows = list(statistics.values())
    histograms = [row.histogram for row in rows]
    numbers = [(row.low, row.high, _or_nan(row.round_low), _or_nan(row.round_high)) for row in rows]
    spans = [(np.nan, np.nan, 0) if each is None else (each.low, each.high, each.zeros) for each in histograms]
    return {
        "tensors": np.array(list(statistics)),
        "numbers": np.array(numbers, np.float64),
        "counts": np.array([(row.count, row.rounds) for row in rows], np.int64),
        "histogram_ends": np.array([span[:2] for span in spans], np.float64),
        "histogram_zeros": np.array([span[2] for span in spans], np.int64),
        **_joined("histogram", [each.counts if each is not None else None for each in histograms], np.int64),
        **_joined("absolute", [row.absolute for row in rows], np.int64),
        **_joined("channel_low", [row.channel_low for row in rows], np.float32),
        **_joined("channel_high", [row.channel_high for row in rows], np.float32),
    }


def unpack(arrays: Arrays) -> dict[str, TensorStatistics]:
    """Return the statistics that :func:`pack` was given.

    Raises
    ------
    KeyError, ValueError, IndexError, TypeError
        If the arrays are something else.
    """
    names: list[str] = arrays["tensors"].tolist()
    columns = {
        name: _apart(arrays, name, len(names)) for name in ("histogram", "absolute", "channel_low", "channel_high")
    }
    ends, zeros = arrays["histogram_ends"].tolist(), arrays["histogram_zeros"].tolist()
    found = {}
    for index, (name, numbers, counts) in enumerate(
        zip(names, arrays["numbers"].tolist(), arrays["counts"].tolist(), strict=True)
    ):
        low, high, round_low, round_high = numbers
        binned = columns["histogram"][index]
        found[name] = TensorStatistics(
            low=low,
            high=high,
            count=counts[0],
            rounds=counts[1],
            round_low=_or_none(round_low),
            round_high=_or_none(round_high),
            histogram=None
            if binned is None
            else Histogram(low=ends[index][0], high=ends[index][1], counts=binned, zeros=zeros[index]),
            absolute=columns["absolute"][index],
            channel_low=columns["channel_low"][index],
            channel_high=columns["channel_high"][index],
        )
    return found


def _processor() -> list[str]:
    """Name what the last bits of a result may depend on where a home folder is shared by several machines."""
    found: Any = np.show_config(mode="dicts")
    return [platform.machine(), *found.get("SIMD Extensions", {}).get("found", ())]


def _joined(name: str, parts: Sequence[NDArray[Any] | None], dtype: type[np.generic]) -> Arrays:
    lengths = [-1 if part is None else len(part) for part in parts]
    values = [part for part in parts if part is not None]
    joined = np.concatenate(values) if values else np.empty(0)
    return {f"{name}_lengths": np.array(lengths, np.int64), name: joined.astype(dtype)}


def _apart(arrays: Arrays, name: str, count: int) -> list[NDArray[Any] | None]:
    lengths = arrays[f"{name}_lengths"]
    stops = np.cumsum(np.maximum(lengths, 0))
    if len(lengths) != count or len(arrays[name]) != (stops[-1] if count else 0):
        raise ValueError(name)
    parts = np.split(arrays[name], stops[:-1]) if count else []
    return [None if length < 0 else part.copy() for length, part in zip(lengths, parts, strict=True)]


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value
