"""Channels that were rescaled against each other before a weight was quantized, found from the numbers alone.

Smoothing and equalisation multiply the channels of one layer and divide those of the layer before or behind, so that
the function stays and the weights become easier to quantize. Who compares the weights of both models sees a large
error that is none.

Sources: Nagel et al., "Data-free quantization through weight equalization and bias correction" (2019); Xiao et al.,
"SmoothQuant" (2023). There the factors are chosen; here they are recovered by alternating least squares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptq_lab.numerics.similarity import relative_error

Floats = NDArray[np.float32]
Exact = NDArray[np.float64]

WORTH_A_LOOK = 0.1  # relative error below which nothing has to be explained
EXPLAINS = 0.5  # how far the error has to fall
NEARLY = 1.2  # times the error with all factors
VARIES = 0.05  # how far factors may lie apart and still count as one
_ROUNDS = 8
_EXACT, _SMALLEST = 1e-6, 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Rescaling:
    """Factors per channel of a weight.

    Attributes
    ----------
    outputs : ndarray of float64, shape (out,)
    inputs : ndarray of float64, shape (groups, in / groups)
    """

    outputs: Exact
    inputs: Exact

    def __call__(self, weight: Floats) -> Floats:
        """Return a weight of shape (out, in / groups, ...) with its channels rescaled."""
        groups = len(self.inputs)
        parts = weight.reshape(groups, len(weight) // groups, weight.shape[1], -1)
        scaled = parts * self.outputs.reshape(groups, -1, 1, 1) * self.inputs[:, None, :, None]
        return np.asarray(scaled.reshape(weight.shape), np.float32)

    @property
    def changes_outputs(self) -> bool:
        """Whether output channels were rescaled against each other."""
        return _varies(self.outputs)

    @property
    def changes_inputs(self) -> bool:
        """Whether input channels were."""
        return _varies(self.inputs)


def find_rescaling(wanted: Floats, got: Floats, *, groups: int = 1) -> Rescaling | None:
    """Return the factors that make one weight another, ``None`` unless they explain most of the difference.

    Parameters
    ----------
    wanted, got : ndarray of float32, shape (out, in / groups, ...)
    groups : int
        Of a convolution.

    Examples
    --------
    >>> weight = np.array([[1.0, 2.0, -1.0], [3.0, 1.0, 2.0]], np.float32)
    >>> found = find_rescaling(weight, weight * np.array([1.0, 4.0, 0.5], np.float32))
    >>> found.changes_inputs, found.changes_outputs, (found.inputs / found.inputs[0, 0]).round(3).tolist()
    (True, False, [[1.0, 4.0, 0.5]])
    """
    before = relative_error(wanted, got)
    if before < WORTH_A_LOOK or wanted.ndim < 2 or wanted.shape != got.shape or len(wanted) % groups:
        return None
    shape = groups, len(wanted) // groups, wanted.shape[1], -1
    x, y = (each.astype(np.float64).reshape(shape) for each in (wanted, got))
    products, powers = (x * y).sum(axis=3), (x * x).sum(axis=3)  # (groups, out, in)
    fitted = _fit(products, powers)
    only_inputs, only_outputs = _fit(products, powers, outputs=False), _fit(products, powers, inputs=False)
    # Fewer factors follow the rounding less: they are taken where they explain nearly as much.
    enough = min(EXPLAINS * before, NEARLY * relative_error(fitted(wanted), got) + _EXACT)
    candidates = (only_inputs, only_outputs, fitted)
    return next((one for one in candidates if relative_error(one(wanted), got) <= enough), None)


def _fit(products: Exact, powers: Exact, *, inputs: bool = True, outputs: bool = True) -> Rescaling:
    """Alternate between the factors of input and of output channels, or fit those of one side alone."""
    of_outputs, of_inputs = np.ones(powers.shape[:2]), np.ones((len(powers), powers.shape[2]))
    for _ in range(_ROUNDS if inputs and outputs else 1):
        if inputs:
            across = of_outputs[:, :, None]
            of_inputs = _ratio((products * across).sum(axis=1), (powers * across**2).sum(axis=1))
        if outputs:
            across = of_inputs[:, None, :]
            of_outputs = _ratio((products * across).sum(axis=2), (powers * across**2).sum(axis=2))
    return Rescaling(_usable(of_outputs.reshape(-1)), _usable(of_inputs))


def _ratio(products: Exact, powers: Exact) -> Exact:
    return np.divide(products, powers, out=np.ones_like(products), where=powers > 0.0)


def _usable(factors: Exact) -> Exact:
    """Give channels that rounding has emptied, or that were turned round, the smallest of the other factors.

    A channel that was rescaled to less than a step is lost like this; one that was emptied on purpose stays a loss.
    """
    known = factors[factors > _SMALLEST]
    return np.where(factors > _SMALLEST, factors, known.min() if known.size else 1.0)


def _varies(factors: Exact) -> bool:
    """Tell whether factors lie apart; those that nothing told are left out."""
    sizes = np.abs(factors[np.isfinite(factors) & (factors != 0.0)])
    if sizes.size < 2:
        return False
    return bool(np.abs(np.log(sizes / np.median(sizes))).max() > VARIES)
