"""The judge of searches: how far a quantized model's outputs are from the float model's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq_lab.graph import Model
from ptq_lab.numerics.similarity import cosine
from ptq_lab.runtime import CPU, Feeds, open_session, run_session

Outputs = Sequence[Mapping[str, NDArray[Any]]]


def outputs_of(model: Model, samples: Sequence[Feeds], *, providers: Sequence[str] = CPU) -> Outputs:
    """Return the outputs of a model for every sample."""
    session = open_session(model, providers=providers)
    return [run_session(session, feeds) for feeds in samples]


def output_errors(wanted: Outputs, got: Outputs) -> NDArray[np.float64]:
    """Return 1 - cosine per sample, averaged over float outputs.

    Examples
    --------
    >>> one, other = [{"y": np.array([1.0, 0.0])}], [{"y": np.array([0.0, 2.0])}]
    >>> output_errors(one, one).tolist(), output_errors(one, other).tolist()
    ([0.0], [1.0])
    """
    return np.array([_error(here, there) for here, there in zip(wanted, got, strict=True)])


def output_error(wanted: Outputs, got: Outputs) -> float:
    """Return the mean of :func:`output_errors`."""
    return float(output_errors(wanted, got).mean())


def clearly_smaller(errors: NDArray[np.float64], than: NDArray[np.float64]) -> bool:
    """Tell whether errors on the same samples are smaller, by more than the standard error of their difference.

    A handful of samples prefers one of two equals by chance; this leaves the choice to whoever was there first.

    Examples
    --------
    >>> steady, one_lucky_sample = np.array([1.0, 1.1, 0.9]), np.array([2.1, 2.0, 0.0])
    >>> clearly_smaller(steady, np.array([2.0, 2.0, 2.0])), clearly_smaller(one_lucky_sample, np.array([2.0, 2.0, 2.0]))
    (True, False)
    """
    gain = than - errors
    return bool(gain.mean() > gain.std(ddof=1) / np.sqrt(gain.size))


def _error(wanted: Mapping[str, NDArray[Any]], got: Mapping[str, NDArray[Any]]) -> float:
    floats = [name for name, value in wanted.items() if np.issubdtype(value.dtype, np.floating)]
    return float(np.mean([1.0 - cosine(wanted[name], got[name]) for name in floats])) if floats else 0.0
