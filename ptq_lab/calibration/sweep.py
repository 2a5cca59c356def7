"""One pass of the samples through a model, with something measured about each of its outputs.

What is measured of one sample is a `Tally`, and tallies merge. A pass over parts of the samples in other threads,
processes or machines therefore gives exactly what one pass in order gives, if merging is associative, down to the
last bit; every tally here is (it counts, compares, or adds up fractions, never floats).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Generic, Protocol, Self, TypeVar

from numpy.typing import NDArray

from ptq_lab.calibration.samples import Samples
from ptq_lab.errors import InferenceError
from ptq_lab.runtime import open_session, run_session


class Tally(Protocol):
    """What was measured about one tensor over some samples."""

    def merge(self, other: Self) -> Self:
        """Return what was measured over these samples and over those that follow."""


T = TypeVar("T", bound=Tally)

Gauge = Callable[[int, Sequence[NDArray[Any]]], T]
"""``(index of the sample, a tensor's outputs) -> Tally``; FloatingPointError where the values cannot be measured."""

Tick = Callable[[int, str], None]
"""Is told how many samples are done, and where the last one came from."""

_AHEAD = 1  # samples that lie ready while one runs
_LEAST_PART = 16  # samples; every part loads the model once, so it should be worth it
_MOST_PARTS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep(Generic[T]):
    """What to run and what to measure; it can be pickled.

    Attributes
    ----------
    model : bytes
        The model as a file, with outputs from `ptq_lab.graph.observe`.
    outputs : mapping of str to tuple of str
        Tensor to the names of its outputs.
    gauges : mapping of str to Gauge
        Tensor to what measures it.
    providers : tuple of str
        onnxruntime execution providers.
    threads : int
        Threads within one operator; 0 leaves the choice to onnxruntime, in a part of an executor it is 1.
    """

    model: bytes
    outputs: Mapping[str, tuple[str, ...]]
    gauges: Mapping[str, Gauge[T]]
    providers: tuple[str, ...]
    threads: int


def run_sweep(sweep: Sweep[T], samples: Samples, *, executor: Executor | None, tick: Tick) -> dict[str, T]:
    """Run all samples and return the tally of each tensor.

    Parameters
    ----------
    sweep : Sweep
    samples : Samples
    executor : concurrent.futures.Executor or None
        Where parts of the samples are run; ``None``: here, one after the other.
    tick : callable
        Called in this thread. What it raises stops the sweep; no work of it is left running then.

    Raises
    ------
    InferenceError
        If onnxruntime fails, or a gauge refuses the values; the sample and the tensor are named.
    SampleError
        If a sample cannot be read.
    """
    if executor is None:
        return run_part(sweep, samples, 0, tick)
    sweep = replace(sweep, threads=sweep.threads or 1)
    edges = _edges(len(samples))
    bounds = list(pairwise(edges))
    tallies: dict[str, T] = {}
    with _cancelled_on_failure(
        [executor.submit(run_part, sweep, samples.part(start, stop), start) for start, stop in bounds]
    ) as parts:
        for (start, stop), part in zip(bounds, parts, strict=True):
            _merge_into(tallies, part.result())
            tick(stop - start, samples.place(stop - 1))
    return tallies


def run_part(sweep: Sweep[T], samples: Samples, first: int, tick: Tick | None = None) -> dict[str, T]:
    """Run some of the samples, of which the first has the index `first`; the task that executors are given."""
    session = open_session(sweep.model, providers=sweep.providers, threads=sweep.threads)
    tallies: dict[str, T] = {}

    def finish(running: Future[dict[str, T]], place: str) -> None:
        _merge_into(tallies, running.result())
        if tick is not None:
            tick(1, place)

    # The next samples are read here while one runs there. Not the other way round: arrays of many sizes that one
    # thread allocates and another one frees leave holes in the memory, and the process grows for a while.
    with ThreadPoolExecutor(1, thread_name_prefix="ptq_lab-inference") as runner:
        waiting: deque[tuple[Future[dict[str, T]], str]] = deque()
        try:
            for index, feeds in enumerate(samples):
                place = samples.place(index)
                waiting.append((runner.submit(_measure, sweep, session, feeds, first + index, place), place))
                del feeds  # or one sample more would be held while the next is read
                if len(waiting) > _AHEAD:
                    finish(*waiting.popleft())
            while waiting:
                finish(*waiting.popleft())
        finally:
            runner.shutdown(cancel_futures=True)
    return tallies


def _measure(sweep: Sweep[T], session: Any, feeds: Mapping[str, NDArray[Any]], index: int, place: str) -> dict[str, T]:
    """Run one sample and measure its tensors."""
    try:
        arrays = run_session(session, feeds)
    except InferenceError as fault:
        raise InferenceError(f"{place}: {fault}") from fault
    tallies: dict[str, T] = {}
    for tensor, names in sweep.outputs.items():
        try:
            tallies[tensor] = sweep.gauges[tensor](index, [arrays[name] for name in names])
        except FloatingPointError as fault:
            raise InferenceError(
                f"{place}: the tensor {tensor} holds {fault}, and only finite numbers can be quantized; "
                "is the sample good and its preprocessing that of the model?"
            ) from fault
    return tallies


def _merge_into(tallies: dict[str, T], more: Mapping[str, T]) -> None:
    for tensor, tally in more.items():
        tallies[tensor] = tallies[tensor].merge(tally) if tensor in tallies else tally


@contextmanager
def _cancelled_on_failure(futures: list[Future[Any]]) -> Iterator[list[Future[Any]]]:
    try:
        yield futures
    except BaseException:  # an interrupt too: nothing may go on in the background
        wait([future for future in futures if not future.cancel()])
        raise


def _edges(count: int) -> list[int]:
    parts = max(1, min(_MOST_PARTS, count // _LEAST_PART))
    return [count * part // parts for part in range(parts + 1)]
