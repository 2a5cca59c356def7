"""`collect_statistics`: samples through the model, and what its activations were seen to hold."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from typing import TypeVar

from ptq_lab.calibration.distributions import Distribution, Spread
from ptq_lab.calibration.extents import Extent, measure_extent
from ptq_lab.calibration.samples import Samples
from ptq_lab.calibration.sweep import Gauge, Sweep, Tally, run_sweep
from ptq_lab.calibration.trimming import Pools
from ptq_lab.errors import InferenceError
from ptq_lab.graph import Model, observe
from ptq_lab.numerics import NEEDS, TensorStatistics
from ptq_lab.progress import Progress, Step, silent
from ptq_lab.runtime import CPU, open_session, run_session

STAGE = "calibrate"

T = TypeVar("T", bound=Tally)


def collect_statistics(
    model: Model,
    tensors: Sequence[str],
    samples: Samples,
    *,
    methods: Collection[str] = ("MAX_MIN",),
    channels: bool = False,
    providers: Sequence[str] = CPU,
    threads: int = 1,
    executor: Executor | None = None,
    progress: Progress = silent,
) -> dict[str, TensorStatistics]:
    """Run the float model over the samples and collect what range methods need to know.

    A first sweep lets the model itself reduce every tensor to its extremes. Only if a method needs more, a second
    one looks at all values. While one sample runs the next one is read. Memory does not grow with the number of
    samples, and the result is the same to the last bit however they are shared out.

    Parameters
    ----------
    model : Model
        The float model.
    tensors : sequence of str
        Float tensors that will be quantized: graph inputs and what stands *behind* an activation function.
    samples : Samples
    methods : collection of str
        Keys of `ptq_lab.numerics.METHODS` that are going to be used.
    channels : bool
        Extremes per index of axis 1 as well, where there is such an axis.
    providers : sequence of str
        onnxruntime execution providers.
    threads : int
        Threads within one operator; 0 leaves the choice to onnxruntime.
    executor : concurrent.futures.Executor, optional
        Threads, processes or other machines; parts of the samples are run there, one onnxruntime thread each.
    progress : callable
        Is told about every sample (with an executor: about every part). What it raises stops the work, and nothing
        is left running.

    Returns
    -------
    dict of str to TensorStatistics
        In the order of `tensors`.

    Raises
    ------
    ModelError
        If the model has no such tensor, or it is not of a float type.
    InferenceError
        If onnxruntime fails, a tensor holds NaN or infinity (the sample is named), or never holds any value.
    SampleError
        If a sample cannot be read.
    ValueError
        If a method is unknown.

    Notes
    -----
    Source: the original's activation calibration, which also runs the samples twice for KL and treats every sample
    as one round. ``REMOVAL_OUTLIER`` differs where rounds are small, see `ptq_lab.calibration.trimming`.

    Examples
    --------
    >>> import numpy as np
    >>> from onnx import helper
    >>> from ptq_lab.calibration import open_samples
    >>> from ptq_lab.graph import load_model
    >>> x, y = (helper.make_tensor_value_info(name, 1, ["n", 2]) for name in "xy")
    >>> graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    >>> opset = [helper.make_opsetid("", 17)]
    >>> model = load_model(helper.make_model(graph, opset_imports=opset, ir_version=8))
    >>> samples = open_samples([{"x": [-1, 2]}, {"x": [3, 4]}], model.inputs)
    >>> seen = collect_statistics(model, ["x", "y"], samples)
    >>> seen["x"].low, seen["y"].low, seen["y"].high, seen["y"].count
    (-1.0, 0.0, 4.0, 4)
    """
    names = tuple(dict.fromkeys(tensors))
    wants = frozenset(_needs(method) for method in methods) - {""}
    if not names:
        return {}
    tick = _ticker(progress, len(samples) * (2 if wants else 1))

    def sweep(observed: Model, outputs: Mapping[str, tuple[str, ...]], gauges: Mapping[str, Gauge[T]]) -> dict[str, T]:
        plan = Sweep(
            model=observed.serialize(), outputs=outputs, gauges=gauges, providers=tuple(providers), threads=threads
        )
        return run_sweep(plan, samples, executor=executor, tick=tick)

    ranks = _ranks(model, names, samples, providers) if channels else {}
    observed, outputs = observe(model, names, reduce=True, channel_ranks=ranks)
    extents = sweep(observed, outputs, dict.fromkeys(names, measure_extent))
    _require_values(model, extents, samples)
    distributions: dict[str, Distribution] = {}
    if wants:
        observed, outputs = observe(model, names)
        distributions = sweep(observed, outputs, {name: _spread(extents[name], wants) for name in names})
    return {name: _statistics(extents[name], distributions.get(name)) for name in names}


def _needs(method: str) -> str:
    if method not in NEEDS:
        raise ValueError(f"methods: there is no {method!r}; allowed: {', '.join(NEEDS)}")
    return NEEDS[method]


def _ticker(progress: Progress, total: int) -> Callable[[int, str], None]:
    done = 0

    def tick(samples: int, place: str) -> None:
        nonlocal done
        done += samples
        progress(Step(STAGE, done, total, place))

    return tick


def _ranks(model: Model, names: Sequence[str], samples: Samples, providers: Sequence[str]) -> dict[str, int]:
    """Run one sample to see which tensors have channels; a graph does not always tell, and never wrongly."""
    observed, outputs = observe(model, names)
    session = open_session(observed, providers=providers)
    arrays = run_session(session, next(iter(samples)))
    ranks = {name: arrays[output].ndim for name, (output,) in outputs.items()}
    return {name: rank for name, rank in ranks.items() if rank > 1}


def _require_values(model: Model, extents: Mapping[str, Extent], samples: Samples) -> None:
    for name, extent in extents.items():
        if not extent.count:
            raise InferenceError(
                f"{model.label}: the tensor {name} is empty for each of {samples.origin}, so it has no range; "
                "leave it out, or give samples for which it holds values"
            )


def _spread(extent: Extent, wants: frozenset[str]) -> Spread:
    pools = Pools.plan(rounds=extent.rounds, fewest=extent.fewest, most=extent.most)
    return Spread(low=extent.low, high=extent.high, wants=wants, pools=pools)


def _statistics(extent: Extent, distribution: Distribution | None) -> TensorStatistics:
    trimmed = distribution.trimmed if distribution is not None else None
    means = trimmed.means if trimmed is not None else (None, None)
    return TensorStatistics(
        low=extent.low,
        high=extent.high,
        count=extent.count,
        rounds=extent.rounds,
        round_low=means[0],
        round_high=means[1],
        histogram=distribution.histogram if distribution is not None else None,
        absolute=distribution.absolute if distribution is not None else None,
        channel_low=extent.channel_low,
        channel_high=extent.channel_high,
    )
