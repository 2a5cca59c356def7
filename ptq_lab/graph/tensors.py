"""What a model says about a tensor it takes or gives: name, element type, shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output of a model.

    Attributes
    ----------
    name : str
        As the model spells it.
    dtype : numpy.dtype
        Element type.
    shape : tuple of (int or str)
        A size, or the name of a dynamic axis (``"?"`` when it has none).

    Examples
    --------
    >>> TensorSpec(name="image", dtype=np.dtype("float32"), shape=("batch", 3, 224, 224)).fixed(batch=1)
    (1, 3, 224, 224)
    """

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | str, ...]

    def fixed(self, *, batch: int = 1, other: int = 1) -> tuple[int, ...]:
        """Return the shape with numbers only: a dynamic first axis counts ``batch``, any other ``other``."""
        return tuple(
            size if isinstance(size, int) else (batch if axis == 0 else other) for axis, size in enumerate(self.shape)
        )
