"""Statistics of activations against numpy over everything at once, however the samples are shared out."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ptq_lab.calibration import Samples, collect_statistics, open_samples
from ptq_lab.calibration.distributions import Spread
from ptq_lab.calibration.extents import measure_extent
from ptq_lab.calibration.trimming import Pools, trim_round
from ptq_lab.errors import InferenceError, ModelError, SampleError
from ptq_lab.graph import Model, load_model
from ptq_lab.numerics import METHODS, TensorStatistics, choose_range, count_magnitudes, count_values
from ptq_lab.progress import Step
from tests import models
from tests.models import node

Array = NDArray[Any]
TENSORS = ("x", "r", "p", "y")
EVERYTHING = tuple(METHODS)


@pytest.fixture(scope="module")
def model() -> Model:
    """``x (n, 3, h, w) -> Conv -> Relu -> r -> GlobalAveragePool -> p -> Flatten -> y``."""
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"]),
        node("GlobalAveragePool", ["r"], ["p"]),
        node("Flatten", ["p"], ["y"]),
    ]
    weights = {"w": models.random(5, 3, 3, 3), "b": models.random(5)}
    return load_model(models.model(nodes, {"x": ("n", 3, "h", "w")}, ["y"], weights))


def images(count: int, size: int = 20) -> list[Array]:
    random = np.random.default_rng(11)
    return [random.laplace(0.1, 1 + index % 5, (3, size, size)).astype(np.float32) for index in range(count)]


def samples_of(model: Model, arrays: Sequence[Array]) -> Samples:
    return open_samples([{"x": array} for array in arrays], model.inputs)


def activations(run: Any, model: Model, arrays: Sequence[Array]) -> dict[str, list[Array]]:
    """Every tensor of every sample, from an untouched copy of the model with more outputs."""
    proto = onnx.load_from_string(model.serialize())
    proto.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in ("r", "p"))
    rounds = [{"x": array[None], **run(proto, {"x": array[None]})} for array in arrays]
    return {name: [values[name] for values in rounds] for name in TENSORS}


def as_data(statistics: TensorStatistics) -> list[Any]:
    """Everything in it, to the last bit."""
    numbers = ("low", "high", "count", "rounds", "round_low", "round_high")
    arrays = (statistics.absolute, statistics.channel_low, statistics.channel_high)
    histogram = statistics.histogram
    return [
        *(repr(getattr(statistics, name)) for name in numbers),
        *(None if array is None else array.tobytes() for array in arrays),
        histogram and (histogram.low, histogram.high, histogram.zeros, histogram.counts.tobytes()),
    ]


# --- what is collected


def test_extremes_and_numbers_are_those_of_all_values(run: Any, model: Model) -> None:
    arrays = images(7)
    seen = collect_statistics(model, TENSORS, samples_of(model, arrays))

    assert list(seen) == list(TENSORS)
    for name, rounds in activations(run, model, arrays).items():
        values = np.concatenate([one.reshape(-1) for one in rounds])
        assert seen[name].low == pytest.approx(values.min(), rel=1e-6, abs=1e-7)
        assert seen[name].high == pytest.approx(values.max(), rel=1e-6)
        assert (seen[name].count, seen[name].rounds) == (values.size, 7)
        assert seen[name].histogram is seen[name].absolute is seen[name].round_low is seen[name].channel_low is None


def test_histograms_are_those_of_all_values(run: Any, model: Model) -> None:
    arrays = images(5)
    seen = collect_statistics(model, TENSORS, samples_of(model, arrays), methods=["KL", "MSE"])

    for name, rounds in activations(run, model, arrays).items():
        values = np.concatenate([one.reshape(-1) for one in rounds])
        low, high = min(seen[name].low, 0.0), max(seen[name].high, 0.0)
        wanted = count_values(values, low, high)
        # another fusion of the same graph may move a value by its last bit, and with it across an edge
        assert np.abs(seen[name].histogram.counts - wanted.counts).sum() <= 4  # type: ignore[union-attr]
        assert seen[name].histogram.zeros == wanted.zeros  # type: ignore[union-attr]
        assert np.abs(seen[name].absolute - count_magnitudes(values, max(-low, high))).sum() <= 4  # type: ignore[operator]
        assert seen[name].round_low is None


def test_channels_are_the_extremes_along_axis_1(run: Any, model: Model) -> None:
    arrays = images(4)
    seen = collect_statistics(model, ["x", "r", "y"], samples_of(model, arrays), channels=True)

    for name, axes in {"x": (0, 2, 3), "r": (0, 2, 3), "y": (0,)}.items():
        stacked = np.concatenate(activations(run, model, arrays)[name])
        np.testing.assert_allclose(seen[name].channel_low, stacked.min(axis=axes), rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(seen[name].channel_high, stacked.max(axis=axes), rtol=1e-6)
        assert seen[name].low == seen[name].channel_low.min()  # type: ignore[union-attr]


def test_an_axis_1_of_changing_length_is_no_channel_axis() -> None:
    flexible = load_model(models.model([node("Relu", ["x"], ["y"])], {"x": ("n", "t", 2)}, ["y"]))
    samples = open_samples([{"x": np.ones((1, length, 2))} for length in (2, 3, 3)], flexible.inputs)
    seen = collect_statistics(flexible, ["y"], samples, channels=True)["y"]

    assert (seen.channel_low, seen.channel_high, seen.count) == (None, None, 16)


def test_sizes_may_change_from_sample_to_sample(run: Any, model: Model) -> None:
    arrays = [image for size in (8, 120, 5) for image in images(2, size)]
    seen = collect_statistics(model, TENSORS, samples_of(model, arrays), methods=EVERYTHING)

    for name, rounds in activations(run, model, arrays).items():
        assert seen[name].count == sum(one.size for one in rounds)
        assert seen[name].histogram.total == seen[name].count  # type: ignore[union-attr]


# --- outliers


def order_statistics(values: Array) -> tuple[float, float]:
    ordered = np.sort(values.reshape(-1))
    return float(ordered[int(0.0001 * ordered.size)]), float(ordered[int(0.9999 * ordered.size)])


def mean_of(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    low, high = np.mean(np.array(pairs, np.float64), axis=0)
    return float(low), float(high)


def collect_x(arrays: Sequence[Array], method: str = "REMOVAL_OUTLIER", **how: Any) -> TensorStatistics:
    identity = load_model(models.model([node("Relu", ["x"], ["y"])], {"x": ("n", 3, "h", "w")}, ["y"]))
    return collect_statistics(identity, ["x"], samples_of(identity, arrays), methods=[method], **how)["x"]


def test_outliers_of_large_rounds_are_removed_round_by_round() -> None:
    arrays = images(5, size=100)  # 30,000 values: three are left out at either end of each round
    seen = collect_x(arrays)

    assert choose_range(seen, "REMOVAL_OUTLIER", never_negative=False) == pytest.approx(
        mean_of([order_statistics(array) for array in arrays]), rel=1e-12
    )
    assert seen.low < seen.round_low < 0 < seen.round_high < seen.high  # type: ignore[operator]


def test_small_rounds_are_pooled_until_something_can_be_removed() -> None:
    arrays = images(23, size=20)  # 1200 values: 9 rounds make 10,800, and the other 14 are one pool too
    pools = [np.stack(arrays[:9]), np.stack(arrays[9:])]
    seen = collect_x(arrays)

    assert (seen.round_low, seen.round_high) == pytest.approx(mean_of(list(map(order_statistics, pools))), rel=1e-12)
    assert seen.low < seen.round_low  # type: ignore[operator]


def test_the_smallest_round_says_how_many_are_pooled() -> None:
    arrays = [images(1, size)[0] for size in (100, 20, 100, 30, *[25] * 16)]  # 1200 values at least: 9 rounds
    flat = [array.reshape(-1) for array in arrays]
    pools = [np.concatenate(flat[:9]), np.concatenate(flat[9:])]
    seen = collect_x(arrays)

    assert (seen.round_low, seen.round_high) == pytest.approx(mean_of(list(map(order_statistics, pools))), rel=1e-12)


def test_fewer_values_than_a_pool_needs_are_kept_whole() -> None:
    seen = collect_x(images(2, size=5))

    assert (seen.round_low, seen.round_high) == (seen.low, seen.high)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 12_000), min_size=1, max_size=14), st.integers(0, 1000), st.data())
def test_trimming_needs_only_the_outermost_values_whatever_the_sizes(
    sizes: list[int], seed: int, data: st.DataObject
) -> None:
    random = np.random.default_rng(seed)
    rounds = [random.standard_normal(size).astype(np.float32) for size in sizes]
    pools = Pools.plan(rounds=len(sizes), fewest=min(sizes), most=max(sizes))
    order = data.draw(st.permutations(range(len(sizes))))
    trimmed = trim_round(pools, order[0], rounds[order[0]])
    for index in order[1:]:
        trimmed = trimmed.merge(trim_round(pools, index, rounds[index]))

    members = [[i for i in range(len(sizes)) if pools.of(i) == pool] for pool in range(pools.of(len(sizes) - 1) + 1)]
    wanted = [order_statistics(np.concatenate([rounds[i] for i in group])) for group in members]

    assert trimmed.means == pytest.approx(mean_of(wanted), rel=1e-12)
    assert not trimmed.unfinished
    assert len(members) == 1 or all(sum(sizes[i] for i in group) >= 10_000 for group in members)


# --- the same result however the work is shared out


@pytest.fixture(scope="module")
def forty_images() -> list[Array]:
    return images(40, size=24)


@pytest.fixture(scope="module")
def in_one_go(model: Model, forty_images: list[Array]) -> dict[str, TensorStatistics]:
    samples = samples_of(model, forty_images)
    return collect_statistics(model, TENSORS, samples, methods=EVERYTHING, channels=True, threads=1)


def same(model: Model, arrays: list[Array], wanted: dict[str, TensorStatistics], **how: Any) -> bool:
    seen = collect_statistics(
        model, TENSORS, samples_of(model, arrays), methods=EVERYTHING, channels=True, **({"threads": 1} | how)
    )
    return {name: as_data(one) for name, one in seen.items()} == {name: as_data(one) for name, one in wanted.items()}


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_of_an_executor_change_no_bit(
    model: Model, forty_images: list[Array], in_one_go: dict[str, TensorStatistics], workers: int
) -> None:
    with ThreadPoolExecutor(workers) as executor:
        assert same(model, forty_images, in_one_go, executor=executor)


def test_threads_of_onnxruntime_change_no_bit(
    model: Model, forty_images: list[Array], in_one_go: dict[str, TensorStatistics]
) -> None:
    assert same(model, forty_images, in_one_go, threads=2)


def test_processes_change_no_bit(
    model: Model, forty_images: list[Array], in_one_go: dict[str, TensorStatistics]
) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        assert same(model, forty_images, in_one_go, executor=executor)


def extent_of(values: Array) -> Any:
    numbers = values.astype(np.float32)
    return measure_extent(0, [numbers.min(axis=1), numbers.max(axis=1), numbers.sum(), np.array(numbers.size)])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 5), min_size=2, max_size=9), st.data())
def test_merging_is_associative(seed: int, widths: list[int], data: st.DataObject) -> None:
    random = np.random.default_rng(seed)
    rounds = [np.round(random.standard_normal((3, width)), 1).astype(np.float32) for width in widths if width]
    if len(rounds) < 2:
        return
    sizes = [values.size for values in rounds]
    pools = Pools(rounds=len(rounds), per_pool=data.draw(st.integers(1, len(rounds))), kept=max(sizes) * len(rounds))
    spread = Spread(low=-3.0, high=3.0, wants=frozenset({"histogram", "absolute", "round_low"}), pools=pools)
    tallies = [(extent_of(values), spread(index, [values])) for index, values in enumerate(rounds)]

    def merged(start: int, stop: int, *, at_random: bool) -> Any:
        if stop - start == 1:
            return tallies[start]
        cut = data.draw(st.integers(start + 1, stop - 1)) if at_random else stop - 1
        ours, theirs = merged(start, cut, at_random=at_random), merged(cut, stop, at_random=at_random)
        return ours[0].merge(theirs[0]), ours[1].merge(theirs[1])

    results = [merged(0, len(rounds), at_random=shuffled) for shuffled in (True, False)]
    facts = [
        (
            [getattr(extent, name) for name in ("low", "high", "count", "rounds", "fewest", "most")],
            (extent.channel_low.tobytes(), extent.channel_high.tobytes()),
            (spread_out.histogram.counts.tobytes(), spread_out.histogram.zeros, spread_out.absolute.tobytes()),
            (spread_out.trimmed.low, spread_out.trimmed.high, spread_out.trimmed.finished),
        )
        for extent, spread_out in results
    ]

    assert facts[0] == facts[1]
    assert facts[0][0][2] == sum(sizes)


# --- what goes wrong


@pytest.mark.parametrize(
    ("operator", "bad", "said"), [("Log", -1, "NaN"), ("Log", 0, "infinity"), ("Exp", 99, "infinity")]
)
@pytest.mark.parametrize("parts", [False, True])
def test_values_that_are_not_finite_are_refused_with_tensor_and_sample(
    operator: str, bad: float, said: str, parts: bool
) -> None:
    proto = load_model(models.model([node(operator, ["x"], ["y"])], {"x": (1, 50)}, ["y"]))
    values = np.ones((40, 50), np.float32)
    values[33, 17] = bad
    samples = open_samples([{"x": row} for row in values], proto.inputs)
    with ThreadPoolExecutor(2) as executor, pytest.raises(InferenceError) as caught:
        collect_statistics(proto, ["x", "y"], samples, executor=executor if parts else None, threads=1)

    assert str(caught.value).startswith(f"sample 33: the tensor y holds {said}, and only finite numbers")


def test_a_nan_that_only_one_tensor_holds_is_found_there() -> None:
    nodes = [node("Log", ["x"], ["y"]), node("Relu", ["x"], ["z"])]
    proto = load_model(models.model(nodes, {"x": (1, 3)}, ["y", "z"]))
    samples = open_samples([{"x": [1, 2, 3]}, {"x": [1, -2, 3]}], proto.inputs)

    assert collect_statistics(proto, ["x", "z"], samples)["x"].low == -2
    with pytest.raises(InferenceError, match="sample 1: the tensor y holds NaN"):
        collect_statistics(proto, ["x", "z", "y"], samples)


def test_a_tensor_that_never_holds_a_value_has_no_range() -> None:
    nodes = [node("NonZero", ["x"], ["i"]), node("Cast", ["i"], ["y"], to=models.FLOAT)]
    proto = load_model(models.model(nodes, {"x": (2,)}, ["y"]))
    empty, full = {"x": [0, 0]}, {"x": [0, 1]}

    seen = collect_statistics(proto, ["y"], open_samples([empty, full, empty], proto.inputs), methods=EVERYTHING)["y"]
    assert (seen.low, seen.high, seen.count, seen.rounds, seen.round_high) == (1, 1, 1, 3, 1)
    with pytest.raises(InferenceError, match="tensor y is empty for each of 2 samples given by the caller"):
        collect_statistics(proto, ["y"], open_samples([empty, empty], proto.inputs))


def test_an_unreadable_sample_is_told_as_it_is_without_samples_to_read(tmp_path: Path, model: Model) -> None:
    samples = samples_of(model, images(3))
    samples.columns[0].items[2]["x"] = np.zeros((4, 20, 20))  # type: ignore[attr-defined]

    with pytest.raises(SampleError, match="sample 2"):
        collect_statistics(model, ["r"], samples)


def test_unknown_tensors_and_methods_are_refused_before_anything_runs(model: Model) -> None:
    steps: list[Step] = []
    samples = samples_of(model, images(2))

    with pytest.raises(ModelError, match="no tensor called 'q'"):
        collect_statistics(model, ["q"], samples, progress=steps.append)
    with pytest.raises(ValueError, match="there is no 'MEAN'; allowed: MAX_MIN"):
        collect_statistics(model, ["r"], samples, methods=["MEAN"], progress=steps.append)
    assert not steps


def test_nothing_asked_for_is_nothing_collected(model: Model) -> None:
    assert collect_statistics(model, [], samples_of(model, images(1))) == {}


# --- progress, and stopping


@pytest.mark.parametrize(("method", "sweeps"), [("MAX_MIN", 1), ("KL", 2)])
def test_progress_counts_the_samples_of_every_sweep(model: Model, method: str, sweeps: int) -> None:
    steps: list[Step] = []
    collect_statistics(model, ["r"], samples_of(model, images(3)), methods=[method], progress=steps.append)

    assert [(step.stage, step.done, step.total) for step in steps] == [
        ("calibrate", done, 3 * sweeps) for done in range(1, 3 * sweeps + 1)
    ]
    assert [step.detail for step in steps] == ["sample 0", "sample 1", "sample 2"] * sweeps


def test_progress_of_an_executor_counts_parts(model: Model, forty_images: list[Array]) -> None:
    steps: list[Step] = []
    with ThreadPoolExecutor(2) as executor:
        samples = samples_of(model, forty_images)
        collect_statistics(model, ["r"], samples, executor=executor, progress=steps.append)

    assert [step.done for step in steps] == [20, 40]


class Stop(BaseException):
    """Like KeyboardInterrupt: nobody catches it by accident."""


class Recording(ThreadPoolExecutor):
    """An executor that remembers what it was given."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.futures: list[Future[Any]] = []

    def submit(self, *task: Any, **named: Any) -> Future[Any]:
        self.futures.append(super().submit(*task, **named))
        return self.futures[-1]


