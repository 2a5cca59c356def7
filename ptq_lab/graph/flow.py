"""Where a device lets integers flow, as data for the placement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

INTEGER_LAYERS = ("Conv", "Gemm", "MatMul")
SAME_GRID = ("MaxPool", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze")  # move codes, compute nothing
ONE_GRID = ("Concat",)  # inputs and output share one grid
OWN_GRID = ("Add", "Mul", "GlobalAveragePool", "AveragePool", "LeakyRelu", "Sigmoid")
BETWEEN = (*SAME_GRID, *ONE_GRID, *OWN_GRID)
MOVES = (*SAME_GRID, "Slice", "Split", "Expand", "Identity", "Tile", "DepthToSpace", "SpaceToDepth")
"""Every operator whose output holds values of its input and nothing else."""
TAKES_CONSTANTS = ("Add", "Sub", "Mul", "Div")
"""Where everything is quantized, constant operands of these are, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Which operators of a device compute in integers, and which tensors therefore carry codes.

    The default is onnxruntime's.

    Attributes
    ----------
    layers : tuple of str
        Operators whose constant weight becomes integer; each reads codes.
    outputs : tuple of str
        Those of them whose output carries codes as well, behind an absorbed Relu or Clip.
    between : tuple of str
        Operators that may pass on or combine codes between layers.
    residuals : tuple of str
        Operators that add a shortcut to the float output of a convolution: the shortcut carries codes, the sum does
        not.
    everything : bool
        Every operator with a float result reads and makes codes; `outputs`, `between` and `residuals` have no say
        then.
    shared_weights : bool
        A weight that several nodes use may become integer.
    reasons : mapping of str to str
        Operator to the sentence that says why the device leaves it in float.

    Examples
    --------
    >>> Flow(layers=("Conv",)).outputs
    ('Conv',)
    """

    layers: tuple[str, ...] = INTEGER_LAYERS
    outputs: tuple[str, ...] = ("Conv",)
    between: tuple[str, ...] = BETWEEN
    residuals: tuple[str, ...] = ()
    everything: bool = False
    shared_weights: bool = True
    reasons: Mapping[str, str] = field(default_factory=dict)
