"""Rows about a model that quantizes its activations at run time: what it costs to run, and what it multiplies."""

from __future__ import annotations

from dataclasses import dataclass


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
