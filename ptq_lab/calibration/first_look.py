"""What the first sample tells about all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq_lab.calibration.samples import Samples
from ptq_lab.graph.tensors import TensorSpec

Check = Callable[[TensorSpec, NDArray[Any]], str]

IMPLAUSIBLE = 1e9
"""Values of real model inputs stay far below."""


def first_look(samples: Samples) -> list[str]:
    """Read one sample, so that what is wrong with all of them is said now; note what looks odd.

    Raises
    ------
    SampleError
        The first sample cannot be read or does not fit.
    """
    first = next(iter(samples))
    checks: tuple[Check, ...] = (_constant, _huge)
    return [note for spec in samples.inputs for check in checks if (note := check(spec, first[spec.name]))]


def _constant(spec: TensorSpec, array: NDArray[Any]) -> str:
    if spec.dtype.kind != "f" or array.size < 2 or array.min() != array.max():
        return ""
    return f"warning: {spec.name}: every value of the first sample is {float(array.min()):g}"


def _huge(spec: TensorSpec, array: NDArray[Any]) -> str:
    """Bytes of another element type read as floats give astronomic exponents."""
    if spec.dtype.kind != "f" or not array.size:
        return ""
    largest = float(np.abs(array).max())
    if largest < IMPLAUSIBLE:
        return ""
    return f"warning: {spec.name}: values up to {largest:g} in the first sample; is the element type right?"
