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


def output_error(wanted: Outputs, got: Outputs) -> float:
    """Return 1 - cosine, averaged over samples and float outputs.

    Examples
    --------
    >>> one, other = [{"y": np.array([1.0, 0.0])}], [{"y": np.array([0.0, 2.0])}]
    >>> output_error(one, one), output_error(one, other)
    (0.0, 1.0)
    """
    errors = [
        1.0 - cosine(value, there[name])
        for here, there in zip(wanted, got, strict=True)
        for name, value in here.items()
        if np.issubdtype(value.dtype, np.floating)
    ]
    return float(np.mean(errors)) if errors else 0.0