def stop_at_second(step: Step) -> None:
    if step.done > 1:
        raise Stop


def test_what_progress_raises_stops_the_work_and_leaves_no_thread(model: Model) -> None:
    before = set(threading.enumerate())
    with pytest.raises(Stop):
        collect_statistics(model, TENSORS, samples_of(model, images(30)), methods=["KL"], progress=stop_at_second)

    assert set(threading.enumerate()) == before


def test_what_progress_raises_stops_the_parts_of_an_executor(model: Model) -> None:
    with Recording(1) as executor:
        samples = samples_of(model, images(160))
        with pytest.raises(Stop):
            collect_statistics(model, ["r"], samples, executor=executor, progress=stop_at_second)

        assert len(executor.futures) == 10
        assert all(future.done() for future in executor.futures)
        assert sum(future.cancelled() for future in executor.futures) >= 7


def test_any_executor_will_do(model: Model, forty_images: list[Array], in_one_go: dict[str, TensorStatistics]) -> None:
    class Late(Executor):
        """Runs every task at once, in the caller's thread."""

        def submit(self, task: Any, /, *args: Any, **named: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_result(task(*args, **named))
            return future

    assert same(model, forty_images, in_one_go, executor=Late())


def test_one_sample_is_read_ahead_while_another_one_runs_and_no_more(model: Model) -> None:
    read: list[int] = []

    class Recorded(Sequence[dict[str, Array]]):
        def __len__(self) -> int:
            return 6

        def __getitem__(self, index: Any) -> Any:
            read.append(index)
            return {"x": images(1)[0]}

    samples = open_samples([{"x": images(1)[0]}] * 6, model.inputs)
    samples = replace(samples, columns=(replace(samples.columns[0], items=Recorded()),))  # type: ignore[type-var]
    ahead: list[int] = []
    collect_statistics(model, ["r"], samples, progress=lambda step: ahead.append(len(read) - step.done))

    assert ahead == [1, 1, 1, 1, 1, 0]


# --- a real model


@pytest.mark.models
def test_relu6_keeps_its_bound_and_every_method_a_range_within_it(models_folder: Path) -> None:
    mobilenet = load_model(models_folder / "mobilenet_v1_025" / "model.onnx")
    tensors = [one.outputs[0].name or "" for one in mobilenet.graph if one.op_type == "Clip"]
    random = np.random.default_rng(0)
    samples = open_samples([{"image": random.uniform(-1, 1, (3, 224, 224))} for _ in range(3)], mobilenet.inputs)
    seen = collect_statistics(mobilenet, tensors, samples, methods=EVERYTHING, threads=1)

    assert len(seen) == 27
    for statistics in seen.values():
        assert statistics.low >= 0
        assert 0 < statistics.high <= 6
        assert statistics.absolute.sum() == statistics.histogram.total - statistics.histogram.zeros  # type: ignore[union-attr]
        for method in METHODS:
            low, high = choose_range(statistics, method, never_negative=True)
            assert low == 0.0
            assert 0 < high <= statistics.high
