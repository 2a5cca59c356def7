"""Comparing two models: the numbers against their definitions, and what happens where there are none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from ptq_lab.errors import InferenceError
from ptq_lab.evaluation import Judged
from ptq_lab.graph import load_model
from ptq_lab.progress import Step
from ptq_lab.report.compare import compare_outputs, measure
from ptq_lab.runtime import open_session, require_same, run_session
from tests.models import matmul, model, node, random


class Given:
    """Inputs held in a list."""

    origin = "three inputs"
    random = False

    def __init__(self, feeds: list[dict[str, NDArray[Any]]]) -> None:
        self.feeds = feeds

    def __len__(self) -> int:
        return len(self.feeds)

    def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]:
        return iter(self.feeds)


class Fake:
    """Stands for a session: outputs as given, whatever is fed."""

    def __init__(self, **outputs: Any) -> None:
        self.values = outputs

    def get_outputs(self) -> list[Any]:
        return [type("Output", (), {"name": name})() for name in self.values]

    def run(self, names: list[str], feeds: Any) -> list[Any]:
        return [self.values[name] for name in names]


def compare(before: Any, after: Any, count: int = 1) -> Any:
    table = compare_outputs(Fake(y=np.asarray(before)), Fake(y=np.asarray(after)), Given([{}] * count))
    return table[0]


def test_cosine_sqnr_and_largest_difference_follow_their_definitions(rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, 50)).astype(np.float32)
    y = x + rng.normal(0, 0.1, x.shape).astype(np.float32)
    row = compare(x, y, count=2)
    a, b = x.astype(float).ravel(), y.astype(float).ravel()
    assert row.cosine_mean == row.cosine_min == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert row.sqnr_db == pytest.approx(10 * np.log10((a @ a) / ((a - b) @ (a - b))))
    assert row.max_abs_error == pytest.approx(np.abs(a - b).max())


def test_equal_outputs_are_exactly_equal(rng: np.random.Generator) -> None:
    x = rng.normal(size=1000).astype(np.float32)
    row = compare(x, x)
    assert (row.cosine_mean, row.cosine_min, row.sqnr_db, row.max_abs_error) == (1.0, 1.0, math.inf, 0.0)


@pytest.mark.parametrize("value", [-np.inf, np.inf, np.nan])
def test_the_same_infinity_or_nan_in_both_is_left_out(value: float) -> None:
    row = compare([1.0, value, 3.0], [1.0, value, 3.5])
    assert row.max_abs_error == 0.5
    assert row.cosine_min == pytest.approx(11.5 / math.sqrt(10 * 13.25))
    assert math.isfinite(row.sqnr_db)


@pytest.mark.parametrize("after", [[1.0, np.nan], [np.inf, 2.0], [1.0], [[1.0, 2.0]], [1.0, 2.0, 3.0]], ids=str)
def test_what_cannot_be_compared_counts_as_lost(after: Any) -> None:
    row = compare([1.0, 2.0], after)
    assert (row.cosine_mean, row.cosine_min, row.sqnr_db, row.max_abs_error) == (0.0, 0.0, -math.inf, math.inf)


def test_integer_and_boolean_outputs_are_compared_and_text_is_not() -> None:
    before = Fake(label=np.array([3, 4]), flag=np.array([True, False]), name=np.array(["a"], object), many=[1, 2])
    after = Fake(label=np.array([3, 5]), flag=np.array([True, False]), name=np.array(["b"], object), many=[1, 3])
    table = compare_outputs(before, after, Given([{}]))
    assert [row.output for row in table] == ["label", "flag"]
    assert table[0].max_abs_error == 1.0
    assert table[1].max_abs_error == 0.0


def test_mean_and_lowest_are_taken_over_the_inputs_and_progress_counts_them() -> None:
    tiny = matmul()
    samples = Given([{"x": random(2, 4, 5, seed=seed)} for seed in range(3)])
    session = open_session(load_model(tiny.proto))
    changed = onnx.ModelProto.FromString(tiny.proto.SerializeToString())
    changed.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(random(5, 7, seed=1), "b"))
    steps: list[Step] = []
    row = compare_outputs(session, open_session(load_model(changed)), samples, progress=steps.append)[0]
    assert row.cosine_min < row.cosine_mean < 1
    assert steps == [Step("compare", index + 1, 3) for index in range(3)]


def test_a_metric_is_scored_on_both_sessions_in_order() -> None:
    original = load_model(matmul().proto)
    seen: list[onnxruntime.InferenceSession] = []

    class Judge:
        name = "calls"

        def judge(self, session: Any) -> Judged:
            seen.append(session)
            return Judged(score=float(len(seen)))

        def judge_float(self, model: Any, providers: Any) -> Judged:
            return self.judge(open_session(model, providers=providers))

    found = measure(original, original, Given([matmul().feeds]), Judge())
    assert (found.metric, found.before, found.after, found.compared_on) == ("calls", 1.0, 2.0, "three inputs")
    assert len(set(map(id, seen))) == 2


def test_a_provider_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(
        InferenceError, match=r"NoSuchProvider is not available here; available: .*CPUExecutionProvider"
    ):
        open_session(load_model(matmul().proto), providers=["NoSuchProvider"])


def test_inputs_that_do_not_fit_are_named_with_their_shapes() -> None:
    with pytest.raises(InferenceError, match=r"running the model on x float32\[1, 9\] failed") as caught:
        run_session(open_session(load_model(matmul().proto)), {"x": np.zeros((1, 9), np.float32)})
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None


def test_a_raised_model_that_computes_something_else_is_refused() -> None:
    before = load_model(matmul(13).proto)
    changed = onnx.ModelProto.FromString(matmul(18).proto.SerializeToString())
    values = random(5, 7)
    require_same(before, load_model(changed), matmul().feeds)
    changed.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(values * np.float32(1.01), "b"))
    with pytest.raises(InferenceError, match="raising its opset from 13 to 18 the output y") as caught:
        require_same(before, load_model(changed), matmul().feeds)
    assert "bit_num=8 or 16" in str(caught.value)


def test_infinite_outputs_that_stay_infinite_are_the_same() -> None:
    proto = model([node("Div", ["x", "w"], ["y"])], {"x": (2, 3)}, ["y"], {"w": np.array([1, 0, 2], np.float32)})
    same = load_model(proto)
    require_same(same, same, {"x": np.array([[1, 1, 1], [1, 0, -1]], np.float32)})  # 1/0 and 0/0 are among them
