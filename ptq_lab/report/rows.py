"""Rows of the report's tables: weights, outputs, what a model costs to run, and what it quantizes at run time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRow:
    """One weight tensor of one node.

    Attributes
    ----------
    node, op_type, tensor : str
        Node name and operator as in the original model; name of the weight.
    shape : tuple of int
        Shape of the weight.
    bits : int or None
        Bits per weight when packed; ``None`` if it stayed float.
    granularity : str
        ``"per-channel (64)"``, ``"per-tensor"``, ``"per-tensor, one step"``, or ``""`` if it stayed float.
    storage : str
        How the codes are stored, e.g. ``"int8"``, ``"uint8 lanes 4+1"``, ``"float"``, or in a container ``"coded, 5.92
        bits"`` per weight, scales included.
    bytes_before, bytes_after : int
        Bytes of the weight in the original, and of codes, scales and offsets in the quantized model.
    relative_error : float or None
        ``||w - w_dequantized|| / ||w||``.
    sqnr_db : float or None
        ``20 * log10(||w|| / ||w - w_dequantized||)``; ``inf`` when nothing was lost.
    reason : str
        Why it stayed float and which setting did it; empty if it was quantized.
    step : float or None
        Distance of two levels, in real units, where one step for the tensor was chosen by its error.
    levels : int or None
        Different codes; known where they are entropy-coded, as is the next.
    entropy : float or None
        Bits per code, order 0: the limit of a coder.
    bound : float or None
        Shannon's lower bound at this error, bits per weight; known where weights are entropy-coded.
    """

    node: str
    op_type: str
    tensor: str
    shape: tuple[int, ...]
    bits: int | None
    granularity: str
    storage: str
    bytes_before: int
    bytes_after: int
    relative_error: float | None = None
    sqnr_db: float | None = None
    reason: str = ""
    step: float | None = None
    levels: int | None = None
    entropy: float | None = None
    bound: float | None = None

    @property
    def quantized(self) -> bool:
        """Whether the weight is stored as codes."""
        return self.bits is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputRow:
    """How one output of the quantized model agrees with the original, over all inputs compared.

    Attributes
    ----------
    output : str
        Name of the output tensor.
    cosine_mean, cosine_min : float
        Cosine similarity per input (flattened), its mean and its minimum.
    sqnr_db : float
        Signal power over error power, both summed over all inputs, in dB.
    max_abs_error : float
        Largest absolute difference of any element.
    is_lost : bool
        Whether the quantized model gives nothing but NaN there.
    """

    output: str
    cosine_mean: float
    cosine_min: float
    sqnr_db: float
    max_abs_error: float
    is_lost: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PerformanceRow:
    """What one form of a model costs on this machine, against the float model.

    Attributes
    ----------
    model : str
        Which form, e.g. ``"float32"`` or ``"DYNAMIC_QUANT ALWC"``.
    arithmetic : str
        What it computes in.
    bytes : int
        File size, with external data.
    memory : int or None
        Bytes that loading it and running it once add to a process; ``None`` where that cannot be measured.
    memory_loaded : int or None
        Of these, what it holds right after loading.
    latency_ms : float
        Median of one inference on one thread.
    cosine : float
        Of its outputs against those of the float model, mean.
    compression_ratio : float
        Bytes of the float model over its own.
    memory_change, latency_change : float or None
        Relative to the float model: -0.5 is half. The latency's is the median of runs in turn.
    """

    model: str
    arithmetic: str
    bytes: int
    memory: int | None
    latency_ms: float
    cosine: float
    compression_ratio: float
    memory_change: float | None
    latency_change: float
    memory_loaded: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductRow:
    """One activation that is quantized at run time.

    Attributes
    ----------
    tensor : str
    readers : tuple of str
        The products that read its codes.
    granularity : str
        ``"per-tensor"`` or ``"per-row"``.
    low, high : float or None
        Smallest and largest value on the samples; ``None`` without real samples.
    sqnr_db : float or None
        Its values against their quantized ones, power over power of all samples, in dB.
    """

    tensor: str
    readers: tuple[str, ...]
    granularity: str
    low: float | None = None
    high: float | None = None
    sqnr_db: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRow:
    """How far the output of one quantized layer is from the float one.

    Attributes
    ----------
    node, op_type, tensor : str
        The layer, and the tensor it makes.
    isolated_cosine, isolated_sqnr_db : float or None
        With only this layer quantized; ``None`` if it was never reached.
    accumulated_cosine, accumulated_sqnr_db : float or None
        With everything before it quantized as well.
    channel_error : float or None
        Isolated error power over signal power, averaged over channels: it sees what is lost in small ones.
    shift_share : float or None
        Share of the isolated error's power that is the same for a whole channel, so that a bias would remove it.
    """

    node: str
    op_type: str
    tensor: str
    isolated_cosine: float | None
    isolated_sqnr_db: float | None
    accumulated_cosine: float | None
    accumulated_sqnr_db: float | None
    channel_error: float | None = None
    shift_share: float | None = None

    @property
    def harm(self) -> float:
        """How much error the layer makes by itself, 0 if unknown.

        It is ``1 - cosine`` of its output, or half the error averaged over channels where that is larger: the cosine
        does not see what is lost in small channels, and later layers may.
        """
        if self.isolated_cosine is None:
            return 0.0
        return max(0.0, 1.0 - self.isolated_cosine, 0.5 * (self.channel_error or 0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRow:
    """A layer of one model and the same layer of another.

    Attributes
    ----------
    node, op_type : str
        In the first model; empty if it has no such layer.
    other_node, other_op_type : str
        In the second model; empty if it has no such layer.
    how : str
        What told that they are the same, e.g. ``"node name"``; empty for a layer that only one model has.
    """

    node: str
    op_type: str
    other_node: str
    other_op_type: str
    how: str
