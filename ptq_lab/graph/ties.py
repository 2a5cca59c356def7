"""Weights that a file holds twice, made one: what is tied in training is often written out once per use."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ptq_lab.graph.model import Model, shape_of

_LEAST = 1024  # bytes from which a second copy is worth looking for
_LOOK = 64  # bytes of either end that are compared before all others


def tie_weights(model: Model) -> Model:
    """Return a model whose equal weights are one initializer; the model itself where all are different.

    Of equal weights the first stays, and all that read another read it instead; the function is the same to the last
    bit. Names of outputs stay.

    Parameters
    ----------
    model : Model
        Not changed.

    Examples
    --------
    >>> from ptq_lab import demo
    >>> from ptq_lab.graph import load_model
    >>> model = load_model(demo.load("digits_cnn").model_path)
    >>> tie_weights(model) is model
    True
    """
    twins = _twins(model.graph)
    if not twins:
        return model
    tied = model.clone()
    held = tied.graph.initializers
    for name, first in twins.items():
        held[name].replace_all_uses_with(held[first])
        del held[name]
    return tied


def _twins(graph: ir.Graph) -> dict[str, str]:
    """Return the initializers that equal an earlier one, with its name."""
    alike: dict[tuple[object, ...], list[str]] = defaultdict(list)
    found, held = {}, graph.initializers
    for name, value in held.items():
        tensor = value.const_value
        if tensor is None or tensor.nbytes < _LEAST or value.is_graph_output() or value.is_graph_input():
            continue
        data = _bytes(tensor)
        key = tensor.dtype, shape_of(tensor), data[:_LOOK].tobytes(), data[-_LOOK:].tobytes()
        first = next((other for other in alike[key] if np.array_equal(_bytes(held[other].const_value), data)), None)
        if first is None:
            alike[key].append(name)
        else:
            found[name] = first
    return found


def _bytes(tensor: ir.TensorProtocol | None) -> NDArray[np.uint8]:
    """Return the bytes of a tensor, which are not kept: those of a lazy one are read again when they are asked for."""
    assert tensor is not None  # it was looked at before
    return np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8)
