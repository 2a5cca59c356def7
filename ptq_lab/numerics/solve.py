"""Inverse factors of covariances, the same to the last bit however many threads a linear algebra library uses.

LAPACK's own Cholesky divides its work by the number of threads, which shows in the last bits, and one last bit is
enough to round a weight the other way. Here everything large is a matrix product, whose elements do not depend on it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_SMALL = 32  # rows that are eliminated one by one


def inverse_factor(matrix: Floats) -> Floats:
    """Return the upper triangular U with ``inverse(matrix) = U.T @ U``.

    Parameters
    ----------
    matrix : ndarray of float64, shape (..., K, K)
        Symmetric and positive definite.

    Raises
    ------
    ValueError
        If a matrix is not positive definite.

    Notes
    -----
    With J the reversal of the order and ``J matrix J = L L.T``, U is ``J inverse(L) J``.

    Examples
    --------
    >>> upper = inverse_factor(np.array([[4.0, 2.0], [2.0, 2.0]]))
    >>> (upper.T @ upper).round(6).tolist()
    [[0.5, -0.5], [-0.5, 1.0]]
    """
    _, inverse = _factor(np.ascontiguousarray(matrix[..., ::-1, ::-1], np.float64))
    return np.ascontiguousarray(inverse[..., ::-1, ::-1])


def solve_rows(rows: Floats, factor: Floats) -> Floats:
    """Return ``rows @ inverse(matrix)`` for the factor of :func:`inverse_factor`.

    Examples
    --------
    >>> solve_rows(np.array([[1.0, 0.0]]), inverse_factor(np.array([[4.0, 2.0], [2.0, 2.0]]))).round(6).tolist()
    [[0.5, -0.5]]
    """
    return np.asarray((rows @ np.swapaxes(factor, -1, -2)) @ factor)


def _factor(matrix: Floats) -> tuple[Floats, Floats]:
    """Return the lower Cholesky factor and its inverse, by halves."""
    size = matrix.shape[-1]
    if size <= _SMALL:
        return _eliminate(matrix)
    half = size // 2
    top, top_inverse = _factor(matrix[..., :half, :half])
    left = matrix[..., half:, :half] @ np.swapaxes(top_inverse, -1, -2)
    bottom, bottom_inverse = _factor(matrix[..., half:, half:] - left @ np.swapaxes(left, -1, -2))
    lower, inverse = np.zeros_like(matrix), np.zeros_like(matrix)
    lower[..., :half, :half], lower[..., half:, :half], lower[..., half:, half:] = top, left, bottom
    inverse[..., :half, :half], inverse[..., half:, half:] = top_inverse, bottom_inverse
    inverse[..., half:, :half] = -(bottom_inverse @ (left @ top_inverse))
    return lower, inverse


def _eliminate(matrix: Floats) -> tuple[Floats, Floats]:
    """Return the same for a small matrix, column by column."""
    size = matrix.shape[-1]
    lower, inverse = np.zeros_like(matrix), np.zeros_like(matrix)
    rest = matrix.copy()
    for column in range(size):
        pivot = rest[..., column, column]
        if not (pivot > 0.0).all():
            raise ValueError("the matrix is not positive definite")
        lower[..., column:, column] = rest[..., column:, column] / np.sqrt(pivot)[..., None]
        below = lower[..., column + 1 :, column]
        rest[..., column + 1 :, column + 1 :] -= below[..., :, None] * below[..., None, :]
    for row in range(size):
        solved = (lower[..., row, :row, None] * inverse[..., :row, :]).sum(axis=-2)
        inverse[..., row, :] = -solved
        inverse[..., row, row] += 1.0
        inverse[..., row, :] /= lower[..., row, row, None]
    return lower, inverse
